"""The HTTP side: routes, authentication, version check, identity, metrics."""

import hmac
import re
import uuid
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Annotated, TypeAlias
from urllib.parse import unquote_to_bytes

import anyio
import anyio.to_thread
import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from opentelemetry.trace import SpanKind
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from broker import documents, metrics, osb, tracing
from broker.errors import BadRequestError, OsbError, UnavailableError
from broker.proxy import Proxy
from broker.settings import Settings
from broker.upstream import Answer, Call, header, versions
from broker.version import VERSION

MAX_BODY = 8 * 2**20
"""Largest request body in bytes."""
READY_CHECKS = 4
"""Answers of `/ready` at a time, which calls that wait for their routes do not hold up."""
METHODS = ["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS"]

_BASE = re.compile(r"(?P<base>(?:/v1/osb/[^/]+)?)(?P<path>/.*)", re.DOTALL)

Schema: TypeAlias = dict[str, object]
RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]

log = structlog.get_logger(__name__)


def create_app(settings: Settings, proxy: Proxy) -> FastAPI:
    """The application of one proxy, which it starts and stops."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = settings.max_calls
        await anyio.to_thread.run_sync(proxy.start)
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(proxy.stop)

    app = FastAPI(title="Meshbridge broker", version=VERSION, lifespan=lifespan, openapi_url=None)
    entrance = _Entrance(settings)
    app.add_middleware(_Signed)
    app.add_exception_handler(OsbError, _refused)
    app.add_exception_handler(Exception, _failed)
    _add_operations(app, proxy, entrance)
    for base in ("", "/v1/osb/{broker_id}"):
        _add_instances(app, proxy, entrance, base)
        _add_bindings(app, proxy, entrance, base)
    Caller = Annotated[Call, Depends(entrance.call)]  # noqa: N806 - a type

    @app.api_route("/{path:path}", methods=METHODS, include_in_schema=False)
    def forward(call: Caller) -> Response:
        return _respond(call, "forward", lambda: proxy.forward(call))

    return app


def _add_operations(app: FastAPI, proxy: Proxy, entrance: "_Entrance") -> None:
    """What whoever runs the broker asks it."""

    asked = anyio.CapacityLimiter(READY_CHECKS)

    @app.get("/health", include_in_schema=False)
    async def health() -> JSONResponse:
        if proxy.alive:
            return JSONResponse({"status": "alive"})
        return JSONResponse({"status": "dead"}, HTTPStatus.SERVICE_UNAVAILABLE)

    @app.get("/ready", include_in_schema=False)
    async def ready() -> JSONResponse:
        try:
            await anyio.to_thread.run_sync(proxy.check, limiter=asked)
        except UnavailableError as error:
            return JSONResponse(
                {"status": "away", "reason": error.description}, HTTPStatus.SERVICE_UNAVAILABLE
            )
        return JSONResponse({"status": "ready"})

    @app.get("/metrics", include_in_schema=False)
    async def show_metrics(request: Request) -> Response:
        entrance.authenticate(request)
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _add_instances(app: FastAPI, proxy: Proxy, entrance: "_Entrance", base: str) -> None:
    """The OSB API's catalog and service instances below `base`."""
    Caller = Annotated[Call, Depends(entrance.call)]  # noqa: N806 - a type
    instance = f"{base}/v2/service_instances/{{instance_id}}"
    more = (404,) if base else ()

    @app.get(f"{base}/v2/catalog", responses=_answers(200, *more))
    def catalog(call: Caller) -> Response:
        return _respond(call, "catalog", lambda: proxy.catalog(call))

    @app.put(
        instance,
        responses=_answers(200, 201, 202, 409, 422, *more),
        openapi_extra=_json_body(
            "service_id", "plan_id", context=_OBJECT, parameters=_OBJECT, maintenance_info=_OBJECT
        ),
    )
    def provision(call: Caller, instance_id: str) -> Response:
        del instance_id
        return _respond(call, "provision", lambda: proxy.provision(call))

    @app.get(instance, responses=_answers(200, 404, 422), openapi_extra=_query("service_id", "plan_id"))
    def fetch_instance(call: Caller, instance_id: str) -> Response:
        del instance_id
        return _respond(call, "fetch_instance", lambda: proxy.forward(call))

    @app.patch(
        instance,
        responses=_answers(200, 202, 404, 422),
        openapi_extra=_json_body(
            "service_id", context=_OBJECT, previous_values=_OBJECT, maintenance_info=_OBJECT
        ),
    )
    def update(call: Caller, instance_id: str) -> Response:
        del instance_id
        return _respond(call, "update", lambda: proxy.forward(call))

    @app.delete(
        instance,
        responses=_answers(200, 202, 410, 422, *more),
        openapi_extra=_query("service_id", "plan_id", "accepts_incomplete"),
    )
    def deprovision(call: Caller, instance_id: str) -> Response:
        return _respond(call, "deprovision", lambda: proxy.deprovision(call, instance_id))

    @app.get(
        f"{instance}/last_operation", responses=_answers(200, 404, 410), openapi_extra=_query("operation")
    )
    def instance_operation(call: Caller, instance_id: str) -> Response:
        return _respond(call, "instance_operation", lambda: proxy.instance_operation(call, instance_id))


def _add_bindings(app: FastAPI, proxy: Proxy, entrance: "_Entrance", base: str) -> None:
    """The OSB API's service bindings below `base`."""
    Caller = Annotated[Call, Depends(entrance.call)]  # noqa: N806 - a type
    binding = f"{base}/v2/service_instances/{{instance_id}}/service_bindings/{{binding_id}}"
    more = (404,) if base else ()

    @app.put(
        binding,
        responses=_answers(200, 201, 202, 404, 409, 410, 422),
        openapi_extra=_json_body(
            "service_id",
            "plan_id",
            context=_OBJECT,
            parameters=_OBJECT,
            network_data=_OBJECT,
            predecessor_binding_id=_TEXT,
        ),
    )
    def bind(call: Caller, instance_id: str, binding_id: str) -> Response:
        return _respond(call, "bind", lambda: proxy.bind(call, instance_id, binding_id))

    @app.delete(
        binding,
        responses=_answers(200, 202, 410, 422, *more),
        openapi_extra=_query("service_id", "plan_id", "accepts_incomplete"),
    )
    def unbind(call: Caller, instance_id: str, binding_id: str) -> Response:
        return _respond(call, "unbind", lambda: proxy.unbind(call, instance_id, binding_id))

    @app.get(binding, responses=_answers(200, 404), openapi_extra=_query("service_id", "plan_id"))
    def fetch(call: Caller, instance_id: str, binding_id: str) -> Response:
        return _respond(call, "fetch", lambda: proxy.fetch(call, instance_id, binding_id))

    @app.get(
        f"{binding}/last_operation", responses=_answers(200, 404, 410), openapi_extra=_query("operation")
    )
    def last_operation(call: Caller, instance_id: str, binding_id: str) -> Response:
        return _respond(call, "last_operation", lambda: proxy.last_operation(call, instance_id, binding_id))

    @app.post(
        f"{binding}/adapt_credentials",
        responses=_answers(200, 422),
        openapi_extra=_json_body(credentials=_OBJECT, endpoint_mappings={"type": "array", "items": _MAPPING}),
    )
    def adapt(call: Caller, instance_id: str, binding_id: str) -> Response:
        del instance_id, binding_id
        return _respond(call, "adapt_credentials", lambda: proxy.adapt(call))


_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_ENDPOINT: Schema = {
    "type": "object",
    "properties": {"host": _TEXT, "port": {"type": ["integer", "string"]}},
    "required": ["host", "port"],
}
_MAPPING: Schema = {
    "type": "object",
    "properties": {"source": _ENDPOINT, "target": _ENDPOINT},
    "required": ["source", "target"],
}


def _json_body(*texts: str, **members: Schema) -> Schema:
    """The description of a JSON request: required texts, and other members. Calls are read by hand, so that what is
    not known here passes."""
    properties = {**dict.fromkeys(texts, _TEXT), **members}
    schema = {"type": "object", "properties": properties, "required": list(texts)}
    return {"requestBody": {"content": {"application/json": {"schema": schema}}, "required": True}}


def _query(*names: str) -> Schema:
    """The description of query parameters."""
    return {"parameters": [{"name": name, "in": "query", "schema": _TEXT} for name in names]}


def _answers(*codes: int) -> dict[int | str, dict[str, object]]:
    """The documented status codes of an operation: its own, and those that every one may answer."""
    common = (400, 401, 412, 413, 500, 502, 503)
    return {code: {"description": HTTPStatus(code).phrase} for code in sorted({*codes, *common})}


class _Entrance:
    """What every call passes first: authentication, the form of its path, the API's version; then its body is read."""

    def __init__(self, settings: Settings) -> None:
        self._expected = None
        if settings.username is not None and settings.password is not None:
            self._expected = f"{settings.username}:{settings.password.get_secret_value()}".encode()

    async def call(self, request: Request) -> Call:
        """A call. Raises OsbError 400, 401, 412, 413."""
        user = self.authenticate(request)
        raw = request.scope["raw_path"].split(b"?")[0].decode("latin-1")
        if _is_of_the_api(raw):
            version = request.headers.get(osb.API_VERSION)
            if not osb.speaks(version):
                raise OsbError(
                    f"{osb.API_VERSION}: {version!r} is not understood; send 2.x, for example {osb.SPOKEN}",
                    status=HTTPStatus.PRECONDITION_FAILED,
                )
        return await _read(request, raw, user)

    def authenticate(self, request: Request) -> str | None:
        """The caller's name, None where nobody is asked. Raises OsbError 401."""
        if self._expected is None:
            return None
        given = _basic(request.headers.get("authorization", ""))
        if not hmac.compare_digest(given, self._expected):
            raise OsbError(
                "the user name or the password is wrong or missing", status=HTTPStatus.UNAUTHORIZED
            )
        return given.partition(b":")[0].decode()


def _basic(header: str) -> bytes:
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return b64decode(value.strip(), validate=True)
    except (Base64Error, ValueError):
        return b""


def _is_of_the_api(raw: str) -> bool:
    """Whether a path is the OSB API's. Raises BadRequestError for one that two programs could read in two ways: what is
    forwarded unread here must be no binding for the upstream."""
    lower = raw.lower()
    segments = lower.split("/")
    if "%2f" in lower or any(part in {".", "..", "%2e", "%2e%2e", ".%2e", "%2e."} for part in segments):
        raise BadRequestError("the path has an encoded slash or a dot segment")
    if not raw.isascii() or any(character in raw for character in "#;\\"):
        raise BadRequestError("the path is not percent-encoded")
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise BadRequestError("the path is no percent-encoded UTF-8") from None
    if osb.has_capitals(path):
        raise BadRequestError("the path has capitals where the API has none")
    if not osb.is_below_v2(path):
        return False
    if "\0" in path:
        raise BadRequestError("the path has a NUL character")
    if "%" in raw.partition("/v2/")[0]:
        raise BadRequestError("the path is percent-encoded before /v2/, where bindings are told apart by it")
    if not all(path.split("/")[1:]):
        raise BadRequestError("the path has an empty segment; send it without doubled and trailing slashes")
    return True


async def _read(request: Request, raw: str, user: str | None) -> Call:
    query = request.scope["query_string"].decode("latin-1")
    if not query.isascii() or "#" in query:
        raise BadRequestError("the query is not percent-encoded")
    found = _BASE.fullmatch(raw)
    base, path = (found["base"], found["path"]) if found else ("", raw)
    request_id = request.state.request_id
    headers = _texts(request.headers.raw)
    if not request.headers.get(osb.REQUEST_IDENTITY):
        headers.append((osb.REQUEST_IDENTITY, request_id))
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=request_id)
    return Call(
        method=request.method,
        base=base,
        path=path,
        query=query,
        headers=headers,
        body=await _body(request),
        request_id=request_id,
        user=user,
    )


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise OsbError(
                f"the body is larger than {MAX_BODY} bytes", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            )
    return bytes(body)


def _respond(call: Call, operation: str, work: Callable[[], Answer]) -> Response:
    attributes = {"http.request.method": call.method, "meshbridge.request_id": call.request_id}
    with (
        metrics.call_seconds.labels(operation).time(),
        tracing.span(operation, attributes, kind=SpanKind.SERVER, caller=call.headers) as span,
    ):
        given = work()
        tracing.answered(span, given.status, HTTPStatus.INTERNAL_SERVER_ERROR)
    metrics.calls.labels(operation, str(given.status)).inc()
    response = Response(given.body, given.status)
    del response.headers["content-length"]
    response.raw_headers = [
        *((key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in given.headers),
        (b"content-length", str(len(given.body)).encode()),
    ]
    return response


class _Signed:
    """ASGI middleware: each request has an identity, its own or a new one (`state.request_id`), and each answer carries it
    and the versions of the proxies that were passed."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(_texts(scope["headers"]), osb.REQUEST_IDENTITY)
        request_id = scope.setdefault("state", {})["request_id"] = given or str(uuid.uuid4())

        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": _signed(message["headers"], request_id)}
            await send(message)

        await self._app(scope, receive, signed)


def _signed(headers: RawHeaders, request_id: str) -> list[tuple[bytes, bytes]]:
    """An answer's headers with the request's identity and this proxy's version."""
    there = _texts(headers)
    own = {
        osb.REQUEST_IDENTITY.lower(): request_id,
        osb.PROXY_VERSIONS.lower(): versions(header(there, osb.PROXY_VERSIONS)),
    }
    kept = [(key, value) for key, value in there if key.lower() not in own]
    return [(key.encode("latin-1"), value.encode("latin-1")) for key, value in [*kept, *own.items()]]


def _texts(headers: RawHeaders) -> list[tuple[str, str]]:
    return [(key.decode("latin-1"), value.decode("latin-1")) for key, value in headers]


async def _refused(_request: Request, error: Exception) -> Response:
    """An error of the entrance."""
    if not isinstance(error, OsbError):
        raise error
    metrics.calls.labels("entrance", str(int(error.status))).inc()
    headers = {"www-authenticate": 'Basic realm="broker"'} if error.status == HTTPStatus.UNAUTHORIZED else {}
    return Response(documents.dump(dict(error.body())), error.status, headers, "application/json")


async def _failed(request: Request, error: Exception) -> Response:
    """A fault of the broker itself. What happened is in the log, with the request's identity."""
    log.error("fault", method=request.method, exc_info=error)
    body = {"error": "InternalError", "description": "the broker failed; its log says why"}
    response = JSONResponse(body, HTTPStatus.INTERNAL_SERVER_ERROR)
    response.raw_headers = _signed(response.raw_headers, request.state.request_id)
    return response
