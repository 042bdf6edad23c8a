"""What exists before what.

The engine creates an object after everything it depends on and deletes it before; it may do both in any order that
this allows, and stop anywhere (a refused object, a killed engine). So the moments that a cluster can be in are exactly the
sets of objects that hold all their dependencies. None of them may let a byte pass that should not.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components import (
    ConsumerEgress,
    EgressGatewayPerUpstream,
    EgressGatewayPerUpstreamArgs,
    ProviderIngress,
    declare_stack,
)
from components.component import Component
from config import Cluster
from tests.components import samples
from tests.components.mesh import Mesh
from tests.components.recorder import Registration, Run, run
from tests.components.test_trees import exported, imported

WHOLE = run(lambda: declare_stack(samples.parsed(samples.everything())))


def order(done: Run, component: str) -> dict[str, set[str]]:
    """Which children of a component come before which."""
    children = done.children(component)
    keys = {child.name: key for key, child in children.items()}
    return {
        key: {keys[name] for name in done.ancestors(child) & keys.keys()} for key, child in children.items()
    }


def assert_in_order(done: Run, component: str, *keys: str) -> None:
    before = order(done, component)
    for earlier, later in itertools.pairwise(keys):
        assert earlier in before[later], f"{later} may come before {earlier}"


def test_consumer_egress_is_made_from_the_provider_s_end() -> None:
    assert_in_order(
        WHOLE,
        "orders-main",
        "service-entry",
        "upstream-rule",
        "egress-server",
        "egress-route",
        "sidecar-rule",
        "virtual-ip",
        "mesh-route",
    )
    assert_in_order(WHOLE, "orders-main", "admission", "egress-server")


def test_rights_secret_and_guard_come_before_all_of_an_import() -> None:
    needed = {
        "namespace-mesh-egress",
        "istio-egressgateway.mesh-egress",
        "istio-egressgateway-secret-reader",
        "istio-egressgateway-secret-reader-binding",
        "istio-egressgateway-upstream-guard",
        "consumer-client-cacert.mesh-egress",
    }
    for child in WHOLE.children("orders-main").values():
        assert needed <= WHOLE.ancestors(child)


def test_a_namespace_that_the_stack_makes_comes_before_all_that_lies_in_it() -> None:
    """The broker's may be a client of an upstream, or of an import: of its own next broker, say."""
    broker = {
        "role": "forward",
        "image": "broker:1",
        "createNamespace": True,
        "callers": {"anonymous": True, "networks": ["192.0.2.0/24"]},
        "upstream": {"url": "http://fabrik.upstream.example"},
    }
    place = "mesh-broker"
    fabrik = samples.upstream("fabrik", clients=[{"namespace": place}], confineClients=["10.0.0.0/8"])
    sidecars = [{"namespace": place, "limits": {"idleTimeout": "2h"}}]
    raw = samples.consumer(samples.an_import(namespace=place), sidecars=sidecars)
    done = run(lambda: declare_stack(samples.parsed({**raw, "upstreams": [fabrik], "broker": broker})))

    inside = [made for made in done.objects if made.inputs["metadata"].get("namespace") == place]
    made_by = {(made.parent or "").rpartition("::")[2] for made in inside}
    assert made_by == {"broker", "fabrik", "istio-egressgateway", "orders-main"}
    for made in inside:
        assert f"namespace-{place}" in done.ancestors(made), made.name


@pytest.mark.parametrize("slug", ["books-main", "control-plane"])
def test_provider_ingress_admits_before_it_routes(slug: str) -> None:
    assert_in_order(WHOLE, slug, "service-entry", "service-rule", "public-server", "public-route")
    needed = {
        "namespace-mesh-ingress",
        "provider-ingress-secret-reader-binding",
        "provider-ingress-upstream-guard",
    }
    for child in WHOLE.children(slug).values():
        assert needed <= WHOLE.ancestors(child)


def test_an_upstream_s_gateway_is_restricted_before_it_runs_and_routed_to_last() -> None:
    assert_in_order(
        WHOLE,
        "httpbin",
        "service-account",
        "secret-reader",
        "secret-reader-binding",
        "service-entry",
        "upstream-rule",
        "egress-server",
        "egress-route",
        "mesh-rule",
        "mesh-route",
        "ingress-server",
    )
    assert_in_order(WHOLE, "httpbin", "mesh-route", "mesh-host")
    for policy in ("peer-authentication", "access-policy", "opa-policy", "upstream-guard"):
        assert_in_order(WHOLE, "httpbin", policy, "egress-server")
    assert_in_order(WHOLE, "httpbin", "opa-service", "opa-policy")
    assert_in_order(WHOLE, "ledger", "mesh-rule", "virtual-ip", "mesh-route")


@pytest.mark.parametrize("gateway", ["istio-egressgateway", "provider-ingress", "httpbin", "ledger"])
def test_no_proxy_runs_without_identity_rights_and_restrictions(gateway: str) -> None:
    for needed in ("secret-reader-binding", "upstream-guard", "network-policy"):
        assert_in_order(WHOLE, gateway, needed, "deployment", "service")
    for later in ("disruption-budget", "autoscaler"):
        assert_in_order(WHOLE, gateway, "deployment", later)


@pytest.mark.parametrize(
    ("gateway", "server"),
    [
        ("istio-egressgateway", "orders-main-egress-server"),
        ("provider-ingress", "books-main-public-server"),
        ("ledger", "ledger-egress-server"),
    ],
)
def test_a_server_selects_its_gateway_s_pods_once_they_have_the_labels(gateway: str, server: str) -> None:
    assert f"{gateway}-deployment" in WHOLE.ancestors(WHOLE.named(server))


STANDALONE = run(lambda: declare_stack(samples.parsed(samples.brokered_consumer(createNamespace=True))))


def test_a_broker_runs_with_its_rights_restrictions_and_settings_and_is_called_last() -> None:
    for needed in (
        "service-account",
        "routes-mesh-egress-binding",
        "routes-shop-binding",
        "network-policy",
        "settings",
        "data",
    ):
        assert_in_order(STANDALONE, "broker", "claim", needed, "deployment", "service")
    assert_in_order(STANDALONE, "broker", "routes-shop", "routes-shop-binding")
    assert_in_order(STANDALONE, "broker", "deployment", "disruption-budget")


def test_a_standalone_broker_s_way_to_the_provider_comes_before_it() -> None:
    assert_in_order(STANDALONE, "broker-upstream", "egress-server", "virtual-ip", "mesh-route")
    way = {child.name for child in STANDALONE.children("broker-upstream").values()}
    for child in STANDALONE.children("broker").values():
        assert way | {"namespace-mesh-broker"} <= STANDALONE.ancestors(child)
    for child in STANDALONE.children("broker-upstream").values():
        assert {"namespace-mesh-broker", "egress-secret-reader-binding"} <= STANDALONE.ancestors(child)


def test_no_object_depends_on_another_endpoint() -> None:
    for slug, other in [("orders-main", "orders-replica"), ("books-main", "control-plane")]:
        foreign = {child.name for child in WHOLE.children(other).values()}
        assert not any(WHOLE.ancestors(child) & foreign for child in WHOLE.children(slug).values())


def closed_sets(items: list[Registration]) -> Iterator[list[Registration]]:
    """Every set of the items that holds the dependencies of its members, as far as they are among the items."""
    urns = {item.urn for item in items}
    for mask in range(2 ** len(items)):
        chosen = [item for position, item in enumerate(items) if mask >> position & 1]
        present = {item.urn for item in chosen}
        if all(item.dependencies & urns <= present for item in chosen):
            yield chosen


COMPONENTS = {
    "consumer": lambda: ConsumerEgress("a", imported()),
    "consumer, rendered": lambda: ConsumerEgress("a", imported(Cluster(render=True))),
    "provider": lambda: ProviderIngress("a", exported()),
}


@pytest.mark.parametrize("make", COMPONENTS.values(), ids=COMPONENTS.keys())
def test_every_moment_of_one_endpoint_is_safe(make: type[Component]) -> None:
    objects = run(make).objects
    moments = list(closed_sets(objects))

    assert len(moments) > len(objects)
    assert [hazard for moment in moments for hazard in Mesh(moment, objects).hazards()] == []


def moments(objects: list[Registration], shuffled: random.Random) -> Iterator[list[Registration]]:
    """The moments of one creation in an order that the dependencies allow."""
    urns = {item.urn for item in objects}
    waiting = list(objects)
    present: list[Registration] = []
    while waiting:
        done = {item.urn for item in present}
        ready = [item for item in waiting if item.dependencies & urns <= done]
        if not ready:
            raise AssertionError(f"these wait for each other: {[item.name for item in waiting]}")
        chosen = shuffled.choice(ready)
        waiting.remove(chosen)
        present.append(chosen)
        yield list(present)


def earliest(objects: list[Registration], item: Registration) -> list[Registration]:
    """The moment at which `item` exists and as little else as the dependencies allow."""
    by_urn = {o.urn: o for o in objects}
    found = {item.urn}
    open_ = [item]
    while open_:
        for urn in open_.pop().dependencies & by_urn.keys() - found:
            found.add(urn)
            open_.append(by_urn[urn])
    return [o for o in objects if o.urn in found]


def earliest_hazards(objects: list[Registration]) -> set[str]:
    return {hazard for item in objects for hazard in Mesh(earliest(objects, item), objects).hazards()}


VARIANTS = {
    "all roles": samples.everything(),
    "existing namespaces": samples.everything(createNamespace=False),
    "unguarded": samples.everything(guardUpstreamConnections=False),
    "adopted gateways": samples.everything(adopt=True),
    "plain upstreams": samples.upstreams(
        samples.upstream("web", "HTTP", port=80), samples.upstream("line", "TCP", port=7000)
    ),
    "rendered": samples.everything(samples.RENDERED),
}
RUNS = {name: run(partial(declare_stack, samples.parsed(raw))) for name, raw in VARIANTS.items()}


@pytest.mark.parametrize("done", RUNS.values(), ids=RUNS.keys())
def test_no_object_of_a_stack_comes_too_early(done: Run) -> None:
    assert earliest_hazards(done.objects) == set()


@settings(deadline=None, max_examples=15)
@given(name=st.sampled_from(sorted(RUNS)), shuffled=st.randoms(use_true_random=False))
def test_every_moment_of_a_stack_is_safe(name: str, shuffled: random.Random) -> None:
    """In creation, and so, backwards, in deletion."""
    objects = RUNS[name].objects
    found = {hazard for moment in moments(objects, shuffled) for hazard in Mesh(moment, objects).hazards()}
    assert found == set()


@pytest.mark.parametrize(
    ("name", "hazard"),
    [
        ("orders-main-mesh-route", "there is no rule"),
        ("orders-main-sidecar-rule", "no server for main.orders"),
        ("orders-main-egress-route", "belongs to the server"),
        ("httpbin-egress-server", "is open to every workload"),
        ("orders-main-upstream-rule", "trusts whatever the client Secret trusts"),
        ("orders-main-admission", "lies in a namespace"),
        ("books-main-public-route", "there is no rule"),
        ("books-main-public-server", "may not read"),
        ("httpbin-egress-server", "asks nobody for authorization"),
        ("httpbin-egress-route", "there is no rule"),
        ("httpbin-mesh-rule", "no route for httpbin"),
        ("httpbin-mesh-host", "to sidecars that have no route for it"),
        ("httpbin-deployment", "may reach anything"),
        ("httpbin-ingress-server", "not claimed"),
        ("httpbin-confinement-shop", "not claimed"),
        ("httpbin-access-policy", "not claimed"),
        ("ledger-mesh-route", "there is no rule"),
        ("ledger-egress-server", "has no guard"),
    ],
)
def test_the_check_sees_an_order_that_is_missing(name: str, hazard: str) -> None:
    objects = [
        dataclasses.replace(o, dependencies=frozenset()) if o.name == name else o for o in WHOLE.objects
    ]

    assert any(hazard in found for found in earliest_hazards(objects))


def test_a_cycle_would_be_seen() -> None:
    first, second, *rest = WHOLE.objects
    looped = [
        dataclasses.replace(first, dependencies=frozenset({second.urn})),
        dataclasses.replace(second, dependencies=frozenset({first.urn})),
        *rest,
    ]
    with pytest.raises(AssertionError, match="wait for each other"):
        list(moments(looped, random.Random(0)))  # noqa: S311


def test_an_opa_that_is_left_out_leaves_no_trace() -> None:
    (config,) = samples.parsed(samples.upstreams(samples.upstream())).upstreams
    done = run(
        lambda: EgressGatewayPerUpstream("a", EgressGatewayPerUpstreamArgs(config, Cluster(context="north")))
    )
    assert not {key for key in done.children("a") if "opa" in key}
