"""What is stored, what is deployed, what the upstream says: compared, and repaired."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus

from broker import catalog, network, osb
from broker.engine import Engine
from broker.errors import OsbError
from broker.progress import denies
from broker.reconciler import Reconciler, wanted_of
from broker.settings import Settings
from broker.store import Binding, Locks, Phase, Store
from broker.store.models import addresses
from broker.update import EngineError
from broker.upstream import Answer, Call, Upstream

RECONCILE = "run `python -m broker reconcile`"
SEE_TO_UPSTREAM = "see to the upstream"
LET_SERVE = f"let a broker serve, or {RECONCILE}"
UNFINISHED = {
    Phase.REQUESTED: (
        "the upstream was asked to bind and its answer is not known here",
        "repeat the bind, or unbind: the platform does either",
    ),
    Phase.PENDING: (
        "the upstream binds it, and nobody has learnt yet how that ended",
        "poll its last_operation, or unbind: the platform does either",
    ),
    Phase.ROUTING: ("bound upstream, but not answered yet", "repeat the bind: the platform does"),
    Phase.UNBINDING: (
        "the upstream unbinds it, and nobody has learnt yet how that ended",
        "poll its last_operation, or repeat the unbind: the platform does either",
    ),
    Phase.UNDOING: (
        "its bind failed here and it is not yet unbound upstream",
        f"{SEE_TO_UPSTREAM}; {LET_SERVE}",
    ),
    Phase.WATCHED: (
        "undone, but the upstream, which never answered its bind, may still make it",
        LET_SERVE,
    ),
    Phase.REMOVING: ("unbound upstream, but its route is not removed yet", LET_SERVE),
}
"""Problem and remedy of each phase but BOUND. A call that is under way passes through them too: only one that lasts is
something to see to, so each finding says since when."""


@dataclass(frozen=True)
class Finding:
    """One thing that does not fit, and what to do."""

    binding: str
    problem: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        """For scripts."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.binding}: {self.problem}; {self.remedy}"


def row(binding: Binding) -> dict[str, object]:
    """A binding for people and scripts."""
    return {
        "binding_id": binding.binding_id,
        "instance_id": binding.instance_id,
        "phase": str(binding.phase),
        "shard": binding.shard,
        "route": _route_state(binding),
        "endpoints": list(addresses(binding)),
        "virtual_ips": binding.virtual_ips or [],
        "error": binding.error,
        "created_at": binding.created_at.isoformat(),
        "updated_at": binding.updated_at.isoformat(),
    }


def _route_state(binding: Binding) -> str:
    if binding.generation == 0:
        return "none"
    wanted = "there" if binding.wanted else "gone"
    return wanted if binding.settled else f"to be {wanted}"


def shards(settings: Settings, store: Store) -> list[int]:
    """All shards: those that new bindings get, and those that old ones have."""
    return sorted({*range(settings.shards), *(binding.shard for binding in store.all())})


def repair(
    settings: Settings,
    store: Store,
    locks: Locks,
    reconciler: Reconciler,
    resume: Callable[[], Collection[Future[None]]],
) -> dict[str, str]:
    """Goes on with what the upstream has to do, then compares every shard with its cluster and brings it to what is
    stored; what failed, by shard or binding.

    resume: begins one step of each binding that is unfinished upstream.
    """
    failed: dict[str, str] = {}
    wait(resume())
    for shard in shards(settings, store):
        name = f"shard {shard}"
        try:
            if not locks.own(shard):
                failed[name] = (
                    "a running broker owns it, which repairs what it knows to be wrong; stop it first"
                )
                continue
            reconciler.update(shard, refresh=True)
        except (EngineError, OsbError) as error:
            failed[name] = str(error)
            continue
        left = [b for b in store.of_shard(shard) if not b.settled]
        if left:
            failed[name] = "; ".join(f"{b.binding_id}: {b.error}" for b in left)
    for binding in store.in_phase(Phase.UNDOING):
        failed[binding.binding_id] = UNFINISHED[Phase.UNDOING][0]
    return failed


def examine(settings: Settings, store: Store, engine: Engine, upstream: Upstream) -> list[Finding]:
    """Everything that does not fit."""
    bindings = store.all()
    asked = _Upstream(upstream)
    return [
        *(finding for binding in bindings for finding in _unfinished(binding)),
        *_undeployed(settings, store, bindings, engine),
        *(finding for binding in bindings for finding in asked.unknown(binding)),
    ]


def _unfinished(binding: Binding) -> Iterator[Finding]:
    if binding.phase != Phase.BOUND:
        problem, remedy = UNFINISHED[Phase(binding.phase)]
        seconds = (datetime.now(UTC) - binding.updated_at).total_seconds()
        yield Finding(binding.binding_id, f"{problem}, for {seconds:.0f} s", remedy)
    if binding.phase != Phase.REQUESTED and not binding.settled:
        reason = f" ({binding.error})" if binding.error else ""
        yield Finding(binding.binding_id, f"its route is {_route_state(binding)}{reason}", LET_SERVE)


def _undeployed(
    settings: Settings, store: Store, bindings: list[Binding], engine: Engine
) -> Iterator[Finding]:
    for shard in shards(settings, store):
        deployed = engine.resources(shard)
        mine = [b for b in bindings if b.shard == shard]
        wanted = {slug: w.binding_id for w in map(wanted_of, _routed(mine)) for slug in w.slugs}
        for slug in sorted(wanted.keys() - deployed):
            yield Finding(wanted[slug], f"endpoint {slug} is not deployed", RECONCILE)
        leaving = {b.binding_id for b in mine if not b.wanted}
        for slug in sorted(deployed - wanted.keys()):
            if not any(network.is_slug_of(slug, binding_id) for binding_id in leaving):
                yield Finding(slug, "is deployed, but belongs to no stored binding", RECONCILE)
        if deployed:
            yield from _drifted(shard, [b for b in mine if b.settled], mine, deployed, engine)


def _drifted(
    shard: int, settled: list[Binding], bindings: list[Binding], deployed: set[str], engine: Engine
) -> Iterator[Finding]:
    """Objects of settled bindings that are not in the cluster as the state knows them."""
    try:
        changes = engine.drift(shard, [wanted_of(b) for b in _routed(bindings)])
    except EngineError as error:
        yield Finding(f"shard {shard}", f"the cluster cannot be compared: {error}", "see to the cluster")
        return
    for item in map(wanted_of, _routed(settled)):
        for slug in item.slugs:
            if slug in deployed and slug in changes:
                said = ", ".join(sorted(changes[slug]))
                yield Finding(item.binding_id, f"the cluster differs, an update would {said}", RECONCILE)


def _routed(bindings: list[Binding]) -> list[Binding]:
    return [b for b in bindings if b.wanted and b.route is not None]


class _Upstream:
    """What the upstream says of bindings, each base path's catalog read once."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._retrievable: dict[str, set[str]] = {}

    def unknown(self, binding: Binding) -> Iterator[Finding]:
        """A bound binding that the upstream denies. One of a service without `bindings_retrievable` is believed."""
        if binding.phase != Phase.BOUND:
            return
        try:
            if binding.service_id not in self._services(binding.base):
                return
            path = osb.binding_path(binding.instance_id, binding.binding_id)
            answered = self._get(binding.base, path)
        except OsbError as error:
            yield Finding(binding.binding_id, f"the upstream cannot be asked: {error}", SEE_TO_UPSTREAM)
            return
        if denies(answered):
            yield Finding(binding.binding_id, "the upstream has no such binding any more", "unbind it")
        elif answered.status != HTTPStatus.OK:
            problem = f"the upstream cannot be asked: it answers {answered.status}"
            yield Finding(binding.binding_id, problem, SEE_TO_UPSTREAM)

    def _services(self, base: str) -> set[str]:
        """Ids of the services whose bindings can be read. Raises OsbError."""
        if base not in self._retrievable:
            answered = self._get(base, "/v2/catalog")
            if answered.status != HTTPStatus.OK:
                raise OsbError(f"its catalog cannot be read, it answers {answered.status}")
            self._retrievable[base] = catalog.retrievable(answered.document())
        return self._retrievable[base]

    def _get(self, base: str, path: str) -> Answer:
        return self._upstream.send(Call("GET", base, path, headers=[(osb.API_VERSION, osb.SPOKEN)]))
