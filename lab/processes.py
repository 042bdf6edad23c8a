"""Starts, watches and ends the lab's processes. The only module that does.

Nothing outlives its owner, in whatever way the owner ends:

- normally: `Supervisor.close` ends the processes, last started first;
- by kill -9: a guard process, the other end of a pipe that the owner holds, ends them;
- together with its guard: the next supervisor on this machine finds the state file and ends them.

Every process leads a group of its own, so that what it started in turn goes with it; so do groups that others lead below it,
as Pulumi's plugins do, which by themselves notice only after minutes that the engine was killed. A group is known by its
leader's process id *and* start time, so a reused id is never signalled.

The guard runs this file by itself (see `_start_guard`), hence it imports the standard library only.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.errors import ProcessError

POLL = 0.05
"""Seconds between two looks at something that is waited for."""
GRACE = 5.0
"""Seconds that a process gets to end after SIGTERM."""
LOG_LINES = 20
"""How many of a log's last lines an error shows."""


def runs_directory() -> Path:
    """Where the state files lie: `$XDG_STATE_HOME/meshbridge/runs`, by default under `~/.local/state`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "meshbridge" / "runs"


@dataclass(frozen=True)
class Identity:
    """A process on this machine, now and for ever: ids are reused, an id with a start time is not."""

    pid: int
    started: int
    """Clock ticks between boot and the process's start."""
    boot: str
    """The kernel's id of this boot."""

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this id now, or None."""
        try:
            # The second field, the program's name, may contain spaces and parentheses.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return cls(pid, int(fields[19]), _boot())

    def alive(self) -> bool:
        """Whether this very process still exists."""
        return Identity.of(self.pid) == self


@dataclass
class RunState:
    """What a state file says."""

    owner: Identity
    processes: list[Identity] = field(default_factory=list)
    directories: list[str] = field(default_factory=list)
    """Removed when the owner is found to have crashed."""
    interfaces: dict[str, int] = field(default_factory=dict)
    """Network interfaces of this machine with their numbers, removed when the owner ends in whatever way."""

    @classmethod
    def read(cls, path: Path) -> RunState:
        """Read a state file."""
        raw = json.loads(path.read_text())
        return cls(
            Identity(**raw["owner"]),
            [Identity(**process) for process in raw["processes"]],
            raw["directories"],
            raw.get("interfaces", {}),
        )

    def write(self, path: Path) -> None:
        """Replace a state file in one step."""
        staging = path.with_suffix(".tmp")
        staging.write_text(json.dumps(asdict(self)))
        staging.replace(path)


class Process:
    """A running process of the lab."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], log: Path) -> None:
        identity = Identity.of(popen.pid)
        assert identity is not None  # noqa: S101 - unreaped, so it is there even if it has ended
        self.name = name
        self.log = log
        self.identity = identity
        self.started_at = time.monotonic()
        self._popen = popen

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """With what it has ended: minus a signal's number if one ended it. None while it runs."""
        return self._popen.poll()

    def wait_until(self, ready: Callable[[], bool], what: str, timeout: float) -> None:
        """Wait until `ready()`, at most `timeout` seconds.

        Raises:
            ProcessError: the process ended, or the time is up; the message shows the end of its log.
        """
        deadline = time.monotonic() + timeout
        while not ready():
            if not self.running:
                raise self.error(f"ended with exit code {self._popen.returncode} before {what}")
            if time.monotonic() > deadline:
                raise self.error(f"was started, but not {what} within {timeout:.0f} s")
            time.sleep(POLL)

    def wait(self, timeout: float) -> None:
        """Wait until it has ended, at most so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout)

    def error(self, what: str) -> ProcessError:
        """An error about this process with the end of its log."""
        from lab.errors import ProcessError  # noqa: PLC0415 - the guard runs this file without the package

        lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
        shown = "\n".join(f"  {line}" for line in lines) or "  (empty)"
        return ProcessError(f"{self.name} {what}. The end of {self.log}:\n{shown}")

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, without what it started."""
        self._popen.send_signal(number)

    def end(self, grace: float) -> None:
        """End it and all it started: SIGTERM, then SIGKILL after `grace` seconds, or at once if that is 0."""
        below = _leaders_below(self.identity)
        if grace > 0 and self.running:
            _signal_group(self.identity, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(grace)
        for leader in (self.identity, *below):
            _signal_group(leader, signal.SIGKILL)
        self._popen.wait()


class Supervisor:
    """Owns the processes and directories of one lab.

    Creating one first cleans up after labs whose owner has crashed. Several threads may use it, but only one may close it.
    """

    _serial = itertools.count()

    def __init__(self, name: str) -> None:
        """Args: name: for the state file's name and messages."""
        clean_up_crashed()
        owner = Identity.of(os.getpid())
        assert owner is not None  # noqa: S101 - this process
        self._state = RunState(owner)
        self._file = runs_directory() / f"{name}-{os.getpid()}-{next(self._serial)}.json"
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._state.write(self._file)
        self._processes: list[Process] = []
        self._lock = threading.Lock()
        self._guard = _start_guard(self._file)

    @property
    def running(self) -> tuple[Process, ...]:
        """The processes that were started and not ended here, oldest first."""
        return tuple(self._processes)

    def own_directory(self, path: Path) -> None:
        """Have a directory removed by the next run in case this one crashes."""
        with self._lock:
            self._state.directories.append(str(path))
            self._state.write(self._file)

    def own_interface(self, name: str) -> None:
        """Have a network interface that is there removed when this run ends in whatever way."""
        with self._lock:
            self._state.interfaces[name] = socket.if_nametoindex(name)
            self._state.write(self._file)

    def start(
        self,
        name: str,
        command: Sequence[str | Path],
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        *,
        output: Path | None = None,
    ) -> Process:
        """Start a process in a group of its own; its output is appended to `log`.

        Args:
            name: what errors call it.
            command: program and arguments.
            log: file for stdout and stderr.
            environment: added to this process's.
            directory: its working directory; by default this process's.
            output: file for its stdout, where that is not `log` too.

        Raises:
            ProcessError: the program cannot be run.
        """
        with log.open("ab") as errors, (output or log).open("ab") as out, self._lock:
            try:
                popen = subprocess.Popen(
                    [str(word) for word in command],
                    env={**os.environ, **(environment or {})},
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=errors,
                    start_new_session=True,
                )
            except OSError as error:
                from lab.errors import ProcessError  # noqa: PLC0415 - the guard runs this file without the package

                raise ProcessError(f"{name}: {command[0]} cannot be run: {error.strerror}") from error
            process = Process(name, popen, log)
            self._processes.append(process)
            self._state.processes.append(process.identity)
            self._state.write(self._file)
        return process

    def stop(self, process: Process, grace: float = GRACE) -> None:
        """End one process and all it started; see `Process.end`."""
        process.end(grace)
        with self._lock:
            self._processes.remove(process)
            self._state.processes.remove(process.identity)
            self._state.write(self._file)

    def close(self, grace: float = 0) -> None:
        """End all processes, last started first, and forget the run."""
        for process in reversed(self.running):
            self.stop(process, grace)
        _remove_interfaces(self._state)
        self._file.unlink(missing_ok=True)
        assert self._guard.stdin is not None  # noqa: S101 - a pipe, see _start_guard
        self._guard.stdin.close()
        self._guard.wait()


def clean_up_crashed() -> None:
    """End the processes and remove the directories of runs whose owner is gone."""
    for path, state in _crashed_runs():
        _kill(state)
        for directory in state.directories:
            shutil.rmtree(directory, ignore_errors=True)
        path.unlink(missing_ok=True)


def _crashed_runs() -> Iterator[tuple[Path, RunState]]:
    for path in sorted(runs_directory().glob("*.json")):
        with contextlib.suppress(FileNotFoundError):  # another process cleans up as well
            try:
                state = RunState.read(path)
            except ValueError:
                path.unlink()  # a machine that lost its power had not written it yet, and nothing of that boot runs
                continue
            if not state.owner.alive():
                yield path, state


def _kill(state: RunState) -> None:
    for identity in reversed(state.processes):
        for leader in (*_leaders_below(identity), identity):
            _signal_group(leader, signal.SIGKILL)
    _remove_interfaces(state)


def _remove_interfaces(state: RunState) -> None:
    """Remove a run's interfaces. They would go with the namespace of their other end, but that may take minutes.

    An interface of the same name but another number, or of another boot, is not the run's.
    """
    for name, number in state.interfaces.items():
        with contextlib.suppress(OSError):
            if state.owner.boot == _boot() and socket.if_nametoindex(name) == number:
                subprocess.run(["ip", "link", "delete", name], stderr=subprocess.DEVNULL, check=False)


def _signal_group(leader: Identity, number: signal.Signals) -> None:
    """Signal a group, unless its id belongs to another process by now.

    A leader that has ended keeps its id reserved as long as its group has members.
    """
    if leader.boot != _boot() or Identity.of(leader.pid) not in (leader, None):
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, number)


def descendants(ancestor: int) -> Iterator[int]:
    """The ids of what a process has started, directly or not, and has not ended."""
    for children in Path(f"/proc/{ancestor}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            for child in map(int, children.read_text().split()):
                yield child
                yield from descendants(child)


def _leaders_below(ancestor: Identity) -> list[Identity]:
    """What a process has started, directly or not, and leads a group of its own."""
    found: list[Identity] = []
    for pid in descendants(ancestor.pid) if ancestor.alive() else ():
        identity = Identity.of(pid)
        with contextlib.suppress(ProcessLookupError):
            if identity is not None and os.getpgid(pid) == pid:
                found.append(identity)
    return found


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_guard(state_file: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, str(state_file)], stdin=subprocess.PIPE, start_new_session=True
    )


def _guard(state_file: Path) -> None:
    """Wait until the owner is gone, then end its processes; the next run removes the rest.

    The pipe's end is not enough: a process forked from the owner may hold the other end open.
    """
    try:
        owner = RunState.read(state_file).owner
        while owner.alive():
            readable, _, _ = select.select([sys.stdin], [], [], 1.0)
            if readable:
                break
        _kill(RunState.read(state_file))
    except FileNotFoundError:
        return  # the owner has closed its run


if __name__ == "__main__":
    _guard(Path(sys.argv[1]))
