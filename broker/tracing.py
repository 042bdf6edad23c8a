"""OpenTelemetry traces of calls, upstream requests and updates: where a collector is configured, else nothing.

Configured by OpenTelemetry's own variables ("OpenTelemetry Environment Variable Specification"): traces are sent, by OTLP
over HTTP, where `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` is set and neither
`OTEL_SDK_DISABLED=true` nor `OTEL_TRACES_EXPORTER=none` is. Headers, time-outs, samplers, resource attributes and propagators
are those variables' too. A call continues the trace of its caller (`traceparent`), and its upstream request carries it on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import AttributeValue

from broker.version import VERSION

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVICE = "meshbridge-broker"
"""`service.name`, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES say another."""


class _Tracing:
    """The process's traces. They have a provider of their own: the global one is other libraries' too."""

    provider: TracerProvider | None = None


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether traces are to be sent."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "otlp").strip() or "otlp"
    return exporter == "otlp" and any(environment.get(name) for name in ENDPOINTS)


def configure(exporter: SpanExporter | None = None) -> None:
    """Begins to trace, where that is configured. exporter: in place of the configured one, at once; for tests."""
    if exporter is None and not wanted(os.environ):
        return
    attributes = {"service.version": VERSION}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    ):
        attributes["service.name"] = SERVICE
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - only where it is used
            OTLPSpanExporter,
        )

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _Tracing.provider = provider


def shut_down() -> None:
    """Sends what is left, and traces no more."""
    provider, _Tracing.provider = _Tracing.provider, None
    if provider is not None:
        provider.shutdown()


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, AttributeValue],
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    caller: Sequence[tuple[str, str]] | None = None,
) -> Iterator[Span]:
    """What happens within is a span, a child of the one around it. caller: headers of the call, whose trace it continues.

    An exception that leaves it is an error of the span, by its type alone: messages may hold what no trace should.
    """
    if _Tracing.provider is None:
        yield trace.INVALID_SPAN
        return
    context: Context | None = None
    if caller is not None:
        context = propagate.extract({key.lower(): value for key, value in caller})
    tracer = _Tracing.provider.get_tracer("broker", VERSION)
    with tracer.start_as_current_span(
        name,
        context,
        kind,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except BaseException as error:
            made.set_attribute("error.type", type(error).__name__)
            made.set_status(StatusCode.ERROR)
            raise


def answered(made: Span, status: int, failed_from: int) -> None:
    """The status code of a call's or a request's answer. failed_from: the first one that is an error of the span."""
    made.set_attribute("http.response.status_code", int(status))
    if status >= failed_from:
        made.set_status(StatusCode.ERROR)


def headers() -> list[tuple[str, str]]:
    """The headers that carry the trace of the span around this on; none where nothing is traced."""
    if _Tracing.provider is None:
        return []
    carried: dict[str, str] = {}
    propagate.inject(carried)
    return list(carried.items())
