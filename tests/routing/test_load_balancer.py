"""The ingress gateway's Service in each mode, and the objects of other controllers."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from config import CertManager, Cluster, Issuer, Provider
from config.edge import ANNOTATION_PREFIX, FIREWALL_ANNOTATIONS, OWNED_ANNOTATIONS
from routing import Manifest, certificate, gateway, load_balancer
from tests.routing import facts

DOCUMENTED = facts.facts()
PAGE = DOCUMENTED[facts.ANNOTATIONS]
TYPES = {
    "string": r".+",
    "boolean": r"true|false",
    "stringList": r"[\w.:/-]+(,[\w.:/-]+)*",
    "stringMap": r"[\w.-]+=[\w.-]*(,[\w.-]+=[\w.-]*)*",
    "integer | traffic-port | named-service-port": r"\d+|traffic-port|[a-z][a-z0-9-]*",
}
"""How the controller reads a value of each of the page's types."""


def provider(balancer: dict[str, Any] | None = None, **more: Any) -> Provider:
    raw = {"systemDomain": "istio.data.example", "loadBalancer": balancer, **more}
    return Provider.model_validate_json(json.dumps(raw))


def service(made: Provider) -> Manifest:
    return gateway.service(gateway.ingress_workload(made, Cluster(render=True)))


def controlled(**options: Any) -> Manifest:
    return service(provider({"awsController": options}))


def annotation(manifest: Manifest, name: str) -> str:
    return manifest.annotations[ANNOTATION_PREFIX + name]


class TestController:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"scheme": "internal", "ipAddressType": "dualstack", "crossZone": False},
            {"clientAddress": "proxy-protocol", "subnets": ["subnet-0000000a", "subnet-0000000b"]},
            {"clientAddress": "none", "deregistrationSeconds": 0},
        ],
    )
    def test_annotations_are_those_of_the_controllers_documentation(self, options: Any) -> None:
        annotations = controlled(**options).annotations
        for key, value in annotations.items():
            assert key.startswith(facts.PREFIX)
            documented = PAGE["annotations"][key.removeprefix(facts.PREFIX)]
            assert re.fullmatch(TYPES[documented["type"]], value), (key, value)
            assert value in documented.get("values", [value])
            if documented["type"] == "stringMap":
                assert {pair.partition("=")[0] for pair in value.split(",")} <= set(PAGE["attributes"])
        assert annotations.keys() <= set(OWNED_ANNOTATIONS)

    @pytest.mark.parametrize("key", [*OWNED_ANNOTATIONS, *FIREWALL_ANNOTATIONS])
    def test_what_is_refused_is_what_the_controller_reads(self, key: str) -> None:
        assert key.removeprefix(facts.PREFIX) in PAGE["annotations"]

    def test_the_controller_makes_a_load_balancer_of_it_and_nobody_else(self) -> None:
        made = controlled()
        assert made.spec["type"] == "LoadBalancer"
        assert made.spec["loadBalancerClass"] == "service.k8s.aws/nlb"

    def test_no_port_of_a_node_is_opened(self) -> None:
        made = controlled()
        assert made.spec["allocateLoadBalancerNodePorts"] is False
        # `Local` would make Kubernetes open a port for health checks on every node.
        assert made.spec["externalTrafficPolicy"] == "Cluster"

    def test_targets_are_pods_checked_on_their_readiness_port(self) -> None:
        made = controlled()
        assert annotation(made, "nlb-target-type") == "ip"
        assert annotation(made, "healthcheck-protocol") == "http"
        assert annotation(made, "healthcheck-port") == "15021"
        assert annotation(made, "healthcheck-path") == "/healthz/ready"

    def test_only_the_public_port_is_public(self) -> None:
        ports: Any = controlled().spec["ports"]
        assert [(port["port"], port["targetPort"]) for port in ports] == [(9000, 9000)]

    @pytest.mark.parametrize(
        ("option", "kept", "sent"),
        [("preserve", "true", "false"), ("proxy-protocol", "false", "true"), ("none", "false", "false")],
    )
    def test_the_clients_address_is_told_in_one_way(self, option: str, kept: str, sent: str) -> None:
        attributes = annotation(controlled(clientAddress=option), "target-group-attributes")
        assert f"preserve_client_ip.enabled={kept}" in attributes
        assert f"proxy_protocol_v2.enabled={sent}" in attributes

    def test_clients_can_be_limited(self) -> None:
        assert controlled(sourceRanges=["192.0.2.0/24"]).spec["loadBalancerSourceRanges"] == ["192.0.2.0/24"]
        assert "loadBalancerSourceRanges" not in controlled().spec

    def test_further_annotations_go_along(self) -> None:
        further = {f"{ANNOTATION_PREFIX}eip-allocations": "eipalloc-1"}
        made = service(provider({"awsController": {}}, ingressGateway={"service": {"annotations": further}}))
        assert further.items() <= made.annotations.items()


class TestProxyProtocol:
    def template(self, balancer: dict[str, Any] | None) -> Any:
        made = gateway.deployment(gateway.ingress_workload(provider(balancer), Cluster(render=True)))
        spec: Any = made.spec
        return spec["template"]

    @pytest.mark.parametrize(
        "balancer",
        [
            {"awsController": {"clientAddress": "proxy-protocol"}},
            {"awsNlb": {"subnets": ["subnet-0000000a"], "clientAddress": "proxy-protocol"}},
            {"existing": {"address": "lb.example", "proxyProtocol": True}},
        ],
        ids=["controller", "own", "existing"],
    )
    def test_the_gateway_expects_it(self, balancer: dict[str, Any]) -> None:
        """Istio reads the setting from the Pod's annotation (`ProxyConfig.gatewayTopology.proxyProtocol`) and then puts
        Envoy's proxy_protocol listener filter before its servers' listeners. The readiness port's listener is
        pilot-agent's, which puts the filter there when this variable is set (since Istio 1.27)."""
        template = self.template(balancer)
        said = json.loads(template["metadata"]["annotations"]["proxy.istio.io/config"])
        assert said["gatewayTopology"] == {"proxyProtocol": {}}
        (proxy,) = template["spec"]["containers"]
        assert {"name": "ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL", "value": "true"} in proxy["env"]

    @pytest.mark.parametrize(
        "balancer", [None, {"awsController": {}}, {"existing": {"address": "lb.example"}}]
    )
    def test_without_it_a_client_could_forge_its_address(self, balancer: dict[str, Any] | None) -> None:
        template = self.template(balancer)
        assert "gatewayTopology" not in template["metadata"]["annotations"]["proxy.istio.io/config"]
        (proxy,) = template["spec"]["containers"]
        assert "env" not in proxy


def test_the_binding_registers_pods_by_address_and_opens_their_ports_to_the_load_balancer_alone() -> None:
    own = provider({"awsNlb": {"subnets": ["subnet-0000000a"]}}, port=9443)
    made = load_balancer.target_group_binding(own, "edge-1", "arn:…", "sg-1")
    assert (made.api_version, made.kind) == ("elbv2.k8s.aws/v1beta1", "TargetGroupBinding")
    assert made.spec == {
        "targetGroupARN": "arn:…",
        "targetType": "ip",
        "serviceRef": {"name": "provider-ingress-targets", "port": 9443},
        "networking": {
            "ingress": [
                {
                    "from": [{"securityGroup": {"groupID": "sg-1"}}],
                    "ports": [{"protocol": "TCP", "port": 9443}, {"protocol": "TCP", "port": 15021}],
                }
            ]
        },
    }
    assert made.name == "edge-1"


OWN = provider({"awsNlb": {"subnets": ["subnet-0000000a"]}})
ASKED = CertManager(issuer=Issuer(name="pca", kind="AWSPCAIssuer", group="awspca.cert-manager.io"))
OBJECTS = {
    "a binding": load_balancer.target_group_binding(OWN, "edge-1", "arn:aws:…", "sg-1"),
    "a binding to another's": load_balancer.target_group_binding(OWN, "edge-1", "arn:aws:…", None),
    "a record": load_balancer.wildcard_endpoint(
        OWN, [load_balancer.wildcard_entry(OWN, "A", ["192.0.2.9"], 60)]
    ),
    "a server's certificate": certificate.request(
        "s", "n", name="istio.data.example", usage="server", config=ASKED, cluster=Cluster(render=True)
    ),
    "a client's certificate": certificate.request(
        "s", "n", name="client.shop.example", usage="client", config=ASKED, cluster=Cluster(render=True)
    ),
}


@pytest.mark.parametrize("made", OBJECTS.values(), ids=OBJECTS.keys())
def test_objects_of_other_controllers_are_what_their_definitions_say(made: Manifest) -> None:
    definition = DOCUMENTED[made.kind]
    assert made.api_version.rpartition("/")[2] == definition["apiVersion"]
    assert list(facts.violations(definition["spec"], made.spec)) == []


@pytest.mark.parametrize(
    ("kind", "spec", "found"),
    [
        ("DNSEndpoint", {"endpoints": [{"dnsNames": "a"}]}, ".endpoints[0].dnsNames: is no field"),
        ("DNSEndpoint", {"endpoints": [{"targets": "a"}]}, ".endpoints[0].targets: 'a' is no array"),
        ("DNSEndpoint", {"endpoints": [{"recordTTL": "60"}]}, ".endpoints[0].recordTTL: '60' is no integer"),
        ("TargetGroupBinding", {}, ".serviceRef: is missing"),
        (
            "TargetGroupBinding",
            {"serviceRef": {"name": "a", "port": 1}, "targetType": "pod"},
            ".targetType: 'pod' is none of",
        ),
        (
            "Certificate",
            {"secretName": "a", "issuerRef": {"name": "a"}, "usages": ["serverAuth"]},
            ".usages[0]: 'serverAuth' is none of",
        ),
    ],
)
def test_what_a_definition_does_not_say_is_found(kind: str, spec: Any, found: str) -> None:
    (violation,) = facts.violations(DOCUMENTED[kind]["spec"], spec)
    assert violation.startswith(found)
