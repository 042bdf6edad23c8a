"""What the proxies leave alone: bodies, headers and paths byte for byte, and the paths that they refuse."""

from __future__ import annotations

import socket
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import structlog

from broker import logs
from broker.proxy import Proxy
from tests.broker import service_broker
from tests.broker.chain import BINDING, PASSWORD, USER, Chain, load, provider_settings, served
from tests.broker.cluster import Cluster
from tests.broker.service_broker import PLAN, SERVICE


def spelled(more: str = "") -> bytes:
    """A request as no serialiser writes it, with more members at its end."""
    ids = f'"service_id":"{SERVICE}", "plan_id" : "{PLAN}"'
    return ("{ " + ids + ',"x":[1e5,-0,"é\\u00e9\\/"],\n"x":[1.10] ' + more + "}").encode()


def raw(url: str, request: bytes, body: bytes = b"", headers: bytes = b"") -> bytes:
    """The answer to a request line and body as they stand here."""
    parts = urlsplit(url)
    token = b64encode(f"{USER}:{PASSWORD}".encode())
    with socket.create_connection((parts.hostname, parts.port), 60) as connection:
        connection.sendall(
            request
            + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Broker-API-Version: 2.17\r\nAuthorization: Basic "
            + token
            + b"\r\nContent-Length: %d\r\n" % len(body)
            + headers
            + b"\r\n"
            + body
        )
        found = b""
        while received := connection.recv(65536):
            found += received
    return found


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def provider(chain: Chain, tmp_path: Path) -> Iterator[str]:
    """A provider's proxy before the chain's broker that has nothing to add to catalogs."""
    folder = tmp_path / "plain"
    values = provider_settings(folder, chain.broker.url)
    section = {"systemDomain": "istio.data.example", "ingressGateway": {"adopt": True}}
    read = load(folder, {**values, "provider": section})
    with served(read, Proxy(read, deployer=Cluster())) as url:
        yield url


def test_a_catalog_that_is_not_marked_passes_byte_for_byte(chain: Chain, provider: str) -> None:
    catalog = '{"services" :[ {"name":"é\\u00e9\\/","x":1e5,"x":-0} ]}'.encode()
    chain.broker.next_answers.append((200, catalog))

    assert raw(provider, b"GET /v2/catalog").endswith(b"\r\n\r\n" + catalog)


def test_a_request_that_is_not_changed_passes_byte_for_byte(chain: Chain, provider: str) -> None:
    consumer = '"network_data": {"network_profile_id": "p", "data": {"consumer_id": "a.example"}}'
    body = spelled(f", {consumer}")

    answer = raw(provider, f"PUT {chain.platform.path(binding=BINDING)}".encode(), body)

    assert status(answer) == 201
    assert chain.broker.seen[-1].raw == body


def test_what_is_changed_keeps_numbers_and_characters(chain: Chain) -> None:
    raw(chain.consumer_url, f"PUT {chain.platform.path('i-1')}".encode(), spelled())

    assert b"[1.10]" in chain.broker.seen[-1].raw
    raw(
        chain.consumer_url,
        f"PUT {chain.platform.path('i-2')}".encode(),
        spelled(', "y": [1e5, -0, "é"]'),
    )
    assert '"y": [1e5, -0, "é"]'.encode() in chain.broker.seen[-1].raw


def test_a_compressed_body_says_so_to_the_upstream(chain: Chain) -> None:
    raw(chain.consumer_url, b"POST /info", b"\x1f\x8b", b"Content-Encoding: gzip\r\n")

    assert chain.broker.seen[-1].raw == b"\x1f\x8b"
    assert chain.broker.seen[-1].headers["content-encoding"] == "gzip"


def test_headers_that_are_no_ascii_pass_in_both_directions(chain: Chain) -> None:
    chain.broker.more_headers = [(b"X-Msg", "ж".encode()), (b"X-Latin", b"caf\xe9")]

    answer = raw(
        chain.consumer_url,
        f"PUT {chain.platform.path(binding=BINDING)}".encode(),
        spelled(),
        b"X-Foo: caf\xe9\r\nX-Broker-API-Originating-Identity: kubernetes \xd0\xb6\r\n",
    )

    assert status(answer) == 201
    assert b"x-msg: \xd0\xb6\r\n" in answer
    assert b"x-latin: caf\xe9\r\n" in answer
    assert chain.broker.seen[-1].headers["x-foo"] == "caf\xe9"


def test_headers_of_one_connection_do_not_pass(chain: Chain) -> None:
    """RFC 9110 §7.6.1: those that `Connection` lists, too."""
    chain.broker.more_headers = [(b"Connection", b"X-Theirs"), (b"X-Theirs", b"1"), (b"X-Kept", b"1")]

    answer = raw(
        chain.consumer_url,
        b"GET /info",
        headers=b"Connection: x-ours , TE\r\nX-Ours: 1\r\nTE: trailers\r\nX-Kept: 1\r\n",
    ).lower()

    assert chain.broker.seen[-1].headers.keys() & {"x-ours", "te", "x-kept"} == {"x-kept"}
    assert b"x-kept: 1" in answer
    assert b"x-theirs" not in answer


def test_every_line_of_the_versions_is_kept(chain: Chain) -> None:
    chain.broker.more_headers = [(b"X-Istio-Broker-Versions", b"c/3"), (b"X-Istio-Broker-Versions", b"d/4")]

    answer = raw(
        chain.consumer_url,
        b"GET /v2/catalog",
        headers=b"X-Istio-Broker-Versions: a/1\r\nX-Istio-Broker-Versions: b/2\r\n",
    )

    own = "meshbridge/0.1.0, meshbridge/0.1.0"
    assert chain.broker.seen[-1].headers["x-istio-broker-versions"] == f"a/1, b/2, {own}"
    assert f"x-istio-broker-versions: c/3, d/4, {own}\r\n".encode() in answer


@pytest.mark.parametrize(
    "path",
    [
        "/v2/service_instances/{instance}/service_bindings/{binding}/",
        "/v2//service_instances/{instance}/service_bindings/{binding}",
        "//v2/service_instances/{instance}/service_bindings/{binding}",
        "/v1/osb/fabrik/v2/service_instances/{instance}/",
        "/v1/osb/fabrik//v2/service_instances/{instance}",
        "/%762/service_instances/{instance}/",
        "/v1/osb/%66abrik/v2/service_instances/{instance}/service_bindings/{binding}",
        "/%761/osb/fabrik/v2/service_instances/{instance}/service_bindings/{binding}",
        "/v2/service_instances/{instance}/service_bindings/%FF",
        "/v2/service_instances/{instance}/service_bindings/%00",
        "/v2/service_instances/a%2Fservice_bindings%2Fb",
        "/v2/../v2/catalog",
        "/v2/%2e%2e/x",
        "/v2/service_instances/{instance}/service_bindings/x#y",
        "/V2/service_instances/{instance}/service_bindings/{binding}",
        "/v2/service_instances/{instance}/Service_Bindings/{binding}",
        "/V1/osb/fabrik/v2/service_instances/{instance}/service_bindings/{binding}",
        "/v1/osb/fabrik/v2/service_instances/{instance}/service_Bindings/{binding}",
        "/v2;a/service_instances/{instance}/service_bindings/{binding}",
        "/v2/service_instances/{instance}/service_bindings;a=b/{binding}",
        "/;a/v2/service_instances/{instance}/service_bindings/{binding}",
        "/v2\\service_instances\\{instance}/service_bindings/{binding}",
    ],
)
def test_a_path_that_could_be_read_in_two_ways_is_refused(chain: Chain, path: str) -> None:
    line = path.format(instance=chain.platform.path().rpartition("/")[2], binding=BINDING).encode()
    before = len(chain.broker.seen)

    for method in (b"PUT", b"GET", b"DELETE", b"PATCH"):
        answer = raw(chain.consumer_url, method + b" " + line, spelled())
        assert status(answer) == 400
        assert b"x-broker-api-request-identity: " in answer
    assert len(chain.broker.seen) == before


@pytest.mark.parametrize("ids", [("V2", "Service_Bindings"), ("A", "Last_Operation"), ("a%3Bb", "a%5Cb")])
def test_ids_may_have_any_character(chain: Chain, ids: tuple[str, str]) -> None:
    instance, binding = ids
    for base in ("", "/v1/osb/Fabrik"):
        path = f"{base}/v2/service_instances/{instance}/service_bindings/{binding}"
        assert status(raw(chain.consumer_url, b"GET " + path.encode(), spelled())) == 404
        assert chain.broker.seen[-1].path == path


def test_other_paths_may_end_in_a_slash(chain: Chain) -> None:
    assert status(raw(chain.consumer_url, b"GET /info/")) == 404
    assert chain.broker.seen[-1].path == "/info/"


@pytest.mark.parametrize("query", [b"a=\xc3\xa9", b"a=\xff"])
def test_a_query_that_is_not_percent_encoded_is_refused(chain: Chain, query: bytes) -> None:
    assert status(raw(chain.consumer_url, b"GET /info?" + query)) == 400


def test_a_fault_of_the_broker_itself_is_told_with_the_requests_identity(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(chain.consumer, "catalog", fail)
    identity = b"X-Broker-API-Request-Identity: r-1\r\n"
    logs.configure()
    try:
        answer = raw(chain.consumer_url, b"GET /v2/catalog", headers=identity)
    finally:
        structlog.reset_defaults()

    assert status(answer) == 500
    assert b"x-broker-api-request-identity: r-1\r\n" in answer
    assert b"x-istio-broker-versions: meshbridge/" in answer
    assert service_broker.PASSWORD.encode() not in answer
