"""The signals by which a command is told to stop: Ctrl-C, a CI runner's end, a terminal that is closed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def heed() -> None:
    """Let each of them clean up as a Ctrl-C does, but for those that are ignored, as `nohup` has it."""
    for number in STOPS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)


@contextmanager
def held_back() -> Iterator[None]:
    """Let those that come inside the block act behind it. Python handles signals in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = list[signal.Signals]()

    def remember(number: int, _frame: FrameType | None) -> None:
        came.append(signal.Signals(number))

    before = {
        number: signal.signal(number, remember) for number in STOPS if callable(signal.getsignal(number))
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in came:
        signal.raise_signal(number)
