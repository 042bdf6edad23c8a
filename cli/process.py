"""Run the engine as a child that is never left behind.

The child gets a process group of its own, so a Ctrl-C in the terminal reaches it once, through us: it is passed on
as SIGINT (the engine then finishes what is in flight, saves its state and ends), we wait, and whatever the child
left in its group is ended. A second Ctrl-C is passed on too, which tells the engine to stop at once. What we were started
to ignore, as `nohup` has it of a terminal that is closed, is ignored.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

from tools.stops import STOPS


@dataclass(frozen=True)
class Finished:
    """How a child ended: its exit code, whether we were told to stop, and what it wrote."""

    code: int
    interrupted: bool
    output: str
    errors: str


def run(
    command: Sequence[str | Path],
    environment: Mapping[str, str],
    cwd: Path,
    *,
    capture: bool = False,
    quiet: bool = False,
    given: str | None = None,
) -> Finished:
    """Run `command` to its end. `capture` keeps its output instead of passing it through; `quiet` its errors. `given` is
    what it reads from its input, where nobody sees it."""
    with (
        _forwarding() as forward,
        subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=cwd,
            stdin=subprocess.DEVNULL if given is None else subprocess.PIPE,
            stdout=subprocess.PIPE if capture else None,
            stderr=subprocess.PIPE,
            process_group=0,
        ) as child,
    ):
        forward.to(child)
        if child.stdin is not None:
            with suppress(BrokenPipeError), child.stdin as pipe:
                pipe.write((given or "").encode())
        output, errors = _Tee(child.stdout, None), _Tee(child.stderr, None if quiet else sys.stderr)
        try:
            code = child.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
        return Finished(code, forward.interrupted, output.text(), errors.text())


class _Tee:
    """Reads a child's stream in a thread, passes it on and keeps it."""

    def __init__(self, source: IO[bytes] | None, target: IO[str] | None) -> None:
        self._kept = bytearray()
        self._thread = threading.Thread(target=self._copy, args=(source, target), daemon=True)
        self._thread.start()

    def _copy(self, source: IO[bytes] | None, target: IO[str] | None) -> None:
        for line in source or ():
            self._kept += line
            if target is not None:
                with suppress(OSError):  # nobody reads it any more; the child must not wait for that
                    target.write(line.decode(errors="replace"))
                    target.flush()

    def text(self) -> str:
        self._thread.join()
        return self._kept.decode(errors="replace")


class _Forward:
    def __init__(self) -> None:
        self.interrupted = False
        self._child: subprocess.Popen[bytes] | None = None

    def to(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child
        if self.interrupted:
            child.send_signal(signal.SIGINT)

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.interrupted = True
        if self._child is not None:
            self._child.send_signal(signal.SIGINT)


@contextmanager
def _forwarding() -> Iterator[_Forward]:
    forward = _Forward()
    heeded = [number for number in STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, forward) for number in heeded}
    try:
        yield forward
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
