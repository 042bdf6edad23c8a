from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from lab.load import BEHIND, Load, Progress

RATE = 50
IN_FLIGHT = 32
TIMEOUT = 120.0


class Here:
    """Stands for a cluster: what is to run in a Pod runs on this machine."""

    def popen(self, _pod: str, command: Sequence[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


class Echo(threading.Thread):
    """Answers ECHO as Redis does, once it may."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.port = 0
        self.ready = threading.Event()
        self._may: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    def answer(self) -> None:
        """From now on it may."""
        self._loop.call_soon_threadsafe(self._may.set)

    def run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._may = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", backlog=2 * IN_FLIGHT)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await server.serve_forever()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [await reader.readline() for _ in range(5)]
        await self._may.wait()
        writer.writelines(lines[3:])
        writer.close()


@pytest.fixture
def load() -> Iterator[tuple[Load, Echo]]:
    server, here = Echo(), Here()
    server.start()
    server.ready.wait(TIMEOUT)
    cluster: Any = here
    with Load(cluster, "shop/client", ("127.0.0.1", server.port), rate=RATE, timeout=TIMEOUT) as running:
        yield running, server
        server.answer()


def test_connections_that_had_to_wait_are_made_up_for(load: tuple[Load, Echo]) -> None:
    running, server = load
    late = running.wait(lambda now: now.behind > 4 * BEHIND, "it is behind", TIMEOUT)
    assert late.opened == IN_FLIGHT
    server.answer()
    kept = running.kept_up(TIMEOUT)

    assert kept.opened >= RATE * (kept.seconds - 2 * BEHIND)
    assert running.stop().failed == 0


def test_the_rate_between_two_moments() -> None:
    assert Progress(seconds=7, opened=500).opened_since(Progress(seconds=5, opened=200)) == 150
