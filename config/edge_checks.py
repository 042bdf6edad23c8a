"""What must fit together at the provider's edge: load balancer, gateway and wildcard record."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from config.edge import (
    ANNOTATION_PREFIX,
    EXTERNAL_DNS_PREFIXES,
    FIREWALL_ANNOTATIONS,
    OWNED_ANNOTATIONS,
    OWNER_TAGS,
    target_group_attributes,
)
from config.errors import Finding, show
from config.types import MAX_LABEL, is_below, is_hosted_zone_id

if TYPE_CHECKING:
    from config.edge import LoadBalancer
    from config.provider import Provider
    from config.stack import Stack
    from config.types import Model

PROXY_CONFIG = "proxy.istio.io/config"
"""Annotation of a Pod by which its proxy's settings, PROXY protocol among them, are said."""

BALANCER = "provider.loadBalancer"
DNS = "provider.dns"


def findings(stack: Stack) -> Iterator[Finding]:
    """Every finding about the edge."""
    yield from _account(stack)
    provider = stack.provider
    if provider is None:
        return
    yield from _annotations(provider)
    if not provider.ingress_gateway.adopt and (
        provider.load_balancer is None or provider.load_balancer.network is None
    ):
        yield from _balanced_alone(provider)
    if provider.load_balancer is not None:
        yield from _one_of(BALANCER, provider.load_balancer)
        yield from _load_balancer(provider, provider.load_balancer)
        yield from _families(stack, provider.load_balancer)
        yield from _source_ranges(provider.load_balancer)
    if provider.dns is not None:
        yield from _one_of(DNS, provider.dns)
        yield from _dns(stack, provider)


def _keys(section: Model) -> list[str]:
    """The keys of a section that hold something."""
    fields = type(section).model_fields
    return [field.alias or name for name, field in fields.items() if getattr(section, name) is not None]


def _one_of(key: str, section: Model) -> Iterator[Finding]:
    known = ", ".join(f"`{field.alias or name}`" for name, field in type(section).model_fields.items())
    present = _keys(section)
    if not present:
        yield Finding(key, "{}", "says nothing", f"add one of {known}, or remove the section")
    for extra in present[1:]:
        yield Finding(
            f"{key}.{extra}", "{…}", f"contradicts `{present[0]}`: there is one of {known}", "keep one"
        )


def _account(stack: Stack) -> Iterator[Finding]:
    users = list(_users_of_aws(stack.provider)) if stack.provider is not None else []
    if stack.aws is None and users:
        yield Finding(
            "aws",
            "null",
            f"is missing, and {users[0]} lies in an AWS account",
            "add `aws` with a `region`",
        )
    tags = stack.aws.tags if stack.aws is not None else {}
    for tag in sorted(set(OWNER_TAGS) & tags.keys()):
        yield Finding(
            f"aws.tags[{tag}]",
            show(tags[tag]),
            "is the stack's own: by it, what it made is known, and the deployer's rights hang on it",
            "choose another key",
        )
    if stack.aws is not None and not users:
        yield Finding(
            "aws",
            show(stack.aws.region),
            "has no effect: nothing that the stack makes or looks up lies in AWS",
            "remove it, or add `provider.loadBalancer.awsNlb` or `provider.dns.route53`",
        )


def _users_of_aws(provider: Provider) -> Iterator[str]:
    balancer, dns = provider.load_balancer, provider.dns
    if balancer is not None and balancer.aws_nlb is not None:
        yield f"{BALANCER}.awsNlb"
    if balancer is not None and balancer.existing is not None and balancer.existing.arn is not None:
        yield f"{BALANCER}.existing.arn"
    if dns is not None and dns.route53 is not None:
        yield f"{DNS}.route53"


PASSED_THROUGH = re.compile(r"passthrough|health")
ENDS_TLS = re.compile(r"(^|[-.])(ssl|tls|cert|certs|certificate|certificates|alpn)([-.]|$)")
PROTOCOL = re.compile(r"(^|[-.])protocol([-.](?P<named>https?|http2|http3)|$)")
READS_STREAM = frozenset({"http", "https", "http2", "http3", "ssl", "tls"})


def ends_tls(annotation: str, value: str) -> bool:
    """Whether an annotation of a Service makes a load balancer end the TLS: by a certificate or a TLS port, or by a
    protocol other than a byte stream's.

    Clouds name these alike: `aws-load-balancer-ssl-cert`, `do-loadbalancer-certificate-id`,
    `oci-load-balancer-ssl-ports`, `scw-loadbalancer-protocol-http`, `load-balancer.hetzner.cloud/http-certificates`.
    """
    name = annotation.rpartition("/")[2]
    if not re.search(r"load-?balancer", annotation) or PASSED_THROUGH.search(name):
        return False
    protocol = PROTOCOL.search(name)
    if protocol is not None:
        said = value.strip().lower()
        return said in READS_STREAM or (protocol["named"] is not None and said not in ("", "false"))
    return ENDS_TLS.search(name) is not None


def _annotations(provider: Provider) -> Iterator[Finding]:
    """Annotations that would let the load balancer end the TLS, or speak PROXY protocol to a gateway that does not."""
    annotations = provider.ingress_gateway.service.annotations
    attributes = target_group_attributes(annotations)
    kept = attributes.get("preserve_client_ip.enabled", "false" if _by_address(annotations) else "true")
    for annotation, value in annotations.items():
        key = f"provider.ingressGateway.service.annotations[{annotation}]"
        if ends_tls(annotation, value):
            yield Finding(
                key,
                show(value),
                "lets the load balancer end the TLS, before the gateway can check who the client is",
                "remove it: the gateway itself serves the certificate, and the load balancer passes TCP through",
            )
        if not enables_proxy_protocol(annotation, value):
            continue
        if not _may_expect_proxy_protocol(provider):
            yield Finding(
                key,
                show(value),
                "makes the load balancer send PROXY protocol, which the gateway would take for a broken handshake",
                f"remove it and use `{BALANCER}.awsController.clientAddress`",
            )
        elif kept == "true":
            yield Finding(
                key,
                show(value),
                "tells the client's address a second time: its packets keep it (`preserve_client_ip.enabled`)",
                f"switch that off in `{ANNOTATION_PREFIX}target-group-attributes`, or remove PROXY protocol",
            )


def _by_address(annotations: Mapping[str, str]) -> bool:
    """Whether the load balancer's targets are Pods; to those it shows its own address unless it is told otherwise, and to
    nodes the client's."""
    return annotations.get(f"{ANNOTATION_PREFIX}nlb-target-type") == "ip" or (
        annotations.get(f"{ANNOTATION_PREFIX}type") == "nlb-ip"
    )


def enables_proxy_protocol(annotation: str, value: str) -> bool:
    """Whether an annotation of a Service makes a Network Load Balancer send PROXY protocol."""
    name = annotation.removeprefix(ANNOTATION_PREFIX)
    if annotation == name:
        return False
    return (name.startswith("proxy-protocol") and bool(value)) or (
        target_group_attributes({annotation: value}).get("proxy_protocol_v2.enabled") == "true"
    )


def _may_expect_proxy_protocol(provider: Provider) -> bool:
    said = provider.ingress_gateway.workload.pod_annotations.get(PROXY_CONFIG, "")
    balancer = provider.load_balancer
    return "proxyProtocol" in said or (balancer is not None and balancer.sends_proxy_protocol)


def _load_balancer(provider: Provider, balancer: LoadBalancer) -> Iterator[Finding]:
    gateway = provider.ingress_gateway
    if balancer.aws_controller is not None:
        yield from _controller(provider)
    if balancer.network is not None:
        yield from _replaced_service(provider)
    if balancer.aws_nlb is not None:
        key = f"{BALANCER}.awsNlb"
        if balancer.aws_nlb.elastic_ips and balancer.aws_nlb.scheme == "internal":
            yield Finding(
                f"{key}.elasticIps",
                "true",
                "is for an internet-facing load balancer; an internal one has no public address",
                "remove it, or choose the scheme `internet-facing`",
            )
    for kind in ("aws_controller", "aws_nlb"):
        network = getattr(balancer, kind)
        if network is not None and len(set(network.subnets)) != len(network.subnets):
            alias = type(balancer).model_fields[kind].alias
            yield Finding(
                f"{BALANCER}.{alias}.subnets", show(network.subnets), "names a subnet twice", "name each once"
            )
    if balancer.existing is not None:
        yield from _existing(balancer)
    if balancer.sends_proxy_protocol:
        yield from _proxy_protocol(provider)
    name = provider.service_name
    if name != gateway.name and len(name) > MAX_LABEL:
        yield Finding(
            "provider.ingressGateway.name",
            show(gateway.name),
            f"makes the Service name {name!r} of {len(name)} characters, at most {MAX_LABEL} are allowed",
            f"shorten it by {len(name) - MAX_LABEL}",
        )


def _families(stack: Stack, balancer: LoadBalancer) -> Iterator[Finding]:
    if stack.cluster.ip_family == "IPv6" and balancer.network and balancer.network.ip_address_type == "ipv4":
        yield Finding(
            f"{BALANCER}.{_keys(balancer)[0]}.ipAddressType",
            show("ipv4"),
            "cannot reach Pods of a cluster whose family is IPv6",
            "choose `dualstack`",
        )


def _source_ranges(balancer: LoadBalancer) -> Iterator[Finding]:
    network = balancer.network
    if network is None:
        return
    ranges = [ipaddress.ip_network(source) for source in network.source_ranges]
    for index, source in enumerate(network.source_ranges):
        key = f"{BALANCER}.{_keys(balancer)[0]}.sourceRanges[{index}]"
        if ranges[index] in ranges[:index]:
            yield Finding(key, show(source), "stands before it already", "name each network once")
        if ":" in source and network.ip_address_type != "dualstack":
            yield Finding(
                key,
                show(source),
                "is an IPv6 network, and the load balancer has IPv4 addresses alone",
                "remove it, or choose `ipAddressType: dualstack`",
            )


def _controller(provider: Provider) -> Iterator[Finding]:
    gateway = provider.ingress_gateway
    if gateway.adopt:
        yield Finding(
            f"{BALANCER}.awsController",
            "{…}",
            "works on the gateway's Service, which with `adopt: true` has another owner",
            "use `awsNlb` or `existing`, or let the stack create the gateway",
        )
    for annotation in gateway.service.annotations:
        # Attributes can be said of one port too: `target-group-attributes.9000`.
        if annotation in OWNED_ANNOTATIONS or annotation.rpartition(".")[0] in OWNED_ANNOTATIONS:
            yield Finding(
                f"provider.ingressGateway.service.annotations[{annotation}]",
                show(gateway.service.annotations[annotation]),
                f"is decided by `{BALANCER}.awsController`",
                "remove it and use the keys there",
            )
        balancer = provider.load_balancer
        ranges = (
            balancer.network.source_ranges if balancer is not None and balancer.network is not None else ()
        )
        if annotation in FIREWALL_ANNOTATIONS and ranges:
            yield Finding(
                f"provider.ingressGateway.service.annotations[{annotation}]",
                show(gateway.service.annotations[annotation]),
                f"makes the controller ignore `{BALANCER}.awsController.sourceRanges`, so that others get in too",
                "keep one of the two",
            )


def _balanced_alone(provider: Provider) -> Iterator[Finding]:
    """What a Service says of its load balancer, where it is of a type that has none."""
    service = provider.ingress_gateway.service
    for field in ("load_balancer_class", "source_ranges") if service.type != "LoadBalancer" else ():
        if getattr(service, field):
            yield Finding(
                f"provider.ingressGateway.service.{type(service).model_fields[field].alias}",
                show(getattr(service, field)),
                f"has no effect: a Service of the type {service.type} has no load balancer",
                "remove it, or choose the type `LoadBalancer`",
            )


def _replaced_service(provider: Provider) -> Iterator[Finding]:
    service = provider.ingress_gateway.service
    for field in sorted(service.model_fields_set - {"annotations"}):
        value = getattr(service, field)
        yield Finding(
            f"provider.ingressGateway.service.{type(service).model_fields[field].alias}",
            show(value),
            f"describes a Service that `{BALANCER}` replaces by its own",
            "remove it" + (f"; `{BALANCER}` has `sourceRanges` too" if field == "source_ranges" else ""),
        )


def _existing(balancer: LoadBalancer) -> Iterator[Finding]:
    existing = balancer.existing
    if existing is None:
        return
    key = f"{BALANCER}.existing"
    if existing.address is None and existing.arn is None:
        yield Finding(f"{key}.address", "null", "is missing", "add `address`, or `arn` to have it looked up")
    if existing.address is not None and existing.arn is not None:
        yield Finding(
            f"{key}.address",
            show(existing.address),
            "is looked up by `arn`; the two could differ",
            "keep one",
        )
    if existing.arn is None and existing.ip_address_type == "dualstack":
        yield Finding(
            f"{key}.ipAddressType",
            show(existing.ip_address_type),
            "is said of no load balancer: the records of an `address` are of its own type",
            "remove it, or name the load balancer by `arn`",
        )


def _proxy_protocol(provider: Provider) -> Iterator[Finding]:
    gateway = provider.ingress_gateway
    kind = _keys(provider.load_balancer)[0] if provider.load_balancer is not None else ""
    field, value = ("proxyProtocol", "true") if kind == "existing" else ("clientAddress", '"proxy-protocol"')
    key = f"{BALANCER}.{kind}.{field}"
    if gateway.adopt:
        yield Finding(
            key,
            value,
            "needs a gateway that expects PROXY protocol, and with `adopt: true` its Pods have another owner",
            "choose `preserve`, or let the stack create the gateway",
        )
    if PROXY_CONFIG in gateway.workload.pod_annotations:
        yield Finding(
            f"provider.ingressGateway.workload.podAnnotations[{PROXY_CONFIG}]",
            show(gateway.workload.pod_annotations[PROXY_CONFIG]),
            f"is set by the stack because of {key}, so that the gateway expects PROXY protocol",
            "move the settings to meshConfig.defaultConfig",
        )


def _dns(stack: Stack, provider: Provider) -> Iterator[Finding]:
    dns = provider.dns
    if dns is None:
        return
    if dns.route53 is not None:
        zone = dns.route53.zone
        domain = provider.system_domain
        if not is_hosted_zone_id(zone) and domain != zone and not is_below(domain, zone):
            yield Finding(
                f"{DNS}.route53.zone",
                show(zone),
                f"does not contain the system domain {domain!r}, so no record of it would be asked for",
                "name the zone that does, or correct `systemDomain`",
            )
    makes_service = not provider.ingress_gateway.adopt and _service_is_balanced(provider)
    if dns.external_dns is not None and dns.external_dns.source == "service":
        if not makes_service:
            yield Finding(
                f"{DNS}.externalDns.source",
                show("service"),
                "annotates the gateway's Service, but the load balancer is none that this Service stands for",
                "choose `dns-endpoint`",
            )
        yield from _named_otherwise(provider)
        return
    yield from _address(stack, provider, makes_service=makes_service)


def _named_otherwise(provider: Provider) -> Iterator[Finding]:
    wanted = {prefix + name for prefix in EXTERNAL_DNS_PREFIXES for name in ("hostname", "ttl")}
    annotations = provider.ingress_gateway.service.annotations
    for annotation in sorted(wanted & annotations.keys()):
        yield Finding(
            f"provider.ingressGateway.service.annotations[{annotation}]",
            show(annotations[annotation]),
            f"is decided by `{DNS}.externalDns`",
            "remove it; for further records make a DNSEndpoint of your own",
        )


def _service_is_balanced(provider: Provider) -> bool:
    balancer = provider.load_balancer
    if balancer is None:
        return provider.ingress_gateway.service.type == "LoadBalancer"
    return balancer.aws_controller is not None


def _address(stack: Stack, provider: Provider, *, makes_service: bool) -> Iterator[Finding]:
    """A record needs an address that the stack gets to know."""
    key = f"{DNS}.{_keys(provider.dns)[0]}" if provider.dns is not None and _keys(provider.dns) else DNS
    balancer = provider.load_balancer
    if balancer is not None and (balancer.aws_nlb is not None or balancer.existing is not None):
        return
    if not makes_service:
        yield Finding(
            key,
            "{…}",
            "needs an address, and the stack makes no load balancer and knows of none",
            f"say `{BALANCER}.existing`, or remove `dns` and make the record yourself",
        )
    elif stack.cluster.render:
        yield Finding(
            key,
            "{…}",
            "needs an address that only a cluster gives the Service, and with `render: true` none is asked",
            "choose `externalDns` with the source `service`, or `loadBalancer.awsNlb`",
        )
