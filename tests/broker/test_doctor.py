"""What `doctor` finds and `reconcile` repairs, of the database and the upstream; `tests/engine` adds the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from broker.doctor import Finding, examine, repair
from broker.engine import Engine
from broker.program import Wanted
from broker.progress import Progress
from broker.reconciler import Reconciler
from broker.store import Binding, Phase
from broker.update import EngineError
from broker.upstream import Upstream
from tests.broker import service_broker
from tests.broker.chain import BINDING, Chain

SLUG = f"0-{BINDING}"


@dataclass
class Deployed:
    """What the engine knows of the stacks and of the cluster."""

    slugs: set[str] = field(default_factory=lambda: {SLUG})
    changes: dict[str, set[str]] = field(default_factory=dict)
    away: bool = False

    def resources(self, shard: int) -> set[str]:
        return self.slugs

    def drift(self, shard: int, wanted: Sequence[Wanted]) -> dict[str, set[str]]:
        if self.away:
            raise EngineError("unreachable")
        return self.changes


def findings(chain: Chain, deployed: Deployed) -> list[Finding]:
    store = chain.stores[0]
    read = chain.provider._settings.model_copy(update={"shards": 1})
    upstream = Upstream(read)
    for binding in store.all():
        store.change(binding, lambda found: setattr(found, "shard", 0))
    try:
        return examine(read, store, cast("Engine", deployed), upstream)
    finally:
        upstream.close()


def problems(chain: Chain, deployed: Deployed | None = None) -> list[str]:
    return [finding.problem for finding in findings(chain, deployed or Deployed())]


@pytest.fixture
def bound(chain: Chain) -> Chain:
    assert chain.platform.bind().status_code == 201
    return chain


def to(phase: Phase) -> Any:
    return lambda binding: setattr(binding, "phase", phase)


def test_nothing_is_found_where_nothing_is_wrong(bound: Chain) -> None:
    assert findings(bound, Deployed()) == []


@pytest.mark.parametrize(
    ("phase", "said"),
    [
        (Phase.REQUESTED, "its answer is not known"),
        (Phase.PENDING, "nobody has learnt"),
        (Phase.ROUTING, "not answered yet"),
        (Phase.UNBINDING, "the upstream unbinds it"),
        (Phase.UNDOING, "not yet unbound upstream"),
        (Phase.WATCHED, "may still make it"),
        (Phase.REMOVING, "its route is not removed"),
    ],
)
def test_what_is_stuck_in_any_phase_is_found(chain: Chain, phase: Phase, said: str) -> None:
    store = chain.consumer.store
    assert store is not None
    row = Binding(
        binding_id=BINDING, instance_id="i", base="", service_id="s", plan_id="p", phase=phase, shard=0
    )
    store.add(row)
    read = chain.consumer._settings
    upstream = Upstream(read)

    found = examine(read, store, cast("Engine", Deployed(set())), upstream)

    assert [finding.binding for finding in found] == [BINDING]
    assert said in found[0].problem
    assert found[0].remedy
    upstream.close()
    store.remove(row)


@pytest.mark.parametrize("status", [404, 410])
def test_a_binding_that_the_upstream_lost_is_found(bound: Chain, status: int) -> None:
    catalog = (200, _catalog(retrievable=True))
    bound.broker.next_refusals += [catalog, (status, b"{}")]

    assert problems(bound) == ["the upstream has no such binding any more"]


def test_an_upstream_that_tells_nothing_of_its_bindings_is_believed(bound: Chain) -> None:
    bound.broker.next_refusals += [(200, _catalog(retrievable=False))]

    assert problems(bound) == []


def test_an_upstream_that_cannot_be_asked_is_a_finding(bound: Chain) -> None:
    bound.broker.next_refusals += [(500, b"{}")]

    (found,) = problems(bound)
    assert "the upstream cannot be asked" in found


@pytest.mark.parametrize("answered", [(500, b"{}"), (401, b"{}"), (404, b"default backend - 404")])
def test_an_upstream_that_tells_nothing_of_a_binding_is_a_finding(
    bound: Chain, answered: tuple[int, bytes]
) -> None:
    bound.broker.next_refusals += [(200, _catalog(retrievable=True)), answered]

    assert problems(bound) == [f"the upstream cannot be asked: it answers {answered[0]}"]


def test_a_cluster_that_differs_from_the_state_is_found(bound: Chain) -> None:
    deployed = Deployed(changes={SLUG: {f"create {SLUG}-public-server"}, "0-other": {"delete x"}})

    assert problems(bound, deployed) == [f"the cluster differs, an update would create {SLUG}-public-server"]


def test_a_cluster_that_cannot_be_compared_is_a_finding(bound: Chain) -> None:
    assert problems(bound, Deployed(away=True)) == ["the cluster cannot be compared: unreachable"]


def test_a_route_that_the_state_does_not_know_and_one_too_many_are_found(bound: Chain) -> None:
    found = findings(bound, Deployed(slugs={"0-other"}))

    assert {(f.binding, f.problem) for f in found} == {
        (BINDING, f"endpoint {SLUG} is not deployed"),
        ("0-other", "is deployed, but belongs to no stored binding"),
    }


def test_reconcile_unbinds_upstream_what_could_not_be_routed(bound: Chain) -> None:
    store, locks, side = bound.provider.store, bound.provider._locks, bound.provider._side
    served, settings = bound.provider._reconciler, bound.provider._settings
    assert store is not None
    assert locks is not None
    assert side is not None
    assert served is not None
    served.stop()
    reconciler = Reconciler(store, locks, bound.provider_cluster)
    upstream = bound.provider._upstream
    progress = Progress(settings, side, upstream, store=store, locks=locks, reconciler=reconciler)
    bound.broker.next_refusals += [(500, b"{}")]
    store.change(store.all()[0], to(Phase.UNDOING))

    failed = repair(settings, store, locks, reconciler, progress.resume)
    assert failed == {BINDING: "its bind failed here and it is not yet unbound upstream"}
    progress._pauses.clear()
    assert repair(settings, store, locks, reconciler, progress.resume) == {}
    assert store.all() == []
    assert bound.broker.state.bindings == {}
    assert bound.provider_cluster.objects == {}


def _catalog(*, retrievable: bool) -> bytes:
    body = f'{{"services": [{{"id": "{service_broker.SERVICE}", "bindings_retrievable": {str(retrievable).lower()}}}]}}'
    return body.encode()
