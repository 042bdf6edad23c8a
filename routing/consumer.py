"""ConsumerEgress: the objects of one imported endpoint.

The path: application -> virtual IP -> sidecar =ISTIO_MUTUAL=> egress gateway =MUTUAL=> provider. One host is the
SNI of both TLS legs and the name of every route between, so the functions take it once.
Sources: Istio's "Egress Gateways with TLS Origination" and the references of the kinds built here.
"""

from __future__ import annotations

from dataclasses import dataclass

from config import Cluster, EgressGateway, Keepalive, Limits, SidecarPolicy, names
from routing import certificate, envoy, tls
from routing.manifest import Json, Manifest, networking

EGRESS_SERVER_PORT_NAME = "tls"

NOBODY = "*"
"""Service account of a server that admits a namespace. Names are matched exactly and none is `*`: without its `admission`, such
a server admits nobody."""

TLS_SOCKET = "envoy.transport_sockets.tls"


@dataclass(frozen=True)
class ConsumerEndpoint:
    """One endpoint to import. `host`, `port` and `provider_id` may be placeholders.

    slug: DNS label, unique in the stack; it names the objects. namespace: the application's.
    host: public host (SNI); port: public port; provider_id: DNS SAN of the provider's certificate.
    service_accounts: the application's that may use it; none: all of its namespace.
    """

    slug: str
    namespace: str
    cluster: Cluster
    gateway: EgressGateway
    host: Json
    port: Json
    provider_id: Json
    client_secret: str
    service: str
    service_port: int
    service_accounts: tuple[str, ...] = ()
    cluster_ip: str | None = None
    limits: Limits = Limits()
    connect_timeout: str = "5s"
    keepalive: Keepalive = Keepalive()

    @property
    def name(self) -> str:
        """Name of the endpoint's Istio objects."""
        return names.imported(self.slug)

    @property
    def service_host(self) -> str:
        """The local host that applications address."""
        return tls.service_host(self.service, self.namespace, self.cluster)

    @property
    def gateway_host(self) -> str:
        """The host of the egress gateway's Service."""
        return tls.service_host(self.gateway.name, self.gateway.namespace, self.cluster)


def service_entry(endpoint: ConsumerEndpoint) -> Manifest:
    """The provider's public endpoint. Protocol TLS: with TCP and no address, every sidecar would listen on
    0.0.0.0."""
    spec = {
        "hosts": [endpoint.host],
        "exportTo": tls.ONLY_HERE,
        "location": "MESH_EXTERNAL",
        "resolution": "DNS",
        "ports": [{"number": endpoint.port, "name": "tls", "protocol": "TLS"}],
    }
    return networking("ServiceEntry", endpoint.name, endpoint.gateway.namespace, spec)


def upstream_rule(endpoint: ConsumerEndpoint) -> Manifest:
    """The public hop: mutual TLS with the consumer's certificate, to a server that is named provider id.

    The TLS stands at the top level and the subset is empty: so neither a route that comes before this rule nor
    one that names no subset finds a plain-text cluster.
    """
    spec = {
        "host": endpoint.host,
        "exportTo": tls.ONLY_HERE,
        "workloadSelector": {"matchLabels": endpoint.gateway.selector},
        "trafficPolicy": {
            "connectionPool": tls.connection_pool(
                endpoint.connect_timeout, endpoint.keepalive, endpoint.limits
            ),
            "tls": {
                "mode": "MUTUAL",
                "credentialName": endpoint.client_secret,
                "sni": endpoint.host,
                "subjectAltNames": [endpoint.provider_id],
            },
        },
        "subsets": [{"name": endpoint.slug}],
    }
    return networking("DestinationRule", endpoint.name, endpoint.gateway.namespace, spec)


def admission(endpoint: ConsumerEndpoint) -> Manifest:
    """Admits every workload of the application's namespace at the endpoint's server, in the handshake.

    A server's `subjectAltNames` are whole names, so Envoy is told the common beginning of the namespace's. Istio merges this into
    the chain's TLS context (`mergeTransportSocketListener`), where Envoy puts it in the place of those names, which Istio writes
    as `match_subject_alt_names` (Envoy's CertificateValidationContext, since 1.21.4); were they typed, it would stand beside them.
    """
    gateway = endpoint.gateway
    beginning = {"prefix": tls.spiffe(endpoint.cluster, endpoint.namespace, "")}
    names = {"match_typed_subject_alt_names": [{"san_type": "URI", "matcher": beginning}]}
    context = {
        "@type": f"{envoy.TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"combined_validation_context": {"default_validation_context": names}},
    }
    return envoy.merged(
        endpoint.name,
        gateway.namespace,
        gateway.selector,
        applies_to="FILTER_CHAIN",
        filter_chain={"sni": endpoint.host},
        value={"transport_socket": {"name": TLS_SOCKET, "typed_config": context}},
    )


def egress_server(endpoint: ConsumerEndpoint) -> Manifest:
    """The server of the egress gateway that the sidecars call: mutual TLS of the mesh, one host, and the names that it admits.

    The handshake is the place to refuse others: an AuthorizationPolicy acts at a client's first byte, when a server that
    speaks first has spoken, and Istio puts it into the filter chain of every endpoint of the gateway.
    """
    accounts = endpoint.service_accounts or (NOBODY,)
    admitted = [tls.spiffe(endpoint.cluster, endpoint.namespace, account) for account in accounts]
    spec = {
        "selector": endpoint.gateway.server_selector,
        "servers": [
            {
                "port": {"number": endpoint.gateway.port, "name": EGRESS_SERVER_PORT_NAME, "protocol": "TLS"},
                "hosts": [endpoint.host],
                "tls": {"mode": "ISTIO_MUTUAL", "subjectAltNames": admitted},
            }
        ],
    }
    return networking("Gateway", endpoint.name, endpoint.gateway.namespace, spec)


def egress_route(endpoint: ConsumerEndpoint) -> Manifest:
    """From the egress gateway's server to the provider."""
    destination = {"host": endpoint.host, "port": {"number": endpoint.port}, "subset": endpoint.slug}
    spec = {
        "hosts": [endpoint.host],
        "gateways": [endpoint.name],
        "exportTo": tls.ONLY_HERE,
        "tcp": [{"match": [{"port": endpoint.gateway.port}], "route": [{"destination": destination}]}],
    }
    return networking("VirtualService", endpoint.name, endpoint.gateway.namespace, spec)


def sidecar_rule(endpoint: ConsumerEndpoint) -> Manifest:
    """The hop inside the mesh. It carries a subset only: rules of one host merge by subsets, and of several
    top-level policies Istio keeps the first alone."""
    gateway = endpoint.gateway
    peer = tls.spiffe(endpoint.cluster, gateway.namespace, gateway.identity)
    spec = {
        "host": endpoint.gateway_host,
        "exportTo": tls.ONLY_HERE,
        "subsets": [
            {"name": endpoint.slug, "trafficPolicy": {"tls": tls.mutual_in_mesh(endpoint.host, peer)}}
        ],
    }
    return networking("DestinationRule", endpoint.name, endpoint.namespace, spec)


def sidecar_policy(gateway: EgressGateway, cluster: Cluster, policy: SidecarPolicy) -> Manifest:
    """Timeouts of a namespace's sidecars towards the egress gateway: the one rule of that host with a top-level
    policy, into which Istio merges the endpoints' subsets."""
    spec = {
        "host": tls.service_host(gateway.name, gateway.namespace, cluster),
        "exportTo": tls.ONLY_HERE,
        "trafficPolicy": {"connectionPool": tls.connection_pool(limits=policy.limits)},
    }
    return networking("DestinationRule", names.sidecars(gateway.name), policy.namespace, spec)


def virtual_ip(endpoint: ConsumerEndpoint) -> Manifest:
    """The Service whose cluster IP applications address. It selects no Pods, so without its route a connection
    ends here."""
    return virtual_ip_service(
        endpoint.service, endpoint.namespace, endpoint.cluster, endpoint.service_port, endpoint.cluster_ip
    )


def virtual_ip_service(
    name: str, namespace: str, cluster: Cluster, port: int, cluster_ip: str | None
) -> Manifest:
    """A Service that is a virtual IP and nothing else. The port's name and appProtocol keep Istio from sniffing
    the protocol, which would stall those in which the server speaks first."""
    spec: dict[str, Json] = {
        "type": "ClusterIP",
        "ipFamilyPolicy": "SingleStack",
        "ipFamilies": [cluster.ip_family],
        "ports": [
            {"name": "tcp-data", "appProtocol": "tcp", "port": port, "protocol": "TCP", "targetPort": port}
        ],
    }
    if cluster_ip is not None:
        spec["clusterIP"] = cluster_ip
    return Manifest("v1", "Service", name, namespace, {"spec": spec})


def mesh_route(endpoint: ConsumerEndpoint, destination_subnets: Json | None) -> Manifest:
    """From the virtual IP to the egress gateway, in every sidecar of the namespace.

    `destination_subnets` are the virtual IP's addresses as a list of CIDR blocks; None where no cluster has allocated one
    (rendered objects): the host alone then selects the virtual IP's own listener.
    """
    match: dict[str, Json] = {"port": endpoint.service_port}
    if destination_subnets is not None:
        match["destinationSubnets"] = destination_subnets
    destination = {
        "host": endpoint.gateway_host,
        "port": {"number": endpoint.gateway.port},
        "subset": endpoint.slug,
    }
    spec = {
        "hosts": [endpoint.service_host],
        "gateways": ["mesh"],
        "exportTo": tls.ONLY_HERE,
        "tcp": [{"match": [match], "route": [{"destination": destination}]}],
    }
    return networking("VirtualService", endpoint.name, endpoint.namespace, spec)


def trust_anchor(gateway: EgressGateway, client_secret: str, ca_certificate: Json) -> Manifest:
    """The Secret with the CA that vouches for a provider, beside the client Secret."""
    return certificate.trust_anchor(client_secret, gateway.namespace, ca_certificate)
