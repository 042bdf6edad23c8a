"""What a change of the configuration touches: the endpoint it speaks of, and nothing else."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from components import declare_stack
from pki import CertificateAuthority
from tests import strategies
from tests.components import samples
from tests.components.recorder import Registration, Run, run


def declared(raw: samples.Raw) -> Run:
    stack = samples.parsed(raw)
    return run(lambda: declare_stack(stack))


def changed(before: Run, after: Run) -> set[str]:
    """Names of what is registered in one of the runs only, or differently."""
    urns = before.registrations.keys() | after.registrations.keys()
    differing = [u for u in urns if before.registrations.get(u) != after.registrations.get(u)]
    return {(before.registrations.get(u) or after.registrations[u]).name for u in differing}


def test_the_same_stack_registers_the_same() -> None:
    assert changed(declared(samples.everything()), declared(samples.everything())) == set()


Path = tuple[str | int, ...]

ONE_LINE: list[tuple[Path, object, set[str]]] = [
    (
        ("consumer", "imports", 0, "endpoints", 0, "port"),
        6432,
        {"svc-orders-main.shop", "orders-main-mesh-route"},
    ),
    (
        ("consumer", "imports", 0, "endpoints", 0, "limits"),
        {"maxConnections": 7},
        {"orders-main-upstream-rule"},
    ),
    (
        ("consumer", "imports", 0, "endpoints", 0, "host"),
        "other.istio.data.example",
        {
            f"orders-main-{child}"
            for child in (
                "admission",
                "service-entry",
                "upstream-rule",
                "egress-server",
                "egress-route",
                "sidecar-rule",
            )
        },
    ),
    (
        ("consumer", "imports", 0, "endpoints", 0, "clusterIp"),
        "10.96.9.9",
        {"svc-orders-main.shop", "orders-main-mesh-route"},
    ),
    (
        ("provider", "exports", 0, "endpoints", 0, "address"),
        "10.20.0.99",
        {"books-main-service-entry", "books-main-reach"},
    ),
    (("provider", "exports", 0, "consumers"), ["other.shop.example"], {"books-main-public-server"}),
    (
        ("provider", "controlPlane", "port"),
        9090,
        {
            "control-plane-service-entry",
            "control-plane-public-route",
            "control-plane-reach",
        },
    ),
    (("upstreams", 0, "outlierDetection"), {"interval": "3s"}, {"httpbin-upstream-rule"}),
    (("upstreams", 1, "servicePort"), 6432, {"ledger-virtual-ip", "ledger-mesh-route"}),
    (("upstreams", 1, "workload"), {"maxReplicas": 9}, {"ledger-autoscaler"}),
]


@pytest.mark.parametrize(
    ("path", "value", "touched"), ONE_LINE, ids=[".".join(map(str, path)) for path, _, _ in ONE_LINE]
)
def test_a_line_touches_what_it_speaks_of(path: Path, value: object, touched: set[str]) -> None:
    raw = samples.everything()
    before = declared(raw)
    target: Any = raw
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value

    assert changed(before, declared(raw)) == touched


def importing(names: list[str]) -> samples.Raw:
    endpoints = [samples.endpoint(name) for name in names]
    return samples.consumer(
        samples.an_import("a", [endpoints[0]]), samples.an_import("orders", endpoints[1:])
    )


def importing_services(names: list[str]) -> samples.Raw:
    return samples.consumer(*(samples.an_import(f"s{name}") for name in names))


def exporting(names: list[str]) -> samples.Raw:
    endpoints = [{**samples.endpoint(name), "address": "10.20.0.11"} for name in names]
    return samples.provider(samples.export("orders", endpoints))


def proxying(names: list[str]) -> samples.Raw:
    return samples.upstreams(*(samples.upstream(name, createNamespace=True) for name in names))


@pytest.mark.parametrize("stack_of", [importing, importing_services, exporting, proxying])
@settings(max_examples=8)
@given(
    names=st.lists(strategies.labels(12), min_size=3, max_size=6, unique=True),
    new=strategies.labels(12),
    data=st.data(),
)
def test_one_more_anywhere_in_the_list_leaves_the_others_alone(
    stack_of: Callable[[list[str]], samples.Raw], names: list[str], new: str, data: st.DataObject
) -> None:
    assume(new not in names)
    position = data.draw(st.integers(1, len(names)))

    before = declared(stack_of(names))
    after = declared(stack_of([*names[:position], new, *names[position:]]))

    assert before.registrations.keys() <= after.registrations.keys()
    touched = [u for u in after.registrations if before.registrations.get(u) != after.registrations[u]]
    component = {c.urn for c in after.components} - {c.urn for c in before.components}
    assert len(component) == 1
    others = [
        r.name
        for r in map(after.registrations.__getitem__, touched)
        if not {r.urn, r.parent} & component and r.kind != "Namespace"
    ]
    assert others == []


@pytest.mark.parametrize("stack_of", [importing, importing_services, exporting, proxying])
def test_the_order_of_a_list_means_nothing(stack_of: Callable[[list[str]], samples.Raw]) -> None:
    names = ["d", "b", "c"]

    assert changed(declared(stack_of(names)), declared(stack_of([names[0], *reversed(names[1:])]))) == set()


RENAMED = [
    (
        samples.consumer(samples.an_import("orders")),
        samples.consumer(samples.an_import("purchases", [samples.endpoint("main")], formerly="orders")),
        ("orders-main", "purchases-main"),
    ),
    (
        samples.provider(samples.export("orders")),
        samples.provider(
            samples.export(
                "purchases", [{**samples.endpoint("main"), "address": "10.20.0.11"}], formerly="orders"
            )
        ),
        ("orders-main", "purchases-main"),
    ),
    (
        samples.consumer(samples.an_import("orders")),
        samples.consumer(samples.an_import("orders", [samples.endpoint("first", formerly="main")])),
        ("orders-main", "orders-first"),
    ),
    (
        samples.provider(samples.export("orders")),
        samples.provider(
            samples.export(
                "purchases",
                [{**samples.endpoint("first"), "formerly": "main", "address": "10.20.0.11"}],
                formerly="orders",
            )
        ),
        ("orders-main", "purchases-first"),
    ),
    (
        samples.consumer(egressGateway={"name": "egress"}),
        samples.consumer(egressGateway={"name": "leaving", "formerly": "egress"}),
        ("egress", "leaving"),
    ),
    (
        samples.provider(ingressGateway={"name": "ingress"}),
        samples.provider(ingressGateway={"name": "entering", "formerly": "ingress"}),
        ("ingress", "entering"),
    ),
    (
        samples.upstreams(samples.FULL_TCP),
        samples.upstreams({**samples.FULL_TCP, "name": "journal", "formerly": "ledger"}),
        ("ledger", "journal"),
    ),
    (
        samples.upstreams(samples.FULL_HTTP),
        samples.upstreams({**samples.FULL_HTTP, "name": "echo", "formerly": "httpbin"}),
        ("httpbin", "echo"),
    ),
]


@pytest.mark.parametrize(("old", "new", "names"), RENAMED)
def test_a_rename_keeps_track_of_every_object(
    old: samples.Raw, new: samples.Raw, names: tuple[str, str]
) -> None:
    before, after = declared(old), declared(new)
    former, present = names

    assert after.named(present).aliases == {before.named(former).urn}
    children = before.children(former)
    assert children.keys() == after.children(present).keys()
    for key, child in after.children(present).items():
        known = children[key].urn in after.formerly(child)
        assert known or kept(child), "the engine would delete it and make another"
    followed = set().union(*map(after.formerly, after)) | after.registrations.keys()
    assert [r for urn, r in before.registrations.items() if urn not in followed and not kept(r)] == []
    assert lost(before, after) == []


def kept(registration: Registration) -> bool:
    """Whether a resource is named after its object, so that it is the same one as long as the object is."""
    _, namespace, name = registration.object if registration.custom else ("", "", "")
    return registration.name == f"{name}.{namespace}"


def lost(before: Run, after: Run) -> list[tuple[str, str, str]]:
    """The objects that the engine would make once more, which the API server takes for an update, and then delete: those
    of a URN that is not an alias of the one that they have now."""
    urns = {o.object: o.urn for o in before.objects}
    now = [(o, urns.get(o.object, o.urn)) for o in after.objects]
    return [o.object for o, urn in now if urn != o.urn and urn not in after.formerly(o)]


@pytest.fixture(scope="module")
def named_apart(tmp_path_factory: pytest.TempPathFactory) -> samples.Raw:
    """A stack in every role, whose objects have names of their own wherever the vocabulary lets one give them."""
    raw = samples.everything()
    certificate = {"certManager": {"issuer": {"name": "corporate"}}}
    raw["consumer"]["certificate"] = raw["provider"]["certificate"] = certificate
    own = CertificateAuthority.create(tmp_path_factory.mktemp("ca") / "shop", "Shop")
    raw["provider"]["consumersCaCertificate"] = own.certificate
    raw["consumer"]["imports"][0]["endpoints"][0]["service"] = "db"
    made = {"createNamespace": True}
    raw["consumer"]["egressGateway"] = {**made, "serviceAccount": "egress-account"}
    raw["provider"]["ingressGateway"] = {**made, "serviceAccount": "ingress-account"}
    return raw


ADOPTED = {"adopt": True, "createNamespace": False}
RENAMED_WITHOUT_A_WORD: dict[str, list[tuple[Path, samples.Raw]]] = {
    "import": [(("consumer", "imports", 0), {"name": "purchases"})],
    "endpoint": [(("consumer", "imports", 0, "endpoints", 0), {"name": "first"})],
    "export": [(("provider", "exports", 0), {"name": "volumes"})],
    "provider": [
        (("consumer", "providers", 0), {"name": "other"}),
        (("consumer", "imports", 0), {"provider": "other"}),
    ],
    "egress gateway": [(("consumer", "egressGateway"), {"name": "leaving"})],
    "ingress gateway": [(("provider", "ingressGateway"), {"name": "entering"})],
    "upstream": [(("upstreams", 1), {"name": "journal"})],
    "adoption": [(("consumer", "egressGateway"), ADOPTED), (("provider", "ingressGateway"), ADOPTED)],
}


@pytest.mark.parametrize("changes", RENAMED_WITHOUT_A_WORD.values(), ids=RENAMED_WITHOUT_A_WORD.keys())
def test_no_object_moves_to_another_resource(
    named_apart: samples.Raw, changes: list[tuple[Path, samples.Raw]]
) -> None:
    after = copy.deepcopy(named_apart)
    for path, values in changes:
        section: Any = after
        for part in path:
            section = section[part]
        section |= values

    assert lost(declared(named_apart), declared(after)) == []


def test_what_is_named_after_its_object_is_known_by_its_former_name(named_apart: samples.Raw) -> None:
    """A state from before has these under the names that their component gave them."""
    done = declared(named_apart)

    former = {
        "db.shop": "orders-main-virtual-ip",
        "consumer-client-cacert.mesh-egress": "istio-egressgateway-ca-data",
        "provider-server-cacert.mesh-ingress": "provider-ingress-ca-consumers",
        "egress-account.mesh-egress": "istio-egressgateway-service-account",
        "consumer-client.mesh-egress": "istio-egressgateway-consumer-client",
        "provider-server.mesh-ingress-request": "provider-ingress-provider-server-request",
    }
    for name, before in former.items():
        known = {urn.rpartition("::")[2] for urn in done.formerly(done.named(name))}
        assert before in known


def test_nothing_else_has_a_former_name() -> None:
    done = declared(samples.everything())

    assert [r.name for r in done if r.aliases and not kept(r)] == []
