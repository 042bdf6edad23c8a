"""AWS as far as a program sees it: what its look-ups find, and what it says of what was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.components import samples
from tests.components.recorder import Plugin, Registration

SCHEMA: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "aws-schema.json").read_text())
"""Names of the official provider's inputs and outputs."""

SUBNETS = ("subnet-0000000a", "subnet-0000000b", "subnet-0000000c")
ZONE_ID = "Z0123456789ABCDEFGHIJ"
ARN = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:{}/edge/0123456789abcdef"
NLB_ZONE = "Z3F0SRJ5LGBH90"
AWS: samples.Raw = {"region": "eu-central-1"}


@dataclass
class Cloud(Plugin):
    """An account with three subnets and a hosted zone; `records` are those of the zone, by name and type. services:
    addresses of the cluster's load-balancer Services."""

    records: list[tuple[str, str]] = field(default_factory=list)
    zone: str | None = None
    private: bool = False
    kind: str = "network"
    families: str = "ipv4"
    vpcs: Mapping[str, str] = field(default_factory=dict)
    zones: Mapping[str, str] = field(default_factory=dict)
    services: tuple[dict[str, str], ...] = ({"hostname": "k8s-lb.elb.eu-central-1.amazonaws.com"},)

    def invoked(self, token: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        unknown = set(arguments) - set(SCHEMA["functions"][token]["inputs"])
        assert not unknown, f"{token} has no argument {unknown}"
        found = self._found(token, arguments)
        assert set(found) <= set(SCHEMA["functions"][token]["outputs"])
        return found

    def _found(self, token: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        function = token.rpartition(":")[2]
        if function == "getSubnet":
            subnet = arguments["id"]
            zone = self.zones.get(subnet, subnet[-1])
            return {"id": subnet, "vpcId": self.vpcs.get(subnet, "vpc-1"), "availabilityZone": zone}
        if function == "getZone":
            name = self.zone or arguments.get("name", "data.example")
            return {"zoneId": ZONE_ID, "name": name, "privateZone": self.private}
        if function == "getRecords":
            return {"resourceRecordSets": [{"name": name, "type": kind} for name, kind in self.records]}
        if function == "getHostedZoneId":
            return {"id": NLB_ZONE}
        return {
            "arn": arguments["arn"],
            "dnsName": "theirs.elb.eu-central-1.amazonaws.com",
            "zoneId": NLB_ZONE,
            "loadBalancerType": self.kind,
            "ipAddressType": self.families,
        }

    def created(self, registration: Registration) -> tuple[str, Mapping[str, Any]]:
        identifier, state = super().created(registration)
        if registration.kind == "Service":
            return identifier, {**state, "status": {"loadBalancer": {"ingress": list(self.services)}}}
        known: dict[str, Any] = {}
        if registration.kind == "LoadBalancer":
            known = {
                "arn": ARN.format("loadbalancer/net"),
                "dnsName": "ours.elb.eu-central-1.amazonaws.com",
                "zoneId": NLB_ZONE,
            }
        if registration.kind == "TargetGroup":
            known = {"arn": ARN.format("targetgroup")}
        return identifier, {**state, **known}


class Unmade(Cloud):
    """The preview of what does not exist yet: look-ups are answered, nothing that is made is known."""

    def created(self, registration: Registration) -> tuple[str, Mapping[str, Any]]:
        return "", {key: value for key, value in registration.inputs.items() if value is not None}


def balanced(balancer: samples.Raw | None = None, dns: samples.Raw | None = None, **more: Any) -> samples.Raw:
    """A provider with this load balancer and record; `aws` where one of them lies there."""
    raw = samples.provider(**more)
    if balancer is not None:
        raw["provider"]["loadBalancer"] = balancer
    if dns is not None:
        raw["provider"]["dns"] = dns
    used = [
        (balancer or {}).get("awsNlb"),
        (balancer or {}).get("existing", {}).get("arn"),
        (dns or {}).get("route53"),
    ]
    return {**raw, "aws": AWS} if any(item is not None for item in used) else raw
