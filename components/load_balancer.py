"""LoadBalancer: what stands before the ingress gateway, and where clients find it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pulumi

from components import aws
from components.component import Component
from components.resources import KubernetesObject, declare
from config import AwsNlb, Cluster, ExistingLoadBalancer
from config import Provider as ProviderConfig
from routing import aws as aws_objects
from routing import load_balancer as routing

Cloud = TypeVar("Cloud", bound=aws.AwsResource)

MAX_BINDING = 63
"""Characters of a TargetGroupBinding's name, which becomes part of a condition of the Pods."""


@dataclass(frozen=True)
class LoadBalancerArgs:
    """The load balancer of a provider.

    service: the ingress gateway's Service, None where that is owned elsewhere. account: where the stack's AWS
    resources lie, None where it has none.
    """

    provider: ProviderConfig
    cluster: Cluster
    service: KubernetesObject | None
    account: aws.Account | None


class LoadBalancer(Component):
    """The load balancer: the Service's own, the stack's own Network Load Balancer, or one that exists.

    The stack's own is made before anything of it goes: a replacement gets names of its own, and with it the target
    group, which AWS lets only one load balancer use, and the fixed addresses.
    """

    address: pulumi.Output[str | None]
    """Host name or IP address; None where there is none, or where objects are only rendered."""

    further: pulumi.Output[Sequence[str]] | None
    """Further addresses of a Service, for example of the other IP family; None where there can be none."""

    zone: pulumi.Output[str] | None
    """Route 53 zone of the address, by which a record can be its alias; None for an address outside AWS."""

    def __init__(self, name: str, args: LoadBalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        balancer = args.provider.load_balancer
        self.further = None
        former = args.provider.ingress_gateway.formerly
        self._former = None if former is None else f"{former}-lb"
        if balancer is not None and balancer.aws_nlb is not None:
            self._declare_own(args, balancer.aws_nlb)
        elif balancer is not None and balancer.existing is not None:
            self._refer(args, balancer.existing)
        else:
            self._take_service_address(args)
        self.register_outputs({"address": self.address})

    def _take_service_address(self, args: LoadBalancerArgs) -> None:
        balancer = args.provider.load_balancer
        controlled = balancer is not None and balancer.aws_controller is not None
        plain = args.provider.ingress_gateway.service.type == "LoadBalancer"
        if args.service is None or args.cluster.render or not (controlled or plain):
            self.address = pulumi.Output.from_input(None)
        else:
            addresses = args.service.status.apply(_addresses_in)
            self.address = addresses.apply(lambda found: next(iter(found), None))
            self.further = addresses.apply(lambda found: found[1:])
        self.zone = None
        if controlled and args.account is not None:
            found = args.account.look_up(
                "aws:lb/getHostedZoneId:getHostedZoneId", {"loadBalancerType": "network"}
            )
            self.zone = found.apply(lambda result: str(result["id"]))

    def _refer(self, args: LoadBalancerArgs, existing: ExistingLoadBalancer) -> None:
        self.zone = None
        self.address = pulumi.Output.from_input(existing.address)
        if existing.arn is not None and args.account is not None:
            found = args.account.look_up(
                "aws:lb/getLoadBalancer:getLoadBalancer", {"arn": existing.arn}
            ).apply(lambda result: _network(result, existing))
            self.address = found.apply(lambda result: str(result["dnsName"]))
            self.zone = found.apply(lambda result: str(result["zoneId"]))
        if existing.target_group_arn is not None:
            self._bind(args, existing.target_group_arn, None)

    def _declare_own(self, args: LoadBalancerArgs, config: AwsNlb) -> None:
        account = args.account
        if account is None:
            raise ValueError(f"{self._prefix}: the stack was not checked by config.parse")
        vpc = _vpc_of(account, config.subnets)
        firewall = self._declare_firewall(args, config, account, vpc)
        addresses = self._declare_addresses(config, account) if config.elastic_ips else []
        balancer = self._cloud(
            aws.LoadBalancer, "nlb", aws_objects.load_balancer(config, addresses, firewall.id), account
        )
        group = self._cloud(
            aws.TargetGroup,
            "tg",
            aws_objects.target_group(args.provider, config, args.cluster, vpc),
            account,
            replace_with=[balancer],
        )
        arns = balancer.known("arn"), group.known("arn")
        listener = self._cloud(aws.Listener, "listener", aws_objects.listener(args.provider, *arns), account)
        self._bind(args, group.known("arn"), firewall.id, listener)
        self.address = balancer.known("dnsName").apply(_optional)
        self.zone = balancer.known("zoneId")

    def _declare_firewall(
        self, args: LoadBalancerArgs, config: AwsNlb, account: aws.Account, vpc: pulumi.Output[str]
    ) -> aws.SecurityGroup:
        group = self._cloud(aws.SecurityGroup, "firewall", aws_objects.firewall(args.provider, vpc), account)
        for rule in aws_objects.firewall_rules(args.provider, config, args.cluster):
            network = rule.network.replace(":", "-").replace("/", "_")
            suffix = f"{'from' if rule.incoming else 'to'}-{network}-{rule.port}"
            kind = aws.IngressRule if rule.incoming else aws.EgressRule
            self._cloud(kind, suffix, rule.inputs(group.id), account)
        return group

    def _declare_addresses(self, config: AwsNlb, account: aws.Account) -> list[pulumi.Output[str]]:
        """A fixed address for each subnet. It serves one load balancer alone, so what replaces that replaces it."""
        return [
            self._cloud(
                aws.ElasticIp,
                subnet,
                {"domain": "vpc"},
                account,
                replacement_trigger=sorted(config.subnets),
            ).id
            for subnet in config.subnets
        ]

    def _cloud(
        self,
        kind: type[Cloud],
        suffix: str,
        inputs: Mapping[str, Any],
        account: aws.Account,
        **options: Any,
    ) -> Cloud:
        """Declares the child `<component>-<suffix>` in AWS, with the stack's tags. A name that is cut does not begin with the
        component's, so that its former name must be said."""
        name = f"{self._prefix}-{suffix}"
        if issubclass(kind, (aws.LoadBalancer, aws.TargetGroup)):
            name = unique_name(name)
            if self._former is not None:
                options["aliases"] = [pulumi.Alias(name=unique_name(f"{self._former}-{suffix}"))]
        opts = pulumi.ResourceOptions.merge(self.owned(account), pulumi.ResourceOptions(**options))
        return kind(name, {**inputs, "tags": account.tags(name)}, opts)

    def _bind(
        self,
        args: LoadBalancerArgs,
        target_group: pulumi.Output[str] | str,
        security_group: pulumi.Output[str] | None,
        *after: pulumi.Resource,
    ) -> None:
        """Declares the binding. With a renamed gateway it is replaced and the target group is not, which the controller's
        webhook lets only one binding use at a time."""
        service = [args.service] if args.service is not None else []
        name = pulumi.Output.from_input(target_group).apply(
            lambda arn: _binding_name(args.provider.ingress_gateway.name, arn)
        )
        manifest = routing.target_group_binding(args.provider, name, target_group, security_group)
        declare(
            f"{self._prefix}-binding",
            manifest,
            parent=self,
            after=[*service, *after] or self._prerequisites,
            delete_first=self._former is not None,
        )


def unique_name(name: str) -> str:
    """`name` cut so that the provider can make a unique AWS name of it; what is cut off goes by its hash."""
    room = aws.NAME_LIMIT - aws.RANDOM_SUFFIX
    if len(name) <= room:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{name[: room - 7].rstrip('-')}-{digest}"


def _binding_name(gateway: str, target_group: str) -> str:
    """A name for the binding to one target group: its ARN ends with a unique id."""
    suffix = target_group.rpartition("/")[2]
    return f"{gateway[: MAX_BINDING - len(suffix) - 1].rstrip('-')}-{suffix}"


def _vpc_of(account: aws.Account, subnets: Sequence[str]) -> pulumi.Output[str]:
    """The VPC of the subnets. They must lie in one, each in a zone of its own; else pulumi.RunError says so, at
    preview."""
    found = [account.look_up("aws:ec2/getSubnet:getSubnet", {"id": subnet}) for subnet in subnets]
    return pulumi.Output.all(*found).apply(lambda results: _one_vpc(dict(zip(subnets, results, strict=True))))


def _one_vpc(subnets: Mapping[str, Mapping[str, Any]]) -> str:
    vpcs = {subnet: str(found["vpcId"]) for subnet, found in subnets.items()}
    if len(set(vpcs.values())) > 1:
        listed = ", ".join(f"{subnet} in {vpc}" for subnet, vpc in vpcs.items())
        raise pulumi.RunError(
            f"provider.loadBalancer.awsNlb.subnets: lie in different VPCs ({listed}); name subnets of one"
        )
    zones: dict[str, str] = {}
    for subnet, found in subnets.items():
        other = zones.setdefault(str(found["availabilityZone"]), subnet)
        if other != subnet:
            raise pulumi.RunError(
                f"provider.loadBalancer.awsNlb.subnets: {subnet} and {other} lie in one zone "
                f"({found['availabilityZone']}); name one subnet a zone"
            )
    return next(iter(vpcs.values()))


def _network(found: Mapping[str, Any], existing: ExistingLoadBalancer) -> Mapping[str, Any]:
    """What was looked up. Raises pulumi.RunError where it does not pass connections through, or has other IP families
    than it is said to have."""
    if found["loadBalancerType"] != "network":
        raise pulumi.RunError(
            f"provider.loadBalancer.existing.arn: {found['arn']} is of type {found['loadBalancerType']!r}, which ends the "
            "TLS; name a Network Load Balancer"
        )
    if found["ipAddressType"] != existing.ip_address_type:
        raise pulumi.RunError(
            f"provider.loadBalancer.existing.ipAddressType: is {existing.ip_address_type!r}, but {found['arn']} is "
            f"{found['ipAddressType']!r}; correct it: the records follow it"
        )
    return found


def _optional(value: str) -> str | None:
    return value


def _addresses_in(
    status: Mapping[str, Mapping[str, Sequence[Mapping[str, str]]]] | None,
) -> Sequence[str]:
    entries = ((status or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = (entry.get("hostname") or entry.get("ip") for entry in entries)
    return list(dict.fromkeys(address for address in found if address))
