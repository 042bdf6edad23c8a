"""Every component: its type, its children and their parent, its outputs, and what it hands on to its children."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes
import pytest

from components import (
    Broker,
    BrokerArgs,
    ConsumerEgress,
    ConsumerEgressArgs,
    EgressGateway,
    EgressGatewayArgs,
    EgressGatewayPerUpstream,
    EgressGatewayPerUpstreamArgs,
    IngressGateway,
    IngressGatewayArgs,
    ProviderIngress,
    ProviderIngressArgs,
)
from components.component import Component
from components.resources import declare
from config import Cluster
from config import EgressGateway as EgressGatewayConfig
from config import IngressGateway as IngressGatewayConfig
from config import Provider as ProviderConfig
from routing import Manifest, gateway
from tests.components import samples
from tests.components.recorder import Run, run

CLUSTER = Cluster(context="north")
RENDERED = Cluster(render=True)

SERVER_CHILDREN = {"secret-reader": "Role", "secret-reader-binding": "RoleBinding"}
GUARD = {"upstream-guard": "EnvoyFilter"}
WORKLOAD = {
    **SERVER_CHILDREN,
    "claim": "ConfigMap",
    "service-account": "ServiceAccount",
    "network-policy": "NetworkPolicy",
    "deployment": "Deployment",
    "service": "Service",
    "disruption-budget": "PodDisruptionBudget",
    "autoscaler": "HorizontalPodAutoscaler",
}
UPSTREAM = {
    **WORKLOAD,
    **GUARD,
    "peer-authentication": "PeerAuthentication",
    "access-policy": "AuthorizationPolicy",
    "service-entry": "ServiceEntry",
    "upstream-rule": "DestinationRule",
    "egress-server": "Gateway",
    "egress-route": "VirtualService",
    "mesh-rule": "DestinationRule",
    "mesh-route": "VirtualService",
}
BROKER = {
    "claim": "ConfigMap",
    "service-account": "ServiceAccount",
    "network-policy": "NetworkPolicy",
    "settings": "ConfigMap",
    "deployment": "Deployment",
    "disruption-budget": "PodDisruptionBudget",
    "service": "Service",
}
CONSUMER = {
    "claim": "ConfigMap",
    "admission": "EnvoyFilter",
    "service-entry": "ServiceEntry",
    "upstream-rule": "DestinationRule",
    "egress-server": "Gateway",
    "egress-route": "VirtualService",
    "sidecar-rule": "DestinationRule",
    "virtual-ip": "Service",
    "mesh-route": "VirtualService",
}
PROVIDER = {
    "claim": "ConfigMap",
    "service-entry": "ServiceEntry",
    "service-rule": "DestinationRule",
    "public-server": "Gateway",
    "public-route": "VirtualService",
}


def imported(
    cluster: Cluster = CLUSTER, cluster_ip: str | None = None, accounts: tuple[str, ...] = ()
) -> ConsumerEgressArgs:
    return ConsumerEgressArgs(
        slug="orders-main",
        namespace="shop",
        cluster=cluster,
        gateway=EgressGatewayConfig(),
        host="main.orders.istio.data.example",
        port=9000,
        provider_id="istio.data.example",
        client_secret="consumer-client",
        service="svc-orders-main",
        service_port=5432,
        cluster_ip=cluster_ip,
        service_accounts=accounts,
    )


def exported(*, adopt: bool = False) -> ProviderIngressArgs:
    return ProviderIngressArgs(
        slug="orders-main",
        gateway=IngressGatewayConfig(adopt=adopt),
        host="main.orders.istio.data.example",
        port=9000,
        server_secret="provider-server",
        consumers=("client.shop.example",),
        address="10.20.0.11",
        target_port=5432,
    )


def egress(*, adopt: bool = False, guard: bool = True) -> EgressGatewayArgs:
    config = EgressGatewayConfig(adopt=adopt, guard_upstream_connections=guard)
    return EgressGatewayArgs(config, CLUSTER, [9000])


def ingress(
    *, adopt: bool = False, guard: bool = True, cluster: Cluster = CLUSTER, **service: str
) -> IngressGatewayArgs:
    config = ProviderConfig.model_validate(
        {
            "systemDomain": "istio.data.example",
            "ingressGateway": {"adopt": adopt, "guardUpstreamConnections": guard, "service": service},
        }
    )
    return IngressGatewayArgs(config, cluster)


def upstream(raw: samples.Raw, **more: object) -> EgressGatewayPerUpstreamArgs:
    (config,) = samples.parsed(samples.upstreams({**raw, **more})).upstreams
    return EgressGatewayPerUpstreamArgs(config, CLUSTER)


def broker(raw: samples.Raw) -> BrokerArgs:
    stack = samples.parsed(raw)
    config = samples.given(stack.broker)
    consumer, provider = stack.consumer, stack.provider
    return BrokerArgs(
        config,
        CLUSTER,
        upstream="https://next.example",
        consumer=consumer if config.role == "consumer" else None,
        provider=provider if config.role == "provider" else None,
        imported=consumer.providers[0] if consumer is not None else None,
        system_domain=pulumi.Output.from_input("istio.data.example"),
    )


Make = Callable[[str, pulumi.ResourceOptions | None], Component]

TREES: dict[str, tuple[str, Make, dict[str, str]]] = {
    "consumer": ("ConsumerEgress", lambda n, o: ConsumerEgress(n, imported(), o), CONSUMER),
    "consumer, rendered": (
        "ConsumerEgress",
        lambda n, o: ConsumerEgress(n, imported(RENDERED), o),
        CONSUMER,
    ),
    "consumer, listed accounts": (
        "ConsumerEgress",
        lambda n, o: ConsumerEgress(n, imported(accounts=("api",)), o),
        {key: kind for key, kind in CONSUMER.items() if key != "admission"},
    ),
    "provider": (
        "ProviderIngress",
        lambda n, o: ProviderIngress(n, exported(), o),
        {**PROVIDER, "reach": "NetworkPolicy"},
    ),
    "provider, adopted gateway": (
        "ProviderIngress",
        lambda n, o: ProviderIngress(n, exported(adopt=True), o),
        PROVIDER,
    ),
    "egress gateway": (
        "EgressGateway",
        lambda n, o: EgressGateway(n, egress(), o),
        {**WORKLOAD, **GUARD},
    ),
    "egress gateway, unguarded": (
        "EgressGateway",
        lambda n, o: EgressGateway(n, egress(guard=False), o),
        WORKLOAD,
    ),
    "egress gateway, adopted": (
        "EgressGateway",
        lambda n, o: EgressGateway(n, egress(adopt=True), o),
        {**SERVER_CHILDREN, **GUARD},
    ),
    "egress gateway, adopted and unguarded": (
        "EgressGateway",
        lambda n, o: EgressGateway(n, egress(adopt=True, guard=False), o),
        SERVER_CHILDREN,
    ),
    "ingress gateway": (
        "IngressGateway",
        lambda n, o: IngressGateway(n, ingress(), o),
        {**WORKLOAD, **GUARD},
    ),
    "ingress gateway, adopted": (
        "IngressGateway",
        lambda n, o: IngressGateway(n, ingress(adopt=True), o),
        {**SERVER_CHILDREN, **GUARD},
    ),
    "broker, consumer": (
        "Broker",
        lambda n, o: Broker(n, broker(samples.brokered_consumer()), o),
        {
            **BROKER,
            "data": "PersistentVolumeClaim",
            **{f"routes-{namespace}": "Role" for namespace in ("mesh-egress", "shop", "billing")},
            **{
                f"routes-{namespace}-binding": "RoleBinding"
                for namespace in ("mesh-egress", "shop", "billing")
            },
        },
    ),
    "broker, provider with a store": (
        "Broker",
        lambda n, o: Broker(n, broker(samples.brokered_provider(replicas=2, store={"secret": "store"})), o),
        {**BROKER, "routes-mesh-ingress": "Role", "routes-mesh-ingress-binding": "RoleBinding"},
    ),
    "broker, forward": (
        "Broker",
        lambda n, o: Broker(n, broker(samples.brokered_forward()), o),
        BROKER,
    ),
    "upstream, HTTPS with every option": (
        "EgressGatewayPerUpstream",
        lambda n, o: EgressGatewayPerUpstream(n, upstream(samples.FULL_HTTP), o),
        {
            **UPSTREAM,
            "opa-service": "ServiceEntry",
            "opa-policy": "AuthorizationPolicy",
            "mesh-host": "ServiceEntry",
            "ingress-server": "Gateway",
            "confinement-shop": "NetworkPolicy",
            "claim-shop": "ConfigMap",
            "claim-istio-ingress": "ConfigMap",
        },
    ),
    "upstream, HTTP": (
        "EgressGatewayPerUpstream",
        lambda n, o: EgressGatewayPerUpstream(n, upstream(samples.upstream(protocol="HTTP")), o),
        {**UPSTREAM, "mesh-host": "ServiceEntry"},
    ),
    "upstream, TLS": (
        "EgressGatewayPerUpstream",
        lambda n, o: EgressGatewayPerUpstream(n, upstream(samples.FULL_TCP), o),
        {**UPSTREAM, "virtual-ip": "Service"},
    ),
    "upstream, TCP, unguarded": (
        "EgressGatewayPerUpstream",
        lambda n, o: EgressGatewayPerUpstream(
            n, upstream(samples.upstream(protocol="TCP", guardUpstreamConnections=False)), o
        ),
        {key: kind for key, kind in {**UPSTREAM, "virtual-ip": "Service"}.items() if key not in GUARD},
    ),
}

each_tree = pytest.mark.parametrize(("type_", "make", "kinds"), TREES.values(), ids=TREES.keys())


@each_tree
def test_children_are_the_objects_below_the_component(type_: str, make: Make, kinds: dict[str, str]) -> None:
    done = run(lambda: make("unit-name", None))

    (component,) = done.components
    assert (component.type, component.name, component.custom) == (
        f"meshbridge:index:{type_}",
        "unit-name",
        False,
    )
    assert component.parent.endswith("::pulumi:pulumi:Stack::meshbridge-unit")
    assert {key: child.kind for key, child in done.children("unit-name").items()} == kinds
    assert len(done.registrations) == len(kinds) + 1, "an object lies outside the component"
    for child in done.objects:
        _, namespace, name = child.object
        assert child.name.startswith("unit-name-") or child.name == f"{name}.{namespace}"


@each_tree
def test_outputs_are_registered(type_: str, make: Make, kinds: dict[str, str]) -> None:
    done = run(lambda: make("a", None))

    (component,) = done.components
    assert component.urn in done.registered_outputs
    assert set(done.registered_outputs) <= {component.urn, component.parent}


@each_tree
def test_prerequisites_of_the_component_come_before_every_child(
    type_: str, make: Make, kinds: dict[str, str]
) -> None:
    def program() -> None:
        before = [declare(f"before-{n}", gateway.namespace(f"n{n}"), parent=None) for n in range(2)]
        make("a", pulumi.ResourceOptions(depends_on=before))

    done = run(program)

    children = done.children("a")
    first = [c for c in children.values() if not done.ancestors(c) & {o.name for o in children.values()}]
    assert first
    assert all(done.direct(child) == {"before-0", "before-1"} for child in first)
    assert all({"before-0", "before-1"} <= done.ancestors(child) for child in children.values())


@each_tree
@pytest.mark.parametrize("given", [lambda before: before, lambda before: (before,)], ids=["one", "a tuple"])
def test_prerequisites_need_not_be_a_list(
    given: Callable[[pulumi.Resource], Any], type_: str, make: Make, kinds: dict[str, str]
) -> None:
    def program() -> None:
        make("a", pulumi.ResourceOptions(depends_on=given(declare("before", gateway.namespace("n")))))

    done = run(program)

    assert all("before" in done.ancestors(child) for child in done.children("a").values())


def test_prerequisites_that_could_not_be_handed_on_are_refused() -> None:
    def program() -> None:
        ConsumerEgress("a", imported(), pulumi.ResourceOptions(depends_on=pulumi.Output.from_input([])))

    with pytest.raises(TypeError, match="a: depends_on must be a resource or resources, not an Output"):
        run(program)


@each_tree
def test_children_use_the_component_s_provider_and_the_installed_plugin_s_version(
    type_: str, make: Make, kinds: dict[str, str]
) -> None:
    class Provider(pulumi.ProviderResource):
        """A Kubernetes provider."""

    def program() -> None:
        make("a", pulumi.ResourceOptions(providers=[Provider("kubernetes", "mine", {})]))

    done = run(program)

    mine = done.named("mine").urn
    assert {child.provider_urn for child in done.objects} == {mine}
    assert all(child.version for child in done.objects)
    assert {name: ref.rsplit("::", 1)[0] for name, ref in done.named("a").providers.items()} == {
        "kubernetes": mine
    }


@each_tree
def test_types_are_those_of_pulumi_s_own_classes(type_: str, make: Make, kinds: dict[str, str]) -> None:
    """The plugin knows an object by its type, and state goes from our classes to Pulumi's and back."""
    own = Path(pulumi_kubernetes.__file__).read_text()
    for child in run(lambda: make("a", None)).objects:
        version, kind = child.inputs["apiVersion"], child.inputs["kind"]
        group = version if "/" in version else f"core/{version}"
        assert child.type == f"kubernetes:{group}:{kind}"
        assert f'"{child.type}": "{kind}"' in own or ".istio.io/" in version


@each_tree
def test_nothing_is_protected_ignored_or_retained(type_: str, make: Make, kinds: dict[str, str]) -> None:
    assert not [child.name for child in run(lambda: make("a", None)) if any(child.options.values())]


def test_a_kind_without_a_class_is_refused() -> None:
    with pytest.raises(KeyError, match="StatefulSet"):
        run(lambda: declare("a", Manifest("apps/v1", "StatefulSet", "a", "default", {})))


def outputs_of(done: Run) -> object:
    (component,) = done.components
    return done.registered_outputs[component.urn]


def test_outputs_of_consumer_egress() -> None:
    done = run(lambda: ConsumerEgress("a", imported()))

    assert outputs_of(done) == {
        "address": "svc-orders-main.shop.svc.cluster.local:5432",
        "vip": "10.96.0.7",
        "host": "main.orders.istio.data.example",
        "port": 9000,
        "providerId": "istio.data.example",
    }
    match = done.children("a")["mesh-route"].inputs["spec"]["tcp"][0]["match"][0]
    assert match == {"port": 5432, "destinationSubnets": ["10.96.0.7/32"]}
    assert "svc-orders-main.shop" in done.direct(done.named("a-mesh-route"))


@pytest.mark.parametrize(
    ("cluster", "address", "vip", "expected"),
    [
        (CLUSTER, "10.96.1.1", "10.96.1.1", ["10.96.1.1/32"]),
        (CLUSTER, "fd00::1", "fd00::1", ["fd00::1/128"]),
        (RENDERED, "10.96.1.1", "10.96.1.1", ["10.96.1.1/32"]),
        (RENDERED, None, None, None),
    ],
)
def test_a_fixed_virtual_ip_is_used_as_it_is_and_a_rendered_one_left_out(
    cluster: Cluster, address: str | None, vip: str | None, expected: list[str] | None
) -> None:
    done = run(lambda: ConsumerEgress("a", imported(cluster, address)))

    match = done.children("a")["mesh-route"].inputs["spec"]["tcp"][0]["match"][0]
    assert match.get("destinationSubnets") == expected
    (component,) = done.components
    assert done.registered_outputs[component.urn].get("vip") == vip


def test_outputs_of_provider_ingress() -> None:
    done = run(lambda: ProviderIngress("a", exported()))

    assert outputs_of(done) == {"host": "main.orders.istio.data.example", "port": 9000}


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (samples.FULL_HTTP, "http://httpbin.upstream.example"),
        (samples.FULL_TCP, "svc-ledger.egress-ledger.svc.cluster.local:5432"),
    ],
)
def test_outputs_of_an_upstream(raw: samples.Raw, expected: str) -> None:
    done = run(lambda: EgressGatewayPerUpstream("a", upstream(raw)))

    assert outputs_of(done) == {"address": expected}


def test_outputs_and_settings_of_a_broker() -> None:
    done = run(lambda: Broker("a", broker(samples.brokered_consumer())))

    assert outputs_of(done) == {
        "address": "broker.mesh-broker.svc.cluster.local:8080",
        "upstream": "https://next.example",
    }
    text = done.children("a")["settings"].inputs["data"]["settings.json"]
    assert json.loads(text)["consumer"]["systemDomains"] == ["istio.data.example"]
    template = done.children("a")["deployment"].inputs["spec"]["template"]
    assert (
        template["metadata"]["annotations"]["meshbridge.io/settings"]
        == hashlib.sha256(text.encode()).hexdigest()
    )


def test_a_gateway_names_what_must_exist_before_its_servers() -> None:
    done = run(lambda: [o.urn for o in EgressGateway("a", egress()).prerequisites])

    assert {done.registrations[urn].name for urn in done.result} == {
        "a-secret-reader-binding",
        "a-upstream-guard",
        "a-deployment",
    }
    adopted = run(
        lambda: [o.urn for o in IngressGateway("a", ingress(adopt=True, guard=False)).prerequisites]
    )
    assert {adopted.registrations[urn].name for urn in adopted.result} == {"a-secret-reader-binding"}
