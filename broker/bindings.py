"""Bind and unbind as they pass: what the upstream says, the route that follows from it, and the answer.

The order that keeps both sides whole: a bind is stored before the upstream hears of it, its route is made after the
upstream bound, and it is answered after the route is applied. An unbind takes the route away only after the upstream
unbound. Whatever is interrupted in between, the same call again ends in the same state.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus

from broker import documents
from broker.documents import Document, NotAnObjectError
from broker.errors import BadRequestError, BrokerError, BusyError, ConflictError, OsbError, UpstreamError
from broker.offers import Offers
from broker.progress import (
    ASYNC,
    BOUND_UPSTREAM,
    LEAVING,
    Change,
    Progress,
    about,
    asked_in_vain,
    bound,
    denies,
    gone,
    operation_of,
    state,
    state_of,
    to,
)
from broker.reconciler import ATTEMPTS, PATIENCE, Reconciler
from broker.records import Record, error_code, own_entry
from broker.settings import Settings
from broker.sides import Side
from broker.store import Binding, Locks, Phase, Store
from broker.store.models import MAX_ID, is_storable
from broker.upstream import Answer, Call, NotSentError, Upstream

PREDECESSOR = "predecessor_binding_id"
UNBOUND_UPSTREAM = {HTTPStatus.OK, HTTPStatus.GONE}
REMOVALS = {"unbind", "deprovision"}
REMOVED = {HTTPStatus.OK, HTTPStatus.ACCEPTED, HTTPStatus.GONE}


class Bindings:
    """The calls on bindings of one proxy that makes routes, and those on service instances that concern bindings."""

    def __init__(
        self,
        settings: Settings,
        side: Side,
        upstream: Upstream,
        *,
        store: Store,
        locks: Locks,
        reconciler: Reconciler,
        offers: Offers,
        progress: Progress,
    ) -> None:
        self._settings, self._side, self._upstream = settings, side, upstream
        self._store, self._locks, self._reconciler = store, locks, reconciler
        self._offers, self._progress = offers, progress

    def bind(self, call: Call, instance_id: str, binding_id: str, record: Record) -> Answer:
        """`PUT …/service_bindings/{id}`."""
        request = _request(call)
        _check_ids(instance_id, binding_id)
        consumer_id = self._side.consumer_of(request)
        onward = call.with_document(self._side.bind(request))
        with self._locks.call(binding_id):
            binding = self._stored(call, instance_id, binding_id, request, consumer_id)
            answered = self._asked(onward, binding, record)
            if answered.status == HTTPStatus.ACCEPTED:
                return self._accepted(call, binding, answered, record)
            if answered.status not in BOUND_UPSTREAM:
                self._not_bound(binding, answered, record)
                return answered
            with self._progress.undone_unless_bound(binding, self._undoing(record)):
                return self._routed(call, binding, answered, record)

    def unbind(self, call: Call, instance_id: str, binding_id: str, record: Record) -> Answer:
        """`DELETE …/service_bindings/{id}`. The route goes after the upstream's success, not before."""
        with self._locks.call(binding_id):
            binding = self._own(call, instance_id, binding_id)
            if binding is not None:
                binding = self._taken_up(binding)
            answered = self._upstream.send(call)
            if binding is None:
                return answered
            if answered.status == HTTPStatus.ACCEPTED:
                self._change(binding, _unbinding(answered, with_instance=False), record, answered.status)
            elif answered.status == HTTPStatus.GONE and self._progress.may_still_bind(binding):
                self._progress.watch(binding)
            elif answered.status in UNBOUND_UPSTREAM:
                return self._unbound(call, binding, answered, record)
            return answered

    def fetch(self, call: Call, instance_id: str, binding_id: str) -> Answer:
        """`GET …/service_bindings/{id}`. A binding whose route is not there yet is not there yet, nor is one that needs a
        route and has none: its credentials would name an address that the application cannot or must not reach."""
        binding = self._own(call, instance_id, binding_id)
        if binding is not None and binding.phase != Phase.BOUND:
            raise OsbError("the binding is not complete", status=HTTPStatus.NOT_FOUND)
        answered = self._upstream.send(call)
        if answered.status != HTTPStatus.OK:
            return answered
        document = answered.document()
        if binding is not None:
            return answered.with_document(self._side.complete(document, binding, call))
        if self._side.needs_route(document):
            raise OsbError(
                "the binding has no route here; unbind it and bind anew", status=HTTPStatus.NOT_FOUND
            )
        return self._unrouted(answered, instance_id, binding_id)

    def last_operation(self, call: Call, instance_id: str, binding_id: str) -> Answer:
        """`GET …/service_bindings/{id}/last_operation`: succeeded only when upstream and route both are."""
        if self._own(call, instance_id, binding_id) is None:
            return self._remembered(call, instance_id, binding_id)
        try:
            with self._locks.step(binding_id):
                binding = self._own(call, instance_id, binding_id)
                if binding is None:
                    return self._remembered(call, instance_id, binding_id)
                return self._progress.poll(call, binding)
        except BusyError:
            return state("in progress")

    def deprovision(self, call: Call, instance_id: str) -> Answer:
        """`DELETE /v2/service_instances/{id}`. Bindings that the instance still has go with it."""
        answered = self._upstream.send(call)
        if answered.status == HTTPStatus.ACCEPTED:
            change = _unbinding(answered, with_instance=True)
            self._each(
                call,
                instance_id,
                "deprovision",
                lambda binding, record: self._change(binding, change, record, answered.status),
            )
        elif answered.status in UNBOUND_UPSTREAM:
            for binding in self._each(call, instance_id, "deprovision", self._drop):
                self._removed(binding)
        return answered

    def instance_operation(self, call: Call, instance_id: str) -> Answer:
        """`GET /v2/service_instances/{id}/last_operation`. Deprovisioning has succeeded when the routes of the instance's
        bindings are gone too."""
        leaving = [b for b in self._store.of_instance(call.base, instance_id) if b.with_instance]
        if not leaving:
            return self._remembered(call, instance_id, "")
        answered = self._upstream.send(about(call, leaving[0]))
        try:
            match state_of(answered):
                case "gone" | "succeeded":
                    self._each(call, instance_id, "unbound", self._left)
                    return state("in progress")
                case "failed":
                    self._each(call, instance_id, "unbind-failed", self._still_bound)
        except BusyError:
            return state("in progress")
        return answered

    def _stored(
        self, call: Call, instance_id: str, binding_id: str, request: Document, consumer_id: str | None
    ) -> Binding:
        """The binding's row, before the upstream hears of it."""
        predecessor = self._predecessor(call, instance_id, request)
        if predecessor is not None and predecessor.consumer_id != consumer_id:
            raise ConflictError("the predecessor is a binding of another consumer")
        binding = self._store.get(binding_id)
        if binding is None:
            return self._store.add(
                Binding(
                    binding_id=binding_id,
                    instance_id=instance_id,
                    base=call.base,
                    service_id=_text(request, "service_id", predecessor.service_id if predecessor else ""),
                    plan_id=_text(request, "plan_id", predecessor.plan_id if predecessor else ""),
                    phase=Phase.REQUESTED,
                    consumer_id=consumer_id,
                    place=self._side.place(request, predecessor),
                    shard=self._store.shard_for(binding_id, self._settings.shards, self._settings.shard_size),
                )
            )
        if binding.phase in LEAVING:
            raise BusyError("the binding is being removed; try again when it is gone")
        if (binding.instance_id, binding.base) != (instance_id, call.base):
            raise ConflictError("a binding of this id exists for another service instance")
        if binding.consumer_id != consumer_id:
            raise ConflictError("the binding exists for another consumer")
        if binding.place != self._side.place(request, predecessor):
            raise ConflictError("the binding exists for another namespace")
        if binding.phase == Phase.WATCHED:
            return self._store.change(binding, to(Phase.REQUESTED))
        return self._taken_up(binding)

    def _taken_up(self, binding: Binding) -> Binding:
        """The row of a call before this one. Where that died before it heard the upstream, the upstream may still bind."""
        return self._store.change(binding, asked_in_vain) if binding.phase == Phase.REQUESTED else binding

    def _predecessor(self, call: Call, instance_id: str, request: Document) -> Binding | None:
        """The binding that this one rotates, where it is known here (OSB "Binding Rotation")."""
        if PREDECESSOR not in request:
            return None
        return self._own(call, instance_id, _text(request, PREDECESSOR))

    def _own(self, call: Call, instance_id: str, binding_id: str) -> Binding | None:
        """The row of the binding that this path means."""
        binding = self._store.get(binding_id) if len(binding_id) <= MAX_ID else None
        if binding is None or (binding.instance_id, binding.base) != (instance_id, call.base):
            return None
        return binding

    def _asked(self, call: Call, binding: Binding, record: Record) -> Answer:
        """The upstream's answer to a bind. Raises UpstreamError."""
        try:
            return self._upstream.send(call)
        except UpstreamError as error:
            if binding.phase == Phase.REQUESTED:
                audit = record.entry(error.status, error.code)
                if not isinstance(error, NotSentError):
                    self._progress.undo(binding, audit=audit, unanswered=True)
                elif self._progress.may_still_bind(binding):
                    self._progress.undo(binding, audit=audit)
                else:
                    self._store.remove(binding, PATIENCE, audit=audit)
                record.written = error.status
            raise

    def _not_bound(self, binding: Binding, answered: Answer, record: Record) -> None:
        """A bind came to nothing upstream: for sure, or perhaps. A binding that was there before stays as it is."""
        if binding.phase != Phase.REQUESTED:
            return
        audit = record.entry(answered.status, error_code(answered))
        if _is_refusal(answered.status) and not self._progress.may_still_bind(binding):
            self._store.remove(binding, PATIENCE, audit=audit)
        else:
            self._progress.undo(binding, audit=audit)
        record.written = answered.status

    def _accepted(self, call: Call, binding: Binding, answered: Answer, record: Record) -> Answer:
        if not _accepts_incomplete(call):
            with self._progress.undone_unless_bound(binding, self._undoing(record)):
                raise UpstreamError("the upstream answered asynchronously, which the request did not allow")
        if binding.phase in {Phase.REQUESTED, Phase.PENDING}:

            def change(found: Binding) -> None:
                found.phase, found.operation, found.unanswered_at = (
                    Phase.PENDING,
                    operation_of(answered),
                    None,
                )

            self._change(binding, change, record, answered.status)
        return answered

    def _routed(self, call: Call, binding: Binding, answered: Answer, record: Record) -> Answer:
        """Makes the route, waits for it where the platform does, and completes the answer."""
        document = answered.document()
        route = self._side.route(document, binding)
        if route is None:
            if binding.wanted:
                raise BrokerError(
                    "the upstream's answer to a repeated bind has no endpoints, its first one had"
                )
            self._store.remove(binding, PATIENCE, audit=record.entry(answered.status))
            record.written = answered.status
            return self._unrouted(answered, binding.instance_id, binding.binding_id)
        if (
            binding.phase != Phase.BOUND
            and _accepts_incomplete(call)
            and self._offers.retrievable(call, binding.service_id)
        ):
            self._progress.want(binding, route, audit=record.entry(HTTPStatus.ACCEPTED))
            record.written = HTTPStatus.ACCEPTED
            return _later(answered, binding.operation)
        binding = self._progress.want(binding, route)
        self._applied(binding)
        binding = self._store.get(binding.binding_id) or binding
        document = self._side.complete(document, binding, call)
        self._change(binding, bound, record, answered.status)
        return answered.with_document(document)

    def _unrouted(self, answered: Answer, instance_id: str, binding_id: str) -> Answer:
        """A binding without endpoints, or of a foreign network, passes as it is; the provider says that there are none."""
        if self._settings.role == "consumer":
            return answered
        without = Binding(binding_id=binding_id, instance_id=instance_id, base="")
        return answered.with_document(self._side.complete(answered.document(), without, Call("GET", "", "")))

    def _applied(self, binding: Binding) -> None:
        """Waits until the route of this generation is in the cluster. Raises BrokerError with the reason."""

        def done() -> bool:
            found = self._store.get(binding.binding_id)
            if found is None or found.generation != binding.generation:
                raise BusyError("the binding was changed meanwhile")
            if found.applied < found.generation and found.attempts >= ATTEMPTS:
                raise BrokerError(f"the route cannot be made: {found.error}")
            return found.applied >= found.generation

        if not self._reconciler.wait(done, self._settings.deploy_timeout):
            found = self._store.get(binding.binding_id)
            reason = (found.error if found is not None else None) or "no update has ended yet"
            raise BrokerError(f"the route is not there after {self._settings.deploy_timeout} s: {reason}")

    def _unbound(self, call: Call, binding: Binding, answered: Answer, record: Record) -> Answer:
        """The upstream has unbound: the route goes, now or while the platform polls."""
        later = binding.route is not None and _accepts_incomplete(call)
        dropped = self._drop(binding, record, HTTPStatus.ACCEPTED if later else answered.status)
        if later:
            self._store.audit(own_entry(binding, "unbound", answered.status), PATIENCE)
            return _later(answered, dropped.operation)
        self._removed(binding)
        return answered

    def _drop(self, binding: Binding, record: Record, status: int = HTTPStatus.OK) -> Binding:
        dropped = self._progress.drop(binding, audit=record.entry(status))
        record.written = status
        return dropped

    def _left(self, binding: Binding, record: Record) -> None:
        """The instance is gone upstream."""
        if binding.phase == Phase.UNBINDING:
            self._drop(binding, record)

    def _still_bound(self, binding: Binding, record: Record) -> None:
        """The instance stays."""
        del record
        if binding.phase == Phase.UNBINDING and binding.with_instance:
            self._progress.still_bound(binding)

    def _undoing(self, record: Record) -> Callable[[Binding, OsbError], None]:
        """Undoes a binding, with the record of its call."""

        def undo(binding: Binding, error: OsbError) -> None:
            self._progress.undo(binding, audit=record.entry(error.status, error.code))
            record.written = error.status

        return undo

    def _removed(self, binding: Binding) -> None:
        """Waits until nothing is left of the binding. Raises BrokerError."""
        if not self._reconciler.wait(
            lambda: self._store.get(binding.binding_id) is None, self._settings.deploy_timeout
        ):
            found = self._store.get(binding.binding_id)
            reason = f": {found.error}" if found is not None and found.error else ""
            raise BrokerError(f"unbound, but the route is still being removed{reason}; repeat the call")

    def _each(
        self, call: Call, instance_id: str, action: str, work: Callable[[Binding, Record], object]
    ) -> list[Binding]:
        """Does it with every binding of an instance, each locked. Raises BusyError after the others where a call works on
        one."""
        busy: BusyError | None = None
        found = self._store.of_instance(call.base, instance_id)
        for stored in found:
            try:
                with self._locks.call(stored.binding_id):
                    binding = self._store.get(stored.binding_id)
                    if binding is not None:
                        work(binding, Record(call, action, instance_id, binding.binding_id))
            except BusyError as error:
                busy = error
        if busy is not None:
            raise busy
        return found

    def _remembered(self, call: Call, instance_id: str, binding_id: str) -> Answer:
        """The answer to `last_operation` of what is not stored: a platform that still polls shall hear the end. Of what the
        proxy ended itself the last record tells; of the rest the upstream, and that record where it has forgotten too."""
        last = self._store.last_audited(instance_id, binding_id)
        if last is not None and last.action == "unbound":
            return gone()
        if last is not None and last.action in {"undone", "bind-failed"}:
            return state("failed")
        answered = self._upstream.send(call)
        if denies(answered) and last is not None and last.action in REMOVALS and last.status in REMOVED:
            return gone()
        return answered

    def _change(self, binding: Binding, change: Change, record: Record, status: int) -> None:
        """Writes a change that ends the call, with its audit record."""
        self._store.change(binding, change, PATIENCE, audit=record.entry(status))
        record.written = status


def _unbinding(answered: Answer, *, with_instance: bool) -> Change:
    def change(found: Binding) -> None:
        if found.phase != Phase.REMOVING:
            found.phase, found.operation = Phase.UNBINDING, operation_of(answered)
            found.with_instance = with_instance

    return change


def _later(answered: Answer, operation: str | None) -> Answer:
    """The answer in place of this one while the route is under way: nothing of the binding, but the name of its operation,
    where one was answered before."""
    body = documents.dump({} if operation is None else {"operation": operation})
    return replace(answered, status=HTTPStatus.ACCEPTED, body=body)


def _request(call: Call) -> Document:
    try:
        return call.document()
    except NotAnObjectError as error:
        raise BadRequestError(f"the body {error}", "MalformedRequest") from None


def _text(request: Document, key: str, otherwise: str = "") -> str:
    """A text of the request. otherwise: what holds where the request rotates a binding and does not repeat it."""
    found = request.get(key)
    if found is None and PREDECESSOR in request and key != PREDECESSOR:
        return otherwise
    if not isinstance(found, str) or not found or not is_storable(found):
        raise BadRequestError(
            f"{key}: is required, a text that is neither empty nor holds NUL or lone surrogates",
            "MalformedRequest",
        )
    return found


def _check_ids(*ids: str) -> None:
    for given in ids:
        if not given or len(given) > MAX_ID or not given.isprintable():
            raise BadRequestError(
                f"an id has 1 to {MAX_ID} printable characters; use a GUID", "MalformedRequest"
            )


def _accepts_incomplete(call: Call) -> bool:
    return urllib.parse.parse_qs(call.query).get(ASYNC) == ["true"]


def _is_refusal(status: int) -> bool:
    """Whether the upstream refused for good: after a timeout or a fault of its own it may have bound all the same."""
    return 400 <= status < 500 and status != HTTPStatus.REQUEST_TIMEOUT
