"""Containers: local processes with a root, mounts, rights and process ids of their own (see `lab.node.launcher`)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import LabError
from lab.netns import NetworkNamespace
from lab.node.spec import Identity
from lab.processes import Identity as ProcessIdentity
from lab.processes import Process, Supervisor

LAUNCHER = Path(__file__).with_name("launcher.py")
ISOLATION = (
    "unshare",
    "--mount",
    "--pid",
    "--ipc",
    "--uts",
    "--fork",
    "--kill-child",
    "--propagation",
    "private",
)
SPEC = "container.json"
PID = "pid"
POLL = 0.01
START_TIMEOUT = 60.0
"""Seconds within which a container's mounts must be made."""


@dataclass(frozen=True)
class Mount:
    """A directory or file of the machine at a path of the container."""

    source: Path
    target: str
    read_only: bool


@dataclass(frozen=True)
class Settings:
    """All that a container is started with."""

    command: Sequence[str]
    environment: Mapping[str, str]
    directory: str
    identity: Identity
    capabilities: Sequence[int]
    no_new_privileges: bool
    read_only: bool
    mounts: Sequence[Mount]
    hostname: str


def start(
    name: str,
    settings: Settings,
    place: Path,
    log: Path,
    *,
    network: NetworkNamespace,
    supervisor: Supervisor,
) -> Process:
    """Start a container, and wait until its program has been started or has failed to.

    Args:
        name: for messages.
        settings: what with.
        place: directory for its files.
        log: file for its output, which it may open again by `/dev/stdout`.
        network: the Pod's.
        supervisor: owns the process.
    """
    # What an earlier run of the container mounted here went with its mount namespace.
    shutil.rmtree(place, ignore_errors=True)
    scratch = place / "scratch"
    scratch.mkdir(parents=True)
    who = settings.identity
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    os.chown(log, who.user, who.group)
    spec = {
        "pid_file": str(place / PID),
        "scratch": str(scratch),
        "mounts": [
            {"source": str(mount.source), "target": mount.target, "read_only": mount.read_only}
            for mount in settings.mounts
        ],
        "read_only": settings.read_only,
        "hostname": settings.hostname,
        "command": list(settings.command),
        "environment": dict(settings.environment),
        "directory": settings.directory,
        "user": who.user,
        "group": who.group,
        "groups": list(who.groups),
        "capabilities": list(settings.capabilities),
        "no_new_privileges": settings.no_new_privileges,
    }
    (place / SPEC).touch(mode=0o600)
    (place / SPEC).write_text(json.dumps(spec))
    command = [*network.prefix, *ISOLATION, sys.executable, "-I", "-S", str(LAUNCHER), str(place / SPEC)]
    process = supervisor.start(name, command, log)
    deadline = time.monotonic() + START_TIMEOUT
    while process.running and not _pid(place):
        if time.monotonic() > deadline:
            process.end(grace=0)
        time.sleep(POLL)
    return process


def entering(place: Path, command: Sequence[str], *, as_root: bool = False) -> list[str]:
    """The command line that runs a command inside a running container, with its environment and as its user.

    Args:
        place: the container's directory.
        command: program and arguments.
        as_root: as root instead.

    Raises:
        LabError: the container does not run.
    """
    pid = _pid(place)
    if pid is None or ProcessIdentity.of(pid) is None:
        raise LabError(f"container {place.name} does not run")
    spec = json.loads((place / SPEC).read_text())
    user, group = (0, 0) if as_root else (spec["user"], spec["group"])
    variables = [f"{key}={value}" for key, value in spec["environment"].items()]
    return [
        *("nsenter", f"--target={pid}", "--mount", "--net", "--pid", "--ipc", "--uts", "--root", "--wd"),
        *("--", "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"),
        *("env", "-i", *variables, *command),
    ]


def succeeds(place: Path, command: Sequence[str], timeout: float) -> bool:
    """Whether a command inside a container exits with 0 within so many seconds."""
    try:
        done = subprocess.run(
            entering(place, command),
            capture_output=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
        )
    except (LabError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def ask_to_end(place: Path) -> None:
    """Send SIGTERM to a container's program."""
    pid = _pid(place)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def kill(place: Path) -> None:
    """Kill a container's program, and with it all that runs in the container.

    Raises:
        LabError: it does not run.
    """
    pid = _pid(place)
    if pid is None:
        raise LabError(f"container {place.name} does not run")
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        raise LabError(f"container {place.name} has ended") from None


def _pid(place: Path) -> int | None:
    """The id of a container's first process; None before its program is started."""
    try:
        return int((place / PID).read_text())
    except (FileNotFoundError, ValueError):
        return None
