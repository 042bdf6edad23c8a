"""Routes count as made when a connection to them comes through, where a probe is configured."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from broker import cli, logs
from broker.network import PublicEndpoint
from broker.probe import all_of, probe
from broker.settings import ProbeSettings
from broker.store import Binding, ConsumerRoute, Phase, Store
from lab.ports import free_ports
from tests.broker.chain import (
    BINDING,
    CONSUMER_ID,
    PREFIX,
    SYSTEM_DOMAIN,
    Chain,
    consumer_settings,
    load,
    wait_until,
)
from tests.broker.cluster import Cluster

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


def consumer(port: int) -> dict[str, object]:
    """A section of the settings, whose virtual IPs listen at this port."""
    return {
        "id": CONSUMER_ID,
        "namespaces": ["shop"],
        "systemDomains": [SYSTEM_DOMAIN],
        "serviceNamePrefix": PREFIX,
        "egressGateway": {"adopt": True},
        "servicePort": port,
        "probe": {"attempts": 1, "hold": 1},
    }


@contextmanager
def probing(folder: Path, port: int) -> Iterator[Chain]:
    """A chain whose virtual IPs are this machine's."""
    chain = Chain(folder, consumer=consumer(port))
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


def test_the_command_that_repairs_believes_no_route_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (port,) = free_ports(1)
    read = load(tmp_path, consumer_settings(tmp_path, "http://127.0.0.1:1", consumer=consumer(port)))
    store = Store(read.database)
    store.migrate()
    row = Binding(
        binding_id=BINDING,
        instance_id="i",
        base="",
        service_id="s",
        plan_id="p",
        phase=Phase.ROUTING,
        shard=0,
    )
    endpoint = PublicEndpoint(host=f"0.{BINDING}.{SYSTEM_DOMAIN}", port=9000)
    route = ConsumerRoute(namespace="shop", provider_id=SYSTEM_DOMAIN, endpoints=(endpoint,))
    store.change(store.add(row), lambda binding: binding.want(route))
    monkeypatch.setattr(cli, "Engine", lambda _: Cluster(addresses={f"0-{BINDING}": "127.0.0.1"}))
    monkeypatch.setattr(logs, "configure", lambda: None)

    with pytest.raises(typer.Exit):
        cli.reconcile(file=tmp_path / "settings.yaml")

    (found,) = store.all()
    assert (found.phase, found.settled) == (Phase.ROUTING, False)
    assert "came through" in str(found.error)
    store.close()
