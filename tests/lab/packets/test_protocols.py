"""Every protocol reaches the provider's service through sidecar, egress gateway, internet and ingress gateway, byte for byte."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import applications
from lab.cluster import Cluster
from lab.lab import CLIENT, CONSUMER_ID, EGRESS, INGRESS, Lab
from tests.lab.packets import outside, stacks
from tests.lab.packets.access import AccessLog

SHOP = "shop.svc.cluster.local"


def test_postgresql_in_which_the_client_speaks_first(lab: Lab, provider: Cluster) -> None:
    server = provider.pod("databases/postgres")["status"]["podIP"]

    assert lab.query("SELECT host(inet_server_addr())") == server
    assert lab.query(
        "SELECT md5(string_agg(n::text, ',')) FROM generate_series(1, 100000) AS n"
    ) == _digest_of_numbers(100_000)


def test_every_hop_sees_the_same_connection(lab: Lab, consumer: Cluster, provider: Cluster) -> None:
    host = "primary.orders.istio.data.example"
    before = {name: len(lab.access_log(name)) for name in (EGRESS, INGRESS)}

    answer = lab.query("SELECT repeat('x', 12345)")

    def lines(name: str) -> list[dict[str, Any]]:
        return [line for line in lab.access_log(name)[before[name] :] if line["sent"] > len(answer)]

    consumer.wait_until(lambda: all(map(lines, before)), "the gateways have logged it", 10)
    ((egress,), (ingress,)) = map(lines, before)
    assert egress["sni"] == ingress["sni"] == host
    assert egress["tls"] == egress["upstream_tls"] == ingress["tls"] == "TLSv1.3"
    assert egress["peer_uris"] == "spiffe://shop.example/ns/shop/sa/orders-api"
    assert ingress["peer_names"] == "client.shop.example"
    assert (egress["received"], egress["sent"]) == (ingress["received"], ingress["sent"])


def test_mariadb_in_which_the_server_speaks_first(consumer: Cluster) -> None:
    query = "SELECT MD5(GROUP_CONCAT(seq ORDER BY seq)) FROM seq_1_to_1000"
    command = [
        "mariadb",
        f"--host=svc-mariadb-main.{SHOP}",
        "--user=root",
        f"--password={applications.PASSWORD}",
    ]

    answer = consumer.exec(
        CLIENT,
        [*command, "--skip-ssl", "--database=mysql", "--batch", "--skip-column-names", "--execute", query],
    )

    assert answer.expect_success().strip() == _digest_of_numbers(1000)


def test_redis(consumer: Cluster) -> None:
    command = ["redis-cli", "-h", f"svc-redis-main.{SHOP}"]
    value = "\u00e9" * 100_000

    assert consumer.exec(CLIENT, [*command, "-x", "SET", "key"], text=value).stdout.strip() == "OK"
    assert consumer.exec(CLIENT, [*command, "--raw", "GET", "key"]).stdout.rstrip("\n") == value


def test_http(consumer: Cluster, provider: Cluster) -> None:
    body = "0123456789" * 10_000
    url = f"http://svc-web-main.{SHOP}:8080/orders?id=7"

    answer = consumer.exec(CLIENT, ["curl", "--silent", "--fail", "--data-binary", "@-", url], text=body)

    said = json.loads(answer.expect_success())
    assert said["server"] == provider.pod("databases/echo")["metadata"]["name"]
    assert (said["method"], said["path"]) == ("POST", "/orders?id=7")
    assert said["sha256"] == hashlib.sha256(body.encode()).hexdigest()


GRPC_CLIENT = """
import sys, grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    print(channel.unary_unary("/lab.Echo/Say")(b"hello", timeout=20).decode())
    chat = channel.stream_stream("/lab.Echo/Chat")
    for answer in chat(iter([b"one", b"two", b"three"]), timeout=20):
        print(answer.decode())
"""


def test_grpc(consumer: Cluster, provider: Cluster) -> None:
    name = provider.pod("databases/echo")["metadata"]["name"]

    answer = consumer.exec(CLIENT, [sys.executable, "-c", GRPC_CLIENT, f"svc-grpc-main.{SHOP}:9090"])

    assert answer.expect_success().split() == [f"{name}:{word}" for word in ("hello", "one", "two", "three")]


@pytest.fixture
def fronted(lab: Lab) -> Iterator[str]:
    """Address of a gateway whose stack says that its load balancer sends PROXY protocol."""
    lab.provider_authority.issue("server", stacks.FRONTED_DOMAIN, lab.consumer_authority)
    lab.provider.plane.create_namespace(stacks.FRONTED)
    lab.stack("fronted").up(stacks.fronted(lab))
    yield lab.provider.balancer(stacks.FRONTED, stacks.FRONTED)
    # Nobody waits for the end of what nobody else uses.
    lab.provider.api.delete("v1", "Namespace", stacks.FRONTED)


# When the server resets a connection before its handshake, CPython's ssl module loses the socket (SSLSocket._create).
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning",
    "ignore:unclosed <ssl.SSLSocket:ResourceWarning",
)
def test_proxy_protocol_of_the_load_balancer(lab: Lab, fronted: str, tmp_path: Path) -> None:
    """The gateway takes the client's address out of the header, and no connection without one; its readiness port takes
    the header too, because the load balancer's health checks have it, and those of the kubelet have none."""
    host, pair = f"redis.{stacks.FRONTED_DOMAIN}", lab.consumer_authority.pair("client", CONSUMER_ID)
    header = outside.proxy_header("198.51.100.7", 54321)
    log = AccessLog(lab.provider, f"{stacks.FRONTED}/{stacks.FRONTED}")

    def admitted() -> bool:
        return outside.echo(lab, fronted, host, pair, tmp_path, header=header) == b"$8\r\nstranger\r\n"

    lab.provider.wait_until(admitted, "the gateway takes a connection with a header", 10)
    assert outside.echo(lab, fronted, host, pair, tmp_path) == b""
    assert admitted()
    assert outside.says_ready(lab, fronted, header=header)
    assert outside.says_ready(lab, fronted)
    line = log.wait(lambda line: bool(line["sni"] == host and int(line["sent"])), "the connection is logged")
    assert (line["client"], line["peer_names"]) == ("198.51.100.7:54321", CONSUMER_ID)


def _digest_of_numbers(last: int) -> str:
    text = ",".join(str(number) for number in range(1, last + 1))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
