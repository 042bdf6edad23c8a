"""What the official provider's schema says of each resource: its inputs, what replaces it, and what is a set.

Source: the schema of Pulumi's AWS provider 7, and Terraform's provider for what forces a new resource
(`internal/service/{elbv2,ec2,route53}`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.providers.values import UNKNOWN, Object, Value

VERSION = "7.51.1"
"""Version of the official provider whose schema this is."""


@dataclass(frozen=True)
class Schema:
    """One kind of resource. Inputs are those that the stand-in honours; `name_limit` is of the name that an unnamed one
    gets."""

    inputs: frozenset[str]
    required: frozenset[str] = frozenset()
    replace: frozenset[str] = frozenset()
    sets: frozenset[str] = frozenset()
    name_limit: int | None = None


def _kind(
    inputs: str, *, required: str = "", replace: str = "", sets: str = "", name_limit: int | None = None
) -> Schema:
    def words(text: str) -> frozenset[str]:
        return frozenset(text.split())

    return Schema(words(inputs), words(required), words(replace), words(sets), name_limit)


_RULE = _kind(
    "securityGroupId ipProtocol fromPort toPort cidrIpv4 cidrIpv6 description tags",
    required="securityGroupId ipProtocol",
    replace="securityGroupId",
)

SCHEMAS: Mapping[str, Schema] = {
    "aws:lb/loadBalancer:LoadBalancer": _kind(
        "name loadBalancerType internal ipAddressType subnets subnetMappings securityGroups enableCrossZoneLoadBalancing "
        "enableDeletionProtection accessLogs tags",
        replace="name loadBalancerType internal",
        sets="subnets subnetMappings securityGroups",
        name_limit=32,
    ),
    "aws:lb/targetGroup:TargetGroup": _kind(
        "name port protocol targetType ipAddressType vpcId preserveClientIp proxyProtocolV2 deregistrationDelay "
        "healthCheck tags",
        replace="name port protocol targetType ipAddressType vpcId",
        name_limit=32,
    ),
    "aws:lb/listener:Listener": _kind(
        "loadBalancerArn port protocol defaultActions tags",
        required="loadBalancerArn defaultActions",
        replace="loadBalancerArn",
    ),
    "aws:ec2/securityGroup:SecurityGroup": _kind(
        "name description vpcId tags", replace="name description vpcId", name_limit=255
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _RULE,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _RULE,
    "aws:ec2/eip:Eip": _kind("domain tags", replace="domain"),
    "aws:route53/record:Record": _kind(
        "zoneId name type ttl records aliases",
        required="zoneId name type",
        replace="zoneId name",
        sets="records",
    ),
}


def changes(token: str, old_inputs: Object, state: Object, new: Object) -> Iterator[tuple[str, bool]]:
    """The inputs that differ from the state, each with whether it needs a new resource."""
    schema = SCHEMAS[token]
    for key in sorted({*old_inputs, *new}):
        value, before = new.get(key), state.get(key)
        if not _same(before, value, unordered=key in schema.sets):
            yield key, key in schema.replace or _replaces_balancer(key, before, value)


def _replaces_balancer(key: str, before: Value, value: Value) -> bool:
    """A Network Load Balancer takes further subnets, and nothing else; and it has security groups from the start or
    never. What is not known yet is not judged."""
    if value is UNKNOWN or (isinstance(value, list) and UNKNOWN in value):
        return False
    old, new = (before if isinstance(before, list) else [], value if isinstance(value, list) else [])
    if key == "subnets":
        return bool(old) and not all(subnet in new for subnet in old)
    if key == "subnetMappings":
        return bool(old) and not all(any(_same(have, want, unordered=False) for want in new) for have in old)
    return key == "securityGroups" and bool(old) != bool(new)


def _same(before: Value, value: Value, *, unordered: bool) -> bool:
    """Whether the state has what is wanted: of an object, the keys that are wanted."""
    if value is UNKNOWN:
        return False
    if isinstance(value, dict) and isinstance(before, dict):
        return all(_same(before.get(key), item, unordered=False) for key, item in value.items())
    if isinstance(value, list) and isinstance(before, list):
        if len(before) != len(value):
            return False
        if unordered:
            return all(any(_same(have, want, unordered=False) for have in before) for want in value)
        return all(_same(have, want, unordered=False) for have, want in zip(before, value, strict=True))
    return before == value or (value is None and before in ("", [], {}))
