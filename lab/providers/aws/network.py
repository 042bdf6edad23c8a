"""Security groups, their rules, and Elastic IPs.

Source pages: AWS's API reference "Amazon EC2"; Terraform's `internal/service/ec2`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lab.providers.aws.resource import Resource, Tagged, api_tags, plain_tags
from lab.providers.values import Object, integer, text


class _Network(Tagged):
    service = "ec2"

    def read_tags(self, arn: str) -> list[Any]:
        raise NotImplementedError("EC2 answers with a resource's tags when it is described")

    def add_tags(self, arn: str, tags: list[dict[str, str]]) -> None:
        self.client.create_tags(Resources=[arn], Tags=tags)

    def remove_tags(self, arn: str, keys: list[str]) -> None:
        self.client.delete_tags(Resources=[arn], Tags=[{"Key": key} for key in keys])


def _tagged(kind: str, inputs: Object) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": api_tags(inputs)}]


class SecurityGroup(_Network):
    """A security group, empty at first: AWS's default rule, which lets everything out, is taken away."""

    missing = ("InvalidGroup.NotFound", "InvalidGroupId.NotFound")

    def create(self, inputs: Object) -> str:
        made = self.client.create_security_group(
            GroupName=text(inputs, "name"),
            Description=text(inputs, "description"),
            VpcId=text(inputs, "vpcId"),
            TagSpecifications=_tagged("security-group", inputs),
        )
        everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        self.client.revoke_security_group_egress(GroupId=made["GroupId"], IpPermissions=[everything])
        return str(made["GroupId"])

    def read(self, identifier: str, state: Object) -> Object:
        (found,) = self.client.describe_security_groups(GroupIds=[identifier])["SecurityGroups"]
        return {
            "name": found["GroupName"],
            "description": found["Description"],
            "vpcId": found["VpcId"],
            "tags": plain_tags(found.get("Tags", [])),
        }

    def update(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        self.retag(identifier, changed, inputs, state)

    def delete(self, identifier: str, state: Object) -> None:
        self.client.delete_security_group(GroupId=identifier)


class _Rule(_Network):
    missing = ("InvalidSecurityGroupRuleId.NotFound",)
    egress: ClassVar[bool]

    def create(self, inputs: Object) -> str:
        permission: dict[str, Any] = {
            "IpProtocol": text(inputs, "ipProtocol"),
            "FromPort": integer(inputs, "fromPort"),
            "ToPort": integer(inputs, "toPort"),
        }
        if text(inputs, "cidrIpv6"):
            permission["Ipv6Ranges"] = [{"CidrIpv6": text(inputs, "cidrIpv6")}]
        else:
            permission["IpRanges"] = [{"CidrIp": text(inputs, "cidrIpv4")}]
        authorize = (
            self.client.authorize_security_group_egress
            if self.egress
            else self.client.authorize_security_group_ingress
        )
        made = authorize(
            GroupId=text(inputs, "securityGroupId"),
            IpPermissions=[permission],
            TagSpecifications=_tagged("security-group-rule", inputs),
        )
        return str(made["SecurityGroupRules"][0]["SecurityGroupRuleId"])

    def read(self, identifier: str, state: Object) -> Object:
        (found,) = self.client.describe_security_group_rules(SecurityGroupRuleIds=[identifier])[
            "SecurityGroupRules"
        ]
        spans = {"cidrIpv4": found.get("CidrIpv4"), "cidrIpv6": found.get("CidrIpv6")}
        return {
            "securityGroupId": found["GroupId"],
            "ipProtocol": found["IpProtocol"],
            "fromPort": found["FromPort"],
            "toPort": found["ToPort"],
            "tags": plain_tags(found.get("Tags", [])),
            **{key: value for key, value in spans.items() if value},
        }

    def update(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        if changed - {"tags"}:
            rule = {
                "IpProtocol": text(inputs, "ipProtocol"),
                "FromPort": integer(inputs, "fromPort"),
                "ToPort": integer(inputs, "toPort"),
                **({"CidrIpv6": text(inputs, "cidrIpv6")} if text(inputs, "cidrIpv6") else {}),
                **({"CidrIpv4": text(inputs, "cidrIpv4")} if text(inputs, "cidrIpv4") else {}),
            }
            self.client.modify_security_group_rules(
                GroupId=text(inputs, "securityGroupId"),
                SecurityGroupRules=[{"SecurityGroupRuleId": identifier, "SecurityGroupRule": rule}],
            )
        self.retag(identifier, changed, inputs, state)

    def delete(self, identifier: str, state: Object) -> None:
        revoke = (
            self.client.revoke_security_group_egress
            if self.egress
            else self.client.revoke_security_group_ingress
        )
        revoke(GroupId=text(state, "securityGroupId"), SecurityGroupRuleIds=[identifier])


class IngressRule(_Rule):
    """What may come in."""

    egress = False


class EgressRule(_Rule):
    """What may go out."""

    egress = True


class ElasticIp(_Network):
    """A fixed public address."""

    missing = ("InvalidAllocationID.NotFound",)

    def create(self, inputs: Object) -> str:
        made = self.client.allocate_address(
            Domain=text(inputs, "domain"), TagSpecifications=_tagged("elastic-ip", inputs)
        )
        return str(made["AllocationId"])

    def read(self, identifier: str, state: Object) -> Object:
        (found,) = self.client.describe_addresses(AllocationIds=[identifier])["Addresses"]
        return {
            "domain": found["Domain"],
            "allocationId": identifier,
            "publicIp": found["PublicIp"],
            "tags": plain_tags(found.get("Tags", [])),
        }

    def update(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        self.retag(identifier, changed, inputs, state)

    def delete(self, identifier: str, state: Object) -> None:
        self.client.release_address(AllocationId=identifier)


RESOURCES: Mapping[str, type[Resource]] = {
    "aws:ec2/securityGroup:SecurityGroup": SecurityGroup,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": IngressRule,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": EgressRule,
    "aws:ec2/eip:Eip": ElasticIp,
}
