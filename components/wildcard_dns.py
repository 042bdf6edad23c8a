"""WildcardDns: the record under which all public hosts of a provider are found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from components import aws
from components.component import Component
from config import Dns, ExternalDns, Route53, names
from config import Provider as ProviderConfig
from config.types import is_below, is_hosted_zone_id
from routing import aws as aws_objects
from routing import load_balancer as routing
from routing import wildcard


@dataclass(frozen=True)
class WildcardDnsArgs:
    """The wildcard record of a provider.

    hosts: its public hosts. address: the load balancer's, None where there is none. further: those beside it, None where there can be none. alias_zone: Route 53 zone of that
    address, None where it has none. account: the stack's AWS account, None where it has none.
    """

    provider: ProviderConfig
    hosts: Sequence[str]
    address: pulumi.Output[str | None]
    further: pulumi.Output[Sequence[str]] | None
    alias_zone: pulumi.Output[str] | None
    account: aws.Account | None


class WildcardDns(Component):
    """`*.<systemDomain>`, made in Route 53, by external-dns, or by you."""

    name: pulumi.Output[str]
    """Name of the record."""

    type: pulumi.Output[str | None]
    """Its type: A, AAAA or CNAME; None as long as there is no address."""

    value: pulumi.Output[str | None]
    """The address to which it leads."""

    made_by: pulumi.Output[str | None]
    """Who makes the record; None for you."""

    def __init__(self, name: str, args: WildcardDnsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        self.name = pulumi.Output.from_input(names.wildcard(args.provider.system_domain))
        self.value = args.address
        self.type = args.address.apply(lambda address: wildcard.record_type(address) if address else None)
        self.made_by = self._declare(args, args.provider.dns)
        self.register_outputs(
            {"name": self.name, "type": self.type, "value": self.value, "madeBy": self.made_by}
        )

    def _declare(self, args: WildcardDnsArgs, dns: Dns | None) -> pulumi.Output[str | None]:
        if dns is not None and dns.route53 is not None:
            zone = self._declare_route53(args, dns.route53)
            return zone.apply(lambda found: f"the stack, in hosted zone {found}")
        if dns is not None and dns.external_dns is not None:
            if dns.external_dns.source == "dns-endpoint":
                self._declare_endpoint(args, dns.external_dns)
            return pulumi.Output.from_input("external-dns").apply(_optional)
        return pulumi.Output.from_input(None)

    def _declare_endpoint(self, args: WildcardDnsArgs, config: ExternalDns) -> None:
        address = args.address.apply(_required)
        provider, ttl = args.provider, config.ttl_seconds
        if args.further is None:
            kind = address.apply(wildcard.record_type)
            endpoints: Any = [routing.wildcard_entry(provider, kind, [address], ttl)]
        else:
            records = pulumi.Output.all(address, args.further).apply(
                lambda found: wildcard.by_type([found[0], *found[1]])
            )
            endpoints = records.apply(
                lambda by_type: [routing.wildcard_entry(provider, *record, ttl) for record in by_type.items()]
            )
        self.child("endpoint", routing.wildcard_endpoint(provider, endpoints))

    def _declare_route53(self, args: WildcardDnsArgs, config: Route53) -> pulumi.Output[str]:
        account = args.account
        if account is None:
            raise ValueError(f"{self._prefix}: the stack was not checked by config.parse")
        zone = self._zone(args, config, account)
        owned = self.owned(account)
        address = args.address.apply(_required)
        if args.alias_zone is None:
            kind = address.apply(wildcard.record_type)
            values = (
                pulumi.Output.all(address, args.further).apply(self._of_one_type)
                if args.further is not None
                else [address]
            )
            plain = aws_objects.plain_record(args.provider, config, zone, kind, values)
            aws.Record(f"{self._prefix}-record", plain, owned)
            return zone
        target = {"name": address, "zoneId": args.alias_zone}
        for suffix, family in _families(args.provider).items():
            alias = aws_objects.alias_record(args.provider, config, zone, family, target)
            aws.Record(f"{self._prefix}-{suffix}", alias, owned)
        self.type = pulumi.Output.from_input("A").apply(_optional)
        return zone

    def _of_one_type(self, found: Sequence[Any]) -> list[str]:
        """The addresses that one record can hold. Which further ones a Service will have shows only when it has them, too
        late for a record of their own; whoever needs one is told."""
        by_type = wildcard.by_type([found[0], *found[1]])
        first, *others = by_type
        for kind in others:
            pulumi.log.warn(
                f"{self._prefix}: the load balancer is also at {', '.join(by_type[kind])}, and no record of type {kind} "
                "is made; make it yourself, or choose `externalDns`, which makes both",
                self,
            )
        return by_type[first]

    def _zone(self, args: WildcardDnsArgs, config: Route53, account: aws.Account) -> pulumi.Output[str]:
        """Id of the hosted zone, once it is known to contain the system domain. What would hide the record in it is
        warned of, in a preview too."""
        wanted: dict[str, pulumi.Input[Any]] = (
            {"zoneId": config.zone}
            if is_hosted_zone_id(config.zone)
            else {"name": config.zone, "privateZone": config.private}
        )
        found = account.look_up("aws:route53/getZone:getZone", wanted)
        zone = found.apply(lambda result: _containing(result, args.provider.system_domain, config))
        domain = args.provider.system_domain
        records = account.look_up(
            "aws:route53/getRecords:getRecords",
            {"zoneId": zone.apply(lambda z: z["id"]), "nameRegex": _name_pattern(domain)},
        )

        def checked(both: Sequence[Mapping[str, Any]]) -> str:
            in_zone, listed = both
            existing = [(str(r["name"]), str(r["type"])) for r in listed["resourceRecordSets"]]
            for obstacle in wildcard.obstacles(domain, in_zone["name"], args.hosts, existing):
                pulumi.log.warn(f"{names.wildcard(domain)} in zone {in_zone['name']}: {obstacle}", self)
            return str(in_zone["id"])

        return pulumi.Output.all(zone, records).apply(checked)


def _families(provider: ProviderConfig) -> dict[str, str]:
    """Type of each alias record, by the suffix of its name."""
    dual = provider.load_balancer is not None and provider.load_balancer.dual_stack
    return {"record": "A"} | ({"record-ipv6": "AAAA"} if dual else {})


def _containing(zone: Mapping[str, Any], domain: str, config: Route53) -> dict[str, str]:
    """Id and name of a zone. Raises pulumi.RunError where it is not the one meant."""
    name = str(zone["name"]).rstrip(".")
    key = "provider.dns.route53.zone"
    if domain != name and not is_below(domain, name):
        raise pulumi.RunError(
            f"{key}: {config.zone!r} is the zone of {name!r}, which does not contain the system domain {domain!r}; "
            "name the zone that does, or correct `systemDomain`"
        )
    if bool(zone["privateZone"]) != config.private:
        kind = "a private" if zone["privateZone"] else "a public"
        raise pulumi.RunError(
            f"{key}: {config.zone!r} is {kind} zone; name another one, or correct `private`"
        )
    return {"id": str(zone["zoneId"]), "name": name}


def _name_pattern(domain: str) -> str:
    """A regular expression for the records that can hide the wildcard: at the domain, below it, and at its parents."""
    labels = domain.split(".")
    parents = [".".join(labels[depth:]) for depth in range(1, len(labels))]
    at_or_below = rf"(^|\.){re.escape(domain)}\.$"
    return "|".join([at_or_below, *(rf"^{re.escape(parent)}\.$" for parent in parents)])


def _required(address: str | None) -> str:
    if address is None:
        raise pulumi.RunError(
            "provider.dns: the load balancer has no address yet, so there is no record to make; run `up --refresh` once it "
            "has, or leave `cluster.awaitReadiness` on"
        )
    return address


def _optional(value: str) -> str | None:
    return value
