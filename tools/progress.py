"""Says on stderr what is being done and for how long; stdout stays free for results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

PLAIN_INTERVAL = 30.0
"""Seconds between two lines about one step where stderr is not a terminal."""

Detail = Callable[[str], None]
"""Called by a running step with what it is at now."""


class Progress:
    """A spinner with the time elapsed on a terminal, a line now and then in a log file."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print one line, whatever is going on."""
        self._console.print(escape(text))

    @contextmanager
    def step(self, title: str) -> Iterator[Detail]:
        """Show a step while the block runs, then its duration."""
        start = time.monotonic()
        follow = self._on_terminal if self._console.is_terminal else self._on_paper
        with follow(title, start) as detail:
            yield detail
        self.say(f"{title}: done in {_seconds(start)}")

    @contextmanager
    def _on_terminal(self, title: str, start: float) -> Iterator[Detail]:
        with self._console.status(escape(title)) as status:
            yield lambda text: status.update(escape(f"{title}: {text}, {_seconds(start)}"))

    @contextmanager
    def _on_paper(self, title: str, start: float) -> Iterator[Detail]:
        self.say(f"{title} …")
        said = start

        def detail(text: str) -> None:
            nonlocal said
            if time.monotonic() - said >= PLAIN_INTERVAL:
                said = time.monotonic()
                self.say(f"{title}: {text}, {_seconds(start)}")

        yield detail


def _seconds(start: float) -> str:
    return f"{time.monotonic() - start:.0f} s"
