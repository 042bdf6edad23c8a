"""Gateway deployments: Pods, rights, Service, restrictions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from config import Cluster, EgressGateway, IngressGateway, IstioCsr, Provider, PublicService, Workload
from config.types import STATUS_PORT
from routing import GatewayWorkload, Manifest, gateway

CLUSTER = Cluster(render=True)
PORT = object()
"""Stands for a port that only the provider's stack knows."""


def egress(**options: Any) -> GatewayWorkload:
    return gateway.egress_workload(EgressGateway(**options), CLUSTER, [9000, PORT])


def ingress(service: PublicService | None = None, cluster: Cluster = CLUSTER) -> GatewayWorkload:
    own = IngressGateway(service=service or PublicService())
    return gateway.ingress_workload(
        Provider(system_domain="istio.data.example", ingress_gateway=own), cluster
    )


def spec(manifest: Manifest) -> Any:
    return manifest.spec


def pod(workload: GatewayWorkload) -> Any:
    return spec(gateway.deployment(workload))["template"]


class TestDeployment:
    def test_the_injector_makes_the_proxy(self) -> None:
        template = pod(egress())
        (proxy,) = template["spec"]["containers"]
        assert (proxy["name"], proxy["image"]) == ("istio-proxy", "auto")
        assert template["metadata"]["annotations"]["inject.istio.io/templates"] == "gateway"
        assert "readinessProbe" not in proxy

    def test_the_revision_chooses_the_injector(self) -> None:
        assert "istio.io/rev" not in pod(egress())["metadata"]["labels"]
        labels = pod(egress(workload=Workload(revision="canary")))["metadata"]["labels"]
        assert labels["istio.io/rev"] == "canary"

    def test_annotations_of_the_stack_do_not_turn_injection_off(self) -> None:
        workload = Workload(pod_annotations={"inject.istio.io/templates": "sidecar", "team": "net"})
        annotations = pod(egress(workload=workload))["metadata"]["annotations"]
        assert (annotations["inject.istio.io/templates"], annotations["team"]) == ("gateway", "net")

    def test_pods_outlive_their_draining(self) -> None:
        """Istio reads it from the Pod's annotation (`ProxyConfig`, meshConfig's reference); pilot-agent knows no environment
        variable for it."""
        template = pod(egress(workload=Workload(drain_seconds=120)))
        said = json.loads(template["metadata"]["annotations"]["proxy.istio.io/config"])
        assert said == {"terminationDrainDuration": "120s"}
        assert "env" not in template["spec"]["containers"][0]
        assert template["spec"]["terminationGracePeriodSeconds"] > 120

    def test_settings_of_the_stack_take_the_place_of_the_proxys_own(self) -> None:
        said = {"proxy.istio.io/config": "terminationDrainDuration: 9s"}
        annotations = pod(egress(workload=Workload(pod_annotations=said)))["metadata"]["annotations"]
        assert said.items() <= annotations.items()

    def test_nodes_are_chosen_only_when_asked(self) -> None:
        assert "nodeSelector" not in pod(egress())["spec"]
        chosen = pod(egress(workload=Workload(node_selector={"zone": "a"})))["spec"]
        assert chosen["nodeSelector"] == {"zone": "a"}

    def test_the_identity_is_the_service_account(self) -> None:
        workload = egress(service_account="sender")
        assert gateway.service_account(workload).name == "sender"
        assert pod(workload)["spec"]["serviceAccountName"] == "sender"

    @pytest.mark.parametrize("build", [gateway.deployment, gateway.service])
    def test_the_engine_skips_the_wait_only_when_readiness_is_not_awaited(self, build: Any) -> None:
        assert gateway.SKIP_AWAIT not in build(ingress()).annotations
        unawaited = Cluster(render=True, await_readiness=False)
        assert build(ingress(cluster=unawaited)).annotations[gateway.SKIP_AWAIT] == "true"


class TestService:
    def test_the_egress_gateway_has_no_public_address(self) -> None:
        service = spec(gateway.service(egress(port=8443)))
        assert service["type"] == "ClusterIP"
        assert [(p["port"], p["targetPort"]) for p in service["ports"]] == [(8443, 8443)]

    def test_a_load_balancer_may_check_the_proxys_health(self) -> None:
        service = spec(gateway.service(ingress()))
        assert [port["port"] for port in service["ports"]] == [9000, STATUS_PORT]

    def test_options_of_the_load_balancer_reach_its_controller(self) -> None:
        public = PublicService(
            load_balancer_class="service.k8s.aws/nlb",
            annotations={"service.beta.kubernetes.io/aws-load-balancer-scheme": "internet-facing"},
            source_ranges=("192.0.2.0/24",),
            external_traffic_policy="Cluster",
        )
        service = gateway.service(ingress(public))
        assert service.annotations == public.annotations
        assert service.spec["loadBalancerClass"] == "service.k8s.aws/nlb"
        assert service.spec["loadBalancerSourceRanges"] == ["192.0.2.0/24"]
        assert service.spec["externalTrafficPolicy"] == "Cluster"

    @pytest.mark.parametrize("kind", ["NodePort", "ClusterIP"])
    def test_what_belongs_to_load_balancers_stays_with_them(self, kind: Any) -> None:
        public = PublicService(type=kind, load_balancer_class="x", source_ranges=("192.0.2.0/24",))
        service = spec(gateway.service(ingress(public)))
        assert not {"loadBalancerClass", "loadBalancerSourceRanges"} & set(service)
        assert ("externalTrafficPolicy" in service) == (kind == "NodePort")


class TestNetworkPolicy:
    def test_another_signer_of_the_mesh_is_reached_where_there_is_one(self) -> None:
        cluster = Cluster(render=True, istio_csr=IstioCsr(namespace="pki", port=6444))
        (_, rule) = [r for r in spec(gateway.network_policy(ingress(cluster=cluster)))["egress"] if "to" in r]
        (pods,) = rule["to"]
        assert pods == {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "pki"}}}
        assert rule["ports"] == [{"protocol": "TCP", "port": 6444}]

    def test_the_egress_gateway_reaches_the_providers_ports_alone(self) -> None:
        rules = spec(gateway.network_policy(egress()))["egress"]
        anywhere = [rule for rule in rules if any("ipBlock" in peer for peer in rule.get("to", ()))]
        assert [rule["ports"][0]["port"] for rule in anywhere] == [9000, PORT]

    def test_the_ingress_gateway_reaches_nothing_by_itself(self) -> None:
        rules = spec(gateway.network_policy(ingress()))["egress"]
        ports = {port["port"] for rule in rules for port in rule["ports"]}
        assert ports == {gateway.DNS_PORT, *gateway.ISTIOD_PORTS}

    def test_istiod_is_found_in_the_meshs_namespace(self) -> None:
        workload = gateway.egress_workload(
            EgressGateway(), Cluster(render=True, mesh_namespace="mesh-root"), []
        )
        (istiod,) = [rule for rule in spec(gateway.network_policy(workload))["egress"] if "to" in rule]
        assert istiod["to"] == [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "mesh-root"}}}
        ]


def test_the_guard_patches_connections_of_one_gateway() -> None:
    guard = gateway.upstream_guard("egress", "mesh-egress", {"istio": "egress"})
    assert guard.api_version == "networking.istio.io/v1alpha3"
    assert guard.spec["workloadSelector"] == {"labels": {"istio": "egress"}}


def test_every_object_says_who_manages_it() -> None:
    labels = gateway.namespace("mesh-egress").metadata["labels"]
    assert labels == {"app.kubernetes.io/managed-by": "meshbridge"}
    assert "namespace" not in gateway.namespace("mesh-egress").metadata
