"""Traces: none by default, whole where they are configured."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from broker import tracing
from tests.broker.chain import BINDING, PASSWORD, Chain

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    tracing.configure(exporter)
    yield exporter
    tracing.shut_down()


def by_name(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def test_a_bind_is_one_trace_through_both_proxies_and_their_upstreams(
    chain: Chain, spans: InMemorySpanExporter
) -> None:
    chain.platform.client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
    assert chain.platform.bind().status_code == 201

    binds, upstream = by_name(spans, "bind"), by_name(spans, "upstream")
    assert [span.kind for span in binds] == [SpanKind.SERVER] * 2
    assert {f"{span.context.trace_id:032x}" for span in (*binds, *upstream)} == {TRACE}
    parents = {span.context.span_id: span.parent.span_id for span in (*binds, *upstream) if span.parent}
    provider, consumer = binds
    assert f"{parents[consumer.context.span_id]:016x}" == PARENT
    between = parents[provider.context.span_id]
    assert between in {span.context.span_id for span in upstream}
    assert parents[between] == consumer.context.span_id
    forwarded = next(seen for seen in chain.broker.seen if seen.path.endswith(BINDING))
    assert forwarded.headers["traceparent"].split("-")[1] == TRACE
    assert forwarded.headers["traceparent"].split("-")[2] != PARENT
    updates = by_name(spans, "update")
    assert len(updates) == 2
    assert all(span.attributes and span.attributes["meshbridge.changed"] == 1 for span in updates)


def test_a_failure_is_marked_and_no_secret_is_told(chain: Chain, spans: InMemorySpanExporter) -> None:
    chain.broker.next_answers.append((500, b'{"description": "s3cret"}'))
    assert chain.platform.bind().status_code == 500

    binds = by_name(spans, "bind")
    trace = {span.context.trace_id for span in binds}
    failed = [span for span in (*binds, *by_name(spans, "upstream")) if span.context.trace_id in trace]
    assert len(failed) == 4
    assert {span.status.status_code for span in failed} == {StatusCode.ERROR}
    everything = "".join(span.to_json() for span in spans.get_finished_spans())
    assert PASSWORD not in everything
    assert "s3cret" not in everything


def test_an_exception_is_known_by_its_type_alone(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="s3cret"), tracing.span("x", {}):
        raise ValueError("s3cret")

    (found,) = spans.get_finished_spans()
    assert found.status.status_code == StatusCode.ERROR
    assert found.attributes == {"error.type": "ValueError"}
    assert "s3cret" not in found.to_json()


def test_without_a_collector_nothing_is_traced_and_headers_pass_as_they_are(chain: Chain) -> None:
    tracing.configure()
    chain.platform.client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
    assert chain.platform.bind().status_code == 201

    assert chain.broker.seen[-1].headers["traceparent"] == f"00-{TRACE}-{PARENT}-01"
    assert tracing.headers() == []


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_the_standard_variables_decide(environment: dict[str, str], wanted: bool) -> None:
    assert tracing.wanted(environment) is wanted


def test_a_collector_gets_what_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    got: list[tuple[str, str | None, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, self.headers["x-tenant"], body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
        tracing.configure()
        with tracing.span("bind", {"meshbridge.shard": 1}):
            pass
        tracing.shut_down()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)

    ((path, tenant, body),) = got
    assert (path, tenant) == ("/v1/traces", "blue")
    (sent,) = ExportTraceServiceRequest.FromString(body).resource_spans
    attributes = {item.key: item.value.string_value for item in sent.resource.attributes}
    assert attributes["service.name"] == tracing.SERVICE
    assert attributes["deployment.environment"] == "test"
    assert [span.name for span in sent.scope_spans[0].spans] == ["bind"]
