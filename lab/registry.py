"""Which labs run, for whoever wants to look at one, and so that none disturbs another.

A lab holds two locks for as long as it lives, which the kernel drops when it ends in whatever way: one on its name, of which
each user has one lab, and one on its slot, of which the machine has `SLOTS`; the slot decides its addresses. It describes
itself in `<name>.json` beside the first lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from lab.errors import LabError
from lab.processes import runs_directory

NAME = "lab"
"""Of the lab that people start; tests give theirs other names."""
SLOTS = 8


def state_directory() -> Path:
    """`$XDG_STATE_HOME/meshbridge`, by default `~/.local/state/meshbridge`."""
    return runs_directory().parent


@dataclass
class Description:
    """What a lab says of itself."""

    pid: int
    """Of the process that runs the lab."""
    since: float
    """Seconds since 1970."""
    directory: str
    phase: str
    """`starting` or `ready`."""
    clusters: dict[str, dict[str, str]] = field(default_factory=dict)
    """By name: `kubeconfig`, `node` and `logs`."""


@dataclass
class Registration:
    """The right to run a lab of one name in one slot."""

    name: str
    slot: int
    directory: Path
    """For the lab's files; new."""
    _lock: IO[str]
    _slot_lock: socket.socket
    since: float = field(default_factory=time.time)
    clusters: dict[str, dict[str, str]] = field(default_factory=dict)

    @classmethod
    def take(cls, name: str) -> Registration:
        """Take both locks.

        Raises:
            LabError: a lab of that name runs, or there are too many labs on this machine.
        """
        state_directory().mkdir(parents=True, exist_ok=True)
        lock = _lock_file(name).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            slot, slot_lock = _take_slot()
        except BlockingIOError:
            lock.close()
            raise LabError(already(name)) from None
        except LabError:
            lock.close()
            raise
        taken = cls(name, slot, Path(tempfile.mkdtemp(prefix="meshbridge-lab-")), lock, slot_lock)
        taken.write("starting")
        return taken

    def write(self, phase: str) -> None:
        """Describe the lab."""
        description = Description(os.getpid(), self.since, str(self.directory), phase, self.clusters)
        file = _file(self.name)
        staging = file.with_suffix(".tmp")
        staging.write_text(json.dumps(asdict(description), indent=2))
        staging.replace(file)

    def release(self) -> None:
        """Give the right back."""
        _file(self.name).unlink(missing_ok=True)
        if self.name != NAME:
            _lock_file(self.name).unlink(missing_ok=True)
        self._lock.close()
        self._slot_lock.close()


def already(name: str = NAME) -> str:
    """What to say to whom wants a second lab."""
    other = described(name)
    who = f" (process {other.pid}, {other.phase})" if other is not None else ""
    return f"a lab runs already{who}. Look at it with `python -m lab status`, or end it with `python -m lab down`"


def described(name: str = NAME) -> Description | None:
    """The lab of that name, if it runs."""
    if not is_running(name):
        return None
    try:
        return Description(**json.loads(_file(name).read_text()))
    except FileNotFoundError:
        return None


def is_running(name: str = NAME) -> bool:
    """Whether a lab has that name."""
    try:
        with _lock_file(name).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    return False


def _take_slot() -> tuple[int, socket.socket]:
    """The first free slot, and the socket that holds it; its name lies in no file system (unix(7), "abstract")."""
    for slot in range(SLOTS):
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0meshbridge-lab-{slot}")
        except OSError:
            holder.close()
        else:
            return slot, holder
    raise LabError(f"{SLOTS} labs run on this machine already; end one of them first")


def _lock_file(name: str) -> Path:
    return state_directory() / f"{name}.lock"


def _file(name: str) -> Path:
    return state_directory() / f"{name}.json"
