"""What holds for every stack that the vocabulary can say."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pulumi
import pulumi_kubernetes
import pytest
from hypothesis import given, settings

from components import declare_stack
from components.resources import KubernetesProvider
from tests import strategies
from tests.components import samples
from tests.components.cloud import Cloud, Unmade
from tests.components.recorder import Registration, Run, Secret, leaves, run, unknown_leaves
from tests.components.test_order import earliest_hazards

KUBECONFIG = "the contents of a kubeconfig"


def declared(raw: samples.Raw, *, preview: bool = False) -> Run:
    stack = samples.parsed(raw)
    return run(lambda: declare_stack(stack), plugin=Unmade() if preview else Cloud(), preview=preview)


@settings(max_examples=15)
@given(raw=strategies.stacks())
def test_every_stack_can_be_declared_safely(raw: samples.Raw) -> None:
    done = declared(raw)

    registered = {component.urn for component in done.components}
    assert registered <= set(done.registered_outputs), "a component registers no outputs"
    twice = [key for key, count in Counter(o.object for o in done.objects).items() if count > 1]
    assert not twice, "two resources are one object"
    plugin = done.named("cluster").urn
    assert {o.provider_urn for o in done.objects} == {plugin}, "an object goes to whatever cluster is current"
    components = {component.urn for component in done.components}
    outside = [o.name for o in done.objects if o.parent not in components and o.kind != "Namespace"]
    assert not outside, "an object belongs to no component"
    assert earliest_hazards(done.objects) == set(), "an object comes too early"


@settings(max_examples=15)
@given(raw=strategies.stacks())
def test_a_preview_knows_everything_but_virtual_ips(raw: samples.Raw) -> None:
    unknown = unknown_leaves(declared(raw, preview=True))

    fixed = {
        f"{imported['name']}-{endpoint['name']}-mesh-route"
        for imported in raw.get("consumer", {}).get("imports", [])
        for endpoint in imported["endpoints"]
        if "clusterIp" in endpoint
    }
    routes = {name: paths for name, paths in unknown.items() if name.endswith("-mesh-route")}
    assert not fixed & routes.keys()
    assert all(paths == ["spec.tcp[0].match[0].destinationSubnets[0]"] for paths in routes.values())
    assert not (routes and raw["cluster"].get("render"))
    # What AWS or the cluster decides about a load balancer: a target group's ARN, an address.
    assert unknown.keys() - routes.keys() <= {
        f"{name}-{suffix}"
        for name in [raw.get("provider", {}).get("ingressGateway", {}).get("name", "provider-ingress")]
        for suffix in ("lb-binding", "dns-endpoint")
    }


def test_namespaces_that_several_gateways_share_are_made_once() -> None:
    shared: samples.Raw = {"namespace": "mesh", "createNamespace": True}
    raw = {
        **samples.consumer(egressGateway={**shared, "labels": {"role": "egress"}}),
        **samples.provider(ingressGateway={**shared, "labels": {"role": "ingress"}}),
        "upstreams": [samples.upstream("web", **shared), samples.upstream("api", **shared)],
    }

    namespaces = [o for o in declared(raw).objects if o.kind == "Namespace"]

    assert [(o.name, o.object) for o in namespaces] == [("namespace-mesh", ("Namespace", "", "mesh"))]


@pytest.mark.parametrize("gateway", [{"createNamespace": False}, {"adopt": True}, {}])
def test_other_namespaces_are_left_alone(gateway: samples.Raw) -> None:
    done = declared(samples.consumer(egressGateway=gateway))

    assert not [o for o in done.objects if o.kind == "Namespace"]


@pytest.mark.parametrize(
    ("cluster", "expected"),
    [
        (
            {"context": "north"},
            {
                "context": "north",
                "enableServerSideApply": "true",
                "upsertExistingObjects": "true",
                "enableSecretMutable": "true",
            },
        ),
        (
            {"kubeconfig": __file__},
            {
                "kubeconfig": __file__,
                "enableServerSideApply": "true",
                "upsertExistingObjects": "true",
                "enableSecretMutable": "true",
            },
        ),
        ({"render": True}, {"renderYamlToDirectory": "build/unit"}),
    ],
)
def test_the_cluster_s_provider_says_which_cluster(cluster: samples.Raw, expected: samples.Raw) -> None:
    done = declared(samples.provider(cluster=cluster))

    provider = done.named("cluster")
    assert provider.type == "pulumi:providers:kubernetes"
    assert configured(provider) == expected


def test_the_cluster_s_provider_is_configured_as_pulumi_s_own_class_would() -> None:
    def program() -> None:
        pulumi_kubernetes.Provider(
            "own",
            context="north",
            enable_server_side_apply=True,
            upsert_existing_objects=True,
            enable_secret_mutable=True,
        )
        KubernetesProvider("ours", kubeconfig=None, context="north", rendered_to=None)
        pulumi_kubernetes.Provider("own-rendered", render_yaml_to_directory="build/unit")
        KubernetesProvider("ours-rendered", kubeconfig=None, context=None, rendered_to="build/unit")

    done = run(program)

    for own, ours in (("own", "ours"), ("own-rendered", "ours-rendered")):
        assert configured(done.named(ours)) == configured(done.named(own))
        assert done.named(ours).type == done.named(own).type


def configured(provider: Registration) -> dict[str, object]:
    return {key: value for key, value in provider.inputs.items() if value is not None}


def test_a_kubeconfig_s_home_directory_is_this_user_s(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "north").touch()

    done = declared(samples.provider(cluster={"kubeconfig": "~/north"}))

    assert done.named("cluster").inputs["kubeconfig"] == str(tmp_path / "north")


def test_a_kubeconfig_that_is_not_there_is_refused_before_anything_is_declared(tmp_path: Path) -> None:
    missing = str(tmp_path / "nroth")
    with pytest.raises(pulumi.RunError) as refused:
        declared(samples.provider(cluster={"kubeconfig": missing}))
    assert f"cluster.kubeconfig: '{missing}' is no file on this machine; correct the path" in str(
        refused.value
    )


def test_a_secret_kubeconfig_stays_secret() -> None:
    stack = samples.parsed({**samples.everything(), "cluster": {"kubeconfigSecret": True}})

    done = run(lambda: declare_stack(stack, pulumi.Output.secret(KUBECONFIG)))

    assert done.named("cluster").inputs["kubeconfig"] == Secret(KUBECONFIG)
    elsewhere = [r for r in done if r.name != "cluster"]
    assert KUBECONFIG not in repr((elsewhere, done.registered_outputs, done.result))
    assert done.result["target"] == "the cluster of the stack's kubeconfig"


@pytest.mark.parametrize(
    ("cluster", "target"), [({"context": "north"}, "context north"), ({"render": True}, "build/unit")]
)
def test_the_target_says_where_it_went(cluster: samples.Raw, target: str) -> None:
    assert declared(samples.provider(cluster=cluster)).result["target"] == target


def test_outputs_say_what_each_role_offers() -> None:
    result = declared(samples.everything()).result

    assert set(result) == {
        "target",
        "provider",
        "wildcardRecord",
        "consumer",
        "upstreams",
        "missing",
        "unchecked",
    }
    assert [text.partition(":")[0] for text in result["missing"]] == ["provider.caCertificate"]
    assert [e["name"] for e in result["consumer"]["endpoints"]] == ["orders-main", "orders-replica"]
    assert result["consumer"]["egressGateway"] == "mesh-egress/istio-egressgateway"
    assert result["consumer"]["endpoints"][0] == {
        "name": "orders-main",
        "namespace": "shop",
        "serviceAccounts": [],
        "address": "svc-orders-main.shop.svc.cluster.local:5432",
        "vip": "10.96.0.7",
        "host": "main.orders.istio.data.example",
        "port": 9000,
        "providerId": "istio.data.example",
    }
    assert [(u["name"], u["from"], u["address"]) for u in result["upstreams"]] == [
        ("httpbin", ["mesh", "ingress"], "http://httpbin.upstream.example"),
        ("ledger", ["mesh"], "svc-ledger.egress-ledger.svc.cluster.local:5432"),
    ]


def test_a_standalone_broker_calls_the_provider_s_by_a_route_that_it_alone_may_use() -> None:
    done = declared(samples.brokered_consumer(upstream={"host": "proxy.istio.data.example"}))

    assert done.result["broker"] == {
        "role": "consumer",
        "namespace": "mesh-broker",
        "address": "broker.mesh-broker.svc.cluster.local:8080",
        "upstream": "http://svc-broker-upstream.mesh-broker.svc.cluster.local:5555",
        "bindsIn": ["shop", "billing"],
    }
    way = done.children("broker-upstream")
    server = way["egress-server"].inputs["spec"]["servers"][0]
    assert server["hosts"] == ["proxy.istio.data.example"]
    assert server["tls"]["subjectAltNames"] == ["spiffe://shop.example/ns/mesh-broker/sa/broker"]
    rule = way["upstream-rule"].inputs["spec"]["trafficPolicy"]
    assert rule["tls"]["credentialName"] == "data-client"
    assert rule["connectionPool"]["tcp"]["connectTimeout"] == "9s"
    assert way["virtual-ip"].object == ("Service", "mesh-broker", "svc-broker-upstream")


def test_a_plugin_broker_makes_no_way_of_its_own() -> None:
    done = declared(samples.brokered_consumer(upstream={"url": "https://manager.example/v1/osb/7"}))

    assert {c.name for c in done.components} & {"broker", "broker-upstream"} == {"broker"}
    assert done.result["broker"]["upstream"] == "https://manager.example/v1/osb/7"


def test_the_control_plane_route_leads_to_the_stack_s_own_broker() -> None:
    done = declared(samples.brokered_provider(port=8181))

    entry = done.children("control-plane")["service-entry"].inputs["spec"]
    service = done.children("broker")["service"]
    assert entry["endpoints"] == [{"address": "broker.mesh-broker.svc.cluster.local"}]
    assert [port["number"] for port in entry["ports"]] == [8181]
    assert service.object == ("Service", "mesh-broker", "broker")
    assert [port["port"] for port in service.inputs["spec"]["ports"]] == [8181]
    assert done.result["provider"]["controlPlane"] == {
        "host": "istio-broker.istio.data.example",
        "consumers": ["client.shop.example"],
    }


@pytest.mark.parametrize("role", ["consumer", "provider", "upstreams"])
def test_a_role_that_a_stack_lacks_is_no_output(role: str) -> None:
    raw = {key: value for key, value in samples.everything().items() if key in {"cluster", role}}

    beside = {
        "consumer": {"unchecked"},
        "provider": {"unchecked", "wildcardRecord", "missing"},
        "upstreams": set(),
    }
    assert set(declared(raw).result) == {"target", role} | beside[role]


def test_a_rendered_stack_says_nothing_that_only_a_cluster_knows() -> None:
    done = declared(samples.everything(samples.RENDERED))

    assert not unknown_leaves(done)
    assert done.result["provider"]["address"] is None
    assert [e["vip"] for e in done.result["consumer"]["endpoints"]] == [None, None]
    routes = [o for o in done.objects if o.name.endswith("-mesh-route")]
    assert routes
    assert not [path for o in routes for path, _ in leaves(o.inputs) if "destinationSubnets" in path]
