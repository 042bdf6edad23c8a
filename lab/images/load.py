"""A client under load: it opens short connections to a Redis at a steady rate, and holds long ones.

Each short connection sends one ECHO with a text of its own, expects that text back and closes; each long one does so
again and again. A JSON object a line says on stdout how it goes (see `lab.load.Progress`). It ends when its stdin does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import socket
import sys
import time
from collections import Counter

REPORT = 0.1
"""Seconds between two lines."""
HELD_PAUSE = 0.5
"""Seconds between two exchanges of a long connection."""
IN_FLIGHT = 32
"""Short connections at a time: where the path does not keep up with the rate, the next ones wait, and are made up for."""


class Client:
    """The connections and how they went."""

    def __init__(self, address: tuple[str, int], text: str, rate: float, timeout: float) -> None:
        self._address = address
        self._text = text
        self._pause = 1 / rate
        self._timeout = timeout
        self._numbers = itertools.count()
        self._began = self._due = time.monotonic()
        self.opened = self.answered = self.failed = self.streak = 0
        self.held = self.held_answered = self.lost = 0
        self.reasons: Counter[str] = Counter()
        """Of failures and losses."""
        self._places = asyncio.Semaphore(IN_FLIGHT)

    async def short(self) -> None:
        """One short connection, which has a place and then gives it back."""
        self.opened += 1
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_connection(*self._address)
                with contextlib.closing(writer):
                    await self._exchange(reader, writer)
        except (OSError, EOFError, ValueError) as error:
            self.failed += 1
            self.streak = min(self.streak, 0) - 1
            self.reasons[_reason(error)] += 1
        else:
            self.answered += 1
            self.streak = max(self.streak, 0) + 1
        finally:
            self._places.release()

    async def long(self) -> None:
        """One long connection, until it is lost."""
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await asyncio.open_connection(*self._address)
                await self._exchange(reader, writer)
            self.held += 1
            with contextlib.closing(writer):
                while True:
                    await asyncio.sleep(HELD_PAUSE)
                    async with asyncio.timeout(self._timeout):
                        await self._exchange(reader, writer)
                    self.held_answered += 1
        except (OSError, EOFError, ValueError) as error:
            self.lost += 1
            self.reasons[f"long: {_reason(error)}"] += 1

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = f"{self._text}-{next(self._numbers)}".encode()
        writer.write(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(text), text))
        expected = b"$%d\r\n%s\r\n" % (len(text), text)
        answer = await reader.readexactly(len(expected))
        if answer != expected:
            raise ValueError(f"wrong answer {answer!r}")

    async def run(self, held: int) -> None:
        """Open connections until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(held):
                tasks.create_task(self.long())
            self._due = time.monotonic()
            while True:
                self._due += self._pause
                await asyncio.sleep(max(0.0, self._due - time.monotonic()))
                await self._places.acquire()
                tasks.create_task(self.short())

    async def report(self) -> None:
        """Say how it goes until cancelled."""
        while True:
            self.say()
            await asyncio.sleep(REPORT)

    def say(self) -> None:
        """Say how it goes."""
        progress = {
            "seconds": time.monotonic() - self._began,
            "behind": max(0.0, time.monotonic() - self._due),
            "opened": self.opened,
            "answered": self.answered,
            "failed": self.failed,
            "streak": self.streak,
            "held": self.held,
            "held_answered": self.held_answered,
            "lost": self.lost,
            "reasons": self.reasons,
        }
        print(json.dumps(progress), flush=True)


def _reason(error: Exception) -> str:
    if isinstance(error, asyncio.IncompleteReadError):
        return f"closed by the other side after {len(error.partial)} bytes"
    return f"{type(error).__name__}: {error}"


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, required=True, help="short connections a second")
    parser.add_argument("--held", type=int, default=0, help="long connections")
    parser.add_argument("--timeout", type=float, required=True, help="seconds that one exchange may take")
    parser.add_argument("--text", default="text", help="what every exchange says, before its number")
    options = parser.parse_args()
    address = socket.gethostbyname(options.host), options.port
    client = Client(address, options.text, options.rate, options.timeout)
    running = [asyncio.create_task(client.run(options.held)), asyncio.create_task(client.report())]
    await asyncio.to_thread(sys.stdin.read)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    client.say()


if __name__ == "__main__":
    asyncio.run(_main())
