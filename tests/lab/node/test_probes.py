from __future__ import annotations

import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from lab.node.probes import UNREADY_PERIOD, Probe


def probe(answers: list[bool], **wanted: Any) -> Probe:
    """A probe whose command gives these answers."""
    return Probe({"exec": {"command": ["x"]}, **wanted}, "127.0.0.1", {}, lambda *_: answers.pop(0), 0)


def test_it_passes_after_so_many_successes_and_fails_after_so_many_failures() -> None:
    asked = probe([True, True, False, False, True], successThreshold=2, failureThreshold=2)
    seen = []
    for _ in range(5):
        asked.ask(0)
        seen.append((asked.passed, asked.failed))

    assert seen == [(False, False), (True, False), (True, False), (False, True), (False, True)]


def test_it_is_asked_often_until_it_passes_and_then_at_its_period() -> None:
    asked = probe([False, True], periodSeconds=15)

    asked.ask(100)
    assert asked.due == 100 + UNREADY_PERIOD
    asked.ask(101)
    assert asked.due == 101 + 15


def test_one_that_ends_the_container_is_asked_at_its_period_alone() -> None:
    asked = probe([False, True], periodSeconds=15)
    asked.patient = True

    asked.ask(100)

    assert asked.due == 100 + 15


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/ready" and self.headers["X-Key"] == "1" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_http(port: int) -> None:
    headers = [{"name": "X-Key", "value": "1"}]
    for path, expected in (("/ready", True), ("/other", False)):
        wanted = {"httpGet": {"port": "web", "path": path, "httpHeaders": headers}, "failureThreshold": 1}
        asked = Probe(wanted, "127.0.0.1", {"web": port}, lambda *_: False, 0)
        asked.ask(0)
        assert (asked.passed, asked.failed) == (expected, not expected)
        assert asked.said == ("" if expected else "HTTP status 503")


def test_tcp(port: int) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for number, expected in ((port, True), (unused.getsockname()[1], False)):
            asked = Probe({"tcpSocket": {"port": number}}, "127.0.0.1", {}, lambda *_: False, 0)
            asked.ask(0)
            assert asked.passed is expected


def test_a_kind_that_the_node_does_not_have_fails_and_says_so() -> None:
    asked = Probe({"grpc": {"port": 1}}, "127.0.0.1", {}, lambda *_: True, 0)
    asked.ask(0)

    assert not asked.passed
    assert "no probes of kind {'grpc'}" in asked.said
