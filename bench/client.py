"""A client of Redis that runs inside a Pod: `client.py measure HOST PORT REQUESTS CONNECTS TRANSFERS`, or `first HOST PORT`.

`measure` prints one line of JSON: seconds of each request on one connection, of each new connection up to its first byte, and
bytes per second of each transfer. `first` prints when, in seconds since 1970, it got its first answer; it asks until then.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

PING, PONG = b"PING\r\n", b"+PONG\r\n"
GET = b"GET large\r\n"
AGAIN = 0.02
"""Seconds until the next attempt."""
TIMEOUT = 2.0


@contextmanager
def connected(host: str, port: int, timeout: float = 60.0) -> Iterator[socket.socket]:
    """A connection that sends at once."""
    with socket.create_connection((host, port), timeout) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


def ping(connection: socket.socket) -> None:
    """One request and its answer; ConnectionError if there is none."""
    connection.sendall(PING)
    answer = connection.recv(len(PONG))
    if answer != PONG:
        raise ConnectionError(f"not a PONG: {answer!r}")


def requests(host: str, port: int, count: int) -> list[float]:
    """Seconds of each request on one connection."""
    seconds = []
    with connected(host, port) as connection:
        ping(connection)
        for _ in range(count):
            begin = time.perf_counter()
            ping(connection)
            seconds.append(time.perf_counter() - begin)
    return seconds


def connects(host: str, port: int, count: int) -> list[float]:
    """Seconds from before the connection to the first byte, for each of so many one after the other."""
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        with connected(host, port) as connection:
            ping(connection)
            seconds.append(time.perf_counter() - begin)
    return seconds


def transfers(host: str, port: int, count: int) -> list[float]:
    """Bytes per second of each of so many transfers of the key `large`, on one connection."""
    rates = []
    buffer = bytearray(2**18)
    with connected(host, port) as connection:
        for _ in range(count):
            begin = time.perf_counter()
            connection.sendall(GET)
            head = b""
            while not head.endswith(b"\r\n"):
                head += connection.recv(1)
            size = int(head[1:])
            left = size + 2
            while left:
                received = connection.recv_into(buffer, min(left, len(buffer)))
                if not received:
                    raise ConnectionError(f"{left} bytes are missing")
                left -= received
            rates.append(size / (time.perf_counter() - begin))
    return rates


def first(host: str, port: int) -> float:
    """When the first answer came."""
    while True:
        try:
            with connected(host, port, TIMEOUT) as connection:
                ping(connection)
                return time.time()
        except OSError:
            time.sleep(AGAIN)


def main() -> None:
    """Run one command."""
    command, host, port, *numbers = sys.argv[1:]
    if command == "first":
        print(first(host, int(port)))
        return
    counts = [int(number) for number in numbers]
    parts = {"requests": requests, "connects": connects, "transfers": transfers}
    print(
        json.dumps(
            {name: part(host, int(port), n) for (name, part), n in zip(parts.items(), counts, strict=True)}
        )
    )


if __name__ == "__main__":
    main()
