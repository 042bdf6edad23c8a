"""What must flow beyond one connection: several endpoints, services, consumers and providers, size, number, and silence."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from lab.cluster import Cluster
from lab.images import echo
from lab.lab import CLIENT, CONSUMER_ID, EGRESS, INGRESS, SYSTEM_DOMAIN, Lab
from tests.lab.packets import stacks
from tests.lab.packets.access import INGRESS_POD, AccessLog, Line
from tests.lab.packets.refusals.upstreams import HARMLESS

SHOP = "shop.svc.cluster.local"
SERVER = "SELECT host(inet_server_addr())"
GIGABYTE = 2**30
IDLE_TIMEOUT = 2 * stacks.MAIL_KEEPALIVE + 2
"""Seconds of silence after which the provider's load balancer forgets a connection, in the test of it."""


def test_each_endpoint_of_a_service_is_the_server_it_names(lab: Lab, provider: Cluster) -> None:
    for endpoint, server in (("primary", "postgres"), ("replica", "replica")):
        answer = lab.query(SERVER, host=f"svc-orders-{endpoint}.{SHOP}")

        assert answer == provider.pod(f"databases/{server}")["status"]["podIP"]


def test_two_services_of_two_consumers_at_once(lab: Lab, provider: Cluster) -> None:
    servers = {name: provider.pod(f"databases/{name}")["status"]["podIP"] for name in ("postgres", "archive")}

    ingress = AccessLog(provider, INGRESS_POD)

    with ThreadPoolExecutor(8) as pool:
        shop = [pool.submit(lab.query, SERVER) for _ in range(12)]
        desk = [
            pool.submit(
                lab.query, SERVER, host="svc-archive-main.desk.svc.cluster.local", pod="desk/desk-app"
            )
            for _ in range(12)
        ]

    assert {done.result() for done in shop} == {servers["postgres"]}
    assert {done.result() for done in desk} == {servers["archive"]}
    for name, identity in (("archive", stacks.DESK_ID), ("primary.orders", CONSUMER_ID)):
        is_there = partial(_is_at, f"{name}.{SYSTEM_DOMAIN}")
        ingress.wait(is_there, name)
        assert {line["peer_names"] for line in ingress.lines if is_there(line)} == {identity}


def _is_at(host: str, line: Line) -> bool:
    return bool(line["sni"] == host)


def test_one_namespace_uses_two_providers(lab: Lab, consumer: Cluster, provider: Cluster) -> None:
    server = provider.pod("databases/postgres")["status"]["podIP"]
    before = len(lab.access_log("provider/mail-ingress/mail-ingress"))

    letters = consumer.exec(
        CLIENT, ["curl", "--silent", "--fail", f"http://svc-letters-main.{SHOP}:8080/letter"]
    )

    assert json.loads(letters.expect_success())["path"] == "/letter"
    assert lab.query(SERVER) == server
    consumer.wait_until(
        lambda: len(lab.access_log("provider/mail-ingress/mail-ingress")) > before,
        "mail's gateway has logged it",
        10,
    )
    line = lab.access_log("provider/mail-ingress/mail-ingress")[-1]
    assert line["sni"] == f"letters.{stacks.MAIL_DOMAIN}"
    assert line["peer_names"] == "client.shop.example"


def test_a_gigabyte_from_the_service_arrives_whole(lab: Lab, consumer: Cluster) -> None:
    url = f"http://svc-web-main.{SHOP}:8080/bytes/{GIGABYTE}"

    answer = consumer.exec(CLIENT, ["sh", "-c", f"curl --silent --fail {url} | sha256sum"], timeout=240)

    assert answer.expect_success().split()[0] == _digest(GIGABYTE)
    _assert_carried(lab, "sent")


UPLOAD = """
import hashlib, http.client, json, os, sys
host, length, size = sys.argv[1], int(sys.argv[2]), 2**20
digest, filler = hashlib.sha256(), os.urandom(size - 8)
def blocks():
    for number in range(length // size):
        block = number.to_bytes(8, "big") + filler
        digest.update(block)
        yield block
connection = http.client.HTTPConnection(host, 8080)
connection.request("POST", "/", blocks(), {"Content-Length": str(length)})
answer = json.load(connection.getresponse())
print(answer["length"], answer["sha256"] == digest.hexdigest())
"""


def test_a_gigabyte_to_the_service_arrives_whole(lab: Lab, consumer: Cluster) -> None:
    command = [sys.executable, "-c", UPLOAD, f"svc-web-main.{SHOP}", str(GIGABYTE)]

    answer = consumer.exec(CLIENT, command, timeout=240)

    assert answer.expect_success().split() == [str(GIGABYTE), "True"]
    _assert_carried(lab, "received")


MANY = """
import socket, sys
host, count = sys.argv[1], int(sys.argv[2])
request = "GET /{} HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n"
sockets = [socket.create_connection((host, 8080), 60) for _ in range(count)]
def ask(number, connection, turn):
    connection.sendall(request.format(f"{turn}/{number}").encode())
def answer(connection):
    head = b""
    while b"\\r\\n\\r\\n" not in head:
        head += connection.recv(1) or sys.exit("connection closed")
    length = int(head.lower().split(b"content-length:")[1].split(b"\\r\\n")[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body)) or sys.exit("connection closed")
    return body
for turn in (1, 2):
    for number, connection in enumerate(sockets):
        ask(number, connection, turn)
    for number, connection in enumerate(sockets):
        assert f'"path": "/{turn}/{number}"'.encode() in answer(connection), (turn, number)
print(count, "connections answered twice")
"""


def test_500_connections_in_parallel(consumer: Cluster) -> None:
    command = [sys.executable, "-c", MANY, f"svc-web-main.{SHOP}", "500"]

    answer = consumer.exec(CLIENT, command, timeout=120)

    assert answer.expect_success().strip() == "500 connections answered twice"


SILENT = """
import http.client, json, sys, time
host, silence = sys.argv[1], float(sys.argv[2])
connection = http.client.HTTPConnection(host, 8080, timeout=20)
connection.connect()
connection.auto_open = 0
def ask(path):
    connection.request("GET", path)
    return json.load(connection.getresponse())["path"]
assert ask("/before") == "/before"
time.sleep(silence)
try:
    print("alive" if ask("/after") == "/after" else "another answer")
except OSError as error:
    print("dead:", type(error).__name__)
"""


@pytest.fixture
def impatient_balancer(provider: Cluster) -> Iterator[None]:
    """The provider's load balancers forget a connection after a shorter silence than any real one."""
    setting = "net/netfilter/nf_conntrack_tcp_timeout_established"
    edge = provider.network.edge
    usual = edge.run("cat", f"/proc/sys/{setting}")
    edge.write_setting(setting, str(IDLE_TIMEOUT))
    yield
    edge.write_setting(setting, usual)


@pytest.mark.usefixtures("impatient_balancer")
def test_a_silent_connection_outlives_the_load_balancer_by_its_keepalive_alone(consumer: Cluster) -> None:
    """Of two connections that are silent for longer than the load balancer allows, the one with a keepalive below its
    timeout lives, and the one with the usual keepalive of 240 s dies."""
    silence = str(2 * IDLE_TIMEOUT)

    with ThreadPoolExecutor(2) as pool:
        mail, data = (
            pool.submit(
                consumer.exec, CLIENT, [sys.executable, "-c", SILENT, f"svc-{name}-main.{SHOP}", silence]
            )
            for name in ("letters", "web")
        )

    assert mail.result().expect_success().strip() == "alive"
    assert data.result().expect_success().startswith("dead: ")


def test_an_https_upstream_from_the_mesh(lab: Lab, consumer: Cluster) -> None:
    url = f"http://{stacks.API_HOST}/v1/items"

    answer = consumer.exec(CLIENT, ["curl", "--silent", "--fail", "--data-binary", "body", url])

    said = json.loads(answer.expect_success())
    assert (said["method"], said["path"]) == ("POST", "/v1/items")
    assert said["headers"]["host"] == f"{stacks.API_ADDRESS}:8080"
    assert said["sha256"] == hashlib.sha256(b"body").hexdigest()
    assert not {"x-forwarded-client-cert", "x-forwarded-for", "x-envoy-decorator-operation"} & set(
        said["headers"]
    )


def test_an_https_upstream_through_the_ingress(lab: Lab) -> None:
    authority = lab.directory / "internet-ca.crt"
    front = lab.consumer.balancer("istio-ingress", "front")
    resolve = ["--resolve", f"{stacks.API_HOST}:443:{front}", "--resolve", f"{stacks.API_HOST}:80:{front}"]
    curl = ["curl", "--silent", "--cacert", str(authority), *resolve]

    answer = lab.internet.network.run(*curl, "--fail", f"https://{stacks.API_HOST}/public")
    redirected = lab.internet.network.run(*curl, "--head", f"http://{stacks.API_HOST}/public")

    seen = json.loads(answer)
    assert seen["path"] == "/public"
    assert not set(seen["headers"]) - HARMLESS - {"accept", "user-agent"}
    assert redirected.startswith("HTTP/1.1 301")
    assert f"location: https://{stacks.API_HOST}/public" in redirected


def test_a_plain_tcp_upstream(consumer: Cluster) -> None:
    command = ["redis-cli", "-h", "svc-ledger.egress-ledger.svc.cluster.local", "-p", str(stacks.LEDGER_PORT)]
    reporter = f"{stacks.REPORTS}/{stacks.REPORTER}"
    entry = hashlib.sha256(str(time.time()).encode()).hexdigest()

    assert consumer.exec(reporter, [*command, "RPUSH", "entries", entry]).expect_success().strip().isdigit()
    assert consumer.exec(reporter, [*command, "LRANGE", "entries", "-1", "-1"]).stdout.strip() == entry


def _digest(count: int) -> str:
    digest = hashlib.sha256()
    for block in echo.content(count):
        digest.update(block)
    return digest.hexdigest()


def _assert_carried(lab: Lab, direction: str) -> None:
    """Both gateways have carried a gigabyte on one connection."""

    def logged(gateway: str) -> bool:
        return any(int(line[direction]) > GIGABYTE for line in lab.access_log(gateway))

    for gateway in (EGRESS, INGRESS):
        lab.consumer.wait_until(partial(logged, gateway), f"{gateway} has logged a gigabyte {direction}", 15)
