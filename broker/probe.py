"""Whether a connection to a new route comes through."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from broker.settings import ProbeSettings, Settings

PARALLEL = 16
"""Routes that are tried at a time."""

Probe = Callable[[Sequence[str]], str | None]
"""Tries the virtual IPs of one binding: None where a connection to each came through, else what is wrong."""


def probe_of(settings: Settings) -> Probe | None:
    """The probe that a broker is set to; None for none."""
    consumer = settings.consumer
    if consumer is None or consumer.probe is None:
        return None
    return probe(consumer.probe, consumer.service_port)


def probe(settings: ProbeSettings, port: int, sleep: Callable[[float], None] = time.sleep) -> Probe:
    """A probe of virtual IPs at this port."""

    def tried(addresses: Sequence[str]) -> str | None:
        for address in addresses:
            reason = _tried(settings, address, port, sleep)
            if reason is not None:
                return reason
        return None

    return tried


def all_of(probe: Probe, routes: Sequence[Sequence[str]]) -> list[str | None]:
    """Tries several bindings at the same time."""
    with ThreadPoolExecutor(PARALLEL, "probe") as pool:
        return list(pool.map(probe, routes))


def _tried(settings: ProbeSettings, address: str, port: int, sleep: Callable[[float], None]) -> str | None:
    reason = ""
    for attempt in range(settings.attempts):
        if attempt:
            sleep(settings.pause)
        try:
            _connect(settings, address, port)
        except OSError as error:
            reason = str(error) or type(error).__name__
        else:
            return None
    return f"no connection to {address}:{port} came through in {settings.attempts} attempts: {reason}"


def _connect(settings: ProbeSettings, address: str, port: int) -> None:
    """One connection. Raises OSError."""
    with socket.create_connection((address, port), timeout=settings.timeout) as connection:
        connection.settimeout(settings.hold)
        try:
            greeted = connection.recv(1)
        except TimeoutError:
            return
        if not greeted:
            raise ConnectionResetError("it was accepted and closed at once")
