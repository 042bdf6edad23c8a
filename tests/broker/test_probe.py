"""Routes count as made when a connection to them comes through, where a probe is configured."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.probe import all_of, probe
from broker.settings import ProbeSettings
from lab.ports import free_ports
from tests.broker.chain import BINDING, CONSUMER_ID, PREFIX, SYSTEM_DOMAIN, Chain, wait_until

SETTINGS = ProbeSettings(attempts=3, timeout=5, hold=1, pause=1)


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does this with each connection; its port."""
    server = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            held.append(connection)
            serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)
        for connection in held:
            connection.close()


@pytest.mark.parametrize(
    "serve", [lambda c: c.sendall(b"220 hello"), lambda _: None], ids=["greets", "waits"]
)
def test_a_connection_that_is_greeted_or_stays_open_came_through(
    serve: Callable[[socket.socket], None],
) -> None:
    with listening(serve) as port:
        assert probe(SETTINGS, port)(["127.0.0.1"]) is None


def test_a_connection_that_a_proxy_accepts_and_closes_did_not() -> None:
    pauses: list[float] = []
    with listening(lambda connection: connection.close()) as port:
        reason = probe(SETTINGS, port, pauses.append)(["127.0.0.1"])

    assert reason is not None
    assert f"127.0.0.1:{port}" in reason
    assert "closed at once" in reason or "reset" in reason
    assert pauses == [1, 1]


def test_the_number_of_attempts_is_bounded_and_a_later_one_may_succeed() -> None:
    (port,) = free_ports(1)
    pauses: list[float] = []

    assert "in 3 attempts" in str(probe(SETTINGS, port, pauses.append)(["127.0.0.1"]))
    assert len(pauses) == 2
    seen = iter([True, False])
    with listening(lambda c: c.close() if next(seen, False) else None) as open_port:
        assert probe(SETTINGS, open_port, pauses.append)(["127.0.0.1"]) is None


def test_several_routes_are_told_apart() -> None:
    with listening(lambda c: c.sendall(b"x")) as port:
        reasons = all_of(
            probe(SETTINGS, port, lambda _: None), [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"], []]
        )

    assert reasons[0] is None
    assert "127.0.0.2" in str(reasons[1])
    assert reasons[2] is None


@contextmanager
def probing(folder: Path, port: int) -> Iterator[Chain]:
    """A chain whose virtual IPs are this machine's."""
    consumer = {
        "id": CONSUMER_ID,
        "namespaces": ["shop"],
        "systemDomains": [SYSTEM_DOMAIN],
        "serviceNamePrefix": PREFIX,
        "egressGateway": {"adopt": True},
        "servicePort": port,
        "probe": {"attempts": 1, "hold": 1},
    }
    chain = Chain(folder, consumer=consumer)
    chain.consumer_cluster.addresses[f"0-{BINDING}"] = "127.0.0.1"
    try:
        assert chain.platform.provision().status_code == 201
        yield chain
    finally:
        chain.close()


def test_a_bind_is_answered_when_a_connection_came_through(tmp_path: Path) -> None:
    seen = threading.Event()
    with listening(lambda _: seen.set()) as port, probing(tmp_path, port) as chain:
        assert chain.platform.bind().status_code == 201
        assert seen.is_set()


def test_a_route_to_which_none_comes_through_is_undone(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with probing(tmp_path, port) as chain:
        answer = chain.platform.bind()

        assert (answer.status_code, answer.json()["error"]) == (500, "RouteError")
        assert f"no connection to 127.0.0.1:{port} came through" in answer.text
        wait_until(lambda: [store.all() for store in chain.stores] == [[], []], "nothing is stored")
        assert (chain.provider_cluster.objects, chain.consumer_cluster.objects) == ({}, {})
        assert chain.broker.state.bindings == {}
