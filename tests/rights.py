"""What a deployer asks of AWS, as a moto server in this process sees it, and whether a policy lets it.

The rules are IAM's: every resource that a call touches must be covered by a statement that allows its action there, and
whose conditions hold. Which resources a call touches, and that tags given at creation ask for a right of their own, says
AWS's "Service Authorization Reference" for EC2, Elastic Load Balancing V2 and Route 53.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from moto.core.responses import BaseResponse
from moto.ec2.models import ec2_backends
from moto.elbv2.models import elbv2_backends

DEPLOYER = "AKIAMESHBRIDGEDEPLOY"
"""Access key of whose calls are recorded: in a form that moto reads out of a signature."""

SERVICES = {"elbv2": "elasticloadbalancing"}
"""Names of services in policies, where they differ from those in the SDK."""

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Touched:
    """A resource that a call touches. tags: what it has before the call; of one that the call makes, none."""

    arn: str
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    """One right that a call asks for. action: as policies name it; context: the values of its condition keys."""

    action: str
    resources: tuple[Touched, ...]
    context: Mapping[str, str | Sequence[str]] = field(default_factory=dict)


class Policy:
    """An identity's policy; `replaced` are its placeholders."""

    def __init__(self, text: str, replaced: Mapping[str, str]) -> None:
        for placeholder, value in replaced.items():
            text = text.replace(placeholder, value)
        self._statements: list[Any] = json.loads(text)["Statement"]

    @property
    def actions(self) -> set[str]:
        """Everything that it names."""
        return {action for statement in self._statements for action in statement["Action"]}

    def refused(self, calls: Sequence[Call]) -> list[str]:
        """The action and resource of every right that it does not grant."""
        return [
            f"{call.action} on {touched.arn}"
            for call in calls
            for touched in call.resources
            if not any(_allows(statement, call, touched) for statement in self._statements)
        ]


def _allows(statement: Any, call: Call, touched: Touched) -> bool:
    resources = statement["Resource"]
    context = {**call.context, **{f"aws:ResourceTag/{key}": value for key, value in touched.tags.items()}}
    return (
        statement["Effect"] == "Allow"
        and call.action in statement["Action"]
        and any(_matches(touched.arn, r) for r in ([resources] if isinstance(resources, str) else resources))
        and all(
            _holds(operator, context.get(key), [values] if isinstance(values, str) else values)
            for operator, conditions in statement.get("Condition", {}).items()
            for key, values in conditions.items()
        )
    )


def _matches(arn: str, pattern: str) -> bool:
    return pattern == "*" or fnmatchcase(arn, pattern)


def _holds(operator: str, found: str | Sequence[str] | None, wanted: Sequence[str]) -> bool:
    if operator == "StringEquals":
        return isinstance(found, str) and found in wanted
    if operator == "ForAllValues:StringEquals":
        return all(value in wanted for value in ([found] if isinstance(found, str) else found or ()))
    raise NotImplementedError(f"condition operator {operator}")


def documented_policy(region: str, account: str, zone: str) -> Policy:
    """The policy in docs/aws.md, for one hosted zone."""
    text = (Path(__file__).parents[1] / "docs" / "aws.md").read_text(encoding="utf-8")
    policy = text.partition("```json\n")[2].partition("```")[0]
    return Policy(policy, {"ACCOUNT": account, "REGION": region, "ZONE_ID": zone})


@contextmanager
def recorded() -> Iterator[list[Call]]:
    """The deployer's calls of every moto server in this process."""
    calls: list[Call] = []
    answer = BaseResponse.call_action

    def noted(self: Any) -> Any:
        if self.get_access_key() == DEPLOYER:
            service = self.boto3_service_name
            account = Account(self.current_account, self.region)
            calls.extend(account.asked(service, self._get_action(), self.params))
        return answer(self)

    BaseResponse.call_action = noted  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        BaseResponse.call_action = answer  # type: ignore[method-assign]


EC2_KINDS = {
    "sg": "security-group",
    "sgr": "security-group-rule",
    "eipalloc": "elastic-ip",
    "vpc": "vpc",
}
"""Kinds of EC2's resources, by the beginning of their ids."""

EC2_IDS = ("GroupId", "AllocationId", "VpcId", "Resources", "SecurityGroupRuleIds")
ELB_ARNS = ("LoadBalancerArn", "TargetGroupArn", "ListenerArn", "ResourceArns")
READING = ("Describe", "List", "Get")
CREATED = {
    "ec2:CreateSecurityGroup": "security-group",
    "ec2:AllocateAddress": "elastic-ip",
    "ec2:AuthorizeSecurityGroupIngress": "security-group-rule",
    "ec2:AuthorizeSecurityGroupEgress": "security-group-rule",
    "elasticloadbalancing:CreateLoadBalancer": "loadbalancer/net",
    "elasticloadbalancing:CreateTargetGroup": "targetgroup",
    "elasticloadbalancing:CreateListener": "listener/net",
}
"""Kind of what an action makes."""


@dataclass(frozen=True)
class Account:
    """The account and region of a call."""

    number: str
    region: str

    def asked(self, service: str, name: str, parameters: Mapping[str, Any]) -> Iterator[Call]:
        """The rights that a call asks for. Raises NotImplementedError for a service that is not known here."""
        action = f"{SERVICES.get(service, service)}:{name}"
        if service == "route53":
            yield self._record(action, parameters)
            return
        if name.startswith(READING):
            yield Call(action, (Touched("*"),))
            return
        tags = self._tags(parameters)
        context: dict[str, str | Sequence[str]] = {f"aws:RequestTag/{key}": tags[key] for key in tags}
        touched = self._touched(service, parameters)
        kind = CREATED.get(action)
        made = Touched(f"arn:aws:{action.partition(':')[0]}:{self.region}:{self.number}:{kind}/new")
        if kind is not None and action != "elasticloadbalancing:CreateListener":
            touched = (*touched, made)
        yield Call(action, touched, context)
        if kind is not None and tags:
            tagging = "ec2:CreateTags" if service == "ec2" else "elasticloadbalancing:AddTags"
            creation = f"{tagging.partition(':')[0]}:CreateAction"
            yield Call(tagging, (made,), {**context, creation: name})

    def _touched(self, service: str, parameters: Mapping[str, Any]) -> tuple[Touched, ...]:
        """The resources that are there already, with their tags."""
        if service == "ec2":
            tags = ec2_backends[self.number][self.region].tags
            return tuple(
                Touched(
                    f"arn:aws:ec2:{self.region}:{self.number}:{EC2_KINDS[i.partition('-')[0]]}/{i}",
                    dict(tags[i]),
                )
                for i in _named(parameters, EC2_IDS)
            )
        if service == "elbv2":
            backend = elbv2_backends[self.number][self.region]
            return tuple(
                Touched(arn, dict(backend.tagging_service.get_tag_dict_for_resource(arn)))
                for arn in _named(parameters, ELB_ARNS)
            )
        raise NotImplementedError(f"what is touched by calls of {service}")

    def _tags(self, parameters: Mapping[str, Any]) -> dict[str, str]:
        listed = list(parameters.get("Tags", ()))
        for specification in parameters.get("TagSpecifications", ()):
            listed += specification["Tags"]
        return {tag["Key"]: tag.get("Value", "") for tag in listed}

    def _record(self, action: str, parameters: Mapping[str, Any]) -> Call:
        zone = parameters.get("HostedZoneId") or parameters.get("ResourceId") or parameters.get("Id")
        if zone is None:
            return Call(action, (Touched("*"),))
        kind = "change" if action == "route53:GetChange" else "hostedzone"
        arn = f"arn:aws:route53:::{kind}/{zone.rpartition('/')[2]}"
        changes = parameters.get("ChangeBatch", {}).get("Changes", ())
        # Route 53 compares names in lower case, without the last dot, and `*` as `\052`.
        names = [
            change["ResourceRecordSet"]["Name"].rstrip(".").lower().replace("*", "\\052")
            for change in changes
        ]
        key = "route53:ChangeResourceRecordSetsNormalizedRecordNames"
        return Call(action, (Touched(arn),), {key: names} if changes else {})


def _named(parameters: Mapping[str, Any], keys: Sequence[str]) -> Iterator[str]:
    for key in keys:
        value = parameters.get(key, ())
        yield from [value] if isinstance(value, str) else value
