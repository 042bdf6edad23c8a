"""The next broker in the chain, as HTTP."""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus

import httpx
from opentelemetry.trace import SpanKind

from broker import documents, metrics, osb, tracing
from broker.documents import Document
from broker.errors import UpstreamError
from broker.settings import Settings, reading
from broker.version import own_version

Headers = Sequence[tuple[str, str]]
"""Names and values, one character a byte (Latin-1): what is no ASCII passes as it came."""

HOP_BY_HOP = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "date",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "server",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of one connection (RFC 9110 §7.6.1), and those that each hop says for itself."""
MAX_ANSWER = 8 * 2**20
"""Largest answer in bytes, decoded."""
KEPT = 2.0
"""Seconds for which a connection is kept for the next call. A call on one that the other end closes at that moment gets no
answer, and many servers keep theirs for no longer than 5 s."""
DECODED = "content-encoding"
"""Says of a request's body what it is; an answer's body is decoded here."""


@dataclass(frozen=True)
class Call:
    """One call as it came in. `base`: path before `/v2`; `path`: from there, percent-encoded; `user`: who was
    authenticated."""

    method: str
    base: str
    path: str
    query: str = ""
    headers: Headers = ()
    body: bytes = b""
    request_id: str = ""
    user: str | None = None

    def header(self, name: str) -> str | None:
        """The header's value, None where it is not there."""
        return header(self.headers, name)

    def document(self) -> Document:
        """The body as JSON object. Raises NotAnObjectError."""
        return documents.load(self.body)

    def with_document(self, document: Document) -> Call:
        """The same with this body; as it came where the document says the same."""
        return replace(self, body=documents.changed(self.body, document))


@dataclass(frozen=True)
class Answer:
    """An answer: of the upstream, or ours."""

    status: int
    body: bytes = b""
    headers: Headers = field(default=())

    def document(self) -> Document:
        """The body as JSON object. Raises UpstreamError: a broker's success is always one."""
        try:
            return documents.load(self.body)
        except documents.NotAnObjectError as error:
            raise UpstreamError(f"the upstream's answer ({self.status}) {error}") from None

    def with_document(self, document: Document) -> Answer:
        """The same with this body; as it came where the document says the same."""
        return replace(self, body=documents.changed(self.body, document))

    def header(self, name: str) -> str | None:
        """The header's value, None where it is not there."""
        return header(self.headers, name)


def header(headers: Headers, name: str) -> str | None:
    """The value of a header, of all its lines (RFC 9110 §5.3); None where it is not there."""
    found = [value for key, value in headers if key.lower() == name.lower()]
    return ", ".join(found) if found else None


def _body(response: httpx.Response, deadline: float) -> bytes:
    """An answer whole, which must end by then (monotonic): the client's time-out is that of each chunk. Raises
    httpx.HTTPError, UpstreamError for an answer that would take too much memory."""
    if len(response.headers.get_list(DECODED, split_commas=True)) > 1:
        raise UpstreamError("the upstream's answer is compressed more than once")
    body = bytearray()
    for chunk in response.iter_bytes():
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer has not ended yet")
        body += chunk
        if len(body) > MAX_ANSWER:
            raise UpstreamError(f"the upstream's answer is larger than {MAX_ANSWER} bytes")
    return bytes(body)


def hop_by_hop(headers: Headers) -> frozenset[str]:
    """Names of the headers that end at this hop, with those that `Connection` lists."""
    listed = (header(headers, "connection") or "").split(",")
    return HOP_BY_HOP | {name.strip().lower() for name in listed}


def answer(document: Document, status: int = HTTPStatus.OK) -> Answer:
    """An answer of our own."""
    return Answer(status, documents.dump(document), (("content-type", "application/json"),))


class NotSentError(UpstreamError):
    """There was no connection, so the upstream knows nothing of the call."""


class Upstream:
    """The upstream broker."""

    def __init__(self, settings: Settings, transport: httpx.BaseTransport | None = None) -> None:
        """transport: in place of the network, for tests."""
        self._url, self._timeout = httpx.URL(settings.upstream), settings.upstream_timeout
        self._checked = settings.username is not None
        self._auth = None
        if settings.upstream_username is not None and settings.upstream_password is not None:
            self._auth = httpx.BasicAuth(
                settings.upstream_username, settings.upstream_password.get_secret_value()
            )
        self._client = httpx.Client(
            timeout=httpx.Timeout(settings.upstream_timeout, connect=5),
            limits=httpx.Limits(
                max_connections=settings.max_calls, max_keepalive_connections=32, keepalive_expiry=KEPT
            ),
            verify=_tls(settings),
            transport=transport,
            trust_env=False,
        )

    def send(self, call: Call) -> Answer:
        """Forwards a call. Raises NotSentError, or UpstreamError when there is no answer."""
        attributes = {"http.request.method": call.method, "server.address": self._url.host}
        with tracing.span("upstream", attributes, kind=SpanKind.CLIENT) as span:
            given = self._send(call)
            tracing.answered(span, given.status, HTTPStatus.BAD_REQUEST)
            return given

    def _send(self, call: Call) -> Answer:
        headers = [*self._headers(call), (osb.PROXY_VERSIONS, versions(call.header(osb.PROXY_VERSIONS)))]
        request = httpx.Request(
            call.method,
            self._url.copy_with(raw_path=self._target(call)),
            headers=[(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers],
            content=call.body or None,
        )
        deadline = time.monotonic() + self._timeout
        try:
            response = self._client.send(request, auth=self._auth, stream=True)
            with contextlib.closing(response):
                body = _body(response, deadline)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            metrics.upstream_failures.inc()
            raise NotSentError(f"the upstream broker cannot be reached ({type(error).__name__})") from error
        except httpx.HTTPError as error:
            metrics.upstream_failures.inc()
            raise UpstreamError(f"the upstream broker gave no answer ({type(error).__name__})") from error
        if response.status_code not in range(100, 600):
            raise UpstreamError(
                f"the upstream broker answered the status {response.status_code}, which is none"
            )
        given = [(key.decode("latin-1"), value.decode("latin-1")) for key, value in response.headers.raw]
        left_out = hop_by_hop(given) | {DECODED}
        kept = [(key, value) for key, value in given if key.lower() not in left_out]
        return Answer(response.status_code, body, kept)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _target(self, call: Call) -> bytes:
        path = self._url.raw_path.split(b"?")[0].rstrip(b"/") + f"{call.base}{call.path}".encode("ascii")
        return path + (b"?" + call.query.encode("ascii") if call.query else b"")

    def _headers(self, call: Call) -> Headers:
        left_out = hop_by_hop(call.headers) | {osb.PROXY_VERSIONS.lower()}
        if self._checked or self._auth is not None:
            left_out |= {"authorization"}
        traced = tracing.headers()
        left_out |= {key.lower() for key, _ in traced}
        return [
            *((key, value) for key, value in call.headers if key.lower() not in left_out),
            *traced,
            ("accept-encoding", "identity"),
        ]


def versions(there: str | None) -> str:
    """The versions that a request or an answer names, with this proxy's."""
    return f"{there}, {own_version()}" if there else own_version()


def _tls(settings: Settings) -> ssl.SSLContext:
    """What the client trusts and shows. Without TLS it trusts nobody: to read the system's authorities takes as long as
    everything else at the start. Raises SettingsError."""
    if settings.upstream_ca is None and httpx.URL(settings.upstream).scheme == "http":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        with reading(settings, "upstream_ca"):
            context = ssl.create_default_context(cafile=settings.upstream_ca)
    if settings.upstream_certificate is not None and settings.upstream_key is not None:
        with reading(settings, "upstream_certificate", "upstream_key"):
            context.load_cert_chain(settings.upstream_certificate, settings.upstream_key)
    return context
