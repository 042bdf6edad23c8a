"""Builders broken on purpose, one way each, with the invariants that must notice.

A mutation replaces one function of `routing` by one that spoils its result; `after` gives the objects that the real
components then make of a sample stack.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

from config import MeshClient
from routing import ConsumerEndpoint, aws, tls, upstream
from routing.manifest import Manifest, security
from tests.authorities import authority
from tests.routing.deployed import Object, deploy
from tests.strategies import Data

Edit = Callable[[Any], None]

CLUSTER: Data = {"context": "north", "trustDomain": "shop.example"}

CONSUMER: Data = {
    "cluster": CLUSTER,
    "consumer": {
        "id": "client.shop.example",
        "providers": [
            {
                "name": "data",
                "systemDomain": "istio.data.example",
                "clientSecret": "data-client",
                "caCertificate": authority("data"),
            },
            {"name": "mail", "systemDomain": "istio.mail.example", "port": 9443},
        ],
        "imports": [
            {
                "name": "orders",
                "provider": "data",
                "namespace": "shop",
                "serviceAccounts": ["api", "worker"],
                "endpoints": [
                    {
                        "name": "main",
                        "host": "orders.istio.data.example",
                        "port": 5432,
                        "clusterIp": "10.96.1.1",
                        "limits": {"maxConnections": 50, "idleTimeout": "10m"},
                    }
                ],
            },
            {
                "name": "queue",
                "provider": "mail",
                "namespace": "shop",
                "endpoints": [{"name": "main", "host": "queue.istio.mail.example", "clusterIp": "10.96.1.2"}],
            },
        ],
        "sidecars": [{"namespace": "shop", "limits": {"idleTimeout": "12h"}}],
    },
}

PROVIDER: Data = {
    "cluster": CLUSTER,
    "provider": {
        "systemDomain": "istio.shop.example",
        "exports": [
            {
                "name": "cart",
                "consumers": ["client.desk.example", "client.till.example"],
                "endpoints": [
                    {
                        "name": "main",
                        "host": "cart.istio.shop.example",
                        "address": "10.20.0.11",
                        "port": 5432,
                        "limits": {"maxConnections": 500, "maxConnectionDuration": "24h"},
                    },
                    {
                        "name": "cache",
                        "host": "cache.istio.shop.example",
                        "address": "redis.cache.svc.cluster.local",
                        "port": 6379,
                    },
                ],
            }
        ],
        "controlPlane": {"address": "10.20.0.9", "port": 8080, "openToAll": True},
    },
}

UPSTREAMS: Data = {
    "cluster": CLUSTER,
    "upstreams": [
        {
            "name": "httpbin",
            "namespace": "egress-httpbin",
            "protocol": "HTTPS",
            "host": "httpbin.upstream.example",
            "address": "httpbin.example.org",
            "port": 8443,
            "clients": [{"namespace": "shop", "serviceAccounts": ["api"]}, {"namespace": "desk"}],
            "ingress": {
                "namespace": "istio-ingress",
                "labels": {"istio": "ingressgateway"},
                "serviceAccount": "istio-ingressgateway",
                "serverSecret": "httpbin-server",
            },
            "opa": {"image": "opa:1", "configMap": "policy"},
            "readiness": {"image": "probe:1", "command": ["/probe"]},
            "confineClients": ["10.0.0.0/8"],
            "limits": {"maxConnections": 20},
        },
        {
            "name": "ledger",
            "namespace": "egress-ledger",
            "protocol": "TLS",
            "host": "ledger.upstream.example",
            "address": "192.0.2.7",
            "port": 5433,
            "egressCidrs": ["192.0.2.0/24"],
            "tls": {"sni": "ledger.example.net", "credentialSecret": "ledger-ca", "clientCertificate": True},
            "clients": [{"namespace": "shop", "serviceAccounts": ["till"]}],
        },
    ],
}

SUBNETS = ["subnet-0000000a", "subnet-0000000b"]
ENTRY: Data = {
    **PROVIDER,
    "aws": {"region": "eu-central-1"},
    "provider": {
        **PROVIDER["provider"],
        "loadBalancer": {
            "awsNlb": {
                "subnets": SUBNETS,
                "clientAddress": "proxy-protocol",
                "ipAddressType": "dualstack",
                "sourceRanges": ["192.0.2.0/24"],
            }
        },
        "dns": {"route53": {"zone": "shop.example"}},
    },
}
"""A load balancer of the stack's own, and its record."""

CONTROLLED: Data = {
    **PROVIDER,
    "provider": {
        **PROVIDER["provider"],
        "loadBalancer": {"awsController": {"sourceRanges": ["192.0.2.0/24"]}},
        "dns": {"externalDns": {}},
    },
}
"""A load balancer and a record that controllers make from the Service."""

FOREIGN: Data = {
    **PROVIDER,
    "aws": {"region": "eu-central-1"},
    "provider": {
        **PROVIDER["provider"],
        "loadBalancer": {"existing": {"address": "192.0.2.9", "proxyProtocol": True}},
        "dns": {"route53": {"zone": "shop.example"}},
    },
}
"""A load balancer of another owner."""

ASKED: Data = {
    "cluster": CLUSTER,
    "provider": {**FOREIGN["provider"], "dns": {"externalDns": {"source": "dns-endpoint"}}},
}
"""The same, with a record that external-dns makes from an object."""

SAMPLES = {
    "aws": ENTRY,
    "load_balancer": ENTRY,
    "consumer": CONSUMER,
    "gateway": CONSUMER,
    "tls": CONSUMER,
    "provider": PROVIDER,
    "upstream": UPSTREAMS,
}
"""The stack on which the mutations of a module of `routing` show."""


@dataclass(frozen=True)
class Mutation:
    """What is broken in `target`, a function of `routing`: by an `edit` of its thawed result, or by what stands there
    `instead`; and the invariants that notice. sample: the stack on which it shows, where it is not its module's."""

    says: str
    target: str
    edit: Edit | None
    noticed_by: frozenset[str]
    instead: object = None
    sample: Data | None = None


def after(mutation: Mutation) -> list[Object]:
    """The objects of the mutation's sample, with its builder spoilt."""
    module, _, attribute = mutation.target.partition(".")
    owner: Any = importlib.import_module(f"routing.{module}")
    *classes, name = attribute.split(".")
    for part in classes:
        owner = getattr(owner, part)
    spoilt = mutation.instead if mutation.edit is None else _spoilt(getattr(owner, name), mutation.edit)
    with mock.patch.object(owner, name, spoilt):
        return deploy(mutation.sample or SAMPLES[module])


def _spoilt(builder: Callable[..., Any], edit: Edit) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        built = builder(*args, **kwargs)
        if not isinstance(built, Manifest):
            draft = thawed(built)
            edit(draft)
            return draft
        parts = {
            "name": built.name,
            "namespace": built.namespace,
            "annotations": dict(built.annotations),
            **thawed(built.body),
        }
        edit(parts)
        metadata = {key: parts.pop(key) for key in ("name", "namespace", "annotations")}
        return replace(built, **metadata, body=parts)

    return wrapped


def thawed(value: Any) -> Any:
    """A copy whose mappings and sequences can be changed; leaves, among them Outputs, are the same."""
    if isinstance(value, Mapping):
        return {key: thawed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [thawed(item) for item in value]
    return value


def _at(draft: Any, path: str) -> tuple[Any, Any]:
    *parents, last = [int(part) if part.isdigit() else part.replace("~", "/") for part in path.split("/")]
    for part in parents:
        draft = draft.setdefault(part, {}) if isinstance(draft, dict) else draft[part]
    return draft, last


def put(path: str, value: object) -> Edit:
    """Sets what is at a path, parts of which are divided by '/', which '~' stands for in a part."""

    def edit(draft: Any) -> None:
        owner, key = _at(draft, path)
        owner[key] = value

    return edit


def drop(path: str) -> Edit:
    """Removes what is at a path."""

    def edit(draft: Any) -> None:
        owner, key = _at(draft, path)
        owner.pop(key, None) if isinstance(owner, dict) else owner.pop(key)

    return edit


NAMESAKES = drop("spec/selector/meshbridge.io~namespace")
"""Selects the Pods of the gateways of that name in all namespaces."""


def change(path: str, function: Callable[[Any], object]) -> Edit:
    """Replaces what is at a path by a function of it."""

    def edit(draft: Any) -> None:
        owner, key = _at(draft, path)
        owner[key] = function(owner[key])

    return edit


def all_of(*edits: Edit) -> Edit:
    def edit(draft: Any) -> None:
        for one in edits:
            one(draft)

    return edit


def _and(more: object) -> Callable[[Any], object]:
    return lambda items: [*items, more]


def _tls_only_in_the_subset(draft: Any) -> None:
    draft["spec"]["subsets"][0]["trafficPolicy"] = {"tls": draft["spec"]["trafficPolicy"].pop("tls")}


def _where(condition: Callable[[Any], bool], edit: Edit) -> Edit:
    def conditional(draft: Any) -> None:
        if condition(draft):
            edit(draft)

    return conditional


def _m(
    target: str,
    says: str,
    edit: Edit | None,
    *noticed_by: str,
    instead: object = None,
    sample: Data | None = None,
) -> Mutation:
    return Mutation(says, target, edit, frozenset(noticed_by), instead, sample)


def _everyone(provider: Any, *_: Any) -> list[aws.FirewallRule]:
    """The firewall's rules, for any client."""
    ports = (provider.port, 15021)
    return [
        aws.FirewallRule(True, "0.0.0.0/0", provider.port),
        *(aws.FirewallRule(False, "0.0.0.0/0", port) for port in ports),
    ]


def _unchecked(provider: Any, config: Any, *_: Any) -> list[aws.FirewallRule]:
    """The firewall's rules, but the way to the readiness port."""
    return [
        *(aws.FirewallRule(True, network, provider.port) for network in config.source_ranges),
        aws.FirewallRule(False, "0.0.0.0/0", provider.port),
    ]


def _policy(endpoint: ConsumerEndpoint) -> Manifest:
    """Admission of a namespace by a policy."""
    client = MeshClient(namespace=endpoint.namespace)
    spec = tls.deny_others(endpoint.cluster, endpoint.gateway.selector, endpoint.host, [client])
    return security("AuthorizationPolicy", endpoint.name, endpoint.gateway.namespace, spec)


def _by_namespace(source: Any) -> dict[str, Any]:
    """Whole namespaces by their names alone, which other trust domains have too."""
    whole = [each for each in source["notPrincipals"] if each.endswith("/*")]
    named = [each for each in source["notPrincipals"] if not each.endswith("/*")]
    return {
        **({"notNamespaces": [each.split("/")[2] for each in whole]} if whole else {}),
        **({"notPrincipals": named} if named else {}),
    }


UPSTREAM_WORKLOAD = upstream.workload
AWS_PREFIX = "service.beta.kubernetes.io~aws-load-balancer-"
TLS = "spec/trafficPolicy/tls"
SERVER = "spec/servers/0"
POD = "spec/template/spec"
PATCH = "spec/configPatches/0"
MATCHER = (
    f"{PATCH}/patch/value/transport_socket/typed_config/common_tls_context/combined_validation_context"
    "/default_validation_context/match_typed_subject_alt_names/0"
)

MUTATIONS = (
    # ConsumerEgress: the public hop
    _m("consumer.upstream_rule", "no SNI towards the provider", drop(f"{TLS}/sni"), "1", "10"),
    _m(
        "consumer.upstream_rule",
        "no subjectAltNames towards the provider",
        drop(f"{TLS}/subjectAltNames"),
        "3",
        "verified",
    ),
    _m(
        "consumer.upstream_rule",
        "a wildcard instead of the provider id",
        change(f"{TLS}/subjectAltNames/0", lambda name: f"*.{name}"),
        "3",
    ),
    _m(
        "consumer.upstream_rule",
        "TLS in the subset only",
        _tls_only_in_the_subset,
        "1",
        "3",
        "5",
        "base-tls",
        "empty-subset",
    ),
    _m("consumer.upstream_rule", "TLS at the top level only, no subset", drop("spec/subsets"), "8", "reach"),
    _m("consumer.upstream_rule", "mode SIMPLE towards the provider", put(f"{TLS}/mode", "SIMPLE"), "mutual"),
    _m(
        "consumer.upstream_rule",
        "mode DISABLE towards the provider",
        put(f"{TLS}/mode", "DISABLE"),
        "base-tls",
        "mutual",
    ),
    _m(
        "consumer.upstream_rule",
        "MUTUAL without credentialName",
        drop(f"{TLS}/credentialName"),
        "5",
        "verified",
    ),
    _m(
        "consumer.upstream_rule",
        "a misspelt credentialName",
        put(f"{TLS}/credentialName", "clients"),
        "5",
        "11",
    ),
    _m("consumer.upstream_rule", "caCrl beside credentialName", put(f"{TLS}/caCrl", "/etc/crl"), "no-ca-crl"),
    _m("consumer.upstream_rule", "skips verification", put(f"{TLS}/insecureSkipVerify", True), "verified"),
    _m("consumer.upstream_rule", "exported to all", drop("spec/exportTo"), "12"),
    _m(
        "consumer.upstream_rule",
        "a connection pool in the subset",
        put("spec/subsets/0/trafficPolicy", {"connectionPool": {"tcp": {}}}),
        "empty-subset",
    ),
    _m(
        "consumer.upstream_rule",
        "keepalive after the load balancer's timeout",
        put("spec/trafficPolicy/connectionPool/tcp/tcpKeepalive/time", "400s"),
        "18",
    ),
    _m(
        "consumer.upstream_rule",
        "no keepalive",
        drop("spec/trafficPolicy/connectionPool/tcp/tcpKeepalive"),
        "18",
    ),
    _m(
        "consumer.upstream_rule",
        "a limit of its own",
        put("spec/trafficPolicy/connectionPool/tcp/maxConnections", 7),
        "limits",
    ),
    _m(
        "consumer.service_entry",
        "protocol TCP without address",
        all_of(put("spec/ports/0/protocol", "TCP"), put("spec/ports/0/name", "tcp")),
        "no-wildcard-listener",
    ),
    _m("consumer.service_entry", "exported to all", drop("spec/exportTo"), "12", "no-bypass"),
    _m(
        "consumer.service_entry",
        "another port than the provider's",
        put("spec/ports/0/number", 9999),
        "6",
        "reach",
    ),
    _m("consumer.service_entry", "STATIC without addresses", put("spec/resolution", "STATIC"), "16"),
    _m("consumer.trust_anchor", "the CA in another namespace", put("namespace", "default"), "5"),
    _m(
        "consumer.trust_anchor",
        "the CA under another name",
        change("name", lambda name: name.removesuffix("-cacert")),
        "5",
        "own-names",
    ),
    _m("consumer.trust_anchor", "a private key beside the CA", put("stringData/tls.key", "key"), "no-keys"),
    # ConsumerEgress: the egress gateway
    _m("consumer.egress_server", "no selector", drop("spec/selector"), "1", "12", "13", "admission", "reach"),
    _m("consumer.egress_server", "the Pods of namesakes", NAMESAKES, "1", "12", "13", "admission", "reach"),
    _m(
        "consumer.egress_server",
        "a selector that no Pod has",
        put("spec/selector", {"istio": "gateway"}),
        "1",
        "13",
        "reach",
    ),
    _m(
        "consumer.egress_server",
        "one host for every endpoint",
        put(f"{SERVER}/hosts", ["orders.example"]),
        "1",
        "14",
        "reach",
    ),
    _m("consumer.egress_server", "host in upper case", change(f"{SERVER}/hosts/0", str.upper), "1", "reach"),
    _m(
        "consumer.egress_server",
        "host with a namespace",
        change(f"{SERVER}/hosts/0", lambda host: f"./{host}"),
        "1",
        "14",
        "reach",
    ),
    _m(
        "consumer.egress_server",
        "mode SIMPLE towards the mesh",
        put(f"{SERVER}/tls/mode", "SIMPLE"),
        "19",
        "min-tls",
        "reach",
    ),
    _m(
        "consumer.egress_server",
        "another port than the Service's",
        put(f"{SERVER}/port/number", 8443),
        "6",
        "7",
        "reach",
    ),
    _m(
        "consumer.egress_server",
        "protocol HTTPS for a connection",
        put(f"{SERVER}/port/protocol", "HTTPS"),
        "declared-protocol",
        "reach",
    ),
    _m(
        "consumer.egress_server",
        "a name that is no DNS label",
        change("name", lambda name: f"{name}.gw"),
        "1",
        "13",
        "reach",
    ),
    _m(
        "consumer.egress_server",
        "an allow-list of strangers",
        put(f"{SERVER}/tls/subjectAltNames", ["spiffe://x/ns/y/sa/z"]),
        "admission",
        "fails-closed",
        "reach",
    ),
    _m(
        "consumer.egress_server",
        "no allow-list",
        drop(f"{SERVER}/tls/subjectAltNames"),
        "admission",
        "fails-closed",
    ),
    _m(
        "consumer.egress_server",
        "open to all but for the filter",
        _where(
            lambda draft: draft["spec"]["servers"][0]["tls"]["subjectAltNames"][0].endswith("*"),
            drop(f"{SERVER}/tls/subjectAltNames"),
        ),
        "fails-closed",
    ),
    _m("consumer.egress_route", "exported to all", drop("spec/exportTo"), "12"),
    _m(
        "consumer.egress_route",
        "a subset that no rule has",
        put("spec/tcp/0/route/0/destination/subset", "main"),
        "8",
        "reach",
    ),
    _m("consumer.egress_route", "matches another port", put("spec/tcp/0/match/0/port", 444), "6", "reach"),
    _m(
        "consumer.egress_route",
        "bound to a Gateway that is not there",
        put("spec/gateways", ["gateway"]),
        "1",
        "reach",
    ),
    _m(
        "consumer.admission",
        "another SNI",
        put(f"{PATCH}/match/listener/filterChain/sni", "x.example"),
        "admission",
        "reach",
    ),
    _m(
        "consumer.admission",
        "in every filter chain",
        drop(f"{PATCH}/match/listener/filterChain/sni"),
        "admission",
    ),
    _m(
        "consumer.admission",
        "for sidecars",
        put(f"{PATCH}/match/context", "SIDECAR_INBOUND"),
        "admission",
        "reach",
    ),
    _m(
        "consumer.admission",
        "selects no Pod",
        put("spec/workloadSelector/labels", {"istio": "none"}),
        "admission",
        "guard",
        "reach",
    ),
    _m(
        "consumer.admission",
        "adds instead of merging",
        put(f"{PATCH}/patch/operation", "ADD"),
        "admission",
        "reach",
    ),
    _m(
        "consumer.admission",
        "another transport socket",
        put(f"{PATCH}/patch/value/transport_socket/name", "tls"),
        "admission",
        "reach",
    ),
    _m(
        "consumer.admission",
        "namespaces that begin with the same letters",
        change(f"{MATCHER}/matcher/prefix", lambda prefix: prefix.removesuffix("/sa/")),
        "admission",
    ),
    _m(
        "consumer.admission",
        "the whole mesh",
        change(f"{MATCHER}/matcher/prefix", lambda prefix: prefix.partition("/ns/")[0]),
        "admission",
    ),
    _m(
        "consumer.admission",
        "one name instead of a beginning",
        change(f"{MATCHER}/matcher", lambda matcher: {"exact": matcher["prefix"]}),
        "admission",
        "reach",
    ),
    _m(
        "consumer.admission",
        "a name of another type",
        put(f"{MATCHER}/san_type", "DNS"),
        "admission",
        "reach",
    ),
    _m(
        "consumer.admission",
        "a policy instead",
        None,
        "admission",
        "handshake",
        "reach",
        instead=_policy,
    ),
    # ConsumerEgress: the hop inside the mesh
    _m(
        "consumer.sidecar_rule",
        "a top-level policy",
        put("spec/trafficPolicy", {"connectionPool": {"tcp": {}}}),
        "9",
    ),
    _m(
        "consumer.sidecar_rule",
        "one subset name for all",
        put("spec/subsets/0/name", "egress"),
        "8",
        "9",
        "reach",
    ),
    _m("consumer.sidecar_rule", "exported to all", drop("spec/exportTo"), "9", "12"),
    _m(
        "consumer.sidecar_rule",
        "a pool in the subset",
        put("spec/subsets/0/trafficPolicy/connectionPool", {"tcp": {}}),
        "empty-subset",
    ),
    _m(
        "consumer.sidecar_rule",
        "made in the gateway's namespace",
        put("namespace", "mesh-egress"),
        "8",
        "own-names",
        "reach",
    ),
    _m("tls.mutual_in_mesh", "no SNI inside the mesh", drop("sni"), "1", "10", "reach"),
    _m("tls.mutual_in_mesh", "accepts any gateway", drop("subjectAltNames"), "mesh-peer", "verified"),
    _m(
        "tls.mutual_in_mesh",
        "expects another gateway",
        put("subjectAltNames", ["spiffe://x/ns/y/sa/z"]),
        "mesh-peer",
        "reach",
    ),
    _m("tls.mutual_in_mesh", "credentialName with ISTIO_MUTUAL", put("credentialName", "c"), "10"),
    _m(
        "consumer.egress_server",
        "credentialName with ISTIO_MUTUAL",
        put(f"{SERVER}/tls/credentialName", "c"),
        "10",
        "11",
    ),
    _m(
        "tls.accept_from_mesh",
        "credentialName with ISTIO_MUTUAL on the server",
        put("credentialName", "c"),
        "10",
        "11",
        sample=UPSTREAMS,
    ),
    _m(
        "consumer.mesh_route",
        "matches the network around the virtual IP",
        put("spec/tcp/0/match/0/destinationSubnets", ["10.96.0.0/16"]),
        "virtual-ip-match",
    ),
    _m(
        "consumer.mesh_route",
        "matches any address",
        drop("spec/tcp/0/match/0/destinationSubnets"),
        "virtual-ip-match",
    ),
    _m(
        "consumer.mesh_route",
        "matches another port",
        put("spec/tcp/0/match/0/port", 1),
        "virtual-ip-match",
        "reach",
    ),
    _m("consumer.mesh_route", "no subset, so no TLS", drop("spec/tcp/0/route/0/destination/subset"), "reach"),
    _m(
        "consumer.mesh_route",
        "a short destination",
        change("spec/tcp/0/route/0/destination/host", lambda host: host.partition(".")[0]),
        "8",
        "16",
        "reach",
    ),
    _m("consumer.mesh_route", "exported to all", drop("spec/exportTo"), "12"),
    _m(
        "consumer.virtual_ip_service",
        "headless",
        put("spec/clusterIP", "None"),
        "15",
        "virtual-ip-match",
        "reach",
    ),
    _m("consumer.virtual_ip_service", "port name http", put("spec/ports/0/name", "http"), "15"),
    _m(
        "consumer.virtual_ip_service",
        "no appProtocol",
        drop("spec/ports/0/appProtocol"),
        "15",
        "declared-protocol",
    ),
    _m("consumer.virtual_ip_service", "selects Pods", put("spec/selector", {"app": "db"}), "15"),
    # ProviderIngress
    _m(
        "provider.public_server", "the Pods of namesakes", NAMESAKES, "1", "11", "12", "13", "limits", "reach"
    ),
    _m("provider.public_server", "no consumer is named", drop(f"{SERVER}/tls/subjectAltNames"), "4"),
    _m("provider.public_server", "an empty list of consumers", put(f"{SERVER}/tls/subjectAltNames", []), "4"),
    _m("provider.public_server", "mode SIMPLE", put(f"{SERVER}/tls/mode", "SIMPLE"), "4"),
    _m(
        "provider.public_server", "no oldest TLS version", drop(f"{SERVER}/tls/minProtocolVersion"), "min-tls"
    ),
    _m(
        "provider.public_server",
        "a cipher list for TLS 1.3",
        put(f"{SERVER}/tls/cipherSuites", ["AES128-SHA"]),
        "min-tls",
    ),
    _m(
        "provider.public_server",
        "caCrl beside credentialName",
        put(f"{SERVER}/tls/caCrl", "/crl"),
        "no-ca-crl",
    ),
    _m(
        "provider.public_server",
        "a misspelt credentialName",
        put(f"{SERVER}/tls/credentialName", "server"),
        "11",
    ),
    _m("provider.public_server", "another public port", put(f"{SERVER}/port/number", 443), "6", "7", "reach"),
    _m(
        "provider.public_server",
        "a host outside the system domain",
        change(f"{SERVER}/hosts/0", lambda host: f"{host}.org"),
        "1",
        "2",
        "4",
    ),
    _m(
        "provider.public_server",
        "a wildcard host",
        put(f"{SERVER}/hosts", ["*.istio.shop.example"]),
        "1",
        "4",
        "14",
    ),
    _m("provider.service_entry", "DNS for an IP address", put("spec/resolution", "DNS"), "16"),
    _m("provider.service_entry", "exported to all", drop("spec/exportTo"), "12"),
    _m("provider.service_entry", "another port than the service's", put("spec/ports/0/number", 1), "reach"),
    _m(
        "provider.ProviderEndpoint.service_host",
        "a host without a dot",
        None,
        "16",
        instead=property(lambda self: self.slug),
    ),
    _m("provider.service_rule", "no limits", drop("spec/trafficPolicy/connectionPool"), "limits"),
    _m("provider.public_route", "exported to all", drop("spec/exportTo"), "12"),
    _m("provider.reach", "another port", put("spec/egress/0/ports/0/port", 1), "reach"),
    # Gateways
    _m("gateway.secret_reader", "may not list Secrets", put("rules/0/verbs", ["get", "watch"]), "11"),
    _m(
        "gateway.secret_reader",
        "may read one Secret only",
        put("rules/0/resourceNames", ["consumer-client"]),
        "11",
    ),
    _m("gateway.secret_reader_binding", "binds another account", put("subjects/0/name", "default"), "11"),
    _m("gateway.upstream_guard", "selects the whole namespace", drop("spec/workloadSelector"), "guard"),
    _m("gateway.upstream_guard", "for sidecars", put(f"{PATCH}/match/context", "SIDECAR_INBOUND"), "guard"),
    _m(
        "gateway.upstream_guard",
        "connects at once",
        put(f"{PATCH}/patch/value/typed_config/upstream_connect_mode", "IMMEDIATE"),
        "guard",
    ),
    _m(
        "gateway.upstream_guard",
        "adds instead of merging",
        put(f"{PATCH}/patch/operation", "INSERT_BEFORE"),
        "guard",
    ),
    _m(
        "gateway.upstream_guard",
        "waits for early data",
        drop(f"{PATCH}/patch/value/typed_config/max_early_data_bytes"),
        "guard",
    ),
    _m(
        "gateway.deployment",
        "not the gateway template",
        put("spec/template/metadata/annotations", {}),
        "pod",
    ),
    _m(
        "gateway.deployment",
        "a probe on istio-proxy",
        put(f"{POD}/containers/0/readinessProbe", {"exec": {"command": ["true"]}}),
        "pod",
    ),
    _m("gateway.deployment", "may not bind low ports", drop(f"{POD}/securityContext/sysctls"), "pod"),
    _m(
        "gateway.deployment",
        "another service account",
        put(f"{POD}/serviceAccountName", "default"),
        "11",
        "mesh-peer",
        "pod",
        "reach",
    ),
    _m("gateway.service", "another port than the servers'", put("spec/ports/0/port", 8443), "7", "reach"),
    _m("gateway.service", "no appProtocol", drop("spec/ports/0/appProtocol"), "declared-protocol"),
    _m(
        "gateway.service",
        "selects nothing",
        put("spec/selector", {"app": "none"}),
        "1",
        "7",
        "mesh-peer",
        "reach",
    ),
    _m(
        "gateway.disruption_budget",
        "holds every Pod of the namespace or none",
        put("spec/selector/matchLabels", {"app": "none"}),
        "kept-up",
    ),
    _m(
        "gateway.autoscaler",
        "measures containers that request nothing",
        put("spec/metrics/0", {"type": "Resource", "resource": {"name": "cpu"}}),
        "kept-up",
        sample=UPSTREAMS,
    ),
    _m("gateway.autoscaler", "scales something else", put("spec/scaleTargetRef/name", "gateway"), "kept-up"),
    _m("gateway.network_policy", "istiod is out of reach", drop("spec/egress/1"), "health"),
    _m("gateway.network_policy", "no client may enter", drop("spec/ingress/0"), "reach"),
    _m(
        "gateway.network_policy",
        "nothing outside is reached",
        change("spec/egress", lambda rules: rules[:2]),
        "reach",
    ),
    # EgressGatewayPerUpstream
    _m(
        "upstream.egress_route",
        "keeps the mesh's headers",
        _where(lambda draft: "http" in draft["spec"], drop("spec/http/0/headers")),
        "no-mesh-headers",
    ),
    _m(
        "upstream.egress_route",
        "no rewrite of the authority",
        _where(lambda draft: "http" in draft["spec"], drop("spec/http/0/rewrite")),
        "authority",
    ),
    _m(
        "upstream.UpstreamGateway.authority",
        "an authority without its port",
        None,
        "authority",
        instead=property(lambda self: self.upstream.address),
    ),
    _m("upstream.peer_authentication", "PERMISSIVE", put("spec/mtls/mode", "PERMISSIVE"), "strict"),
    _m(
        "upstream.service_entry",
        "seen by the clients",
        put("spec/exportTo", [".", "shop"]),
        "12",
        "no-bypass",
    ),
    _m(
        "upstream.upstream_rule",
        "no CA named",
        _where(
            lambda draft: "tls" in draft["spec"]["trafficPolicy"],
            lambda draft: draft["spec"]["trafficPolicy"]["tls"].pop("caCertificates", None),
        ),
        "verified",
    ),
    _m(
        "upstream.upstream_rule",
        "the upstream's name is not checked",
        _where(lambda draft: "tls" in draft["spec"]["trafficPolicy"], drop(f"{TLS}/subjectAltNames")),
        "upstream-tls",
        "verified",
    ),
    _m(
        "upstream.upstream_rule",
        "plain text to a TLS upstream",
        lambda draft: draft["spec"]["trafficPolicy"].pop("tls", None),
        "base-tls",
        "upstream-tls",
    ),
    _m(
        "upstream.server",
        "the selector of a shared gateway",
        put("spec/selector", {"istio": "istio-egressgateway"}),
        "1",
        "13",
        "reach",
    ),
    _m(
        "upstream.server",
        "the Pods of namesakes",
        NAMESAKES,
        "1",
        "12",
        "13",
        "admission",
        "limits",
        "opa",
        "reach",
        "strict",
    ),
    _m("upstream.server", "plain text from the mesh", put(f"{SERVER}/tls", {}), "10", "19", "reach"),
    _m("upstream.access_policy", "admits everyone", put("spec/rules", []), "admission"),
    _m("upstream.access_policy", "ALLOW instead of DENY", put("spec/action", "ALLOW"), "admission", "reach"),
    _m(
        "upstream.access_policy",
        "namesakes of other trust domains",
        change("spec/rules/0/from/0/source", _by_namespace),
        "admission",
    ),
    _m(
        "upstream.access_policy",
        "denies another SNI",
        put("spec/rules/0/when/0/values", ["x.example"]),
        "admission",
    ),
    _m(
        "upstream.access_policy",
        "selects no Pod",
        put("spec/selector/matchLabels", {"istio": "none"}),
        "admission",
    ),
    _m(
        "upstream.mesh_host",
        "no HTTP port",
        put("spec/ports", [{"number": 81, "name": "http", "protocol": "HTTP"}]),
        "reach",
    ),
    _m("upstream.mesh_rule", "exported to all", drop("spec/exportTo"), "12"),
    _m(
        "upstream.mesh_rule",
        "the name of the other rule",
        change("name", lambda name: name.removesuffix("-mesh")),
        "own-names",
    ),
    _m("upstream.mesh_route", "unknown to its clients", put("spec/exportTo", ["."]), "1", "reach"),
    _m(
        "upstream.ingress_server",
        "no oldest TLS version",
        drop("spec/servers/1/tls/minProtocolVersion"),
        "min-tls",
    ),
    _m("upstream.ingress_server", "port names repeat", put("spec/servers/1/port/name", "http"), "13"),
    _m("upstream.opa_service", "another port than OPA's", put("spec/ports/0/number", 9192), "opa"),
    _m("upstream.opa_policy", "asks a provider that is not there", put("spec/provider/name", "oppa"), "opa"),
    _m("upstream.opa_policy", "selects no Pod", put("spec/selector/matchLabels", {"app": "none"}), "opa"),
    _m("upstream.confinement", "open to the internet", put("spec/egress", [{}]), "confined"),
    # The edge: what stands before the ingress gateway, and the record that leads there
    _m("aws.load_balancer", "an Application Load Balancer", put("loadBalancerType", "application"), "entry"),
    _m("aws.listener", "ends the TLS", put("protocol", "TLS"), "entry"),
    _m("aws.listener", "another port", put("port", 443), "entry"),
    _m("aws.target_group", "targets are nodes", put("targetType", "instance"), "entry"),
    _m("aws.target_group", "asks no Pod for its readiness", put("healthCheck/port", "traffic-port"), "entry"),
    _m(
        "aws.target_group",
        "PROXY protocol and the packets' address",
        put("preserveClientIp", "true"),
        "client-address",
    ),
    _m("aws.target_group", "no PROXY protocol", put("proxyProtocolV2", False), "client-address"),
    _m("aws.firewall_rules", "admits everyone", None, "firewall", instead=_everyone),
    _m("aws.firewall_rules", "readiness is out of reach", None, "firewall", instead=_unchecked),
    _m("aws.alias_record", "a record of the domain itself", put("name", "istio.shop.example"), "wildcard"),
    _m("aws.alias_record", "IPv4 twice", put("type", "A"), "wildcard"),
    _m("aws.alias_record", "another zone's alias", put("aliases/0/zoneId", "ZELSE0000"), "wildcard"),
    _m("aws.plain_record", "an address as a name", put("type", "CNAME"), "wildcard", sample=FOREIGN),
    _m("load_balancer.target_group_binding", "another port", put("spec/serviceRef/port", 443), "entry"),
    _m(
        "load_balancer.target_group_binding",
        "a Service that is not there",
        put("spec/serviceRef/name", "provider-ingress"),
        "entry",
    ),
    _m(
        "load_balancer.target_group_binding",
        "another group",
        put("spec/targetGroupARN", "arn:else/0"),
        "entry",
    ),
    _m("load_balancer.target_group_binding", "Pods stay closed", drop("spec/networking"), "firewall"),
    _m(
        "load_balancer.target_group_binding",
        "Pods are open to a network",
        put("spec/networking/ingress/0/from/0", {"ipBlock": {"cidr": "0.0.0.0/0"}}),
        "firewall",
    ),
    _m(
        "load_balancer.target_group_attributes",
        "tells the client's address twice",
        put("proxy_protocol_v2.enabled", True),
        "client-address",
        sample=CONTROLLED,
    ),
    _m(
        "load_balancer.wildcard_endpoint",
        "the domain alone",
        put("spec/endpoints/0/dnsName", "istio.shop.example"),
        "wildcard",
        sample=ASKED,
    ),
    _m(
        "gateway.deployment",
        "the readiness port knows no PROXY protocol",
        drop(f"{POD}/containers/0/env/0"),
        "client-address",
        sample=ENTRY,
    ),
    _m(
        "gateway.deployment",
        "the listener knows no PROXY protocol",
        put("spec/template/metadata/annotations/proxy.istio.io~config", '{"terminationDrainDuration":"45s"}'),
        "client-address",
        sample=FOREIGN,
    ),
    _m(
        "gateway.deployment",
        "believes any client's PROXY protocol",
        put(
            "spec/template/metadata/annotations/proxy.istio.io~config",
            '{"gatewayTopology":{"proxyProtocol":{}},"terminationDrainDuration":"45s"}',
        ),
        "client-address",
        sample=CONTROLLED,
    ),
    _m(
        "gateway.service",
        "the load balancer ends the TLS",
        put(f"annotations/{AWS_PREFIX}ssl-cert", "arn:…"),
        "entry",
        sample=CONTROLLED,
    ),
    _m(
        "gateway.service",
        "targets are nodes",
        put(f"annotations/{AWS_PREFIX}nlb-target-type", "instance"),
        "entry",
        sample=CONTROLLED,
    ),
    _m(
        "gateway.service",
        "opens a port on every node",
        drop("spec/allocateLoadBalancerNodePorts"),
        "entry",
        sample=CONTROLLED,
    ),
    _m("gateway.service", "any controller's", drop("spec/loadBalancerClass"), "entry", sample=CONTROLLED),
    _m(
        "gateway.service",
        "admits every client",
        drop("spec/loadBalancerSourceRanges"),
        "firewall",
        sample=CONTROLLED,
    ),
    _m(
        "gateway.service",
        "asks for another record",
        put("annotations/external-dns.alpha.kubernetes.io~hostname", "istio.shop.example"),
        "wildcard",
        sample=CONTROLLED,
    ),
    # What is open, and to whom
    _m("provider.reach", "any port of the address", drop("spec/egress/0/ports"), "closed"),
    _m("provider.reach", "any address", drop("spec/egress/0/to"), "closed"),
    _m("gateway.network_policy", "everything goes out", change("spec/egress", _and({})), "closed"),
    _m("gateway.network_policy", "everything comes in", change("spec/ingress", _and({})), "closed"),
    _m(
        "gateway.network_policy",
        "says nothing of what goes out",
        put("spec/policyTypes", ["Ingress"]),
        "closed",
    ),
    _m(
        "gateway.network_policy",
        "holds for other Pods",
        put("spec/podSelector/matchLabels", {"app": "none"}),
        "closed",
    ),
    _m(
        "gateway.service",
        "a load balancer for the mesh's gateway",
        put("spec/type", "LoadBalancer"),
        "closed",
    ),
    _m(
        "upstream.workload",
        "any network",
        None,
        "closed",
        instead=lambda gateway: replace(
            UPSTREAM_WORKLOAD(gateway), egress=[{"ports": [{"port": gateway.upstream.port}]}]
        ),
    ),
    _m("upstream.ingress_server", "plain HTTP is served", drop("spec/servers/0/tls"), "https"),
    _m(
        "upstream.ingress_server",
        "passes TLS through",
        put("spec/servers/1/tls/mode", "PASSTHROUGH"),
        "https",
    ),
    _m("upstream.ingress_server", "no certificate", drop("spec/servers/1/tls/credentialName"), "https"),
    _m("upstream.opa_policy", "no rule, so no request", put("spec/rules", []), "opa"),
    _m(
        "upstream.opa_policy",
        "another port's requests",
        put("spec/rules/0/to/0/operation/ports", ["80"]),
        "opa",
    ),
    _m("upstream.opa_service", "another Pod's OPA", put("spec/endpoints/0/address", "10.0.0.1"), "opa"),
    _m("upstream.peer_authentication", "for the whole namespace", drop("spec/selector"), "strict"),
    # What a gateway's Pods are
    _m(
        "gateway.deployment",
        "a proxy without a security context",
        drop(f"{POD}/containers/0/securityContext"),
        "pod",
    ),
    _m(
        "gateway.deployment",
        "a proxy that may gain rights",
        put(f"{POD}/containers/0/securityContext/allowPrivilegeEscalation", True),
        "pod",
    ),
    _m(
        "gateway.deployment",
        "open connections are cut",
        drop("spec/template/metadata/annotations/proxy.istio.io~config"),
        "pod",
    ),
    _m("gateway.deployment", "no time to drain", put(f"{POD}/terminationGracePeriodSeconds", 1), "pod"),
    _m(
        "gateway.disruption_budget", "lets all Pods go at once", put("spec/maxUnavailable", "100%"), "kept-up"
    ),
    # What was agreed about a hop, and what an address needs
    _m("provider.service_rule", "another host's limits", put("spec/host", "x.export.internal"), "limits"),
    _m("consumer.sidecar_policy", "no limits", drop("spec/trafficPolicy/connectionPool"), "limits"),
    _m(
        "provider.public_server",
        "an older TLS version",
        put(f"{SERVER}/tls/minProtocolVersion", "TLSV1_2"),
        "min-tls",
    ),
    _m("consumer.service_entry", "a part of this mesh", put("spec/location", "MESH_INTERNAL"), "12"),
    _m("consumer.virtual_ip_service", "two addresses", put("spec/ipFamilyPolicy", "PreferDualStack"), "15"),
    _m(
        "consumer.mesh_route",
        "in the gateway's namespace",
        all_of(
            put("namespace", "mesh-egress"),
            put("spec/exportTo", ["shop"]),
            change("name", lambda name: f"{name}-mesh"),
        ),
        "17",
    ),
)
