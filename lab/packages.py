"""The Debian packages that the lab runs: what is missing is installed.

`python -m lab packages` does it alone; `up` and the tests begin with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from lab.errors import LabError

NEEDED = {
    "ip": "iproute2",
    "iptables": "iptables",
    "dnsmasq": "dnsmasq-base",
    "psql": "postgresql-client",
    "initdb": "postgresql",
    "mariadbd": "mariadb-server",
    "mariadb": "mariadb-client",
    "redis-server": "redis-server",
    "openssl": "openssl",
    "curl": "curl",
    "tcpdump": "tcpdump",
    "nsenter": "util-linux",
}
"""Debian package by the command that it brings."""
_ELSEWHERE = ("/usr/sbin", "/sbin", "/usr/lib/postgresql/*/bin")


def missing() -> list[str]:
    """The packages whose command is not on this machine."""
    return sorted(package for command, package in NEEDED.items() if not _is_there(command))


def install() -> list[str]:
    """Install what is missing and return it; services that packages bring are not started.

    Raises:
        LabError: it cannot be installed; the message says what to do.
    """
    wanted = missing()
    if not wanted:
        return []
    by_hand = f"install by hand: apt-get install {' '.join(wanted)}"
    if os.geteuid() != 0:
        raise LabError(f"the lab needs Debian packages and only root can install them; {by_hand}")
    if shutil.which("apt-get") is None:
        raise LabError(
            f"the lab needs programs that Debian has in the packages {', '.join(wanted)}; install them"
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (
        ["apt-get", "update", "-qq"],
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *wanted],
    ):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-10:])
            raise LabError(
                f"`{' '.join(command)}` failed:\n{said}\nCheck the machine's package sources, or {by_hand}"
            )
    still = missing()
    if still:
        raise LabError(f"apt-get installed {', '.join(still)}, but their commands are not there")
    return wanted


def _is_there(command: str) -> bool:
    if shutil.which(command) is not None:
        return True
    root = Path("/")
    return any(any(root.glob(f"{place[1:]}/{command}")) for place in _ELSEWHERE)
