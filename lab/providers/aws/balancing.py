"""Load balancers, target groups and listeners.

Source pages: AWS's API reference "Elastic Load Balancing version 2"; Terraform's `internal/service/elbv2` for the order
of the calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.providers.aws.resource import Resource, Tagged, api_tags, flag
from lab.providers.errors import ProviderError
from lab.providers.values import Object, Value, integer, mapping, sequence, text

_BALANCER_ATTRIBUTES = {
    "enableCrossZoneLoadBalancing": "load_balancing.cross_zone.enabled",
    "enableDeletionProtection": "deletion_protection.enabled",
}


class _Balancing(Tagged):
    service = "elbv2"

    def read_tags(self, arn: str) -> list[Any]:
        described: list[Any] = self.client.describe_tags(ResourceArns=[arn])["TagDescriptions"]
        return described[0]["Tags"] if described else []

    def add_tags(self, arn: str, tags: list[dict[str, str]]) -> None:
        self.client.add_tags(ResourceArns=[arn], Tags=tags)

    def remove_tags(self, arn: str, keys: list[str]) -> None:
        self.client.remove_tags(ResourceArns=[arn], TagKeys=keys)


class LoadBalancer(_Balancing):
    """A Network Load Balancer."""

    missing = ("LoadBalancerNotFound",)

    def create(self, inputs: Object) -> str:
        wanted = {
            "Name": text(inputs, "name"),
            "Type": text(inputs, "loadBalancerType"),
            "Scheme": "internal" if inputs.get("internal") is True else "internet-facing",
            "IpAddressType": text(inputs, "ipAddressType") or "ipv4",
            "SecurityGroups": sequence(inputs, "securityGroups"),
            "Tags": api_tags(inputs),
            **_zones(inputs),
        }
        arn = str(self.client.create_load_balancer(**wanted)["LoadBalancers"][0]["LoadBalancerArn"])
        self.client.get_waiter("load_balancer_available").wait(
            LoadBalancerArns=[arn], WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )
        self._set_attributes(arn, inputs)
        return arn

    def _set_attributes(self, arn: str, inputs: Object) -> None:
        logs = mapping(inputs, "accessLogs")
        attributes = {name: flag(inputs.get(key)) for key, name in _BALANCER_ATTRIBUTES.items()}
        attributes["access_logs.s3.enabled"] = flag(logs.get("enabled"))
        if logs.get("enabled") is True:
            attributes["access_logs.s3.bucket"] = text(logs, "bucket")
            attributes["access_logs.s3.prefix"] = text(logs, "prefix")
        self.client.modify_load_balancer_attributes(LoadBalancerArn=arn, Attributes=_pairs(attributes))

    def read(self, identifier: str, state: Object) -> Object:
        (found,) = self.client.describe_load_balancers(LoadBalancerArns=[identifier])["LoadBalancers"]
        described = self.client.describe_load_balancer_attributes(LoadBalancerArn=identifier)["Attributes"]
        attributes = {item["Key"]: item["Value"] for item in described}
        logs = {"enabled": attributes.get("access_logs.s3.enabled") == "true"} | {
            key: attributes[f"access_logs.s3.{key}"]
            for key in ("bucket", "prefix")
            if attributes.get(f"access_logs.s3.{key}")
        }
        zones: list[Value] = [zone["SubnetId"] for zone in found["AvailabilityZones"]]
        # moto keeps no addresses of a load balancer, so these are known from the state alone.
        mappings = [m for m in sequence(state, "subnetMappings") if text(m, "subnetId") in zones]
        return {
            "arn": identifier,
            "name": found["LoadBalancerName"],
            "dnsName": found["DNSName"],
            "zoneId": found["CanonicalHostedZoneId"],
            "vpcId": found["VpcId"],
            "loadBalancerType": found["Type"],
            "internal": found["Scheme"] == "internal",
            "ipAddressType": found["IpAddressType"],
            "securityGroups": list(found.get("SecurityGroups", [])),
            "subnets": zones,
            "subnetMappings": mappings,
            "accessLogs": dict(logs),
            "tags": self.tags_of(identifier),
            **{key: attributes.get(name) == "true" for key, name in _BALANCER_ATTRIBUTES.items()},
        }

    def update(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        if changed & {*_BALANCER_ATTRIBUTES, "accessLogs"}:
            self._set_attributes(identifier, inputs)
        if "securityGroups" in changed:
            groups = sequence(inputs, "securityGroups")
            self.client.set_security_groups(LoadBalancerArn=identifier, SecurityGroups=groups)
        if changed & {"subnets", "subnetMappings"}:
            self.client.set_subnets(LoadBalancerArn=identifier, **_zones(inputs))
        if "ipAddressType" in changed:
            kind = text(inputs, "ipAddressType")
            self.client.set_ip_address_type(LoadBalancerArn=identifier, IpAddressType=kind)
        self.retag(identifier, changed, inputs, state)

    def delete(self, identifier: str, state: Object) -> None:
        # AWS itself refuses this; moto does not.
        own = self.account.client("elbv2", quiet=True)
        described = own.describe_load_balancer_attributes(LoadBalancerArn=identifier)["Attributes"]
        if {"Key": "deletion_protection.enabled", "Value": "true"} in described:
            raise ProviderError(
                f"deleting ELBv2 Load Balancer ({identifier}): OperationNotPermitted: Load balancer '{identifier}' cannot "
                "be deleted because deletion protection is enabled"
            )
        self.client.delete_load_balancer(LoadBalancerArn=identifier)


class TargetGroup(_Balancing):
    """A target group of IP addresses."""

    missing = ("TargetGroupNotFound",)

    def create(self, inputs: Object) -> str:
        wanted = {
            "Name": text(inputs, "name"),
            "Protocol": text(inputs, "protocol"),
            "Port": integer(inputs, "port"),
            "VpcId": text(inputs, "vpcId"),
            "TargetType": text(inputs, "targetType"),
            "IpAddressType": text(inputs, "ipAddressType") or "ipv4",
            "Tags": api_tags(inputs),
            **_health_check(inputs),
        }
        arn = str(self.client.create_target_group(**wanted)["TargetGroups"][0]["TargetGroupArn"])
        self._set_attributes(arn, inputs)
        return arn

    def _set_attributes(self, arn: str, inputs: Object) -> None:
        attributes = {
            "preserve_client_ip.enabled": flag(inputs.get("preserveClientIp")),
            "proxy_protocol_v2.enabled": flag(inputs.get("proxyProtocolV2")),
            "deregistration_delay.timeout_seconds": str(inputs.get("deregistrationDelay", 300)),
        }
        self.client.modify_target_group_attributes(TargetGroupArn=arn, Attributes=_pairs(attributes))

    def read(self, identifier: str, state: Object) -> Object:
        (found,) = self.client.describe_target_groups(TargetGroupArns=[identifier])["TargetGroups"]
        described = self.client.describe_target_group_attributes(TargetGroupArn=identifier)["Attributes"]
        attributes = {item["Key"]: item["Value"] for item in described}
        return {
            "arn": identifier,
            "name": found["TargetGroupName"],
            "protocol": found["Protocol"],
            "port": int(found["Port"]),
            "vpcId": found["VpcId"],
            "targetType": found["TargetType"],
            "ipAddressType": found.get("IpAddressType", "ipv4"),
            "preserveClientIp": attributes.get("preserve_client_ip.enabled", "false"),
            "proxyProtocolV2": attributes.get("proxy_protocol_v2.enabled") == "true",
            "deregistrationDelay": int(attributes["deregistration_delay.timeout_seconds"]),
            "healthCheck": {
                "protocol": found["HealthCheckProtocol"],
                "port": str(found["HealthCheckPort"]),
                "path": found.get("HealthCheckPath", ""),
            },
            "tags": self.tags_of(identifier),
        }

    def update(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        if "healthCheck" in changed:
            self.client.modify_target_group(TargetGroupArn=identifier, **_health_check(inputs))
        if changed & {"preserveClientIp", "proxyProtocolV2", "deregistrationDelay"}:
            self._set_attributes(identifier, inputs)
        self.retag(identifier, changed, inputs, state)

    def delete(self, identifier: str, state: Object) -> None:
        self.client.delete_target_group(TargetGroupArn=identifier)


class Listener(_Balancing):
    """A TCP listener."""

    missing = ("ListenerNotFound",)

    def create(self, inputs: Object) -> str:
        balancer = text(inputs, "loadBalancerArn")
        self._require_free(balancer, inputs)
        made = self.client.create_listener(
            LoadBalancerArn=balancer,
            Port=integer(inputs, "port"),
            Protocol=text(inputs, "protocol"),
            DefaultActions=_actions(inputs),
            Tags=api_tags(inputs),
        )
        return str(made["Listeners"][0]["ListenerArn"])

    def _require_free(self, balancer: str, inputs: Object) -> None:
        """AWS lets one load balancer use a target group; moto does not mind."""
        own = self.account.client("elbv2", quiet=True)
        wanted = {action["TargetGroupArn"] for action in _actions(inputs)}
        for other in own.describe_load_balancers()["LoadBalancers"]:
            arn = other["LoadBalancerArn"]
            listeners = own.describe_listeners(LoadBalancerArn=arn)["Listeners"] if arn != balancer else []
            used = {action.get("TargetGroupArn") for item in listeners for action in item["DefaultActions"]}
            if wanted & used:
                raise ProviderError(
                    "creating ELBv2 Listener: TargetGroupAssociationLimit: The following target groups cannot be "
                    f"associated with more than one load balancer: {', '.join(sorted(wanted))}"
                )

    def read(self, identifier: str, state: Object) -> Object:
        (found,) = self.client.describe_listeners(ListenerArns=[identifier])["Listeners"]
        self.client.describe_listener_attributes(ListenerArn=identifier)
        actions: list[Value] = [
            {"type": action["Type"], "targetGroupArn": action.get("TargetGroupArn", "")}
            for action in found["DefaultActions"]
        ]
        return {
            "arn": identifier,
            "loadBalancerArn": found["LoadBalancerArn"],
            "port": int(found["Port"]),
            "protocol": found["Protocol"],
            "defaultActions": actions,
            "tags": self.tags_of(identifier),
        }

    def update(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        if changed & {"port", "protocol", "defaultActions"}:
            self._require_free(text(inputs, "loadBalancerArn"), inputs)
            self.client.modify_listener(
                ListenerArn=identifier,
                Port=integer(inputs, "port"),
                Protocol=text(inputs, "protocol"),
                DefaultActions=_actions(inputs),
            )
        self.retag(identifier, changed, inputs, state)

    def delete(self, identifier: str, state: Object) -> None:
        self.client.delete_listener(ListenerArn=identifier)


def _pairs(attributes: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in attributes.items()]


def _zones(inputs: Object) -> dict[str, Any]:
    mappings = [
        {"SubnetId": text(item, "subnetId"), "AllocationId": text(item, "allocationId")}
        for item in sequence(inputs, "subnetMappings")
    ]
    return {"SubnetMappings": mappings} if mappings else {"Subnets": sequence(inputs, "subnets")}


def _health_check(inputs: Object) -> dict[str, Any]:
    check = mapping(inputs, "healthCheck")
    return {
        "HealthCheckProtocol": text(check, "protocol"),
        "HealthCheckPort": text(check, "port"),
        "HealthCheckPath": text(check, "path"),
        "HealthCheckIntervalSeconds": integer(check, "interval") or 30,
        "HealthyThresholdCount": integer(check, "healthyThreshold") or 3,
        "UnhealthyThresholdCount": integer(check, "unhealthyThreshold") or 3,
    }


def _actions(inputs: Object) -> list[dict[str, str]]:
    return [
        {"Type": text(action, "type"), "TargetGroupArn": text(action, "targetGroupArn")}
        for action in sequence(inputs, "defaultActions")
    ]


RESOURCES: Mapping[str, type[Resource]] = {
    "aws:lb/loadBalancer:LoadBalancer": LoadBalancer,
    "aws:lb/targetGroup:TargetGroup": TargetGroup,
    "aws:lb/listener:Listener": Listener,
}
