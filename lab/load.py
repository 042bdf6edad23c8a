"""Load from a Pod of the lab: short connections at a steady rate and long ones; see `lab/images/load.py`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Self

from lab.access import ClusterAccess
from lab.errors import LabError
from lab.node.images import PROGRAMS
from lab.processes import POLL

TIMEOUT = 20.0
"""Seconds that one exchange may take if not said otherwise."""
END_TIMEOUT = 30.0
"""Seconds within which the client must end when it is told to."""
BEHIND = 1.0
"""Seconds that a load may be behind and still keep its rate."""
WAIT_TIMEOUT = 90.0
"""Seconds that something about the load is waited for."""


@dataclass(frozen=True)
class Progress:
    """What happened since the load began."""

    seconds: float = 0
    behind: float = 0
    """Seconds since the next short connection should have begun."""
    opened: int = 0
    """Short connections that were begun."""
    answered: int = 0
    """Short connections that got the right answer."""
    failed: int = 0
    """Those that did not."""
    streak: int = 0
    """How many of the last ones in a row were answered; below 0, how many failed."""
    held: int = 0
    """Long connections that were opened and answered once."""
    held_answered: int = 0
    """Right answers on them since."""
    lost: int = 0
    """Long connections that are no more, or never were."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Failures and losses by what the client saw."""

    @property
    def rate(self) -> float:
        """Answered short connections a second."""
        return self.answered / self.seconds if self.seconds else 0.0

    def opened_since(self, earlier: Progress) -> float:
        """Short connections begun a second since an earlier moment."""
        return (self.opened - earlier.opened) / (self.seconds - earlier.seconds)


class Load:
    """A load client that runs in a Pod, as a context manager."""

    def __init__(
        self,
        cluster: ClusterAccess,
        pod: str,
        address: tuple[str, int],
        *,
        rate: float,
        held: int = 0,
        text: str = "text",
        timeout: float = TIMEOUT,
    ) -> None:
        """Prepare it.

        Args:
            cluster: where it runs.
            pod: `namespace/name`.
            address: host and port of a Redis.
            rate: short connections a second that it tries to open.
            held: long connections.
            text: what every exchange says, before its number.
            timeout: seconds after which it gives up an exchange that is not answered.
        """
        host, port = address
        self._cluster = cluster
        self._pod = pod
        self._held = held
        self._command = [
            *(sys.executable, str(PROGRAMS / "load.py"), host, str(port)),
            *("--rate", str(rate), "--held", str(held)),
            *("--timeout", str(timeout), "--text", text),
        ]
        self._process: subprocess.Popen[str]
        self._reader: threading.Thread
        self._now = Progress()

    @property
    def now(self) -> Progress:
        """What is known of it, at most a moment old."""
        return self._now

    def wait(self, done: Callable[[Progress], bool], what: str, timeout: float = WAIT_TIMEOUT) -> Progress:
        """Wait until something is so, and return what is known then.

        Raises:
            LabError: it is not so in time, or the client has ended.
        """
        deadline = time.monotonic() + timeout
        while not done(now := self._now):
            if self._process.poll() is not None:
                raise LabError(f"load from {self._pod} ended before: {what}; {now}; {self._said()}")
            if time.monotonic() > deadline:
                raise LabError(f"load from {self._pod}: not within {timeout:.0f} s: {what}; {now}")
            time.sleep(POLL)
        return now

    def tries(self, count: int) -> Progress:
        """Wait until so many more short connections have begun."""
        goal = self._now.opened + count
        return self.wait(lambda now: now.opened >= goal, f"{count} more connections begun")

    def attempts(self, count: int) -> Progress:
        """Wait until so many more short connections have ended, in whatever way."""
        before = self._now
        return self.wait(
            lambda now: now.answered + now.failed >= before.answered + before.failed + count,
            f"{count} more connections",
        )

    def exchanges(self, count: int) -> Progress:
        """Wait until each long connection has been answered so many more times, on average."""
        goal = self._now.held_answered + count * self._held
        return self.wait(
            lambda now: now.held_answered >= goal, f"{count} more exchanges on each long connection"
        )

    def kept_up(self, timeout: float) -> Progress:
        """Wait until as many short connections have begun as the rate demands since the load began."""
        return self.wait(lambda now: now.opened > 0 and now.behind < BEHIND, "its rate is kept", timeout)

    def recovered(self, count: int = 50) -> Progress:
        """Wait until so many short connections in a row were answered."""
        return self.wait(lambda now: now.streak >= count, f"{count} answered in a row")

    def refused(self, count: int = 50) -> Progress:
        """Wait until so many short connections in a row failed."""
        return self.wait(lambda now: now.streak <= -count, f"{count} failed in a row")

    def stop(self) -> Progress:
        """End it and return what happened in all. Stopping twice is as good."""
        process = self._process
        if process.stdin is not None and not process.stdin.closed:
            process.stdin.close()
        try:
            process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join()
        return self._now

    def __enter__(self) -> Self:
        self._process = self._cluster.popen(self._pod, self._command)
        assert self._process.stdout is not None  # noqa: S101 - a pipe
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        try:
            self.wait(lambda now: now.held + now.lost >= self._held, "the long connections are open")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def _said(self) -> str:
        return self._process.stderr.read().strip() if self._process.stderr is not None else ""

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self._now = Progress(**json.loads(line))
