"""What is there, and what is answered, when a party of the chain fails."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.errors import BusyError, UnavailableError
from broker.proxy import Proxy
from broker.sides import Provider
from broker.store import Audit, Binding, Phase
from broker.upstream import Call, Upstream
from tests.broker.chain import BINDING, Chain, Platform, load, provider_settings, served, wait_until
from tests.broker.cluster import Cluster
from tests.broker.service_broker import ASYNC_PLAN, ServiceBroker


def remove(binding: Binding) -> None:
    binding.drop()
    binding.phase = Phase.REMOVING


def nothing_is_left(chain: Chain) -> None:
    wait_until(lambda: [store.all() for store in chain.stores] == [[], []], "nothing is stored")
    assert chain.broker.state.bindings == {}
    assert (chain.provider_cluster.objects, chain.consumer_cluster.objects) == ({}, {})


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b'{"error": "Oops", "description": "no"}'),
        (404, b"{}"),
        (409, b'{"description": "exists"}'),
        (422, b'{"error": "ConcurrencyError", "description": "busy"}'),
    ],
)
def test_a_refusal_of_the_broker_reaches_the_platform_unchanged_and_leaves_nothing(
    chain: Chain, status: int, body: bytes
) -> None:
    chain.broker.next_refusals.append((status, body))

    answer = chain.platform.bind()

    assert (answer.status_code, answer.content) == (status, body)
    nothing_is_left(chain)


@pytest.mark.parametrize("status", [500, 503, 408, 302])
def test_after_an_answer_that_decides_nothing_the_binding_is_undone(chain: Chain, status: int) -> None:
    chain.broker.next_answers.append((status, b'{"description": "after binding"}'))

    assert chain.platform.bind().status_code == status
    nothing_is_left(chain)
    assert chain.provider_cluster.updates == chain.consumer_cluster.updates == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"credentials":',
        b'{"a": NaN}',
        b'{"a": 1e99999999999999999999}',
        b"null",
        b"\xff\xfe",
    ],
)
def test_a_success_that_is_garbage_is_undone(chain: Chain, garbage: bytes) -> None:
    chain.broker.next_answers.append((201, garbage))

    answer = chain.platform.bind()

    assert (answer.status_code, answer.json()["error"]) == (502, "UpstreamError")
    nothing_is_left(chain)


@pytest.mark.parametrize(
    "endpoints",
    [
        "10.0.0.1",
        [1],
        [{"host": "10.0.0.1"}],
        [{"host": "10.0.0.1", "port": 0}],
        [{"host": "*.x.y", "port": 1}],
        [{"host": "10.0.0.1", "ports": []}],
        [{"host": "10.0.0.1", "ports": ["0"]}],
        [{"host": "10.0.0.1", "ports": ["9000-9010"]}],
        [{"host": "10.0.0.1", "ports": ["53"], "protocol": "udp"}],
    ],
)
def test_endpoints_that_are_none_are_refused_and_undone(chain: Chain, endpoints: object) -> None:
    chain.broker.endpoints = endpoints  # type: ignore[assignment]
    chain.broker.given = {"password": "s3cret"}

    answer = chain.platform.bind()

    assert (answer.status_code, answer.json()["error"]) == (502, "UpstreamError")
    assert "s3cret" not in answer.text
    nothing_is_left(chain)


def test_an_upstream_that_is_dead_is_a_502_with_an_osb_error(chain: Chain) -> None:
    chain.broker.stop()

    for answer in (
        chain.platform.bind(),
        chain.platform.client.get("/v2/catalog"),
        chain.platform.client.get("/info"),
    ):
        assert answer.status_code == 502
        assert answer.json()["error"] == "UpstreamError"
    chain.broker = ServiceBroker(chain.broker.server.server_address[1]).start()
    nothing_is_left(chain)


def test_a_status_that_is_none_is_no_answer(chain: Chain) -> None:
    chain.broker.next_answers.append((600, b"{}"))

    answer = chain.direct.client.get("/v2/catalog")

    assert (answer.status_code, answer.json()["error"]) == (502, "UpstreamError")


def test_an_upstream_that_is_slow_is_a_502_and_its_binding_is_undone(chain: Chain) -> None:
    chain.broker.hold = threading.Event()

    assert chain.platform.bind().status_code == 502
    assert any(seen.method == "PUT" and seen.path.endswith(BINDING) for seen in chain.broker.seen)
    chain.broker.hold.set()
    nothing_is_left(chain)


def test_an_upstream_whose_answer_does_not_end_is_a_502(tmp_path: Path) -> None:
    """It sends a byte now and then, so that no single wait is a long one."""

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n")
            for byte in b"{}" + b" " * 38:
                time.sleep(0.2)
                connection.sendall(bytes([byte]))

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        upstream = f"http://127.0.0.1:{server.getsockname()[1]}"
        read = load(tmp_path, provider_settings(tmp_path, upstream, upstreamTimeout=1))
        with served(read, Proxy(read, deployer=Cluster())) as url:
            platform = Platform(url)
            given = platform.client.get("/v2/catalog")
            platform.client.close()

    assert (given.status_code, given.json()["error"]) == (502, "UpstreamError")


def compressed(times: int, size: int) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """An answer of so many bytes, compressed that often, and its headers."""
    body = b"{}" + b" " * size
    for _ in range(times):
        body = gzip.compress(body)
    return body, [(b"content-encoding", b", ".join([b"gzip"] * times))] if times else []


@pytest.mark.parametrize("times", [0, 1, 2])
def test_an_answer_that_would_fill_the_memory_is_a_502_and_its_binding_is_undone(
    chain: Chain, times: int
) -> None:
    size = 8 * 2**20 if times < 2 else 0
    body, chain.broker.more_headers = compressed(times, size)
    chain.broker.next_answers.append((201, body))

    answer = chain.platform.bind()

    assert (answer.status_code, answer.json()["error"]) == (502, "UpstreamError")
    chain.broker.more_headers = []
    nothing_is_left(chain)


def test_an_answer_that_is_compressed_once_is_read(chain: Chain) -> None:
    body, chain.broker.more_headers = compressed(1, 100)
    chain.broker.next_answers.append((200, body))

    assert chain.direct.client.get("/v2/catalog").json() == {}


def test_a_connection_that_the_upstream_is_about_to_close_is_not_used(tmp_path: Path) -> None:
    """It keeps connections for 3 s, and closes them when the next request is on its way."""

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            began = time.monotonic()
            while connection.recv(65536) and time.monotonic() - began < 3:
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                began = time.monotonic()

    def accept(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, args=(server,), daemon=True).start()
        read = load(tmp_path, provider_settings(tmp_path, f"http://127.0.0.1:{server.getsockname()[1]}"))
        upstream = Upstream(read)
        upstream.send(Call("GET", "", "/info"))
        time.sleep(3)
        assert upstream.send(Call("GET", "", "/info")).status == 200
        upstream.close()


def test_a_failed_unbind_upstream_leaves_the_routes_alone(chain: Chain) -> None:
    chain.platform.bind()
    for status in (500, 400, 422, 408):
        chain.broker.next_refusals.append((status, b"{}"))
        assert chain.platform.unbind().status_code == status
        assert (
            list(chain.consumer_cluster.objects) == list(chain.provider_cluster.objects) == [f"0-{BINDING}"]
        )
    assert chain.settled()
    assert chain.platform.fetch().status_code == 200


def test_while_the_broker_unbinds_no_route_is_touched(chain: Chain) -> None:
    chain.platform.bind()
    chain.broker.hold = threading.Event()
    while chain.broker.arrived.acquire(blocking=False):
        pass
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(chain.platform.unbind)
        assert chain.broker.arrived.acquire(timeout=10)
        assert (
            list(chain.consumer_cluster.objects) == list(chain.provider_cluster.objects) == [f"0-{BINDING}"]
        )
        assert all(b.wanted for store in chain.stores for b in store.all())
        chain.broker.hold.set()
        assert call.result().status_code == 200
    nothing_is_left(chain)


@pytest.mark.parametrize("side", ["consumer", "provider"])
def test_a_route_that_cannot_be_made_is_undone_on_both_sides(chain: Chain, side: str) -> None:
    cluster = chain.consumer_cluster if side == "consumer" else chain.provider_cluster
    cluster.refused[BINDING] = "admission webhook says no"

    answer = chain.platform.bind()

    assert (answer.status_code, answer.json()["error"]) == (500, "RouteError")
    assert "admission webhook says no" in answer.text
    nothing_is_left(chain)
    cluster.refused.clear()
    assert chain.platform.bind().status_code == 201


def test_a_route_that_cannot_be_made_does_not_hold_up_the_others(chain: Chain) -> None:
    chain.consumer_cluster.refused["bad"] = "no"
    with ThreadPoolExecutor(8) as pool:
        names = ["bad", *(f"good-{number}" for number in range(7))]
        codes = dict(zip(names, [a.status_code for a in pool.map(chain.platform.bind, names)], strict=True))

    assert codes.pop("bad") == 500
    assert set(codes.values()) == {201}


def test_credentials_that_cannot_be_adapted_take_the_route_away_again(chain: Chain) -> None:
    chain.broker.given = ["no", "object"]

    answer = chain.platform.bind()

    assert answer.status_code == 502
    assert len(chain.consumer_cluster.updates) > 0
    nothing_is_left(chain)


def test_credentials_that_the_policy_refuses_are_refused_to_the_platform_with_the_reason(
    chain: Chain,
) -> None:
    chain.broker.given = {"uri": "mongodb+srv://u:p@10.0.0.1/x", "host": "10.0.0.1", "port": 5432}

    answer = chain.platform.bind()

    assert (answer.status_code, answer.json()["error"]) == (422, "UnadaptableCredentials")
    assert "dns-srv" in answer.json()["description"]
    nothing_is_left(chain)


def test_what_the_policy_refuses_is_a_setting(chain: Chain, tmp_path: Path) -> None:
    credentials = {"uri": "mongodb+srv://u:p@10.0.0.1/x", "host": "10.0.0.1", "port": 5432}
    mapping = {"source": {"host": "10.0.0.1", "port": 5432}, "target": {"host": "10.96.0.1", "port": 5555}}
    body = {"credentials": credentials, "endpoint_mappings": [mapping]}
    folder = tmp_path / "lenient"
    read = load(folder, provider_settings(folder, chain.broker.url, refuse=["conflict"]))

    with served(read, Proxy(read, deployer=Cluster())) as url:
        platform = Platform(url)
        answer = platform.adapt(body)
        platform.client.close()

    assert chain.direct.adapt(body).status_code == 422
    assert answer.status_code == 200
    assert "dns-srv" in {finding["code"] for finding in answer.json()["metadata"]["findings"]}


def test_a_failed_repetition_leaves_the_bound_route_alone(chain: Chain) -> None:
    chain.platform.bind()
    chain.broker.next_answers.append((200, b"garbage"))

    assert chain.platform.bind().status_code == 502
    assert chain.settled()
    assert list(chain.consumer_cluster.objects) == list(chain.provider_cluster.objects) == [f"0-{BINDING}"]
    assert chain.platform.bind().status_code == 200


@pytest.mark.parametrize("ports", [["5433"], ["5433", "5432"], ["5432", "5433", "5434"]])
def test_credentials_of_other_endpoints_than_are_routed_are_not_handed_out(
    chain: Chain, ports: list[str]
) -> None:
    """The routes lead to what was bound, by its place in the list."""
    chain.broker.endpoints = [{"host": "10.0.0.1", "ports": ["5432", "5433"], "protocol": "tcp"}]
    chain.platform.bind()
    chain.broker.endpoints[0]["ports"] = ports

    answer = chain.platform.fetch()
    assert (answer.status_code, answer.json()["error"]) == (502, "UpstreamError")
    assert "bind it again" in answer.json()["description"]
    assert chain.platform.bind().status_code == 200
    assert chain.platform.fetch().status_code == 200
    assert len(chain.provider_cluster.objects) == len(chain.consumer_cluster.objects) == len(ports)


@pytest.mark.parametrize("answered", [(500, b"{}"), (200, b"garbage")])
def test_a_failed_repetition_leaves_a_binding_without_endpoints_alone(
    chain: Chain, answered: tuple[int, bytes]
) -> None:
    """It has no route, so that no row tells that somebody has its credentials."""
    chain.broker.endpoints = []
    assert chain.platform.bind().status_code == 201
    chain.broker.next_answers.append(answered)

    assert chain.platform.bind().status_code in {500, 502}
    wait_until(lambda: [store.all() for store in chain.stores] == [[], []], "nothing is stored")
    assert list(chain.broker.state.bindings) == [BINDING]
    assert chain.platform.fetch().status_code == 200
    assert chain.platform.unbind().status_code == 200
    chain.broker.next_answers.append(answered)
    assert chain.platform.bind().status_code in {500, 502}
    nothing_is_left(chain)


def test_nothing_is_answered_before_the_route_is_there(chain: Chain) -> None:
    chain.consumer_cluster.gate = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        call = pool.submit(chain.platform.bind)
        wait_until(lambda: chain.consumer_cluster.running, "the update runs")
        assert not call.done()
        assert chain.platform.fetch().status_code == 404
        assert chain.platform.bind().status_code == 422
        assert chain.platform.unbind().status_code == 422
        chain.consumer_cluster.gate.set()
        assert call.result().status_code == 201


def test_an_undoing_that_fails_is_tried_again(chain: Chain) -> None:
    chain.consumer_cluster.refused[BINDING] = "no"
    chain.broker.endpoints = [{"host": "10.0.0.9", "port": 1}]
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(chain.platform.bind)
        wait_until(lambda: chain.broker.state.bindings, "bound upstream")
        chain.broker.next_refusals += [(500, b"{}"), (503, b"{}")]
        assert call.result().status_code == 500
    assert chain.consumer_cluster.objects == {}
    nothing_is_left(chain)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("side", ["consumer", "provider"])
def test_an_engine_that_dies_in_an_update_is_followed_by_one_that_finishes(
    chain: Chain, side: str, after: int
) -> None:
    cluster = chain.consumer_cluster if side == "consumer" else chain.provider_cluster
    chain.broker.endpoints = [{"host": "10.0.0.1", "port": 1}, {"host": "10.0.0.1", "port": 2}]
    cluster.die_after = after

    assert chain.platform.bind().status_code == 201
    assert len(cluster.objects) == 2
    cluster.die_after = after
    assert chain.platform.unbind().status_code == 200
    nothing_is_left(chain)


def test_what_a_dead_engine_made_is_removed_though_nobody_wants_it_any_more(chain: Chain) -> None:
    """The objects are in no state, so they have to be taken up before they can be removed."""
    chain.broker.endpoints = [{"host": "10.0.0.1", "port": 1}, {"host": "10.0.0.1", "port": 2}]
    cluster = chain.consumer_cluster
    cluster.die_after = 1
    cluster.gate = threading.Event()
    assert chain.consumer.store is not None
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(chain.platform.bind)
        wait_until(lambda: cluster.running, "the update runs")
        row = chain.consumer.store.get(BINDING)
        assert row is not None
        assert row.uncertain
        chain.consumer.store.change(row, remove)
        cluster.gate.set()
        assert call.result().status_code == 422
    wait_until(lambda: chain.consumer.store.get(BINDING) is None, "the row is gone")  # type: ignore[union-attr]
    assert cluster.objects == {}


def test_an_unreachable_cluster_is_a_500_and_is_waited_for_in_the_background(chain: Chain) -> None:
    chain.consumer_cluster.unreachable = True
    answer = chain.platform.bind()
    assert answer.status_code == 500
    assert "unreachable" in answer.text
    chain.consumer_cluster.unreachable = False
    nothing_is_left(chain)


def test_an_unbind_while_the_cluster_is_away_says_so_and_can_be_repeated(chain: Chain) -> None:
    chain.platform.bind()
    chain.provider_cluster.unreachable = True
    chain.provider._settings.__dict__["deploy_timeout"] = 1
    assert chain.platform.unbind().status_code == 500
    assert list(chain.consumer_cluster.objects) == [f"0-{BINDING}"]
    chain.provider_cluster.unreachable = False
    wait_until(lambda: chain.platform.unbind().status_code in {200, 410}, "repeated")
    nothing_is_left(chain)


def test_a_provider_may_only_name_hosts_of_its_domains(chain: Chain) -> None:
    """Else a provider could have the consumer's egress gateway call whom it likes, with the consumer's certificate."""
    side = chain.provider._side
    assert isinstance(side, Provider)
    side._settings.__dict__["system_domain"] = "evil.example"

    answer = chain.platform.bind()

    assert (answer.status_code, answer.json()["error"]) == (502, "UpstreamError")
    assert "system_domains" in answer.text
    nothing_is_left(chain)


def test_a_body_without_end_is_refused(chain: Chain) -> None:
    answer = chain.platform.client.put(chain.platform.path("x", "y"), content=b" " * (8 * 2**20 + 1))

    assert answer.status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"{}",
        b'{"service_id": 1}',
        b'{"service_id": "s"}',
        b'{"service_id": "\\ud800", "plan_id": "p"}',
        b'{"service_id": "s", "plan_id": "\\u0000"}',
    ],
)
def test_a_bind_that_is_no_bind_is_refused_here(chain: Chain, body: bytes) -> None:
    answer = chain.platform.client.put(chain.platform.path(binding="x"), content=body)

    assert answer.status_code == 400
    assert answer.json()["description"]
    assert not any(seen.path.endswith("/x") for seen in chain.broker.seen)


@pytest.mark.parametrize("text", [b"\\ud800", b"\\u0000"])
def test_texts_of_the_upstream_that_no_database_takes_are_not_stored(chain: Chain, text: bytes) -> None:
    chain.broker.next_refusals.append((400, b'{"error": "' + text + b'"}'))
    assert chain.platform.bind().status_code == 400
    assert [[r.error for r in store.audited(BINDING)] for store in chain.stores] == [[None], [None]]
    nothing_is_left(chain)

    chain.broker.next_answers.append((202, b'{"operation": "' + text + b'"}'))
    answer = chain.platform.bind(plan=ASYNC_PLAN, query={"accepts_incomplete": "true"})
    assert answer.status_code == 202
    assert [[b.operation for b in store.all()] for store in chain.stores] == [[None], [None]]


def test_a_record_that_finds_no_database_is_written_when_it_is_back(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused bind changes nothing, so its record is written alone."""
    store = chain.stores[1]
    write, away = store.audit, threading.Event()

    def audit(entry: Audit) -> None:
        if not away.is_set():
            raise UnavailableError("the database is away")
        write(entry)

    monkeypatch.setattr(store, "audit", audit)
    context = {"platform": "kubernetes", "namespace": "kube-system"}
    assert chain.platform.bind(context=context).status_code == 400
    assert store.audited(BINDING) == []
    away.set()
    wait_until(lambda: store.audited(BINDING), "the record is written")
    assert [(r.action, r.status, r.error) for r in store.audited(BINDING)] == [
        ("bind", 400, "InvalidNamespace")
    ]


def test_a_change_and_its_record_are_written_together_or_not_at_all(chain: Chain) -> None:
    chain.platform.bind()
    store = chain.stores[1]
    (row,) = store.all()
    store.change(row, lambda binding: setattr(binding, "operation", "elsewhere"))

    entry = Audit(request_id="", action="undone", instance_id=row.instance_id, binding_id=BINDING, status=200)
    with pytest.raises(BusyError):
        store.change(row, remove, audit=entry)

    (row,) = store.all()
    assert row.phase == Phase.BOUND
    assert [(r.action, r.status) for r in store.audited(BINDING)] == [("bind", 201)]
