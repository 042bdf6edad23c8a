"""What the stack makes in AWS: the inputs of Pulumi's AWS resources, whose values may be known only at run time.

Sources: AWS's user guides of Network Load Balancers and Route 53, and the schema of Pulumi's AWS provider.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from config import AwsNlb, Cluster, Provider, Route53, names
from config.types import STATUS_PORT
from routing.load_balancer import STATUS_PATH, target_group_attributes
from routing.manifest import Json

Inputs = dict[str, Json]

ANYWHERE = ("0.0.0.0/0", "::/0")


def load_balancer(config: AwsNlb, addresses: Sequence[Json], firewall: Json) -> Inputs:
    """The Network Load Balancer.

    addresses: an Elastic IP's id for each subnet, or none. firewall: id of its security group, which it has from the
    start, since one cannot be added later.
    """
    inputs: Inputs = {
        "loadBalancerType": "network",
        "internal": config.scheme == "internal",
        "ipAddressType": config.ip_address_type,
        "securityGroups": [firewall],
        "enableCrossZoneLoadBalancing": config.cross_zone,
        "enableDeletionProtection": config.deletion_protection,
    }
    if addresses:
        inputs["subnetMappings"] = [
            {"subnetId": subnet, "allocationId": address}
            for subnet, address in zip(config.subnets, addresses, strict=True)
        ]
    else:
        inputs["subnets"] = list(config.subnets)
    if config.access_logs is not None:
        logs = {"enabled": True, "bucket": config.access_logs.bucket, "prefix": config.access_logs.prefix}
        inputs["accessLogs"] = {key: value for key, value in logs.items() if value is not None}
    return inputs


def target_group(provider: Provider, config: AwsNlb, cluster: Cluster, vpc: Json) -> Inputs:
    """The gateway's Pods as targets, by IP address; they are asked for their readiness."""
    attributes = target_group_attributes(config)
    return {
        "port": provider.port,
        "protocol": "TCP",
        "targetType": "ip",
        "ipAddressType": cluster.ip_family.lower(),
        "vpcId": vpc,
        "preserveClientIp": str(attributes["preserve_client_ip.enabled"]).lower(),
        "proxyProtocolV2": attributes["proxy_protocol_v2.enabled"],
        "deregistrationDelay": attributes["deregistration_delay.timeout_seconds"],
        "healthCheck": {"protocol": "HTTP", "port": str(STATUS_PORT), "path": STATUS_PATH},
    }


def listener(provider: Provider, balancer: Json, group: Json) -> Inputs:
    """The public port, which passes connections on as they are: the gateway ends the TLS."""
    return {
        "loadBalancerArn": balancer,
        "port": provider.port,
        "protocol": "TCP",
        "defaultActions": [{"type": "forward", "targetGroupArn": group}],
    }


def firewall(provider: Provider, vpc: Json) -> Inputs:
    """The load balancer's security group; `firewall_rules` say what it admits."""
    return {
        "description": f"Clients of the ingress gateway {provider.ingress_gateway.name}",
        "vpcId": vpc,
    }


@dataclass(frozen=True)
class FirewallRule:
    """Who may connect (`incoming`), or where connections may go: a network, as a CIDR block, and a port."""

    incoming: bool
    network: str
    port: int

    def inputs(self, group: Json) -> Inputs:
        """The rule of the security group with this id."""
        return {
            "securityGroupId": group,
            "ipProtocol": "tcp",
            "fromPort": self.port,
            "toPort": self.port,
            "cidrIpv6" if ":" in self.network else "cidrIpv4": self.network,
        }


def firewall_rules(provider: Provider, config: AwsNlb, cluster: Cluster) -> Iterator[FirewallRule]:
    """Clients reach the public port, and the load balancer the Pods' public port and readiness port."""
    families = 2 if config.ip_address_type == "dualstack" else 1
    for clients in config.source_ranges or ANYWHERE[:families]:
        yield FirewallRule(True, clients, provider.port)
    for port in (provider.port, STATUS_PORT):
        yield FirewallRule(False, ANYWHERE[cluster.ip_family == "IPv6"], port)


def alias_record(
    provider: Provider, config: Route53, zone: Json, kind: str, target: Mapping[str, Json]
) -> Inputs:
    """The wildcard record as an alias. target: `name` and `zoneId` of the load balancer."""
    alias = {**target, "evaluateTargetHealth": config.evaluate_target_health}
    return {**_record(provider, zone), "type": kind, "aliases": [alias]}


def plain_record(provider: Provider, config: Route53, zone: Json, kind: Json, values: Json) -> Inputs:
    """The wildcard record with addresses, all of one type, as its values."""
    return {**_record(provider, zone), "type": kind, "ttl": config.ttl_seconds, "records": values}


def _record(provider: Provider, zone: Json) -> Inputs:
    return {"zoneId": zone, "name": names.wildcard(provider.system_domain)}
