"""How a binding goes on after its call: what the upstream has finished, what is routed, what is to be undone.

The platform's polls bring it forward, and so do the reconciler's chores: nothing depends on the platform asking again.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Literal
from urllib.parse import parse_qs, urlencode

import structlog

from broker import metrics, osb
from broker.documents import Json
from broker.errors import (
    BrokerError,
    BusyError,
    CredentialsError,
    OsbError,
    UnavailableError,
    UpstreamError,
)
from broker.reconciler import ATTEMPTS, LONGEST_PAUSE, PATIENCE, Reconciler
from broker.records import own_entry
from broker.settings import Settings
from broker.sides import Side
from broker.store import Audit, Binding, ConsumerRoute, Locks, Phase, ProviderRoute, Store
from broker.store.models import is_storable
from broker.upstream import Answer, Call, Upstream, answer

ASYNC = "accepts_incomplete"
MAX_OPERATION = 10_000
"""Longest name of an operation (OSB "Binding", `operation`)."""
RETRY_AFTER = "Retry-After"
STEPS = 8
"""Bindings that are brought forward at a time: an upstream that does not answer for one holds up few others."""
FIRST_PAUSE = 0.5
"""Seconds between the first two attempts at what the upstream has to do; it doubles up to LONGEST_PAUSE."""
DENIED_SECONDS = 300.0
"""How long an upstream may not know a binding that it is making, or not hand it out."""
LEAVING = {Phase.UNBINDING, Phase.UNDOING, Phase.REMOVING}
UNFINISHED = (
    Phase.REQUESTED,
    Phase.PENDING,
    Phase.ROUTING,
    Phase.UNBINDING,
    Phase.UNDOING,
    Phase.WATCHED,
)
BOUND_UPSTREAM = {HTTPStatus.OK, HTTPStatus.CREATED}

Change = Callable[[Binding], None]

log = structlog.get_logger(__name__)


class Progress:
    """What brings the bindings of one proxy forward. Whoever calls it with a binding holds the binding's lock."""

    def __init__(
        self,
        settings: Settings,
        side: Side,
        upstream: Upstream,
        *,
        store: Store,
        locks: Locks,
        reconciler: Reconciler,
    ) -> None:
        self._settings, self._side, self._upstream = settings, side, upstream
        self._store, self._locks, self._reconciler = store, locks, reconciler
        self._pauses: dict[tuple[str, str], _Pause] = {}
        """By binding and phase."""
        self._pool = ThreadPoolExecutor(STEPS, "step")
        self._steps: dict[str, Future[None]] = {}
        """By binding, the step that is under way."""

    def close(self) -> None:
        """Ends when the steps that are under way have; for when the reconciler has stopped."""
        self._pool.shutdown(cancel_futures=True)

    def poll(self, call: Call, binding: Binding) -> Answer:
        """The answer to `last_operation` of a binding that is stored."""
        match Phase(binding.phase):
            case Phase.PENDING | Phase.UNBINDING:
                return self._upstream_progress(call, binding)
            case Phase.ROUTING:
                return self._route_progress(call, binding)
            case Phase.BOUND:
                last = self._store.last_audited(binding.instance_id, binding.binding_id)
                failed = last is not None and last.action == "unbind-failed"
                return state("failed" if failed else "succeeded")
            case Phase.UNDOING | Phase.WATCHED:
                return state("failed")
            case Phase.REQUESTED | Phase.REMOVING:
                return state("in progress")

    def resume(self) -> Collection[Future[None]]:
        """Begins the next step of everything unfinished whose shard is this replica's, until the reconciler stops; for the
        reconciler. All steps that are under way."""
        found = self._store.in_phase(*UNFINISHED)
        here = {(binding.binding_id, binding.phase) for binding in found}
        self._pauses = {key: pause for key, pause in self._pauses.items() if key in here}
        self._steps = {binding_id: step for binding_id, step in self._steps.items() if not step.done()}
        for binding in found:
            if self._reconciler.stopping:
                break
            under_way = binding.binding_id in self._steps
            if not under_way and self._is_due(binding) and self._locks.own(binding.shard):
                self._steps[binding.binding_id] = self._pool.submit(self._step, binding)
        return self._steps.values()

    def _step(self, binding: Binding) -> None:
        try:
            with self._locks.step(binding.binding_id):
                self._resume(binding)
        except BusyError:
            return
        except OsbError as error:
            log.warning("not_done_yet", binding_id=binding.binding_id, reason=error.description)
        except Exception:  # one binding must not hold up the others
            log.exception("not_done_yet", binding_id=binding.binding_id)

    def want(
        self,
        binding: Binding,
        route: ConsumerRoute | ProviderRoute,
        *,
        audit: Audit | None = None,
    ) -> Binding:
        """Wants this route for a binding that the upstream has bound."""

        def change(found: Binding) -> None:
            found.want(route)
            if found.phase != Phase.BOUND:
                found.phase, found.unanswered_at = Phase.ROUTING, None

        changed = self._store.change(binding, change, PATIENCE, audit=audit)
        self._reconciler.wake()
        return changed

    def drop(self, binding: Binding, *, audit: Audit) -> Binding:
        """The upstream has unbound: the route is no longer wanted; the row goes with it."""

        def change(found: Binding) -> None:
            if found.phase not in {Phase.UNBINDING, Phase.REMOVING} or found.with_instance:
                found.operation = None
            found.drop()
            found.phase = Phase.REMOVING

        if binding.route is None:
            self._store.remove(binding, PATIENCE, audit=audit)
            return binding
        changed = self._store.change(binding, change, PATIENCE, audit=audit)
        self._reconciler.wake()
        return changed

    def undo(self, binding: Binding, *, audit: Audit, unanswered: bool = False) -> None:
        """Begins to unbind upstream what failed. unanswered: the upstream did not say whether it bound. A binding without a
        route that was answered before stays: only its repetition failed."""
        if binding.phase == Phase.REQUESTED and binding.route is None and self._was_answered(binding):
            self._store.remove(binding, PATIENCE, audit=audit)
            return

        def change(found: Binding) -> None:
            found.phase = Phase.UNDOING
            if unanswered:
                asked_in_vain(found)

        self._store.change(binding, change, PATIENCE, audit=audit)
        self._reconciler.wake()

    def _was_answered(self, binding: Binding) -> bool:
        """Whether the last that is known of a binding is that it was bound."""
        last = self._store.last_audited(binding.instance_id, binding.binding_id)
        return last is not None and last.action in {"bind", "bound"} and last.status in BOUND_UPSTREAM

    @contextmanager
    def undone_unless_bound(
        self, binding: Binding, undo: Callable[[Binding, OsbError], None]
    ) -> Iterator[None]:
        """What follows the upstream's success. When it fails, a binding that nobody has credentials of yet is undone;
        one that was answered before stays as it is."""
        try:
            yield
        except OsbError as error:
            told = error
            if not isinstance(error, UnavailableError | UpstreamError | BusyError | CredentialsError):
                told = BrokerError(error.description, error.code)
            current = self._store.get(binding.binding_id)
            if current is not None and current.phase not in {Phase.BOUND, *LEAVING}:
                undo(current, told)
            raise told from error

    def may_still_bind(self, binding: Binding) -> bool:
        """Whether the upstream may still be at work on a bind that it never answered: its denial proves nothing then."""
        return _age(binding.unanswered_at) < self._settings.upstream_timeout

    def watch(self, binding: Binding) -> None:
        """The upstream denies a binding that it may still be making."""
        if binding.phase != Phase.WATCHED:
            self._store.change(binding, to(Phase.WATCHED), PATIENCE)

    def _is_due(self, binding: Binding) -> bool:
        if binding.phase == Phase.ROUTING and not (_is_routed(binding) or _is_given_up(binding)):
            return False
        if binding.phase == Phase.REQUESTED:
            return _age(binding.updated_at) > self._settings.upstream_timeout
        key = (binding.binding_id, binding.phase)
        pause = self._pauses.get(key)
        if pause is not None and time.monotonic() < pause.until:
            return False
        seconds = FIRST_PAUSE if pause is None else min(pause.seconds * 2, LONGEST_PAUSE)
        self._pauses[key] = _Pause(time.monotonic() + seconds, seconds)
        return True

    def _resume(self, found: Binding) -> None:
        """One step of a binding whose lock is held now."""
        binding = self._store.get(found.binding_id)
        if binding is None or binding.phase != found.phase:
            return
        match Phase(binding.phase):
            case Phase.UNDOING | Phase.WATCHED:
                self._undo(binding)
            case Phase.REQUESTED:
                # The replica that asked the upstream is no more, and nobody will ever hear its answer.
                audit = own_entry(binding, "bind-failed", HTTPStatus.BAD_GATEWAY, UpstreamError.default_code)
                self.undo(binding, audit=audit, unanswered=True)
            case Phase.PENDING | Phase.UNBINDING | Phase.ROUTING:
                call = _operation_call(binding, binding.operation, with_instance=binding.with_instance)
                answered = self.poll(call, binding)
                self._respect(binding, answered)
            case _:
                return

    def _respect(self, binding: Binding, answered: Answer) -> None:
        """Asks no earlier than the upstream wants to be asked again."""
        after = answered.header(RETRY_AFTER) or ""
        key = (binding.binding_id, binding.phase)
        pause = self._pauses.get(key)
        if pause is not None and after.isascii() and after.isdigit():
            until = max(pause.until, time.monotonic() + min(int(after), DENIED_SECONDS))
            self._pauses[key] = replace(pause, until=until)

    def _upstream_progress(self, call: Call, binding: Binding) -> Answer:
        answered = self._upstream.send(about(call, binding))
        found = state_of(answered)
        if binding.phase == Phase.UNBINDING:
            if found in {"gone", "succeeded"}:
                self.drop(binding, audit=own_entry(binding, "unbound"))
                if binding.route is not None:
                    return state("in progress")
                return answered if found == "succeeded" else gone()
            if found == "failed":
                self.still_bound(binding)
            return answered
        if found == "gone":
            return self._denied(binding)
        if found == "failed":
            audit = own_entry(binding, "bind-failed", HTTPStatus.BAD_GATEWAY, UpstreamError.default_code)
            self._store.remove(binding, PATIENCE, audit=audit)
        elif found == "succeeded":
            return self._bound_upstream(call, binding)
        return answered

    def still_bound(self, binding: Binding) -> None:
        """An asynchronous unbind failed upstream. What nobody ever had credentials of is undone all the same."""

        def change(found: Binding) -> None:
            found.phase = Phase.BOUND if found.wanted and found.applied else Phase.UNDOING
            found.operation, found.with_instance = None, False

        audit = own_entry(binding, "unbind-failed", HTTPStatus.BAD_GATEWAY, UpstreamError.default_code)
        self._store.change(binding, change, PATIENCE, audit=audit)

    def _denied(self, binding: Binding) -> Answer:
        """The upstream does not know a binding that it said it was making, which decides nothing at first (OSB "Polling
        Last Operation for Service Bindings", 410)."""
        if _age(binding.updated_at) < DENIED_SECONDS:
            return state("in progress")
        return self._failed(binding, UpstreamError("the upstream does not know the binding any more"))

    def _failed(self, binding: Binding, error: OsbError) -> Answer:
        self._undo_failed(binding, error)
        return state("failed", error.description)

    def _undo_failed(self, binding: Binding, error: OsbError) -> None:
        self.undo(binding, audit=own_entry(binding, "bind-failed", error.status, error.code))

    def _bound_upstream(self, call: Call, binding: Binding) -> Answer:
        """An asynchronous bind succeeded upstream: its endpoints are read and its route is begun."""
        fetched = self._upstream.send(self._fetch_call(call, binding))
        if fetched.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return state("in progress")
        with self.undone_unless_bound(binding, self._undo_failed):
            if fetched.status != HTTPStatus.OK:
                raise UpstreamError(
                    f"the upstream's binding cannot be read (it answers {fetched.status}): an asynchronous bind needs "
                    "`bindings_retrievable`"
                )
            route = self._side.route(fetched.document(), binding)
        if route is None:
            self._store.remove(binding, PATIENCE, audit=own_entry(binding, "bound"))
            return state("succeeded")
        self.want(binding, route)
        return state("in progress")

    def _route_progress(self, call: Call, binding: Binding) -> Answer:
        if _is_given_up(binding):
            return self._failed(binding, BrokerError(f"the route cannot be made: {binding.error}"))
        if not _is_routed(binding):
            return state("in progress")
        try:
            self._try(call, binding)
        except UpstreamError as error:
            if _age(binding.updated_at) < DENIED_SECONDS:
                return state("in progress")
            return self._failed(binding, error)
        except (CredentialsError, BrokerError) as error:
            return self._failed(binding, error)
        self._store.change(binding, bound, PATIENCE, audit=own_entry(binding, "bound"))
        return state("succeeded")

    def _try(self, call: Call, binding: Binding) -> None:
        """Whether the binding can be handed out when it is fetched, where the upstream offers that. Raises OsbError."""
        fetched = self._upstream.send(self._fetch_call(call, binding))
        if fetched.status == HTTPStatus.OK:
            self._side.complete(fetched.document(), binding, call)
        elif fetched.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise UpstreamError(f"the upstream's binding cannot be read (it answers {fetched.status})")

    def _undo(self, binding: Binding) -> None:
        call = _own_call(binding, "DELETE", _path(binding), **{ASYNC: "true"})
        try:
            answered = self._upstream.send(call)
        except UpstreamError:
            if binding.phase == Phase.WATCHED:
                self._store.change(binding, to(Phase.UNDOING), PATIENCE)
            raise
        if denies(answered) and self.may_still_bind(binding):
            self.watch(binding)
            return
        if not self._is_undone(binding, answered):
            log.info("not_undone_yet", binding_id=binding.binding_id, status=answered.status)
            return
        self.drop(binding, audit=own_entry(binding, "undone", answered.status))
        metrics.undone.inc()
        log.info("undone", binding_id=binding.binding_id)

    def _is_undone(self, binding: Binding, answered: Answer) -> bool:
        """Whether the upstream's answer to an unbind, or what it says of the operation that it began, is the end."""
        if answered.status != HTTPStatus.ACCEPTED:
            return answered.status == HTTPStatus.OK or denies(answered)
        polled = self._upstream.send(_operation_call(binding, operation_of(answered), with_instance=False))
        return state_of(polled) in {"gone", "succeeded"}

    def _fetch_call(self, call: Call, binding: Binding) -> Call:
        query = urlencode(_ids(binding))
        return replace(call, method="GET", path=_path(binding), query=query, body=b"")


@dataclass(frozen=True)
class _Pause:
    """When something is tried next (monotonic), and the pause that led there in seconds."""

    until: float
    seconds: float


def to(phase: Phase) -> Change:
    """The change to a phase."""

    def change(binding: Binding) -> None:
        binding.phase = phase

    return change


def asked_in_vain(binding: Binding) -> None:
    """The change to a binding that the upstream was asked for and did not answer."""
    binding.unanswered_at = datetime.now(UTC)


def bound(binding: Binding) -> None:
    """The change to a binding that is answered as succeeded: nothing of it is under way."""
    binding.phase, binding.operation = Phase.BOUND, None


def state(now: osb.State, description: str | None = None) -> Answer:
    """An answer to `last_operation`."""
    body: dict[str, Json] = {"state": now}
    if description is not None:
        body["description"] = description
    given = answer(body)
    return replace(given, headers=[*given.headers, (RETRY_AFTER, "1")]) if now == "in progress" else given


def gone() -> Answer:
    """The answer to `last_operation` after an unbind or deprovision that ended."""
    return answer({}, HTTPStatus.GONE)


def denies(answered: Answer) -> bool:
    """Whether the upstream says that it does not know what it was asked for. A broker's 404 is a JSON object (OSB "Service
    Broker Errors"); any other is that of a router which does not find the broker."""
    if answered.status != HTTPStatus.NOT_FOUND:
        return answered.status == HTTPStatus.GONE
    try:
        answered.document()
    except UpstreamError:
        return False
    return True


def state_of(answered: Answer) -> osb.State | Literal["gone"] | None:
    """What the upstream's answer to `last_operation` says; None where it decides nothing. Raises UpstreamError."""
    if denies(answered):
        return "gone"
    if answered.status != HTTPStatus.OK:
        return None
    match answered.document().get("state"):
        case "in progress":
            return "in progress"
        case "succeeded":
            return "succeeded"
        case "failed":
            return "failed"
        case _:
            return None


def operation_of(answered: Answer) -> str | None:
    """The name of the operation that a 202 begins."""
    try:
        found = answered.document().get("operation")
    except UpstreamError:
        return None
    return found if isinstance(found, str) and len(found) <= MAX_OPERATION and is_storable(found) else None


def _operation_call(binding: Binding, name: str | None, *, with_instance: bool) -> Call:
    of = osb.instance_path(binding.instance_id) if with_instance else _path(binding)
    operation = {} if name is None else {"operation": name}
    return _own_call(binding, "GET", f"{of}/last_operation", **operation)


def about(call: Call, binding: Binding) -> Call:
    """The call where it asks for the operation that the binding waits for; else that question in its place: the end of
    another operation is not the end of this one."""
    asked = parse_qs(call.query).get("operation", [None])
    own = _operation_call(binding, binding.operation, with_instance=binding.with_instance)
    if (call.path, asked) == (own.path, [binding.operation]):
        return call
    return replace(call, path=own.path, query=own.query)


def _own_call(binding: Binding, method: str, path: str, **query: str) -> Call:
    request_id = str(uuid.uuid4())
    return Call(
        method=method,
        base=binding.base,
        path=path,
        query=urlencode({**_ids(binding), **query}),
        headers=[(osb.API_VERSION, osb.SPOKEN), (osb.REQUEST_IDENTITY, request_id)],
        request_id=request_id,
    )


def _path(binding: Binding) -> str:
    return osb.binding_path(binding.instance_id, binding.binding_id)


def _ids(binding: Binding) -> dict[str, str]:
    ids = {"service_id": binding.service_id, "plan_id": binding.plan_id}
    return {key: value for key, value in ids.items() if value}


def _age(moment: datetime | None) -> float:
    """Seconds since then."""
    return float("inf") if moment is None else (datetime.now(UTC) - moment).total_seconds()


def _is_routed(binding: Binding) -> bool:
    return binding.applied >= binding.generation


def _is_given_up(binding: Binding) -> bool:
    return not _is_routed(binding) and binding.attempts >= ATTEMPTS
