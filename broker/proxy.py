"""One proxy, whole: which call goes to whom, and what is written down about it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from http import HTTPStatus

import httpx
import structlog

from broker import adaption, documents
from broker.bindings import Bindings
from broker.documents import NotAnObjectError
from broker.engine import Deployer, Engine
from broker.errors import BadRequestError, OsbError, UnavailableError
from broker.offers import Offers
from broker.probe import probe_of
from broker.progress import Progress
from broker.reconciler import Reconciler
from broker.records import Record, error_code
from broker.settings import Settings
from broker.sides import Side, side_of
from broker.store import Audit, Locks, Store, open_locks
from broker.upstream import Answer, Call, Upstream, answer

MAX_UNWRITTEN = 10_000
"""Audit records that are kept while the database is away."""

log = structlog.get_logger(__name__)


class Proxy:
    """The proxy of one role. `start` it before it is called, `stop` it at the end."""

    def __init__(
        self,
        settings: Settings,
        *,
        deployer: Deployer | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """deployer, transport: in place of Pulumi and of the network, for tests.

        Brings the database up to date. Raises DatabaseInUseError, EngineError, UnavailableError, VersionError.
        """
        self._settings = settings
        self._upstream = Upstream(settings, transport)
        self._side = side_of(settings, self._upstream)
        self.store: Store | None = None
        self._offers = Offers(self._upstream)
        self._bindings: Bindings | None = None
        self._progress: Progress | None = None
        self._unwritten: deque[Audit] = deque(maxlen=MAX_UNWRITTEN)
        self._reconciler: Reconciler | None = None
        self._locks: Locks | None = None
        self._deployer: Deployer | None = None
        if self._side is not None:
            self._prepare(self._side, deployer)

    def _prepare(self, side: Side, deployer: Deployer | None) -> None:
        settings = self._settings
        self.store = Store(settings.database)
        self._locks = open_locks(self.store, settings.stack)
        self.store.migrate()
        self._deployer = deployer if deployer is not None else Engine(settings)
        self._reconciler = Reconciler(
            self.store, self._locks, self._deployer, self._chores, probe_of(settings)
        )
        self._progress = Progress(
            settings, side, self._upstream, store=self.store, locks=self._locks, reconciler=self._reconciler
        )
        self._bindings = Bindings(
            settings,
            side,
            self._upstream,
            store=self.store,
            locks=self._locks,
            reconciler=self._reconciler,
            offers=self._offers,
            progress=self._progress,
        )

    def start(self) -> None:
        """Begins to reconcile."""
        if self._reconciler is not None:
            self._reconciler.start()

    def stop(self) -> None:
        """Ends what runs; what is left undone is in the database."""
        if self._reconciler is not None:
            self._reconciler.stop()
        if self._progress is not None:
            self._progress.close()
        self._write_records()
        if self._deployer is not None:
            self._deployer.close()
        if self._locks is not None:
            self._locks.close()
        if self.store is not None:
            self.store.close()
        self._upstream.close()

    @property
    def alive(self) -> bool:
        """Whether what works in the background does, or was told to stop."""
        return self._reconciler is None or self._reconciler.alive

    def check(self) -> None:
        """Whether the proxy can work. Raises UnavailableError."""
        if self.store is None or self._reconciler is None:
            return
        self.store.ping()
        if self._reconciler.stopping or not self._reconciler.alive:
            raise UnavailableError("this replica is stopping, or has to be started again")

    def forward(self, call: Call) -> Answer:
        """Everything that is nobody's business."""
        return _or_error(lambda: self._upstream.send(call))

    def catalog(self, call: Call) -> Answer:
        """`GET /v2/catalog`."""
        return _or_error(lambda: self._catalog(call))

    def provision(self, call: Call) -> Answer:
        """`PUT /v2/service_instances/{id}`."""
        return _or_error(lambda: self._provision(call))

    def bind(self, call: Call, instance_id: str, binding_id: str) -> Answer:
        """`PUT …/service_bindings/{id}`."""
        if self._bindings is None:
            return self.forward(call)
        bind = self._bindings.bind
        record = Record(call, "bind", instance_id, binding_id)
        return self._audited(record, lambda: bind(call, instance_id, binding_id, record))

    def unbind(self, call: Call, instance_id: str, binding_id: str) -> Answer:
        """`DELETE …/service_bindings/{id}`."""
        if self._bindings is None:
            return self.forward(call)
        unbind = self._bindings.unbind
        record = Record(call, "unbind", instance_id, binding_id)
        return self._audited(record, lambda: unbind(call, instance_id, binding_id, record))

    def deprovision(self, call: Call, instance_id: str) -> Answer:
        """`DELETE /v2/service_instances/{id}`."""
        if self._bindings is None:
            return self.forward(call)
        deprovision = self._bindings.deprovision
        record = Record(call, "deprovision", instance_id)
        return self._audited(record, lambda: deprovision(call, instance_id))

    def instance_operation(self, call: Call, instance_id: str) -> Answer:
        """`GET /v2/service_instances/{id}/last_operation`."""
        if self._bindings is None:
            return self.forward(call)
        instance_operation = self._bindings.instance_operation
        return _or_error(lambda: instance_operation(call, instance_id))

    def fetch(self, call: Call, instance_id: str, binding_id: str) -> Answer:
        """`GET …/service_bindings/{id}`."""
        if self._bindings is None:
            return self.forward(call)
        fetch = self._bindings.fetch
        return _or_error(lambda: fetch(call, instance_id, binding_id))

    def last_operation(self, call: Call, instance_id: str, binding_id: str) -> Answer:
        """`GET …/service_bindings/{id}/last_operation`."""
        if self._bindings is None:
            return self.forward(call)
        last_operation = self._bindings.last_operation
        return _or_error(lambda: last_operation(call, instance_id, binding_id))

    def adapt(self, call: Call) -> Answer:
        """`POST …/adapt_credentials`."""
        if self._side is None:
            return self.forward(call)
        return _or_error(lambda: self._adapt(call))

    def _catalog(self, call: Call) -> Answer:
        answered = self._upstream.send(call)
        if self._side is None or answered.status != HTTPStatus.OK:
            return answered
        self._offers.learn(call, answered)
        return answered.with_document(self._side.catalog(answered.document()))

    def _provision(self, call: Call) -> Answer:
        if self._side is None:
            return self._upstream.send(call)
        request = _document(call)
        answered = self._upstream.send(call.with_document(self._side.provision(request)))
        if answered.status not in {HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED}:
            return answered
        return answered.with_document(self._side.provisioned(answered.document()))

    def _adapt(self, call: Call) -> Answer:
        return answer(adaption.adapt(_document(call), self._settings.refuse))

    def _audited(self, record: Record, work: Callable[[], Answer]) -> Answer:
        """Does it; a call that wrote no record of this end with what it changed gets one now."""
        given = _or_error(work)
        entry = record.entry(given.status, error_code(given))
        log.info(
            entry.action,
            instance_id=entry.instance_id,
            binding_id=entry.binding_id,
            status=entry.status,
            error=entry.error,
        )
        if record.written != given.status:
            self._unwritten.append(entry)
            self._write_records()
        return given

    def _write_records(self) -> None:
        """Writes the records that wait for the database. A record is lost only with the process, and is in the log then."""
        while self.store is not None and self._unwritten:
            try:
                entry = self._unwritten.popleft()
            except IndexError:
                return
            try:
                self.store.audit(entry)
            except UnavailableError as error:
                self._unwritten.appendleft(entry)
                log.warning("audit_record_waits", action=entry.action, reason=str(error))
                return

    def _chores(self) -> None:
        self._write_records()
        if self._progress is not None:
            self._progress.resume()


def _or_error(work: Callable[[], Answer]) -> Answer:
    try:
        return work()
    except OsbError as error:
        log.warning("refused", status=int(error.status), error=error.code, description=error.description)
        return answer(dict(error.body()), error.status)


def _document(call: Call) -> documents.Document:
    try:
        return call.document()
    except NotAnObjectError as error:
        raise BadRequestError(f"the body {error}", "MalformedRequest") from None
