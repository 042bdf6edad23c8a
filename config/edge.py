"""The provider's edge: the load balancer before the ingress gateway, and the wildcard record that leads to it.

Sources: the AWS Load Balancer Controller's "Service annotations" and "TargetGroupBinding", AWS's user guide of Network
Load Balancers, external-dns' "DNSEndpoint".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from config.types import (
    AccountId,
    Address,
    Cidr,
    DeregistrationSeconds,
    HostedZone,
    LoadBalancerArn,
    Model,
    NonEmpty,
    Region,
    SubnetId,
    TargetGroupArn,
    Text,
    Ttl,
)

ANNOTATION_PREFIX = "service.beta.kubernetes.io/aws-load-balancer-"
"""Prefix of the annotations that the AWS Load Balancer Controller reads from a Service."""

OWNED_ANNOTATIONS = (
    "service.beta.kubernetes.io/load-balancer-source-ranges",
    *(
        ANNOTATION_PREFIX + name
        for name in (
            "type",
            "nlb-target-type",
            "scheme",
            "internal",
            "ip-address-type",
            "subnets",
            "attributes",
            "target-group-attributes",
            "proxy-protocol",
            "proxy-protocol-per-target-group",
            "cross-zone-load-balancing-enabled",
            "access-log-enabled",
            "access-log-s3-bucket-name",
            "access-log-s3-bucket-prefix",
            "healthcheck-protocol",
            "healthcheck-port",
            "healthcheck-path",
        )
    ),
)
"""Those that `loadBalancer.awsController` decides. Of an attribute that has an annotation of its own, the controller takes
that."""

FIREWALL_ANNOTATIONS = tuple(ANNOTATION_PREFIX + name for name in ("security-groups", "disable-nlb-sg"))
"""Those with which the controller makes no security group, and so admits whom another one admits."""

EXTERNAL_DNS_PREFIXES = ("external-dns.alpha.kubernetes.io/", "external-dns.kubernetes.io/")
"""Prefixes of the annotations that external-dns reads: its older versions the first, its newer ones the second."""

OWNER_TAGS = ("app.kubernetes.io/managed-by", "meshbridge.io/stack")
"""Tags by which what a stack made in AWS is known to be made, and by whom. The deployer's rights hang on the first."""


def target_group_attributes(annotations: Mapping[str, str]) -> dict[str, str]:
    """What the annotations say of the target groups of a Network Load Balancer, by AWS's names. The controller reads a
    list of `key=value`, with or without spaces."""
    found: dict[str, str] = {}
    for annotation, text in annotations.items():
        if annotation.startswith(f"{ANNOTATION_PREFIX}target-group-attributes"):
            pairs = (item.partition("=") for item in text.split(","))
            found |= {key.strip(): value.strip().lower() for key, _, value in pairs}
    return found


class Aws(Model):
    """The AWS account of the stack's load balancer and DNS records; credentials come from the environment."""

    region: Region
    """Region of the load balancer."""

    account: AccountId | None = None
    """The only account that the stack may touch; none: whichever the credentials belong to."""

    profile: Text | None = None
    """Profile of the shared AWS configuration; none: the environment's credentials."""

    tags: dict[str, str] = Field(default_factory=dict)
    """Further tags of everything that the stack makes in the account."""


class NetworkLoadBalancer(Model):
    """What both kinds of AWS Network Load Balancer share. Targets are the gateway's Pods themselves, by IP address,
    and TLS passes through to them."""

    scheme: Literal["internet-facing", "internal"] = "internet-facing"
    """Whether the internet or only the VPC (and what is joined to it) reaches the load balancer. A change replaces
    it, the new one first."""

    ip_address_type: Literal["ipv4", "dualstack"] = "ipv4"
    """IP families on which clients reach it; `dualstack` adds an AAAA record and needs subnets with IPv6."""

    client_address: Literal["preserve", "proxy-protocol", "none"] = "preserve"
    """How the gateway learns the client's address: `preserve` keeps it on the packets, `proxy-protocol` sends PROXY
    protocol v2 (Istio 1.27 or newer), `none` shows the load balancer's. A change interrupts new connections until
    both ends have followed. With `preserve`, clients behind the same gateway Pods cannot connect to themselves."""

    source_ranges: tuple[Cidr, ...] = ()
    """Client networks that the load balancer's security group admits; none: all, also for an internal one. The
    addresses are those of the clients, or of whatever translates them on the way."""

    cross_zone: bool = True
    """Whether each zone's node spreads connections over the Pods of all zones."""

    deregistration_seconds: DeregistrationSeconds = 120
    """Seconds for which connections to a Pod that goes away may continue."""


class AwsController(NetworkLoadBalancer):
    """A load balancer that the AWS Load Balancer Controller makes from the gateway's Service. Whatever has no key here
    can be said by `ingressGateway.service.annotations`."""

    subnets: tuple[SubnetId, ...] = ()
    """Its subnets, one a zone; none: the controller finds them by their tags."""


class AccessLogs(Model):
    """An S3 bucket for access logs. A Network Load Balancer logs TLS listeners alone, so as long as the gateway ends
    the TLS there is nothing in them: VPC flow logs show the connections."""

    bucket: Text
    """Name of the bucket, whose policy admits the log delivery service."""

    prefix: str | None = None
    """Prefix of the logs' keys."""


class AwsNlb(NetworkLoadBalancer):
    """A load balancer of the stack's own. The AWS Load Balancer Controller only registers the gateway's Pods with it
    (TargetGroupBinding), so its address outlives the Service and the cluster."""

    subnets: NonEmpty[SubnetId]
    """Its subnets, one a zone. One more is added in place; taking one away replaces the load balancer."""

    elastic_ips: bool = False
    """Whether each subnet gets an Elastic IP, so that clients can allow-list fixed addresses. A replacement of the
    load balancer brings new ones."""

    deletion_protection: bool = False
    """Whether AWS refuses to delete the load balancer, be it in a replacement: switch it off by an `up` of its own
    before that."""

    access_logs: AccessLogs | None = None
    """Where access logs go; none: nowhere."""


class ExistingLoadBalancer(Model):
    """A load balancer of another owner. It passes the public port through to the ingress gateway, TLS unopened."""

    address: Address | None = None
    """Its host name or IP address."""

    arn: LoadBalancerArn | None = None
    """ARN of a Network Load Balancer in the stack's AWS account, whose address is looked up."""

    ip_address_type: Literal["ipv4", "dualstack"] = "ipv4"
    """IP families of the one that `arn` names, as AWS has them; `dualstack` adds an AAAA record."""

    target_group_arn: TargetGroupArn | None = None
    """ARN of a target group of type `ip` with which the gateway's Pods are registered; none: its owner sees to that."""

    proxy_protocol: bool = False
    """Whether it sends PROXY protocol (Istio 1.27 or newer)."""


class LoadBalancer(Model):
    """What stands before the ingress gateway: exactly one of these. Without this section it is the gateway's own
    Service, as `ingressGateway.service` describes it."""

    aws_controller: AwsController | None = None
    """A Network Load Balancer that the AWS Load Balancer Controller makes from the Service."""

    aws_nlb: AwsNlb | None = None
    """A Network Load Balancer of the stack's own."""

    existing: ExistingLoadBalancer | None = None
    """A load balancer that exists and is owned elsewhere."""

    @property
    def network(self) -> NetworkLoadBalancer | None:
        """The AWS Network Load Balancer that the stack brings about, by either way."""
        return self.aws_controller or self.aws_nlb

    @property
    def registers_pods(self) -> bool:
        """Whether the gateway's Pods are the targets of an AWS Network Load Balancer."""
        adopted = self.existing is not None and self.existing.target_group_arn is not None
        return self.network is not None or adopted

    @property
    def dual_stack(self) -> bool:
        """Whether an AWS Network Load Balancer is reached by IPv6 too."""
        balancer = self.network or self.existing
        return balancer is not None and balancer.ip_address_type == "dualstack"

    @property
    def sends_proxy_protocol(self) -> bool:
        """Whether connections reach the gateway with a PROXY protocol header."""
        if self.existing is not None:
            return self.existing.proxy_protocol
        return self.network is not None and self.network.client_address == "proxy-protocol"


class Route53(Model):
    """A record in an existing hosted zone of the stack's AWS account."""

    zone: HostedZone
    """Name or id of the zone; it contains the system domain."""

    private: bool = False
    """Whether the zone that `zone` names is a private one."""

    ttl_seconds: Ttl = 60
    """Time to live of a record that names an address. An alias to an AWS load balancer has none: AWS's is 60 s."""

    evaluate_target_health: bool = True
    """Whether an alias follows the health of the load balancer's targets."""


class ExternalDns(Model):
    """A record that external-dns makes, in whichever DNS service it manages."""

    source: Literal["service", "dns-endpoint"] = "service"
    """Where external-dns reads it: annotations of the gateway's Service, or a DNSEndpoint object (its `crd` source),
    which every kind of load balancer can have."""

    ttl_seconds: Ttl = 60
    """Time to live of the record."""


class Dns(Model):
    """Who makes the wildcard record `*.<systemDomain>`: exactly one of these. Without this section nobody does, and the
    stack says which record is to be made."""

    route53: Route53 | None = None
    """The stack, in Route 53."""

    external_dns: ExternalDns | None = None
    """external-dns."""
