"""Network namespaces that end with this process and what runs in them.

None has a name below /run/netns: this process holds each by a file descriptor, and every process in it holds it too.
So a namespace, with its interfaces, routes and iptables rules, is gone when all of them are, whatever ended them.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from lab.errors import LabError

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class NetworkNamespace:
    """A new, empty network namespace whose loopback interface is up.

    Raises:
        LabError: this user may not make one, or a command in it fails.
    """

    def __init__(self, name: str) -> None:
        """Args: name: for messages."""
        self.name = name
        self._descriptor = _new()
        self.run("ip", "link", "set", "lo", "up")
        # A killed program's connections would hold the namespace for minutes: their peers are gone too.
        self.write_setting("net/ipv4/tcp_orphan_retries", "1")

    @property
    def path(self) -> str:
        """A path that stands for the namespace while this process holds it."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    @property
    def prefix(self) -> tuple[str, ...]:
        """Words that run a command, put behind them, inside."""
        return ("nsenter", f"--net={self.path}", "--")

    def run(self, *command: str, text: str = "") -> str:
        """Run a command inside to its end, with `text` as its stdin, and return its stdout."""
        return run((*self.prefix, *command), text)

    def ip(self, *commands: str) -> None:
        """Run `ip` commands inside, in one process."""
        self.run("ip", "-batch", "-", text="\n".join(commands) + "\n")

    def write_setting(self, name: str, value: str) -> None:
        """Write one kernel setting of the namespace, by its path below /proc/sys."""
        self.run("tee", f"/proc/sys/{name}", text=value)

    def enter(self) -> None:
        """Move the calling thread inside, and so what it starts from now on."""
        if _libc.setns(self._descriptor, CLONE_NEWNET) != 0:
            raise LabError(f"network namespace {self.name} cannot be entered: {_reason()}")

    def close(self) -> None:
        """Let go of it; what runs inside goes on."""
        os.close(self._descriptor)


def run(command: Sequence[str], text: str = "") -> str:
    """Run a command to its end and return its stdout.

    Raises:
        LabError: it failed; the message shows what it said.
    """
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    except OSError as error:
        raise LabError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        raise LabError(f"`{' '.join(command)}`: {said}" + (f"\n{text}" if text else ""))
    return done.stdout


def _new() -> int:
    """A descriptor of a new namespace, made by a thread of its own so that no other moves."""
    made: list[int] = []
    failed: list[str] = []

    def make() -> None:
        if _libc.unshare(CLONE_NEWNET) == 0:
            made.append(os.open(Path("/proc/thread-self/ns/net"), os.O_RDONLY))
        else:
            failed.append(_reason())

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if not made:
        raise LabError(f"no network namespace can be made: {failed[0]}. The lab needs root on Linux.")
    return made[0]


def _reason() -> str:
    return os.strerror(ctypes.get_errno())
