"""Operations that outlive their call: who waits for them, what is answered meanwhile, and what goes on without the platform."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from broker.progress import STEPS
from broker.store import Binding, Phase
from tests.broker.chain import BINDING, CONSUMER_ID, INSTANCE, PROFILE, Chain, wait_until
from tests.broker.service_broker import ASYNC_PLAN, PLAN, SERVICE

ACCEPTED = {"accepts_incomplete": "true"}


def phases(chain: Chain) -> list[list[str]]:
    return [[b.phase for b in store.all()] for store in chain.stores]


def nothing_is_left(chain: Chain) -> None:
    wait_until(lambda: phases(chain) == [[], []], "nothing is stored")
    assert (chain.provider_cluster.objects, chain.consumer_cluster.objects) == ({}, {})


def bound(chain: Chain) -> None:
    wait_until(lambda: phases(chain) == [[Phase.BOUND], [Phase.BOUND]], "both sides are bound")


def ended(chain: Chain, **query: str) -> tuple[int, str | None]:
    """How the operation ends that the platform polls: status and state."""
    ends: list[tuple[int, str | None]] = []

    def polled() -> bool:
        answer = chain.platform.last_operation(**query)
        ends.append((answer.status_code, answer.json().get("state")))
        return ends[-1] != (200, "in progress")

    wait_until(polled, "the operation ends")
    return ends[-1]


def repeated(chain: Chain) -> int:
    """The status of a repeated bind, once no other request works on the binding (422 ConcurrencyError)."""
    statuses: list[int] = []

    def answered() -> bool:
        statuses.append(chain.platform.bind(query=ACCEPTED).status_code)
        return statuses[-1] != 422

    wait_until(answered, "the binding is free")
    return statuses[-1]


def actions(chain: Chain) -> list[list[tuple[str, int]]]:
    return [[(a.action, a.status) for a in store.audited(BINDING)] for store in chain.stores]


def test_a_platform_that_accepts_it_does_not_wait_for_the_route(chain: Chain) -> None:
    chain.consumer_cluster.gate = threading.Event()

    begun = chain.platform.bind(query=ACCEPTED)
    assert (begun.status_code, begun.json()) == (202, {})
    assert chain.platform.last_operation().json() == {"state": "in progress"}
    assert chain.platform.fetch().status_code == 404
    assert repeated(chain) == 202
    chain.consumer_cluster.gate.set()
    assert ended(chain) == (200, "succeeded")
    assert chain.platform.fetch().json()["credentials"]["hostname"] == "10.96.0.1"
    assert chain.platform.bind(query=ACCEPTED).status_code == 200
    assert chain.platform.last_operation().json() == {"state": "succeeded"}

    chain.consumer_cluster.gate.clear()
    leaving = chain.platform.unbind(**ACCEPTED)
    assert (leaving.status_code, leaving.json()) == (202, {})
    assert chain.platform.last_operation().json() == {"state": "in progress"}
    chain.consumer_cluster.gate.set()
    assert ended(chain)[0] == 410
    nothing_is_left(chain)


def meeting_a_step(chain: Chain, make: Callable[[], httpx.Response]) -> tuple[int, object]:
    """What a call is answered that comes while a proxy, on its own, asks the broker for the binding's operation."""
    chain.broker.state.operations[BINDING] = 1_000_000
    chain.broker.late_polls = threading.Event()
    while chain.broker.arrived.acquire(blocking=False):
        pass
    assert chain.broker.arrived.acquire(timeout=30)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(make)
        assert not wait([call], 0.5).done
        chain.broker.late_polls.set()
        answer = call.result()
    return answer.status_code, answer.json().get("operation")


def test_a_call_waits_for_a_step_of_its_bindings_operation(chain: Chain) -> None:
    """OSB "Binding", 202: while the operation is in progress, a repeated bind is answered as the first one was."""
    bind = functools.partial(chain.platform.bind, plan=ASYNC_PLAN, query=ACCEPTED)
    begun = bind()
    assert (begun.status_code, begun.json()) == (202, {"operation": f"bind-{BINDING}"})

    assert meeting_a_step(chain, bind) == (202, f"bind-{BINDING}")
    assert meeting_a_step(chain, functools.partial(bind, parameters={"other": 1})) == (409, None)
    unbind = functools.partial(chain.platform.unbind, plan=ASYNC_PLAN, **ACCEPTED)
    assert meeting_a_step(chain, unbind) == (202, f"unbind-{BINDING}")
    assert meeting_a_step(chain, unbind) == (202, f"unbind-{BINDING}")
    refused = bind()
    assert (refused.status_code, refused.json()["error"]) == (422, "ConcurrencyError")


def test_a_bind_that_the_upstream_begins_anew_is_followed_by_its_new_name(chain: Chain) -> None:
    bind = functools.partial(chain.platform.bind, plan=ASYNC_PLAN, query=ACCEPTED)
    bind()
    chain.broker.state.operations[BINDING] = 1_000_000
    chain.broker.attempt = "-again"

    assert bind().json() == {"operation": f"bind-{BINDING}-again"}
    assert [[b.operation for b in store.all()] for store in chain.stores] == [[f"bind-{BINDING}-again"]] * 2
    chain.broker.state.operations[BINDING] = 1
    bound(chain)
    assert [[b.operation for b in store.all()] for store in chain.stores] == [[None]] * 2


def test_calls_out_of_order_change_nothing(chain: Chain) -> None:
    assert chain.platform.last_operation().status_code == 404
    assert chain.platform.fetch().status_code == 404
    assert chain.platform.unbind().status_code == 410
    assert chain.platform.bind(instance="unknown").status_code == 404
    assert phases(chain) == [[], []]

    chain.platform.bind()
    assert chain.platform.unbind(instance="unknown").status_code == 410
    assert chain.platform.last_operation().json() == {"state": "succeeded"}
    assert chain.platform.provision().status_code == 200
    assert chain.settled()
    assert list(chain.provider_cluster.objects) == list(chain.consumer_cluster.objects) == [f"0-{BINDING}"]


@pytest.mark.parametrize("side", ["consumer", "provider"])
def test_a_repeated_call_is_answered_with_the_operation_while_only_the_route_is_missing(
    chain: Chain, side: str
) -> None:
    cluster = chain.consumer_cluster if side == "consumer" else chain.provider_cluster
    cluster.gate = threading.Event()
    bind = functools.partial(chain.platform.bind, plan=ASYNC_PLAN, query=ACCEPTED)
    unbind = functools.partial(chain.platform.unbind, plan=ASYNC_PLAN, **ACCEPTED)
    begun = bind()
    wait_until(lambda: cluster.running, "the route is made")
    again = bind()
    assert (again.status_code, again.json()) == (begun.status_code, begun.json())
    cluster.gate.set()
    bound(chain)

    cluster.gate.clear()
    begun = unbind()
    wait_until(lambda: cluster.running, "the route is removed")
    again = unbind()
    assert (again.status_code, again.json()) == (begun.status_code, begun.json())
    cluster.gate.set()
    nothing_is_left(chain)


def test_without_retrievable_bindings_a_bind_waits_all_the_same(chain: Chain) -> None:
    chain.broker.retrievable = False

    answer = chain.platform.bind(query=ACCEPTED)

    assert answer.status_code == 201
    assert answer.json()["credentials"]["hostname"] == "10.96.0.1"
    assert chain.platform.unbind(**ACCEPTED).status_code == 202
    nothing_is_left(chain)


def test_nobody_has_to_poll(chain: Chain) -> None:
    begun = chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    assert begun.json() == {"operation": f"bind-{BINDING}"}
    bound(chain)
    assert chain.platform.fetch().status_code == 200
    assert chain.platform.last_operation(operation=f"bind-{BINDING}").json() == {"state": "succeeded"}

    assert chain.platform.unbind(plan=ASYNC_PLAN, **ACCEPTED).status_code == 202
    nothing_is_left(chain)
    assert chain.platform.last_operation(operation=f"unbind-{BINDING}").status_code == 410
    assert actions(chain) == [[("bind", 202), ("bound", 200), ("unbind", 202), ("unbound", 200)]] * 2


def test_a_service_that_nobody_unbinds_upstream_keeps_its_route(chain: Chain) -> None:
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    bound(chain)
    chain.broker.fails = True
    chain.platform.unbind(plan=ASYNC_PLAN, **ACCEPTED)

    bound(chain)
    assert list(chain.provider_cluster.objects) == list(chain.consumer_cluster.objects) == [f"0-{BINDING}"]
    assert [records[-1] for records in actions(chain)] == [("unbind-failed", 502)] * 2
    assert ended(chain)[1] == "failed"


def test_what_nobody_has_credentials_of_is_undone_though_its_unbind_failed_upstream(chain: Chain) -> None:
    chain.consumer_cluster.gate = threading.Event()
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    wait_until(lambda: phases(chain)[1] == [Phase.ROUTING], "bound upstream")
    chain.broker.fails = True
    assert chain.platform.unbind(plan=ASYNC_PLAN, **ACCEPTED).status_code == 202

    wait_until(lambda: phases(chain)[1] == [Phase.UNDOING], "the unbind failed upstream")
    chain.broker.fails = False
    chain.consumer_cluster.gate.set()
    nothing_is_left(chain)


def test_a_broker_that_knows_no_operations_is_asked_for_none(chain: Chain) -> None:
    """What it does at once is an operation of the proxies alone."""
    chain.broker.synchronous = True
    assert chain.platform.bind(query=ACCEPTED).status_code == 202
    bound(chain)
    assert chain.platform.unbind(**ACCEPTED).status_code == 202
    assert ended(chain)[0] == 410
    nothing_is_left(chain)

    chain.consumer_cluster.refused[BINDING] = "no"
    assert chain.platform.bind(query=ACCEPTED).status_code == 202
    nothing_is_left(chain)
    assert ended(chain) == (200, "failed")


def test_an_operation_that_fails_upstream_is_told_though_the_proxy_heard_it_first(chain: Chain) -> None:
    chain.broker.fails = True
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    nothing_is_left(chain)

    assert ended(chain, operation=f"bind-{BINDING}") == (200, "failed")
    assert [records[-1] for records in actions(chain)] == [("bind-failed", 502)] * 2


@pytest.mark.parametrize("status", [404, 410])
def test_a_binding_that_the_upstream_does_not_know_yet_is_waited_for(chain: Chain, status: int) -> None:
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    chain.broker.next_refusals += [(status, b"{}")] * 2
    wait_until(lambda: not chain.broker.next_refusals, "the broker denied the binding twice")

    assert ended(chain, operation=f"bind-{BINDING}") == (200, "succeeded")
    assert chain.platform.fetch().json()["credentials"]["hostname"] == "10.96.0.1"


NOT_THE_BROKER = (404, b"404 Not Found: Requested route ('fabrik.example') does not exist.")
"""What a router answers while the broker behind it is being restarted."""


def test_a_router_that_does_not_find_the_broker_has_not_unbound(chain: Chain) -> None:
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    bound(chain)
    assert chain.platform.unbind(plan=ASYNC_PLAN, **ACCEPTED).status_code == 202
    chain.broker.state.operations[BINDING] = 1_000_000
    chain.broker.next_refusals += [NOT_THE_BROKER] * 2
    wait_until(lambda: not chain.broker.next_refusals, "the router answered twice")

    assert chain.platform.last_operation().json() == {"state": "in progress"}
    assert list(chain.provider_cluster.objects) == list(chain.consumer_cluster.objects) == [f"0-{BINDING}"]
    chain.broker.state.operations[BINDING] = 1
    nothing_is_left(chain)
    assert chain.broker.state.bindings == {}


def test_a_router_that_does_not_find_the_broker_has_undone_nothing(chain: Chain) -> None:
    chain.broker.state.bindings[BINDING] = {"instance": INSTANCE, "service_id": SERVICE, "plan_id": PLAN}
    chain.broker.next_refusals += [NOT_THE_BROKER] * 2
    chain.stores[0].add(stored(BINDING, Phase.UNDOING))

    nothing_is_left(chain)
    assert chain.broker.state.bindings == {}


def test_a_binding_that_the_upstream_never_knows_is_undone(chain: Chain) -> None:
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    chain.broker.state.bindings.clear()
    for store in chain.stores:
        assert store.all()
        store.change(store.all()[0], long_ago)

    nothing_is_left(chain)
    assert ended(chain, operation=f"bind-{BINDING}") == (200, "failed")


def long_ago(binding: Binding) -> None:
    binding.updated_at = datetime.now(UTC) - timedelta(hours=1)


def test_credentials_without_a_route_are_never_handed_out(chain: Chain) -> None:
    chain.platform.bind()
    for store in chain.stores:
        store.remove(store.all()[0])

    assert chain.platform.fetch().status_code == 404
    assert chain.direct.fetch().status_code == 404


def test_an_asynchronous_binding_that_cannot_be_adapted_fails(chain: Chain) -> None:
    chain.broker.given = {"uri": "mongodb+srv://u:p@10.0.0.1/x", "host": "10.0.0.1", "port": 5432}

    assert chain.platform.bind(query=ACCEPTED).status_code == 202
    assert ended(chain)[1] == "failed"
    nothing_is_left(chain)
    assert [a for a, _ in actions(chain)[1]] == ["bind", "bind-failed", "undone"]


def test_what_a_dead_replica_left_is_finished(chain: Chain) -> None:
    """A call that died after its route was wanted, and one that died before the upstream's answer."""
    data = {"network_profile_id": PROFILE, "data": {"consumer_id": CONSUMER_ID}}
    chain.direct.bind("routed", network_data=data)
    chain.direct.bind("asked", network_data=data)
    provider, _ = chain.stores
    routed, asked = provider.get("routed"), provider.get("asked")
    assert routed is not None
    assert asked is not None
    provider.change(routed, to_phase(Phase.ROUTING))
    provider.change(asked, to_phase(Phase.REQUESTED))

    wait_until(lambda: [(b.binding_id, b.phase) for b in provider.all()] == [("routed", "bound")], "resumed")
    assert list(chain.broker.state.bindings) == ["routed"]
    assert list(chain.provider_cluster.objects) == ["0-routed"]


@pytest.mark.parametrize("call", ["bind", "unbind"])
def test_what_a_dead_replica_asked_for_is_undone_though_the_broker_denies_it_at_first(
    chain: Chain, call: str
) -> None:
    """The platform repeats or undoes a bind over which the proxy died, while the broker is still at work on it."""
    chain.stores[0].add(stored(BINDING, Phase.REQUESTED))
    if call == "bind":
        chain.broker.next_refusals.append((422, b'{"error": "ConcurrencyError"}'))
        data = {"network_profile_id": PROFILE, "data": {"consumer_id": CONSUMER_ID}}
        assert chain.direct.bind(network_data=data).status_code == 422
    else:
        assert chain.direct.unbind().status_code == 410
    chain.broker.state.bindings[BINDING] = {"instance": INSTANCE, "service_id": SERVICE, "plan_id": PLAN}

    nothing_is_left(chain)
    wait_until(lambda: not chain.broker.state.bindings, "it is unbound", 5)


def stored(binding_id: str, phase: Phase) -> Binding:
    """A row of the provider's proxy as a replica left it that died just now."""
    return Binding(
        binding_id=binding_id,
        instance_id=INSTANCE,
        base="",
        service_id=SERVICE,
        plan_id=PLAN,
        phase=phase,
        consumer_id=CONSUMER_ID,
        shard=0,
    )


def to_phase(phase: Phase) -> Callable[[Binding], None]:
    """As a call that died long ago left it."""

    def change(binding: Binding) -> None:
        binding.phase = phase
        long_ago(binding)

    return change


def test_a_binding_that_the_upstream_makes_after_it_was_given_up_is_undone(chain: Chain) -> None:
    chain.broker.late = threading.Event()

    assert chain.platform.bind().status_code == 502
    wait_until(lambda: phases(chain)[0] == [Phase.WATCHED], "the broker denied the binding")
    chain.broker.late.set()
    nothing_is_left(chain)
    assert chain.broker.state.bindings == {}


def test_a_stop_waits_for_the_steps_under_way_and_not_for_all(chain: Chain) -> None:
    chain.broker.hold = threading.Event()
    for number in range(STEPS + 4):
        chain.stores[0].add(stored(f"b-{number}", Phase.UNDOING))
    provisioned = 1
    for _ in range(provisioned + STEPS):
        assert chain.broker.arrived.acquire(timeout=30)

    chain.provider.stop()
    assert not chain.broker.arrived.acquire(blocking=False)


def test_a_binding_for_which_the_upstream_does_not_answer_holds_up_no_other(chain: Chain) -> None:
    chain.broker.meeting = threading.Barrier(2, timeout=2)
    for name in ("one", "other"):
        chain.stores[0].add(stored(name, Phase.UNDOING))
    nothing_is_left(chain)
    assert not chain.broker.meeting.broken


def test_a_watched_binding_can_be_bound_again(chain: Chain) -> None:
    chain.broker.late = threading.Event()
    chain.platform.bind()
    wait_until(lambda: phases(chain)[0] == [Phase.WATCHED], "the broker denied the binding")
    wait_until(lambda: phases(chain)[1] in ([], [Phase.WATCHED]), "so did the provider")
    chain.broker.late.set()

    wait_until(lambda: chain.platform.bind().status_code in {200, 201}, "it is bound")
    bound(chain)
    assert list(chain.broker.state.bindings) == [BINDING]


def deprovision(chain: Chain, plan: str, **query: str) -> int:
    parameters = {"service_id": SERVICE, "plan_id": plan, **query}
    return chain.platform.client.delete(chain.platform.path(), params=parameters).status_code


def test_an_instance_takes_the_routes_of_its_bindings_with_it(chain: Chain) -> None:
    chain.broker.drops_bindings = True
    chain.platform.bind()
    chain.platform.provision("other")
    chain.platform.bind("theirs", instance="other")

    assert deprovision(chain, PLAN) == 200
    assert [[b.binding_id for b in store.all()] for store in chain.stores] == [["theirs"], ["theirs"]]
    assert list(chain.provider_cluster.objects) == list(chain.consumer_cluster.objects) == ["0-theirs"]
    assert [records[-1] for records in actions(chain)] == [("deprovision", 200)] * 2
    assert deprovision(chain, PLAN) == 410


def test_a_refused_deprovisioning_leaves_the_routes_alone(chain: Chain) -> None:
    chain.platform.bind()

    assert deprovision(chain, PLAN) == 400
    assert chain.settled()
    assert chain.consumer_cluster.objects


@pytest.mark.parametrize("polls", [True, False])
def test_an_asynchronous_deprovisioning_ends_when_the_routes_are_gone(chain: Chain, *, polls: bool) -> None:
    chain.broker.drops_bindings = True
    deprovision(chain, PLAN)
    assert chain.platform.provision(plan=ASYNC_PLAN).status_code == 201
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    bound(chain)

    assert deprovision(chain, ASYNC_PLAN, **ACCEPTED) == 202
    if polls:
        path = chain.platform.path(rest="/last_operation")

        def over() -> bool:
            answer = chain.platform.client.get(path, params={"operation": f"deprovision-{INSTANCE}"})
            if answer.status_code == 200 and answer.json()["state"] == "in progress":
                return False
            assert answer.status_code == 410 or answer.json()["state"] == "succeeded"
            return True

        wait_until(over, "the instance is gone")
        assert chain.consumer_cluster.objects == {}
    nothing_is_left(chain)


def test_an_instance_that_stays_keeps_the_routes(chain: Chain) -> None:
    chain.broker.drops_bindings = True
    deprovision(chain, PLAN)
    chain.platform.provision(plan=ASYNC_PLAN)
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    bound(chain)
    chain.broker.fails = True

    assert deprovision(chain, ASYNC_PLAN, **ACCEPTED) == 202
    bound(chain)
    assert list(chain.broker.state.bindings) == [BINDING]
    assert list(chain.provider_cluster.objects) == list(chain.consumer_cluster.objects) == [f"0-{BINDING}"]


@pytest.mark.parametrize(
    ("leaves", "polled", "other"),
    [
        ("binding", "binding", "bind"),
        ("instance", "instance", "provision"),
        ("instance", "binding", "bind"),
    ],
)
def test_the_end_of_another_operation_is_not_the_end_of_this_one(
    chain: Chain, leaves: str, polled: str, other: str
) -> None:
    """A poll that comes late asks for what ended long ago, and the broker says so."""
    paths = {"instance": chain.platform.path(), "binding": chain.platform.path(binding=BINDING)}
    ids = {"instance": INSTANCE, "binding": BINDING}
    chain.broker.drops_bindings = True
    deprovision(chain, PLAN)
    chain.platform.provision(plan=ASYNC_PLAN)
    chain.platform.bind(plan=ASYNC_PLAN, query=ACCEPTED)
    bound(chain)
    chain.broker.state.leaving.append(ids[leaves])
    chain.broker.state.operations[ids[leaves]] = 1_000_000
    query = {"service_id": SERVICE, "plan_id": ASYNC_PLAN, **ACCEPTED}
    assert chain.platform.client.delete(paths[leaves], params=query).status_code == 202

    operation = {"operation": f"{other}-{ids[polled]}"}
    answer = chain.platform.client.get(f"{paths[polled]}/last_operation", params=operation)
    assert (answer.status_code, answer.json()["state"]) == (200, "in progress")
    assert phases(chain) == [[Phase.UNBINDING], [Phase.UNBINDING]]
    assert list(chain.provider_cluster.objects) == list(chain.consumer_cluster.objects) == [f"0-{BINDING}"]


def test_calls_at_the_same_time_as_the_chores_meet_no_conflict(chain: Chain) -> None:
    names = [f"b-{number}" for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        codes = [
            a.status_code for a in pool.map(lambda name: chain.platform.bind(name, query=ACCEPTED), names)
        ]
    assert set(codes) == {202}
    wait_until(lambda: phases(chain) == [["bound"] * 16] * 2, "all are bound")
