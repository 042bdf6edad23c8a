"""What stands before the ingress gateway: its Service, and how an AWS Network Load Balancer reaches its Pods.

Sources: the AWS Load Balancer Controller's "Service annotations" and "TargetGroupBinding"; AWS's "Target groups for your
Network Load Balancers"; Istio's "Configuring Gateway Network Topology" (PROXY protocol) and pilot-agent's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from config import AwsController, NetworkLoadBalancer, Provider, PublicService, names
from config.edge import ANNOTATION_PREFIX, EXTERNAL_DNS_PREFIXES
from config.types import STATUS_PORT
from routing.manifest import Json, Manifest

STATUS_PATH = "/healthz/ready"

CONTROLLER_CLASS = "service.k8s.aws/nlb"
"""Class of the load balancers that the AWS Load Balancer Controller makes from Services."""

EXPECT_PROXY_PROTOCOL: Mapping[str, Json] = {"gatewayTopology": {"proxyProtocol": {}}}
"""The proxy's settings by which the listeners of a gateway's Pods expect a PROXY protocol header."""

PROXY_PROTOCOL_ON_STATUS_PORT = {"ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL": "true"}
"""Variable by which pilot-agent lets the readiness port take such headers too: a Network Load Balancer sends them with
its health checks, and without it every target would count as unhealthy."""


@dataclass(frozen=True)
class Exposure:
    """How a gateway's Service is reached. spec: what its spec holds beside type, selector and ports."""

    name: str
    type: str = "ClusterIP"
    with_status_port: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Json] = field(default_factory=dict)


def exposure(provider: Provider) -> Exposure:
    """The Service of an ingress gateway that the stack creates."""
    service, balancer = provider.ingress_gateway.service, provider.load_balancer
    annotations = {**service.annotations, **_external_dns(provider)}
    if balancer is not None and balancer.aws_controller is not None:
        return _controlled(provider.service_name, balancer.aws_controller, annotations)
    if balancer is not None and balancer.aws_nlb is not None:
        return Exposure(provider.service_name, annotations=annotations)
    return _plain(provider.service_name, service, annotations)


def _plain(name: str, service: PublicService, annotations: Mapping[str, str]) -> Exposure:
    """A Service as it is described: of any cloud's load balancer, of MetalLB, of the nodes' ports."""
    balanced = service.type == "LoadBalancer"
    spec: dict[str, Json] = {}
    if balanced and service.load_balancer_class is not None:
        spec["loadBalancerClass"] = service.load_balancer_class
    if balanced and service.source_ranges:
        spec["loadBalancerSourceRanges"] = list(service.source_ranges)
    if service.type != "ClusterIP":
        spec["externalTrafficPolicy"] = service.external_traffic_policy
    return Exposure(name, service.type, with_status_port=balanced, annotations=annotations, spec=spec)


def _controlled(name: str, balancer: AwsController, annotations: Mapping[str, str]) -> Exposure:
    """A Service from which the AWS Load Balancer Controller makes a Network Load Balancer. It asks the Pods' readiness
    port itself, so neither that port nor any node's is opened."""
    own = {
        "nlb-target-type": "ip",
        "scheme": balancer.scheme,
        "ip-address-type": balancer.ip_address_type,
        "healthcheck-protocol": "http",
        "healthcheck-port": str(STATUS_PORT),
        "healthcheck-path": STATUS_PATH,
        "attributes": _attributes({"load_balancing.cross_zone.enabled": balancer.cross_zone}),
        "target-group-attributes": _attributes(target_group_attributes(balancer)),
    }
    if balancer.subnets:
        own["subnets"] = ",".join(balancer.subnets)
    spec: dict[str, Json] = {
        "loadBalancerClass": CONTROLLER_CLASS,
        "allocateLoadBalancerNodePorts": False,
        "externalTrafficPolicy": "Cluster",
    }
    if balancer.source_ranges:
        spec["loadBalancerSourceRanges"] = list(balancer.source_ranges)
    prefixed = {ANNOTATION_PREFIX + key: value for key, value in own.items()}
    return Exposure(name, "LoadBalancer", annotations={**annotations, **prefixed}, spec=spec)


def target_group_attributes(balancer: NetworkLoadBalancer) -> dict[str, bool | int]:
    """Attributes of the target group, by AWS's names. The client's address is told in one way at most."""
    return {
        "preserve_client_ip.enabled": balancer.client_address == "preserve",
        "proxy_protocol_v2.enabled": balancer.client_address == "proxy-protocol",
        "deregistration_delay.timeout_seconds": balancer.deregistration_seconds,
    }


def _attributes(values: Mapping[str, bool | int]) -> str:
    return ",".join(f"{key}={str(value).lower()}" for key, value in values.items())


def _external_dns(provider: Provider) -> dict[str, str]:
    """The annotations from which external-dns makes the wildcard record, where it reads them from the Service."""
    external = provider.dns.external_dns if provider.dns is not None else None
    if external is None or external.source != "service":
        return {}
    wanted = {"hostname": names.wildcard(provider.system_domain), "ttl": str(external.ttl_seconds)}
    return {prefix + key: value for prefix in EXTERNAL_DNS_PREFIXES for key, value in wanted.items()}


def target_group_binding(
    provider: Provider, name: Json, target_group: Json, security_group: Json | None
) -> Manifest:
    """Registers the gateway's Pods with a target group.

    name: unique to the target group, since a binding can never be pointed at another one. target_group: its ARN.
    security_group: id of the load balancer's, which the controller then admits to the Pods; None: their own rules
    decide.
    """
    spec: dict[str, Json] = {
        "targetGroupARN": target_group,
        "targetType": "ip",
        "serviceRef": {"name": provider.service_name, "port": provider.port},
    }
    if security_group is not None:
        ports = [{"protocol": "TCP", "port": port} for port in (provider.port, STATUS_PORT)]
        peer = {"securityGroup": {"groupID": security_group}}
        spec["networking"] = {"ingress": [{"from": [peer], "ports": ports}]}
    return Manifest(
        "elbv2.k8s.aws/v1beta1",
        "TargetGroupBinding",
        name,
        provider.ingress_gateway.namespace,
        {"spec": spec},
    )


def wildcard_entry(provider: Provider, record_type: Json, targets: Json, ttl: int) -> dict[str, Json]:
    """The wildcard record of one type as external-dns reads it. targets: a list of addresses; ttl: seconds."""
    name = names.wildcard(provider.system_domain)
    return {"dnsName": name, "recordType": record_type, "recordTTL": ttl, "targets": targets}


def wildcard_endpoint(provider: Provider, endpoints: Json) -> Manifest:
    """The object from which external-dns makes the wildcard record (its source `crd`). endpoints: a list of
    `wildcard_entry`."""
    gateway = provider.ingress_gateway
    return Manifest(
        "externaldns.k8s.io/v1alpha1",
        "DNSEndpoint",
        gateway.name,
        gateway.namespace,
        {"spec": {"endpoints": endpoints}},
    )
