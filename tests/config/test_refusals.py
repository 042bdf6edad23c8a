"""What the vocabulary refuses: one row a rule, with the key and the words that a person gets to read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from config import ConfigError, Finding, parse

Data = dict[str, Any]
Change = Callable[[Data], object]


def stack() -> Data:
    """A valid stack with every role."""
    return {
        "cluster": {"context": "prod"},
        "consumer": {
            "id": "client.shop.example",
            "providers": [
                {"name": "data", "systemDomain": "istio.data.example"},
                {"name": "mail", "stack": "organization/meshbridge/mail", "caFromStack": False},
            ],
            "imports": [
                {
                    "name": "orders",
                    "provider": "data",
                    "namespace": "shop",
                    "endpoints": [
                        {"name": "primary", "host": "primary.istio.data.example"},
                        {"name": "replica", "host": "replica.istio.data.example"},
                    ],
                },
                {"name": "queue", "provider": "mail", "namespace": "notify", "endpoints": [{"name": "main"}]},
            ],
        },
        "provider": {
            "systemDomain": "istio.shop.example",
            "exports": [
                {
                    "name": "stock",
                    "consumers": ["client.data.example"],
                    "endpoints": [
                        {
                            "name": "main",
                            "host": "stock.istio.shop.example",
                            "address": "10.0.0.1",
                            "port": 5432,
                        },
                        {
                            "name": "old",
                            "host": "old.istio.shop.example",
                            "address": "db.example",
                            "port": 5432,
                        },
                    ],
                }
            ],
        },
        "upstreams": [
            {
                "name": "api",
                "namespace": "egress-api",
                "protocol": "HTTPS",
                "host": "api.upstream.example",
                "address": "api.example.org",
                "port": 443,
                "clients": [{"namespace": "shop"}],
            },
            {
                "name": "ledger",
                "namespace": "egress-ledger",
                "protocol": "TCP",
                "host": "ledger.upstream.example",
                "address": "192.0.2.7",
                "port": 5433,
                "clients": [{"namespace": "shop"}],
            },
        ],
    }


def findings(data: Data) -> list[Finding]:
    """What is wrong with `data`; empty when it is accepted."""
    try:
        parse(data)
    except ConfigError as error:
        return list(error.findings)
    return []


def put(*path: str | int, value: object) -> Change:
    """Sets the value at a path."""

    def change(data: Data) -> None:
        target: Any = data
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = value

    return change


def drop(*path: str | int) -> Change:
    """Removes the key at a path."""

    def change(data: Data) -> None:
        target: Any = data
        for part in path[:-1]:
            target = target[part]
        del target[path[-1]]

    return change


IMPORT = ("consumer", "imports", 0)
ENDPOINT = (*IMPORT, "endpoints", 0)
EXPORT = ("provider", "exports", 0)
EXPORTED = (*EXPORT, "endpoints", 0)
API = ("upstreams", 0)
LEDGER = ("upstreams", 1)
ORDERS = "consumer.imports[orders]"
PRIMARY = f"{ORDERS}.endpoints[primary]"
STOCK = "provider.exports[stock]"

BALANCER = ("provider", "loadBalancer")
EXPECTS_PROXY_PROTOCOL = '{"gatewayTopology": {"proxyProtocol": {}}, "terminationDrainDuration": "45s"}'
DNS = ("provider", "dns")
SUBNET = "subnet-0000000a"
CLOUD = "service.beta.kubernetes.io/aws-load-balancer-"


def both(*changes: Change) -> Change:
    """One change after the other."""

    def change(data: Data) -> None:
        for one in changes:
            one(data)

    return change


def gateway(**options: object) -> Change:
    return put("provider", "ingressGateway", value=options)


def annotated(**annotations: str) -> Change:
    """Annotations that the AWS Load Balancer Controller reads, `-` written as `_`."""
    named = {CLOUD + name.replace("_", "-"): value for name, value in annotations.items()}
    return gateway(service={"annotations": named})


def own(**options: object) -> Change:
    """A load balancer of the stack's own, and the account in which it lies."""
    return both(
        put(*BALANCER, value={"awsNlb": {"subnets": [SUBNET], **options}}),
        put("aws", value={"region": "eu-central-1"}),
    )


EDGE: dict[str, tuple[Change, str, str]] = {
    "a load balancer of no kind": (
        put(*BALANCER, value={}),
        "provider.loadBalancer",
        "add one of `awsController`",
    ),
    "load balancers of two kinds": (
        both(own(), put(*BALANCER, "existing", value={"address": "lb.example"})),
        "provider.loadBalancer.existing",
        "contradicts `awsNlb`",
    ),
    "no account": (both(own(), drop("aws")), "aws", "provider.loadBalancer.awsNlb lies in an AWS account"),
    "no account for the record": (
        put(*DNS, value={"route53": {"zone": "shop.example"}}),
        "aws",
        "is missing",
    ),
    "no account to look in": (
        put(
            *BALANCER,
            value={"existing": {"arn": "arn:aws:elasticloadbalancing:x:123456789012:loadbalancer/net/a/1"}},
        ),
        "aws",
        "existing.arn lies in an AWS account",
    ),
    "an account for nothing": (put("aws", value={"region": "eu-central-1"}), "aws", "has no effect"),
    "no region": (both(own(), put("aws", "region", value="Frankfurt")), "aws.region", "'eu-central-1'"),
    "no account id": (both(own(), put("aws", "account", value="1234")), "aws.account", "12 digits"),
    "no subnet id": (
        put(*BALANCER, value={"awsController": {"subnets": ["10.0.0.0/24"]}}),
        "provider.loadBalancer.awsController.subnets[0]",
        "subnet-0123",
    ),
    "a subnet twice": (
        own(subnets=[SUBNET, SUBNET]),
        "provider.loadBalancer.awsNlb.subnets",
        "name each once",
    ),
    "fixed addresses inside": (
        own(elasticIps=True, scheme="internal"),
        "provider.loadBalancer.awsNlb.elasticIps",
        "an internal one has no public address",
    ),
    "another scheme": (own(scheme="public"), "provider.loadBalancer.awsNlb.scheme", "'internet-facing'"),
    "the client's address in two ways": (
        own(clientAddress="both"),
        "provider.loadBalancer.awsNlb.clientAddress",
        "'proxy-protocol'",
    ),
    "too long a deregistration": (
        own(deregistrationSeconds=3601),
        "provider.loadBalancer.awsNlb.deregistrationSeconds",
        "0 to 3600 seconds",
    ),
    "IPv4 for Pods of IPv6": (
        both(own(), put("cluster", "ipFamily", value="IPv6")),
        "provider.loadBalancer.awsNlb.ipAddressType",
        "choose `dualstack`",
    ),
    "a Service that gives way": (
        both(own(), gateway(service={"externalTrafficPolicy": "Cluster"})),
        "provider.ingressGateway.service.externalTrafficPolicy",
        "replaces by its own",
    ),
    "a controller for another's Service": (
        both(put(*BALANCER, value={"awsController": {}}), gateway(adopt=True)),
        "provider.loadBalancer.awsController",
        "has another owner",
    ),
    "an annotation that has a key": (
        both(annotated(scheme="internal"), put(*BALANCER, value={"awsController": {}})),
        f"provider.ingressGateway.service.annotations[{CLOUD}scheme]",
        "is decided by `provider.loadBalancer.awsController`",
    ),
    "PROXY protocol for an adopted gateway": (
        both(own(clientAddress="proxy-protocol"), gateway(adopt=True)),
        "provider.loadBalancer.awsNlb.clientAddress",
        "its Pods have another owner",
    ),
    "another's PROXY protocol for an adopted gateway": (
        both(
            put(*BALANCER, value={"existing": {"address": "lb.example", "proxyProtocol": True}}),
            gateway(adopt=True),
        ),
        "provider.loadBalancer.existing.proxyProtocol",
        "its Pods have another owner",
    ),
    "PROXY protocol over other settings": (
        both(
            own(clientAddress="proxy-protocol"),
            gateway(workload={"podAnnotations": {"proxy.istio.io/config": "terminationDrainDuration: 45s"}}),
        ),
        "provider.ingressGateway.workload.podAnnotations[proxy.istio.io/config]",
        "meshConfig.defaultConfig",
    ),
    "PROXY protocol at one end": (
        annotated(proxy_protocol="*"),
        f"provider.ingressGateway.service.annotations[{CLOUD}proxy-protocol]",
        "take for a broken handshake",
    ),
    "PROXY protocol at one end, by an attribute": (
        annotated(target_group_attributes="proxy_protocol_v2.enabled=true"),
        f"provider.ingressGateway.service.annotations[{CLOUD}target-group-attributes]",
        "take for a broken handshake",
    ),
    "PROXY protocol at one end, with spaces": (
        annotated(target_group_attributes="a=b, proxy_protocol_v2.enabled = true"),
        f"provider.ingressGateway.service.annotations[{CLOUD}target-group-attributes]",
        "take for a broken handshake",
    ),
    "the client's address in two ways, by annotations": (
        gateway(
            service={
                "annotations": {
                    f"{CLOUD}nlb-target-type": "ip",
                    f"{CLOUD}target-group-attributes": (
                        "preserve_client_ip.enabled = true, proxy_protocol_v2.enabled = true"
                    ),
                }
            },
            workload={"podAnnotations": {"proxy.istio.io/config": EXPECTS_PROXY_PROTOCOL}},
        ),
        f"provider.ingressGateway.service.annotations[{CLOUD}target-group-attributes]",
        "tells the client's address a second time",
    ),
    "the client's address in two ways, one of them for nodes by default": (
        gateway(
            service={"annotations": {f"{CLOUD}proxy-protocol": "*"}},
            workload={"podAnnotations": {"proxy.istio.io/config": EXPECTS_PROXY_PROTOCOL}},
        ),
        f"provider.ingressGateway.service.annotations[{CLOUD}proxy-protocol]",
        "tells the client's address a second time",
    ),
    "an attribute's own annotation, which would win": (
        both(
            annotated(cross_zone_load_balancing_enabled="false"),
            put(*BALANCER, value={"awsController": {}}),
        ),
        f"provider.ingressGateway.service.annotations[{CLOUD}cross-zone-load-balancing-enabled]",
        "is decided by `provider.loadBalancer.awsController`",
    ),
    "an attribute of one port": (
        both(
            gateway(service={"annotations": {f"{CLOUD}target-group-attributes.9000": "a=b"}}),
            put(*BALANCER, value={"awsController": {}}),
        ),
        f"provider.ingressGateway.service.annotations[{CLOUD}target-group-attributes.9000]",
        "is decided by `provider.loadBalancer.awsController`",
    ),
    "a firewall that ignores the source ranges": (
        both(
            annotated(security_groups="sg-1"),
            put(*BALANCER, value={"awsController": {"sourceRanges": ["192.0.2.0/24"]}}),
        ),
        f"provider.ingressGateway.service.annotations[{CLOUD}security-groups]",
        "ignore `provider.loadBalancer.awsController.sourceRanges`",
    ),
    "IPv6 clients of an IPv4 load balancer": (
        put(*BALANCER, value={"awsController": {"sourceRanges": ["192.0.2.0/24", "2001:db8::/32"]}}),
        "provider.loadBalancer.awsController.sourceRanges[1]",
        "has IPv4 addresses alone",
    ),
    "families of an address": (
        put(*BALANCER, value={"existing": {"address": "lb.example", "ipAddressType": "dualstack"}}),
        "provider.loadBalancer.existing.ipAddressType",
        "name the load balancer by `arn`",
    ),
    "a tag that says who made it": (
        both(
            own(),
            put("aws", "tags", value={"app.kubernetes.io/managed-by": "somebody"}),
        ),
        "aws.tags[app.kubernetes.io/managed-by]",
        "choose another key",
    ),
    "a name for external-dns beside the wildcard": (
        both(
            put(*DNS, value={"externalDns": {}}),
            gateway(service={"annotations": {"external-dns.alpha.kubernetes.io/hostname": "x.example"}}),
        ),
        "provider.ingressGateway.service.annotations[external-dns.alpha.kubernetes.io/hostname]",
        "is decided by `provider.dns.externalDns`",
    ),
    "a load balancer that ends the TLS and opens another": (
        annotated(backend_protocol="ssl"),
        f"provider.ingressGateway.service.annotations[{CLOUD}backend-protocol]",
        "remove it",
    ),
    "too long a name": (
        both(own(), gateway(name="g" * 60)),
        "provider.ingressGateway.name",
        "shorten it by 5",
    ),
    "existing, but where": (
        put(*BALANCER, value={"existing": {}}),
        "provider.loadBalancer.existing.address",
        "add `address`",
    ),
    "existing, but where of two": (
        both(
            own(),
            put(
                *BALANCER,
                value={
                    "existing": {
                        "address": "lb.example",
                        "arn": "arn:aws:elasticloadbalancing:x:123456789012:loadbalancer/net/a/1",
                    }
                },
            ),
        ),
        "provider.loadBalancer.existing.address",
        "the two could differ",
    ),
    "no ARN": (
        put(*BALANCER, value={"existing": {"address": "lb.example", "targetGroupArn": "edge"}}),
        "provider.loadBalancer.existing.targetGroupArn",
        "is no ARN",
    ),
    "a record of nobody": (put(*DNS, value={}), "provider.dns", "add one of `route53`, `externalDns`"),
    "a record of two": (
        both(
            own(),
            put(*DNS, value={"route53": {"zone": "shop.example"}, "externalDns": {"source": "dns-endpoint"}}),
        ),
        "provider.dns.externalDns",
        "contradicts `route53`",
    ),
    "another zone": (
        both(own(), put(*DNS, value={"route53": {"zone": "data.example"}})),
        "provider.dns.route53.zone",
        "does not contain the system domain 'istio.shop.example'",
    ),
    "half a label of a zone": (
        both(own(), put(*DNS, value={"route53": {"zone": "p.example"}})),
        "provider.dns.route53.zone",
        "does not contain the system domain",
    ),
    "no zone": (
        both(own(), put(*DNS, value={"route53": {"zone": "*.shop.example"}})),
        "provider.dns.route53.zone",
        "wildcard",
    ),
    "no time to live": (
        put(*DNS, value={"externalDns": {"ttlSeconds": 0}}),
        "provider.dns.externalDns.ttlSeconds",
        "1 to 86400 seconds",
    ),
    "annotations on a Service that stands for nothing": (
        both(own(), put(*DNS, value={"externalDns": {}})),
        "provider.dns.externalDns.source",
        "choose `dns-endpoint`",
    ),
    "a record without an address": (
        both(
            gateway(service={"type": "NodePort"}),
            put("aws", value={"region": "eu-central-1"}),
            put(*DNS, value={"route53": {"zone": "shop.example"}}),
        ),
        "provider.dns.route53",
        "knows of none",
    ),
    "a record whose address nobody asks for": (
        both(
            put("cluster", value={"render": True}),
            put(*DNS, value={"externalDns": {"source": "dns-endpoint"}}),
        ),
        "provider.dns.externalDns",
        "with `render: true` none is asked",
    ),
}

ROWS: dict[str, tuple[Change, str, str]] = {
    **EDGE,
    "unknown key": (put("cluster", "contxt", value="x"), "cluster.contxt", "did you mean 'context'?"),
    "unknown section": (put("provder", value={}), "provder", "did you mean 'provider'?"),
    "unknown key far below": (put(*ENDPOINT, "hots", value="x"), f"{PRIMARY}.hots", "known here: clusterIp"),
    "missing section": (drop("cluster"), "cluster", "is missing but required"),
    "missing key": (drop("consumer", "id"), "consumer.id", "add it: Consumer id"),
    "text for a number": (
        put(*EXPORTED, "port", value="5432"),
        f"{STOCK}.endpoints[main].port",
        "without quotes",
    ),
    "number for a text": (put(*IMPORT, "namespace", value=7), f"{ORDERS}.namespace", "must be a string"),
    "text for a boolean": (put("cluster", "render", value="yes"), "cluster.render", "must be true or false"),
    "one for a list": (
        put(*EXPORT, "consumers", value="client.example.org"),
        f"{STOCK}.consumers",
        "must be a list",
    ),
    "text for a mapping": (put("provider", value="yes"), "provider", "must be a mapping"),
    "list for a mapping": (put("consumer", value=[]), "consumer", "must be a mapping"),
    "null for a required value": (
        put(*IMPORT, "provider", value=None),
        f"{ORDERS}.provider",
        "must be a string",
    ),
    "port zero": (put("provider", "port", value=0), "provider.port", "1 to 65535"),
    "port too high": (put(*ENDPOINT, "port", value=65536), f"{PRIMARY}.port", "1 to 65535"),
    "negative port": (put(*API, "port", value=-1), "upstreams[api].port", "1 to 65535"),
    "upper-case host": (
        put(*EXPORTED, "host", value="Stock.istio.shop.example"),
        f"{STOCK}.endpoints[main].host",
        "write 'stock.istio.shop.example'",
    ),
    "wildcard host": (
        put(*EXPORTED, "host", value="*.istio.shop.example"),
        f"{STOCK}.endpoints[main].host",
        "wildcard",
    ),
    "dotless host": (put(*API, "host", value="api"), "upstreams[api].host", "at least two labels"),
    "host with a scheme": (
        put(*API, "host", value="https://api.example"),
        "upstreams[api].host",
        "without scheme",
    ),
    "host with a trailing dot": (
        put(*API, "host", value="api.example."),
        "upstreams[api].host",
        "trailing dot",
    ),
    "host that is an address": (
        put(*API, "host", value="10.0.0.1"),
        "upstreams[api].host",
        "an SNI is a host name",
    ),
    "host with a long label": (
        put(*API, "host", value="a" * 64 + ".example"),
        "upstreams[api].host",
        "is too long",
    ),
    "host too long": (put(*API, "host", value="a.b." * 63 + "example"), "upstreams[api].host", "at most 253"),
    "name too long": (
        put(*EXPORT, "name", value="a" * 64),
        f"provider.exports[{'a' * 64}].name",
        "64 characters",
    ),
    "name with a dot": (
        put(*EXPORT, "name", value="My.Stock"),
        "provider.exports[My.Stock].name",
        "'my-stock'",
    ),
    "empty name": (put(*IMPORT, "name", value=""), "consumer.imports[].name", "is no DNS label"),
    "empty consumer id": (put("consumer", "id", value=""), "consumer.id", "would switch the check"),
    "empty id among the admitted": (
        put(*EXPORT, "consumers", value=[""]),
        f"{STOCK}.consumers[0]",
        "would switch",
    ),
    "nobody admitted": (put(*EXPORT, "consumers", value=[]), f"{STOCK}.consumers", "is empty"),
    "wildcard consumer id": (
        put(*EXPORT, "consumers", value=["*.example"]),
        f"{STOCK}.consumers[0]",
        "wildcard",
    ),
    "no endpoints": (put(*IMPORT, "endpoints", value=[]), f"{ORDERS}.endpoints", "is empty"),
    "no gateway labels": (
        put("provider", "ingressGateway", value={"labels": {}}),
        "provider.ingressGateway.labels",
        "every gateway of the mesh",
    ),
    "duration without a unit": (
        put(*ENDPOINT, "limits", value={"idleTimeout": "30"}),
        f"{PRIMARY}.limits.idleTimeout",
        "'30s'",
    ),
    "zero connections": (
        put(*ENDPOINT, "limits", value={"maxConnections": 0}),
        f"{PRIMARY}.limits.maxConnections",
        "1 or more",
    ),
    "unknown TLS version": (
        put("provider", "minTlsVersion", value="TLSV1_1"),
        "provider.minTlsVersion",
        "TLSV1_2",
    ),
    "unknown protocol": (put(*API, "protocol", value="UDP"), "upstreams[api].protocol", "'TCP'"),
    "private key for a CA": (
        put("provider", "caCertificate", value="-----BEGIN PRIVATE KEY-----"),
        "provider.caCertificate",
        "revoke that key",
    ),
    "no PEM for a CA": (put("provider", "caCertificate", value="MIIB"), "provider.caCertificate", "no PEM"),
    "bad address": (put(*EXPORTED, "address", value="10.0.0"), f"{STOCK}.endpoints[main].address", "10.0.0"),
    "bad quantity": (
        put("provider", "ingressGateway", value={"workload": {"memoryLimit": "2 GB"}}),
        "provider.ingressGateway.workload.memoryLimit",
        "'256Mi'",
    ),
    "bad CIDR": (
        put(*API, "egressCidrs", value=["10.0.0.1/8"]),
        "upstreams[api].egressCidrs[0]",
        "10.0.0.0/8",
    ),
    "two gateways with one label, in two namespaces": (
        both(
            put("consumer", "egressGateway", value={"labels": {"istio": "edge"}}),
            gateway(labels={"istio": "edge"}),
        ),
        "provider.ingressGateway.labels",
        "in all namespaces",
    ),
    "a gateway whose labels the other has too": (
        both(
            put("consumer", "egressGateway", value={"labels": {"istio": "edge"}}),
            gateway(labels={"istio": "edge", "side": "public"}),
        ),
        "consumer.egressGateway.labels",
        "selects the Pods of provider.ingressGateway too",
    ),
    "an egress gateway that was formerly itself": (
        put("consumer", "egressGateway", value={"name": "edge", "formerly": "edge"}),
        "consumer.egressGateway.formerly",
        "is the name that it has now",
    ),
    "an egress gateway whose name is too long for its sidecars' timeouts": (
        both(
            put("consumer", "egressGateway", value={"name": "e" * 55}),
            put("consumer", "sidecars", value=[{"namespace": "shop", "limits": {"idleTimeout": "2h"}}]),
        ),
        "consumer.sidecars[shop]",
        "of 64 characters",
    ),
    "an export whose objects' names are too long": (
        put(*EXPORT, "name", value="s" * 52),
        f"provider.exports[{'s' * 52}].endpoints[main]",
        "is an object name of 64 characters, at most 63 are allowed",
    ),
    "an upstream whose objects' names are too long": (
        put(*API, "name", value="a" * 55),
        f"upstreams[{'a' * 55}]",
        "is an object name of 64 characters, at most 63 are allowed",
    ),
    "an upstream with fewer replicas at most than at least": (
        put(*API, "workload", value={"minReplicas": 3, "maxReplicas": 2}),
        "upstreams[api].workload.maxReplicas",
        "is below minReplicas (3)",
    ),
    "settings of the proxy by which open connections would not drain": (
        put(
            *API,
            "workload",
            value={"drainSeconds": 60, "podAnnotations": {"proxy.istio.io/config": "concurrency: 2"}},
        ),
        "upstreams[api].workload.podAnnotations[proxy.istio.io/config]",
        "add `terminationDrainDuration: 60s`",
    ),
    "an export's former slug that another has": (
        put(
            "provider",
            "exports",
            value=[
                {
                    "name": name,
                    "consumers": ["client.data.example"],
                    "endpoints": [
                        {
                            "name": endpoint,
                            "host": f"{name}.istio.shop.example",
                            "address": "10.0.0.1",
                            "port": 5432,
                            **formerly,
                        }
                    ],
                }
                for name, endpoint, formerly in (
                    ("stock-main", "db", {}),
                    ("stock", "new", {"formerly": "main-db"}),
                )
            ],
        ),
        "provider.exports[stock].endpoints[new].formerly",
        "had the slug that provider.exports[stock-main].endpoints[db] has now",
    ),
    "a kubeconfig of no name": (
        put("cluster", "kubeconfig", value=""),
        "cluster.kubeconfig",
        "is empty",
    ),
    "a provider of no name in meshConfig": (
        put(*API, "opa", value={"image": "opa:1", "configMap": "policy", "extensionProvider": ""}),
        "upstreams[api].opa.extensionProvider",
        "is empty",
    ),
    "an OPA on a port of its own": (
        put(*API, "opa", value={"image": "opa:1", "configMap": "policy", "port": 8181}),
        "upstreams[api].opa.port",
        "is taken in the gateway's Pods",
    ),
    "an address for a CIDR": (
        put(*API, "egressCidrs", value=["10.0.0.1"]),
        "upstreams[api].egressCidrs[0]",
        "write '10.0.0.1/32'",
    ),
    "a mask for a prefix": (
        put(*API, "egressCidrs", value=["10.0.0.0/255.0.0.0"]),
        "upstreams[api].egressCidrs[0]",
        "write '10.0.0.0/8'",
    ),
    "a CIDR of one node": (
        put(*API, "egressCidrs", value=["fe80::%eth0/64"]),
        "upstreams[api].egressCidrs[0]",
        "write 'fe80::/64'",
    ),
    "a quantity of nothing": (
        gateway(workload={"cpuRequest": "0m"}),
        "provider.ingressGateway.workload.cpuRequest",
        "is nothing",
    ),
    "memory for CPU": (
        gateway(workload={"cpuRequest": "256Mi"}),
        "provider.ingressGateway.workload.cpuRequest",
        "is no amount of CPU",
    ),
    "CPU for memory": (
        gateway(workload={"memoryRequest": "100m"}),
        "provider.ingressGateway.workload.memoryRequest",
        "is no amount of memory",
    ),
    "less memory than reserved": (
        gateway(workload={"memoryRequest": "3G"}),
        "provider.ingressGateway.workload.memoryLimit",
        "is below memoryRequest (3G)",
    ),
    "a number that is no int32": (
        put(*EXPORTED, "limits", value={"maxConnections": 2**31}),
        f"{STOCK}.endpoints[main].limits.maxConnections",
        "at most 2147483647",
    ),
    "a duration of centuries": (
        put("provider", "connectTimeout", value="2562048h"),
        "provider.connectTimeout",
        "at most 2562047h",
    ),
    "more keepalive probes than Linux sends": (
        put("consumer", "providers", 0, "keepalive", value={"probes": 128}),
        "consumer.providers[data].keepalive.probes",
        "1 to 127",
    ),
    "a keepalive later than Linux knows": (
        put("consumer", "providers", 0, "keepalive", value={"intervalSeconds": 32768}),
        "consumer.providers[data].keepalive.intervalSeconds",
        "1 to 32767",
    ),
    "a Service that begins with a digit": (
        put(*ENDPOINT, "service", value="2orders"),
        f"{PRIMARY}.service",
        "write for example 'svc-2orders'",
    ),
    "a gateway that begins with a digit": (
        gateway(name="2nd"),
        "provider.ingressGateway.name",
        "is no name of a Service",
    ),
    "a virtual IP that no Service has": (
        put(*ENDPOINT, "clusterIp", value="127.0.0.1"),
        f"{PRIMARY}.clusterIp",
        "loopback",
    ),
    "a node's label that is none": (
        gateway(workload={"nodeSelector": {"pool name": "edge"}}),
        "provider.ingressGateway.workload.nodeSelector",
        "no Kubernetes label key",
    ),
    "a node's label without a prefix before its slash": (
        gateway(workload={"nodeSelector": {"/pool": "edge"}}),
        "provider.ingressGateway.workload.nodeSelector",
        "no Kubernetes label key",
    ),
    "a Pod's annotation that is none": (
        gateway(workload={"podAnnotations": {"proxy config": "{}"}}),
        "provider.ingressGateway.workload.podAnnotations",
        "no key of a Kubernetes annotation",
    ),
    "a class of load balancers that is none": (
        gateway(service={"loadBalancerClass": ""}),
        "provider.ingressGateway.service.loadBalancerClass",
        "is no class",
    ),
    "client networks of a Service that cannot keep others away": (
        gateway(service={"type": "NodePort", "sourceRanges": ["192.0.2.0/24"]}),
        "provider.ingressGateway.service.sourceRanges",
        "a Service of the type NodePort has no load balancer",
    ),
    "a class of load balancers for a Service without one": (
        gateway(service={"type": "ClusterIP", "loadBalancerClass": "service.k8s.aws/nlb"}),
        "provider.ingressGateway.service.loadBalancerClass",
        "a Service of the type ClusterIP has no load balancer",
    ),
    "a key as Python spells it": (
        put("cluster", value={"context": "prod", "trust_domain": "shop.example"}),
        "cluster.trust_domain",
        "did you mean 'trustDomain'",
    ),
    "percentage": (
        put("provider", "ingressGateway", value={"workload": {"targetCpuPercent": 101}}),
        "provider.ingressGateway.workload.targetCpuPercent",
        "1 to 100",
    ),
    "no cluster": (put("cluster", value={}), "cluster", "names no cluster"),
    "two clusters": (put("cluster", "render", value=True), "cluster.context", "contradicts `render: true`"),
    "two kubeconfigs": (
        put("cluster", value={"kubeconfig": "f", "kubeconfigSecret": True}),
        "cluster.kubeconfig",
        "contradicts `kubeconfigSecret: true`",
    ),
    "replicas the wrong way round": (
        put("provider", "ingressGateway", value={"workload": {"minReplicas": 3, "maxReplicas": 2}}),
        "provider.ingressGateway.workload.maxReplicas",
        "below minReplicas (3)",
    ),
    "workload of an adopted gateway": (
        put("consumer", "egressGateway", value={"adopt": True, "workload": {"minReplicas": 3}}),
        "consumer.egressGateway.workload",
        "`adopt: true`",
    ),
    "a load balancer that ends the TLS": (
        put(
            "provider",
            "ingressGateway",
            value={
                "service": {"annotations": {"service.beta.kubernetes.io/aws-load-balancer-ssl-cert": "arn"}}
            },
        ),
        "provider.ingressGateway.service.annotations[service.beta.kubernetes.io/aws-load-balancer-ssl-cert]",
        "the gateway itself serves the certificate",
    ),
    "a certificate at another cloud's load balancer": (
        gateway(service={"annotations": {"service.beta.kubernetes.io/do-loadbalancer-certificate-id": "1"}}),
        "provider.ingressGateway.service.annotations[service.beta.kubernetes.io/do-loadbalancer-certificate-id]",
        "lets the load balancer end the TLS",
    ),
    "TLS ports of another cloud's load balancer": (
        gateway(service={"annotations": {"service.beta.kubernetes.io/oci-load-balancer-ssl-ports": "443"}}),
        "provider.ingressGateway.service.annotations[service.beta.kubernetes.io/oci-load-balancer-ssl-ports]",
        "lets the load balancer end the TLS",
    ),
    "HTTP at another cloud's load balancer": (
        gateway(service={"annotations": {"load-balancer.hetzner.cloud/protocol": "https"}}),
        "provider.ingressGateway.service.annotations[load-balancer.hetzner.cloud/protocol]",
        "lets the load balancer end the TLS",
    ),
    "two gateways, one selection": (
        put(
            "provider",
            "ingressGateway",
            value={"namespace": "mesh-egress", "labels": {"istio": "istio-egressgateway"}},
        ),
        "provider.ingressGateway.labels",
        "selects the Pods of",
    ),
    "provider neither named nor spelled out": (
        drop("consumer", "providers", 0, "systemDomain"),
        "consumer.providers[data].systemDomain",
        "add `systemDomain`, `stack` or `bundle`",
    ),
    "provider said twice": (
        put("consumer", "providers", 1, "systemDomain", value="istio.mail.example"),
        "consumer.providers[mail].systemDomain",
        "said twice",
    ),
    "short stack name": (
        put("consumer", "providers", 1, "stack", value="mail"),
        "consumer.providers[mail].stack",
        "organization/project/stack",
    ),
    "CA from no stack": (
        put("consumer", "providers", 0, "caFromStack", value=True),
        "consumer.providers[data].caFromStack",
        "is not one",
    ),
    "revocation lists of no CA": (
        put("provider", "consumersCrl", value="-----BEGIN X509 CRL-----\nMIIB\n-----END X509 CRL-----\n"),
        "provider.consumersCrl",
        "add `consumersCaCertificate`",
    ),
    "a certificate as a revocation list": (
        put("provider", "consumersCrl", value="-----BEGIN CERTIFICATE-----"),
        "provider.consumersCrl",
        "is no PEM revocation list",
    ),
    "a bundle without a pin": (
        put("consumer", "providers", 1, value={"name": "mail", "bundle": "mail.json", "caFromStack": False}),
        "consumer.providers[mail].bundle",
        "could pass for its maker",
    ),
    "a consumer's bundle without a pin": (
        put("provider", "consumerBundles", value=[{"bundle": "shop.json"}]),
        "provider.consumerBundles[0].bundle",
        "could pass for its maker",
    ),
    "a bundle and a stack": (
        lambda data: data["consumer"]["providers"][1].update(bundle="mail.json", bundleDigest="ab" * 32),
        "consumer.providers[mail].bundle",
        "contradicts `stack`",
    ),
    "a pin without a bundle": (
        put("consumer", "providers", 0, "caFingerprint", value="ab" * 32),
        "consumer.providers[data].caFingerprint",
        "there is none",
    ),
    "a pin that is no digest": (
        put("consumer", "providers", 0, "bundleDigest", value="ab" * 31),
        "consumer.providers[data].bundleDigest",
        "is no SHA-256",
    ),
    "a port beside a bundle": (
        put(
            "consumer",
            "providers",
            1,
            value={
                "name": "mail",
                "bundle": "mail.json",
                "bundleDigest": "AB:" * 31 + "AB",
                "caFromStack": False,
                "port": 9000,
            },
        ),
        "consumer.providers[mail].port",
        "is supplied by the bundle 'mail.json'; said twice",
    ),
    "one Secret, two CAs": (
        put("consumer", "providers", 1, "caFromStack", value=True),
        "consumer.providers[mail].clientSecret",
        "would then vouch for the others",
    ),
    "a certificate from two places": (
        put("provider", "certificate", value={"directory": "pki", "stackSecret": "data"}),
        "provider.certificate.directory",
        "contradicts `stackSecret`",
    ),
    "a mesh's authority from nowhere": (
        put("cluster", "meshCa", value={}),
        "cluster.meshCa",
        "says nowhere where the authority is",
    ),
    "a mesh's authority from two places": (
        put("cluster", "meshCa", value={"stackSecret": "mesh", "directory": "mesh"}),
        "cluster.meshCa.directory",
        "contradicts `stackSecret`",
    ),
    "a mesh's authority that another one stands in for": (
        put("cluster", value={"context": "prod", "meshCa": {"stackSecret": "mesh"}, "istioCsr": {}}),
        "cluster.meshCa",
        "contradicts `istioCsr`",
    ),
    "the key of a mesh's authority in rendered files": (
        put("cluster", value={"render": True, "meshCa": {"directory": "mesh"}}),
        "cluster.meshCa.directory",
        "would write the private key into the rendered files",
    ),
    "a private key in rendered files": (
        lambda data: (
            data.update(cluster={"render": True}),
            put("consumer", "certificate", value={"directory": "pki"})(data),
        ),
        "consumer.certificate.directory",
        "would write the private key into the rendered files",
    ),
    "a stack's private key in rendered files": (
        lambda data: (
            data.update(cluster={"render": True}),
            put("provider", "certificate", value={"stackSecret": "data"})(data),
        ),
        "provider.certificate.stackSecret",
        "would write the private key into the rendered files",
    ),
    "a certificate too short for cert-manager": (
        put(
            "provider",
            "certificate",
            value={"certManager": {"issuer": {"name": "ca"}, "trustIssuer": True, "duration": "59m"}},
        ),
        "provider.certificate.certManager.duration",
        "shorter than cert-manager allows",
    ),
    "a certificate that is always renewed": (
        put(
            "provider",
            "certificate",
            value={"certManager": {"issuer": {"name": "ca"}, "trustIssuer": True, "duration": "720h"}},
        ),
        "provider.certificate.certManager.renewBefore",
        "renewed without end",
    ),
    "a certificate that is renewed too late for cert-manager": (
        put(
            "provider",
            "certificate",
            value={"certManager": {"issuer": {"name": "ca"}, "trustIssuer": True, "renewBefore": "299s"}},
        ),
        "provider.certificate.certManager.renewBefore",
        "shorter than cert-manager allows",
    ),
    "cert-manager without the consumers' CA": (
        put("provider", "certificate", value={"certManager": {"issuer": {"name": "acme"}}}),
        "provider.certificate.certManager",
        "says nothing of the consumers' CA",
    ),
    "cert-manager without a provider's CA": (
        put("consumer", "certificate", value={"certManager": {"issuer": {"name": "acme"}}}),
        "consumer.certificate.certManager",
        "says nothing of the CA of data",
    ),
    "warnings from before there were certificates": (
        put("provider", "certificate", value={"warningDays": 10**10}),
        "provider.certificate.warningDays",
        "1 to 3650 days",
    ),
    "an issuer that is no object name": (
        put(
            "provider",
            "certificate",
            value={"certManager": {"issuer": {"name": "My CA"}, "trustIssuer": True}},
        ),
        "provider.certificate.certManager.issuer.name",
        "is no object name",
    ),
    "two certificates for one client Secret": (
        put("consumer", "providers", 0, "certificate", value={"directory": "other"}),
        "consumer.providers[data].certificate",
        "and consumer.certificate would both decide what is in the Secret mesh-egress/consumer-client",
    ),
    "two certificates for a provider's client Secret": (
        both(
            put("consumer", "certificate", value={"stackSecret": "shop"}),
            put("consumer", "providers", 0, "clientSecret", value="partners"),
            put("consumer", "providers", 0, "certificate", value={"directory": "other"}),
            put("consumer", "providers", 1, "clientSecret", value="partners"),
        ),
        "consumer.certificate",
        "and consumer.providers[data].certificate would both decide what is in the Secret mesh-egress/partners",
    ),
    "a private key among the consumers' CAs": (
        put("provider", "consumersCaCertificate", value="-----BEGIN PRIVATE KEY-----"),
        "provider.consumersCaCertificate",
        "holds a private key",
    ),
    "duplicate provider": (
        lambda data: data["consumer"]["providers"].append(
            {"name": "data", "systemDomain": "istio.data.example"}
        ),
        "consumer.providers[data].name",
        "is the name of",
    ),
    "keepalive after the load balancer": (
        put("consumer", "providers", 0, "keepalive", value={"timeSeconds": 350}),
        "consumer.providers[data].keepalive.timeSeconds",
        "drops idle connections first",
    ),
    "unknown provider": (put(*IMPORT, "provider", value="dta"), f"{ORDERS}.provider", "declared: data, mail"),
    "import without a host": (drop(*ENDPOINT, "host"), f"{PRIMARY}.host", "add the endpoint's public host"),
    "host outside the system domain": (
        put(*ENDPOINT, "host", value="primary.istio.other.example"),
        f"{PRIMARY}.host",
        "is not below the provider's system domain 'istio.data.example'",
    ),
    "host that only ends alike": (
        put(*ENDPOINT, "host", value="evilistio.data.example"),
        f"{PRIMARY}.host",
        "is not below the provider's system domain",
    ),
    "host beside a stack": (
        put("consumer", "imports", 1, "endpoints", 0, "host", value="q.istio.mail.example"),
        "consumer.imports[queue].endpoints[main].host",
        "is supplied by the stack",
    ),
    "host imported twice": (
        put(*IMPORT, "endpoints", 1, "host", value="primary.istio.data.example"),
        f"{ORDERS}.endpoints[replica].host",
        "is imported by",
    ),
    "duplicate import": (
        put("consumer", "imports", 1, "name", value="orders"),
        f"{ORDERS}.name",
        "is the name of",
    ),
    "duplicate slug": (put(*IMPORT, "endpoints", 1, "name", value="primary"), PRIMARY, "is also the slug of"),
    "object name too long": (
        put(*ENDPOINT, "name", value="a" * 60),
        f"{ORDERS}.endpoints[{'a' * 60}]",
        "at most 63 are allowed",
    ),
    "one Service, two endpoints": (
        put(*IMPORT, "endpoints", 1, "service", value="svc-orders-primary"),
        f"{ORDERS}.endpoints[replica].service",
        "is the Service of",
    ),
    "virtual IP of the other family": (
        put(*ENDPOINT, "clusterIp", value="fd00::1"),
        f"{PRIMARY}.clusterIp",
        "IPv4",
    ),
    "virtual IP in Istio's range": (
        put(*ENDPOINT, "clusterIp", value="240.240.0.9"),
        f"{PRIMARY}.clusterIp",
        "240.240.0.0/16",
    ),
    "virtual IP that is none": (
        put(*ENDPOINT, "clusterIp", value="10.0"),
        f"{PRIMARY}.clusterIp",
        "no IP address",
    ),
    "export outside the system domain": (
        put(*EXPORTED, "host", value="stock.example.org"),
        f"{STOCK}.endpoints[main].host",
        "is not below the system domain",
    ),
    "the system domain itself": (
        put(*EXPORTED, "host", value="istio.shop.example"),
        f"{STOCK}.endpoints[main].host",
        "is not below the system domain",
    ),
    "two exports of one name": (
        lambda data: data["provider"]["exports"].append(
            {
                "name": "stock",
                "consumers": ["client.data.example"],
                "endpoints": [
                    {"name": "new", "host": "new.istio.shop.example", "address": "10.0.0.2", "port": 5432}
                ],
            }
        ),
        f"{STOCK}.name",
        "rename one export",
    ),
    "two exports of one slug": (
        put(*EXPORT, "endpoints", 1, "name", value="main"),
        f"{STOCK}.endpoints[main]",
        "is also the slug of",
    ),
    "an export with the slug of the broker's route": (
        both(
            put(*EXPORT, "name", value="control"),
            put(*EXPORTED, "name", value="plane"),
            put("provider", "controlPlane", value={"address": "10.0.0.9", "port": 80, "openToAll": True}),
        ),
        "provider.exports[control].endpoints[plane]",
        "is also the slug of provider.controlPlane",
    ),
    "a broker's route elsewhere": (
        put(
            "provider",
            "controlPlane",
            value={"host": "broker.example", "address": "10.0.0.9", "port": 80, "openToAll": True},
        ),
        "provider.controlPlane.host",
        "is not below the system domain",
    ),
    "two exports on one host": (
        put(*EXPORT, "endpoints", 1, "host", value="stock.istio.shop.example"),
        f"{STOCK}.endpoints[old].host",
        "is the public host and port of",
    ),
    "broker open by omission": (
        put("provider", "controlPlane", value={"address": "10.0.0.9", "port": 80}),
        "provider.controlPlane.consumers",
        "openToAll: true",
    ),
    "broker open and closed": (
        put(
            "provider",
            "controlPlane",
            value={"address": "10.0.0.9", "port": 80, "openToAll": True, "consumers": ["a.example"]},
        ),
        "provider.controlPlane.openToAll",
        "contradicts",
    ),
    "broker on an export's host": (
        put(*EXPORTED, "host", value="istio-broker.istio.shop.example"),
        "provider.controlPlane.host",
        "is the public host and port of",
    ),
    "upstream under its own name": (
        put(*API, "host", value="api.example.org"),
        "upstreams[api].host",
        "own name",
    ),
    "two upstreams, one host": (
        put(*LEDGER, "host", value="api.upstream.example"),
        "upstreams[ledger].host",
        "is the host of",
    ),
    "duplicate upstream": (put(*LEDGER, "name", value="api"), "upstreams[api].name", "is the name of"),
    "an upstream named as another's route": (
        lambda data: data["upstreams"][1].update(name="api-mesh", namespace="egress-api"),
        "upstreams[api-mesh]",
        "egress-api/upstream-api-mesh",
    ),
    "TLS options without TLS": (
        put(*LEDGER, "tls", value={"sni": "a.example"}),
        "upstreams[ledger].tls",
        "no effect",
    ),
    "TLS to an address": (put(*API, "address", value="192.0.2.1"), "upstreams[api].tls.sni", "is missing"),
    "client certificate from nowhere": (
        put(*API, "tls", value={"clientCertificate": True}),
        "upstreams[api].tls.clientCertificate",
        "add `credentialSecret`",
    ),
    "OPA for connections": (
        put(*LEDGER, "opa", value={"image": "opa:1", "configMap": "policy"}),
        "upstreams[ledger].opa",
        "works on requests",
    ),
    "virtual IP for requests": (
        put(*API, "servicePort", value=80),
        "upstreams[api].servicePort",
        "addressed by its host",
    ),
    "client beside the gateway": (
        put(*API, "clients", value=[{"namespace": "egress-api"}]),
        "upstreams[api].clients[egress-api]",
        "go past the gateway",
    ),
    "client twice": (
        put(*API, "clients", value=[{"namespace": "shop"}, {"namespace": "shop"}]),
        "upstreams[api].clients[shop]",
        "is the namespace of",
    ),
    "probe slower than its period": (
        put(*API, "readiness", value={"image": "curl:8", "command": ["true"], "periodSeconds": 1}),
        "upstreams[api].readiness.timeoutSeconds",
        "is longer than periodSeconds (1)",
    ),
    "sidecars twice": (
        put(
            "consumer",
            "sidecars",
            value=[{"namespace": "shop", "limits": {}}, {"namespace": "shop", "limits": {}}],
        ),
        "consumer.sidecars[shop]",
        "name each namespace once",
    ),
    "contents of a kubeconfig for its path": (
        put("cluster", value={"kubeconfig": "apiVersion: v1\nusers: [{user: {token: hunter2}}]\n"}),
        "cluster.kubeconfig",
        "[hidden] is no path of a file",
    ),
    "an address for the path of a kubeconfig": (
        put("cluster", value={"kubeconfig": "https://api.shop.example"}),
        "cluster.kubeconfig",
        "write the file's path",
    ),
    "a stack's name with a gap": (
        put("consumer", "providers", 1, "stack", value="organization//mail"),
        "consumer.providers[mail].stack",
        "organization/project/stack",
    ),
    "a namespace of the mesh's own": (
        put("consumer", "egressGateway", value={"namespace": "istio-system", "createNamespace": True}),
        "consumer.egressGateway.createNamespace",
        "which `down` would delete",
    ),
    "the mesh's namespace by another name": (
        both(
            put("cluster", "meshNamespace", value="mesh"),
            put("provider", "ingressGateway", value={"namespace": "mesh", "createNamespace": True}),
        ),
        "provider.ingressGateway.createNamespace",
        "which `down` would delete",
    ),
    "the default namespace": (
        both(put(*LEDGER, "namespace", value="default"), put(*LEDGER, "createNamespace", value=True)),
        "upstreams[ledger].createNamespace",
        "which `down` would delete",
    ),
    "a namespace of Kubernetes' own": (
        both(put(*LEDGER, "namespace", value="kube-public"), put(*LEDGER, "createNamespace", value=True)),
        "upstreams[ledger].createNamespace",
        "which `down` would delete",
    ),
    "the broker in a namespace of Kubernetes' own": (
        put(
            "broker",
            value={
                "role": "forward",
                "image": "broker:1",
                "namespace": "kube-system",
                "createNamespace": True,
                "callers": {"anonymous": True, "networks": ["192.0.2.0/24"]},
                "upstream": {"url": "https://fabrik.example"},
            },
        ),
        "broker.createNamespace",
        "which `down` would delete",
    ),
    "the namespace of an adopted gateway": (
        put("consumer", "egressGateway", value={"adopt": True, "createNamespace": True}),
        "consumer.egressGateway.createNamespace",
        "has no effect",
    ),
    "formerly its own name": (
        put(*IMPORT, "formerly", value="orders"),
        f"{ORDERS}.formerly",
        "is the name that it has now",
    ),
    "formerly another import": (
        put(*IMPORT, "formerly", value="queue"),
        f"{ORDERS}.formerly",
        "is the name of consumer.imports[queue]",
    ),
    "two of one former name": (
        both(put(*IMPORT, "formerly", value="old"), put("consumer", "imports", 1, "formerly", value="old")),
        "consumer.imports[queue].formerly",
        f"is the former name of {ORDERS}.formerly",
    ),
    "an endpoint, formerly another": (
        put(*ENDPOINT, "formerly", value="replica"),
        f"{PRIMARY}.formerly",
        f"is the name of {ORDERS}.endpoints[replica]",
    ),
    "an exported endpoint, formerly another": (
        put(*EXPORTED, "formerly", value="old"),
        f"{STOCK}.endpoints[main].formerly",
        f"is the name of {STOCK}.endpoints[old]",
    ),
    "an export, formerly itself": (
        put(*EXPORT, "formerly", value="stock"),
        f"{STOCK}.formerly",
        "is the name that it has now",
    ),
    "an upstream, formerly another": (
        put(*LEDGER, "formerly", value="api"),
        "upstreams[ledger].formerly",
        "is the name of upstreams[api]",
    ),
    "a gateway, formerly itself": (
        put("provider", "ingressGateway", value={"formerly": "provider-ingress"}),
        "provider.ingressGateway.formerly",
        "is the name that it has now",
    ),
    "a former slug that another has": (
        both(
            put("consumer", "imports", 1, "name", value="orders-primary"),
            put("consumer", "imports", 1, "service", value="queue"),
            put(*ENDPOINT, "formerly", value="primary-main"),
        ),
        f"{PRIMARY}.formerly",
        "had the slug that consumer.imports[orders-primary].endpoints[main] has now",
    ),
    "an upstream's virtual IP in Istio's range": (
        put(*LEDGER, "clusterIp", value="240.240.0.9"),
        "upstreams[ledger].clusterIp",
        "240.240.0.0/16",
    ),
    "an upstream's virtual IP of the other family": (
        put(*LEDGER, "clusterIp", value="fd00::1"),
        "upstreams[ledger].clusterIp",
        "IPv4",
    ),
    "one virtual IP of an import and an upstream": (
        both(put(*ENDPOINT, "clusterIp", value="10.96.0.9"), put(*LEDGER, "clusterIp", value="10.96.0.9")),
        "upstreams[ledger].clusterIp",
        f"is the virtual IP of {PRIMARY}.clusterIp",
    ),
    "one virtual IP, written in two ways": (
        both(
            put("cluster", "ipFamily", value="IPv6"),
            put(*ENDPOINT, "clusterIp", value="fd00::7"),
            put(*IMPORT, "endpoints", 1, "clusterIp", value="fd00:0::7"),
        ),
        f"{ORDERS}.endpoints[replica].clusterIp",
        "is the virtual IP of",
    ),
    "OPA without an image": (
        put(*API, "opa", value={"image": "", "configMap": "policy"}),
        "upstreams[api].opa.image",
        "is no image",
    ),
    "a probe without an image": (
        put(*API, "readiness", value={"image": " ", "command": ["true"]}),
        "upstreams[api].readiness.image",
        "is no image",
    ),
    "a service at no address": (
        put(*EXPORTED, "address", value="0.0.0.0"),  # noqa: S104
        f"{STOCK}.endpoints[main].address",
        "of no single machine",
    ),
    "a service at an address of IPv4 in IPv6": (
        put(*EXPORTED, "address", value="::ffff:127.0.0.1"),
        f"{STOCK}.endpoints[main].address",
        "write '127.0.0.1'",
    ),
    "a service at whoever has the address on the link": (
        put(*EXPORTED, "address", value="169.254.169.254"),
        f"{STOCK}.endpoints[main].address",
        "is a link-local address",
    ),
    "an upstream at whoever has the address on the link": (
        put(*LEDGER, "address", value="fe80::1"),
        "upstreams[ledger].address",
        "is a link-local address",
    ),
    "an upstream in the gateway itself": (
        put(*LEDGER, "address", value="127.0.0.1"),
        "upstreams[ledger].address",
        "of no single machine",
    ),
    "a virtual IP on a port of the proxy": (
        put(*ENDPOINT, "port", value=15006),
        f"{PRIMARY}.port",
        "the proxy itself listens",
    ),
    "an upstream's virtual IP on a port of the proxy": (
        put(*LEDGER, "servicePort", value=15001),
        "upstreams[ledger].servicePort",
        "the proxy itself listens",
    ),
    "networks of a gateway whose network policy is another's": (
        put("consumer", "egressGateway", value={"adopt": True, "egressCidrs": ["192.0.2.0/24"]}),
        "consumer.egressGateway.egressCidrs",
        "describes a gateway that the stack creates",
    ),
    "one client network twice, written in two ways": (
        both(
            put(
                *BALANCER,
                value={
                    "awsNlb": {
                        "subnets": [SUBNET],
                        "ipAddressType": "dualstack",
                        "sourceRanges": ["fd00::/8", "192.0.2.0/24", "fd00:0::/8"],
                    }
                },
            ),
            put("aws", value={"region": "eu-central-1"}),
        ),
        "provider.loadBalancer.awsNlb.sourceRanges[2]",
        "name each network once",
    ),
    "an upstream outside the networks of its gateway": (
        put(*LEDGER, "egressCidrs", value=["198.51.100.0/24", "fd00::/8"]),
        "upstreams[ledger].egressCidrs",
        "do not contain the address 192.0.2.7",
    ),
    "a server Secret of the name of its gateway": (
        both(
            put("provider", "serverSecret", value="provider-ingress"),
            put("provider", "certificate", value={"directory": "pki"}),
        ),
        "provider.serverSecret",
        "is the name of its gateway too",
    ),
    "a client Secret of the name of its gateway": (
        both(
            put("consumer", "providers", 0, "clientSecret", value="istio-egressgateway"),
            put("consumer", "providers", 0, "certificate", value={"directory": "pki"}),
        ),
        "consumer.providers[data].clientSecret",
        "is the name of its gateway too",
    ),
    "one service account, two gateways": (
        both(
            put("consumer", "egressGateway", value={"namespace": "edge", "serviceAccount": "proxy"}),
            put("provider", "ingressGateway", value={"namespace": "edge", "serviceAccount": "proxy"}),
        ),
        "provider.ingressGateway.serviceAccount",
        "is the identity of the gateway of consumer.egressGateway",
    ),
    "two gateways of one name, whose Services differ": (
        both(
            put(
                "consumer", "egressGateway", value={"name": "edge", "namespace": "edge", "labels": {"a": "b"}}
            ),
            put(
                "provider",
                "ingressGateway",
                value={"name": "edge", "namespace": "edge", "labels": {"c": "d"}},
            ),
            put(*BALANCER, value={"awsController": {}}),
        ),
        "provider.ingressGateway.name",
        "is the Service of consumer.egressGateway.name",
    ),
    "one Secret, two gateways": (
        both(
            put("consumer", "egressGateway", value={"namespace": "edge"}),
            put("provider", "ingressGateway", value={"namespace": "edge"}),
            put("provider", "serverSecret", value="consumer-client"),
            put("provider", "certificate", value={"directory": "pki"}),
        ),
        "provider.serverSecret",
        "is a client Secret too",
    ),
    "a private key for a name": (
        put(*IMPORT, "namespace", value="-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIAn"),
        f"{ORDERS}.namespace",
        "[hidden] holds a private key; remove it and revoke that key",
    ),
    "a private key below another key": (
        put(*API, "egressCidrs", value=["-----BEGIN PRIVATE KEY-----"]),
        "upstreams[api].egressCidrs[0]",
        "[hidden] holds a private key",
    ),
    "a value that nobody asked for": (
        put("cluster", "password", value="hunter2"),
        "cluster.password",
        "[hidden] is not a known key",
    ),
    "a second oldest TLS version": (
        put(
            *API,
            "ingress",
            value={
                "namespace": "istio-ingress",
                "labels": {"istio": "ingressgateway"},
                "serviceAccount": "entry",
                "serverSecret": "server",
                "minTlsVersion": "TLSV1_0",
            },
        ),
        "upstreams[api].ingress.minTlsVersion",
        "TLSV1_2",
    ),
    "no network for the egress gateway": (
        put("consumer", "egressGateway", value={"egressCidrs": []}),
        "consumer.egressGateway.egressCidrs",
        "is empty",
    ),
}

NEEDED_FIRST: dict[str, Change] = {
    "broker on an export's host": put(
        "provider", "controlPlane", value={"address": "10.0.0.9", "port": 80, "openToAll": True}
    ),
}


def test_the_stack_that_the_rows_change_is_accepted() -> None:
    assert findings(stack()) == []


@pytest.mark.parametrize("name", ROWS)
def test_one_mistake_is_one_finding_with_key_value_rule_and_remedy(name: str) -> None:
    change, key, words = ROWS[name]
    data = stack()
    if name in NEEDED_FIRST:
        NEEDED_FIRST[name](data)
    change(data)
    found = findings(data)
    assert [f.key for f in found] == [key]
    assert words in str(found[0])
    assert found[0].value
    assert found[0].rule
    assert found[0].remedy


@pytest.mark.parametrize("kind", [PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8])
def test_no_byte_of_a_private_key_is_shown(kind: PrivateFormat) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    pem = key.private_bytes(Encoding.PEM, kind, NoEncryption()).decode()
    for path in [
        ("provider", "caCertificate"),
        ("provider", "systemDomain"),
        ("provider", "unknown"),
        ("cluster",),
    ]:
        data = stack()
        put(*path, value=pem)(data)
        with pytest.raises(ConfigError) as refused:
            parse(data)
        assert not [line for line in pem.splitlines()[1:-1] if line[:8].lower() in str(refused.value).lower()]


def test_no_role_is_refused() -> None:
    (found,) = findings({"cluster": {"render": True}})
    assert "no role" in found.rule


def test_all_mistakes_come_in_one_message_and_none_that_follows_from_another() -> None:
    names = [
        "unknown key far below",
        "empty consumer id",
        "port too high",
        "provider neither named nor spelled out",
        "upper-case host",
        "empty id among the admitted",
        "two upstreams, one host",
        "client beside the gateway",
        "unknown TLS version",
    ]
    data = stack()
    for name in names:
        ROWS[name][0](data)
    assert sorted(f.key for f in findings(data)) == sorted(ROWS[name][1] for name in names)


def test_a_cross_check_still_runs_beside_an_invalid_value_in_the_same_section() -> None:
    data = stack()
    ROWS["host imported twice"][0](data)
    put("consumer", "id", value=None)(data)
    assert sorted(f.key for f in findings(data)) == ["consumer.id", f"{ORDERS}.endpoints[replica].host"]


def test_the_data_is_left_as_it_was() -> None:
    data = stack()
    ROWS["port too high"][0](data)
    before = copy.deepcopy(data)
    findings(data)
    assert data == before
