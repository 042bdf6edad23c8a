"""A service broker as the OSB API 2.17 describes it, which believes nothing that it is sent.

It is the end of the chain in the tests: in a thread, or as a process of its own
(`python -m tests.broker.service_broker PORT FILE`, whose state lies in FILE and survives it).
"""

from __future__ import annotations

import json
import sys
import threading
from base64 import b64encode
from dataclasses import asdict, dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

SERVICE, PLAN, ASYNC_PLAN = "service-1", "plan-small", "plan-async"
MAINTENANCE = "2.1.1+abcdef"
USER, PASSWORD = "fabrik", "s3cret-of-the-fabrik"
CATALOG = {
    "services": [
        {
            "id": SERVICE,
            "name": "postgresql",
            "description": "a database",
            "bindable": True,
            "bindings_retrievable": True,
            "x-unknown": {"kept": 1.10},
            "plans": [
                {
                    "id": PLAN,
                    "name": "small",
                    "description": "small",
                    "metadata": {"bullets": ["1 GB"]},
                    "binding_rotatable": True,
                    "maintenance_info": {"version": MAINTENANCE},
                },
                {"id": ASYNC_PLAN, "name": "slow", "description": "slow"},
            ],
        }
    ]
}


@dataclass
class State:
    """What the broker knows. operations: polls that are left until an asynchronous operation ends, by binding, or by instance
    that leaves; ended: names of the operations that bound what is there."""

    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    bindings: dict[str, dict[str, Any]] = field(default_factory=dict)
    operations: dict[str, int] = field(default_factory=dict)
    leaving: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)


@dataclass
class Seen:
    """One request as it arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: Any
    raw: bytes


class Refusal(Exception):  # noqa: N818 - an answer
    """An answer other than success."""

    def __init__(self, status: int, error: str | None = None, description: str = "") -> None:
        super().__init__(description)
        self.status, self.body = status, {"description": description, **({"error": error} if error else {})}


class ServiceBroker:
    """The broker and its server. `seen` holds every request that it answered."""

    def __init__(self, port: int = 0, file: Path | None = None, host: str = "127.0.0.1") -> None:
        self._file = file
        self._lock = threading.RLock()
        self.state = State(**json.loads(file.read_text())) if file is not None and file.exists() else State()
        self.seen: list[Seen] = []
        self.endpoints: list[dict[str, Any]] = [{"host": "10.0.0.1", "ports": ["5432"], "protocol": "tcp"}]
        self.as_end_points = False
        self.given: Any = None
        """Credentials to hand out instead of its own."""
        self.next_answers: list[tuple[int, bytes]] = []
        """Answers to give instead of its own, one a request, after the request did its work."""
        self.next_refusals: list[tuple[int, bytes]] = []
        """Answers to give instead of doing anything."""
        self.more_headers: list[tuple[bytes, bytes]] = []
        """Headers of its answers."""
        self.hold: threading.Event | None = None
        """When set, requests wait for it before they are answered."""
        self.meeting: threading.Barrier | None = None
        """When set, requests wait for each other before they are answered."""
        self.late: threading.Event | None = None
        """When set, binds wait for it before they do anything."""
        self.late_polls: threading.Event | None = None
        """When set, questions for an operation wait for it before they are answered."""
        self.attempt = ""
        """Ends the names of operations that bind."""
        self.retrievable = True
        """Whether bindings can be fetched."""
        self.fails = False
        """Whether asynchronous operations end as failed."""
        self.synchronous = False
        """Whether it knows no operations, and fails where it is asked for one."""
        self.drops_bindings = False
        """Whether an instance takes its bindings with it."""
        self.arrived = threading.Semaphore(0)
        self.dead = False
        broker = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_args: object) -> None:
                return

            def do_GET(self) -> None:
                broker.answer(self)

            do_PUT = do_DELETE = do_PATCH = do_POST = do_GET  # noqa: N815 - as the base class calls them

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self.server = Server((host, port), Handler)
        self._thread = threading.Thread(
            target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    def start(self) -> ServiceBroker:
        self._thread.start()
        return self

    def stop(self) -> None:
        for event in (self.hold, self.late, self.late_polls):
            if event is not None:
                event.set()
        self.dead = True
        self.server.shutdown()
        self.server.server_close()

    def credentials(self, binding: str) -> dict[str, Any]:
        """What a binding is given, before any proxy."""
        main = self.endpoints[0] if self.endpoints else {"host": "10.0.0.1", "port": 5432}
        user, port = f"user-{binding}", _port(main)
        return {
            "hostname": main["host"],
            "port": port,
            "username": user,
            "password": "p/w:10.0.0.1",
            "uri": f"postgres://{user}:secret@{main['host']}:{port}/db?sslmode=disable",
            "x-unknown": [1, {"a": None}],
        }

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        if self.dead:
            handler.close_connection = True
            return
        length = int(handler.headers.get("content-length") or 0)
        raw = handler.rfile.read(length)
        late = self.late if handler.command == "PUT" else None
        if urlsplit(handler.path).path.endswith("/last_operation"):
            late = self.late_polls
        if late is not None:
            self.arrived.release()
            late.wait(30)
        status, body = self._respond(handler, raw)
        self.arrived.release()
        if self.hold is not None:
            self.hold.wait(30)
        if self.meeting is not None:
            self.meeting.wait()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.send_header("X-From-The-Broker", "kept")
        for name, value in self.more_headers:
            handler.send_header(name.decode("latin-1"), value.decode("latin-1"))
        handler.end_headers()
        handler.wfile.write(body)

    def _respond(self, handler: BaseHTTPRequestHandler, raw: bytes) -> tuple[int, bytes]:
        parts = urlsplit(handler.path)
        headers = {key.lower(): value for key, value in handler.headers.items()}
        query = parse_qs(parts.query, keep_blank_values=True)
        with self._lock:
            if self.next_refusals:
                return self.next_refusals.pop(0)
            try:
                body = _json(raw)
                self.seen.append(Seen(handler.command, parts.path, query, headers, body, raw))
                status, given = self._dispatch(handler.command, parts.path, query, headers, body)
            except Refusal as refusal:
                status, given = refusal.status, refusal.body
            self._save()
            if self.next_answers:
                return self.next_answers.pop(0)
            return status, json.dumps(given).encode()

    def _save(self) -> None:
        if self._file is not None:
            staging = self._file.with_suffix(".new")
            staging.write_text(json.dumps(asdict(self.state)))
            staging.replace(self._file)

    def _dispatch(  # noqa: PLR0911, PLR0912 - one line a call of the API
        self, method: str, path: str, query: dict[str, list[str]], headers: dict[str, str], body: Any
    ) -> tuple[int, Any]:
        if path == "/info":
            return 200, {"query": query, "name": "service fabrik"}
        expected = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if headers.get("authorization") != expected:
            raise Refusal(401, description="wrong credentials")
        if not headers.get("x-broker-api-version", "").startswith("2."):
            raise Refusal(412, description="version")
        path = path.removeprefix("/v1/osb/fabrik")
        if path == "/v2/catalog" and method == "GET":
            return 200, CATALOG if self.retrievable else _without("bindings_retrievable")
        segments = [unquote(part) for part in path.removeprefix("/v2/service_instances/").split("/")]
        if self.synchronous and segments[-1] == "last_operation":
            raise Refusal(500, description="not implemented")
        match (method, segments):
            case ("PUT", [instance]):
                return self._provision(instance, body)
            case ("PATCH", [instance]):
                return self._update(instance, body)
            case ("GET", [instance]):
                return 200, self._instance(instance)
            case ("DELETE", [instance]):
                return self._deprovision(instance, query)
            case ("GET", [instance, "last_operation"]):
                return self._instance_operation(instance, query)
            case ("PUT", [instance, "service_bindings", binding]):
                return self._bind(instance, binding, query, body)
            case ("GET", [instance, "service_bindings", binding]):
                return 200, self._fetched(instance, binding)
            case ("DELETE", [instance, "service_bindings", binding]):
                return self._unbind(instance, binding, query)
            case ("GET", [instance, "service_bindings", binding, "last_operation"]):
                return self._last_operation(binding, query)
        raise Refusal(404, description=f"no such call: {method} {path}")

    def _instance(self, instance: str) -> dict[str, Any]:
        if instance not in self.state.instances:
            raise Refusal(404, description="no such instance")
        return self.state.instances[instance]

    def _provision(self, instance: str, body: Any) -> tuple[int, Any]:
        _check(body)
        if "network_profiles" in body:
            raise Refusal(400, "UnknownMember", "network_profiles")
        known = self.state.instances.get(instance)
        if known is not None:
            if known != body:
                raise Refusal(409, description="exists with other attributes")
            return 200, {"dashboard_url": "https://dash"}
        self.state.instances[instance] = body
        return 201, {"dashboard_url": "https://dash", "x-unknown": 1}

    def _deprovision(self, instance: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        _check({key: values[0] for key, values in query.items()})
        if instance not in self.state.instances:
            raise Refusal(410, description="gone")
        theirs = [name for name, b in self.state.bindings.items() if b["instance"] == instance]
        if theirs and not self.drops_bindings:
            raise Refusal(400, description="has bindings")
        if self.state.instances[instance]["plan_id"] == ASYNC_PLAN:
            if query.get("accepts_incomplete") != ["true"]:
                raise Refusal(422, "AsyncRequired", "this plan is deprovisioned asynchronously")
            self.state.operations.setdefault(instance, 2)
            return 202, {"operation": f"deprovision-{instance}"}
        self._forget(instance)
        return 200, {}

    def _forget(self, instance: str) -> None:
        del self.state.instances[instance]
        self.state.bindings = {k: b for k, b in self.state.bindings.items() if b["instance"] != instance}

    def _instance_operation(self, instance: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        self._instance(instance)
        if instance not in self.state.operations or query.get("operation") == [f"provision-{instance}"]:
            return 200, {"state": "succeeded"}
        if query.get("operation") != [f"deprovision-{instance}"]:
            raise Refusal(400, description="operation is not what was answered")
        self.state.operations[instance] -= 1
        if self.state.operations[instance] > 0:
            return 200, {"state": "in progress"}
        if self.fails:  # whoever asks hears it, not the first alone
            return 200, {"state": "failed"}
        del self.state.operations[instance]
        self._forget(instance)
        return 200, {"state": "succeeded"}

    def _update(self, instance: str, body: Any) -> tuple[int, Any]:
        known = self._instance(instance)
        if not isinstance(body, dict) or body.get("service_id") != SERVICE:
            raise Refusal(400, description="service_id is required")
        wanted = body.get("maintenance_info")
        if wanted is not None and wanted != {"version": MAINTENANCE}:
            raise Refusal(422, "MaintenanceInfoConflict", "not the catalog's version")
        return 200, {"patched": known["plan_id"], "got": body}

    def _bind(self, instance: str, binding: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        if isinstance(body, dict) and "predecessor_binding_id" in body:
            body = self._rotated(instance, body)
        _check(body)
        if instance not in self.state.instances:
            raise Refusal(404, description="no such instance")
        wanted = {
            "instance": instance,
            **{k: v for k, v in body.items() if k not in {"context", "network_data"}},
        }
        known = self.state.bindings.get(binding)
        if known is not None:
            if known != wanted:
                raise Refusal(409, description="exists with other attributes")
            if self.state.operations.get(binding, 0) > 0:
                return 202, {"operation": f"bind-{binding}{self.attempt}"}
            return 200, self._answer(binding)
        if body["plan_id"] == ASYNC_PLAN:
            if query.get("accepts_incomplete") != ["true"]:
                raise Refusal(422, "AsyncRequired", "this plan binds asynchronously")
            self.state.bindings[binding] = wanted
            self.state.operations[binding] = 2
            self.state.ended = [name for name in self.state.ended if not name.startswith(f"bind-{binding}")]
            return 202, {"operation": f"bind-{binding}{self.attempt}"}
        self.state.bindings[binding] = wanted
        return 201, self._answer(binding)

    def _rotated(self, instance: str, body: dict[str, Any]) -> dict[str, Any]:
        """The request of a binding that succeeds another one: what that one was made with."""
        if set(body) - {"network_data"} != {"predecessor_binding_id"}:
            raise Refusal(400, description="a rotation says nothing but its predecessor")
        known = self.state.bindings.get(body["predecessor_binding_id"])
        if known is None or known["instance"] != instance:
            raise Refusal(404, description="no such predecessor")
        return {**{k: v for k, v in known.items() if k != "instance"}, **body}

    def _answer(self, binding: str) -> dict[str, Any]:
        credentials = self.credentials(binding) if self.given is None else self.given
        answer: dict[str, Any] = {
            "credentials": credentials,
            "syslog_drain_url": None,
            "x-unknown": {"z": 1, "a": 2},
        }
        if self.as_end_points:
            credentials["end_points"] = [{"host": e["host"], "port": _port(e)} for e in self.endpoints]
        elif self.endpoints:
            answer["endpoints"] = self.endpoints
        return answer

    def _fetched(self, instance: str, binding: str) -> dict[str, Any]:
        known = self.state.bindings.get(binding) if self.retrievable else None
        if known is None or known["instance"] != instance or self.state.operations.get(binding, 0) > 0:
            raise Refusal(404, description="no such binding")
        return self._answer(binding)

    def _unbind(self, instance: str, binding: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        given = {key: values[0] for key, values in query.items()}
        _check(given)
        known = self.state.bindings.get(binding)
        if known is None or known["instance"] != instance:
            raise Refusal(410, description="gone")
        if (known["service_id"], known["plan_id"]) != (given["service_id"], given["plan_id"]):
            raise Refusal(400, description="service_id and plan_id are not the binding's")
        if known["plan_id"] == ASYNC_PLAN:
            if given.get("accepts_incomplete") != "true":
                raise Refusal(422, "AsyncRequired", "this plan unbinds asynchronously")
            if binding not in self.state.leaving:
                self.state.leaving.append(binding)
                self.state.operations[binding] = 2
            return 202, {"operation": f"unbind-{binding}"}
        del self.state.bindings[binding]
        return 200, {}

    def _last_operation(self, binding: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if binding not in self.state.bindings:
            raise Refusal(404, description="no such binding")
        leaving = binding in self.state.leaving
        name = f"unbind-{binding}" if leaving else f"bind-{binding}{self.attempt}"
        if query.get("operation", [""])[0] in self.state.ended:
            return 200, {"state": "succeeded"}
        if query.get("operation") != [name]:
            raise Refusal(400, description="operation is not what was answered")
        if binding not in self.state.operations:
            raise Refusal(404, description="no such operation")
        self.state.operations[binding] = max(0, self.state.operations[binding] - 1)
        if self.state.operations[binding] > 0:
            return 200, {"state": "in progress"}
        if self.fails:
            del self.state.operations[binding]
            if leaving:
                self.state.leaving.remove(binding)
            else:
                del self.state.bindings[binding]
            return 200, {"state": "failed"}
        if leaving:
            self.state.leaving.remove(binding)
            del self.state.bindings[binding]
            del self.state.operations[binding]
        else:
            self.state.ended.append(name)
        return 200, {"state": "succeeded"}


def _port(endpoint: dict[str, Any]) -> str:
    """The first port of an endpoint, in OSB's form or in the proxies' own."""
    return str(endpoint["ports"][0] if "ports" in endpoint else endpoint["port"])


def _without(member: str) -> dict[str, Any]:
    """The catalog with services that lack a member."""
    return {"services": [{k: v for k, v in s.items() if k != member} for s in CATALOG["services"]]}


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _check(body: Any) -> None:
    if not isinstance(body, dict) or body.get("service_id") != SERVICE:
        raise Refusal(HTTPStatus.BAD_REQUEST, description="service_id is required")
    if body.get("plan_id") not in {PLAN, ASYNC_PLAN}:
        raise Refusal(HTTPStatus.BAD_REQUEST, description="plan_id is required")


if __name__ == "__main__":
    broker = ServiceBroker(int(sys.argv[1]), Path(sys.argv[2]))
    print(broker.url, flush=True)
    broker.server.serve_forever()
