"""Connections of a binding that the provider takes away: new ones at once, running ones within their longest life."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from config import names
from lab.lab import INGRESS_NAMESPACE
from tests.lab.packets import stacks
from tests.lab.packets.refusals.outcome import Probe, is_client, is_from, reason, refused
from tests.lab.packets.refusals.world import (
    APPLICATION,
    CALL,
    CAPPED_HOST,
    CAPPED_SERVICE,
    INGRESS_POD,
    NO_SSL,
    SSL_REQUEST,
    World,
    until,
)

GSS_REQUEST = bytes.fromhex("0000000804d21630")
"""PostgreSQL's question whether the server encrypts by GSSAPI (protocol: GSSENCRequest); it answers with one byte too."""

ENDPOINT = names.exported(names.slug(stacks.CAPPED, "main"))
BINDING = tuple(
    (api_version, kind, INGRESS_NAMESPACE, ENDPOINT)
    for api_version, kind in (
        ("networking.istio.io/v1", "VirtualService"),
        ("networking.istio.io/v1", "Gateway"),
        ("networking.istio.io/v1", "DestinationRule"),
        ("networking.istio.io/v1", "ServiceEntry"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
    )
)
"""The objects of the export in the order in which the stack deletes them."""


def _removed(world: World) -> str:
    logged = world.mark(world.provider, INGRESS_POD)
    with _running(world) as connection, world.removed(world.provider, *BINDING):
        new = _new_connection(world)
        lives = connection.say(GSS_REQUEST) != b""
        refusal = new()
        connection.wait_for_end()
        line = logged(is_from(world.consumer.addresses.outside, sni=CAPPED_HOST))
    running = "goes on" if lives else "ends at once"
    restored = until(lambda: world.from_pod(APPLICATION, CAPPED_SERVICE, 5432).received == NO_SSL)
    assert restored, "the binding does not work again"
    return f"a new connection is {refusal}; a running one {running}, and then ends by: {reason(line) or 'nothing of its own'}"


def _new_connection(world: World) -> Callable[[], str]:
    """Wait until new connections are refused; the function that is returned says how."""
    logged = world.mark(world.provider, INGRESS_POD)
    replies = []

    def is_refused() -> bool:
        replies.append(world.from_internet(CAPPED_HOST, world.certificates.right))
        return not replies[-1].received

    if not until(is_refused):
        return lambda: "answered"
    return lambda: refused("the ingress gateway", logged(is_client(replies[-1])))


class _Connection:
    """A connection of the application that stays open."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, what: bytes) -> bytes:
        """Send and return what comes back."""
        self._write(what.hex())
        return bytes.fromhex(self.read())

    def wait_for_end(self) -> None:
        """Listen until the far end closes."""
        self._write("")
        self.read()

    def read(self) -> str:
        """The next line of the caller."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()


@contextmanager
def _running(world: World) -> Iterator[_Connection]:
    order = {"host": CAPPED_SERVICE, "port": 5432, "say": SSL_REQUEST.hex(), "linger": True}
    with world.consumer.popen(APPLICATION, CALL) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        connection = _Connection(process)
        _client, _, received = connection.read().partition(" ")
        assert bytes.fromhex(received) == NO_SSL, "the application is not answered"
        try:
            yield connection
        finally:
            process.stdin.close()


REMOVED = Probe(
    "the binding is removed",
    _removed,
    "a new connection is refused by the ingress gateway: NR; filter_chain_not_found; a running one goes on, and then "
    "ends by: DT",
)
"""DT: Envoy's flag of a connection that has reached its longest life."""
PROBES = (REMOVED,)
