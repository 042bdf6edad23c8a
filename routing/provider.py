"""ProviderIngress: the objects of one exported endpoint, and of the broker's route.

Each endpoint has a server of its own, whose filter chain is chosen by SNI and admits the endpoint's consumers
alone; a shared wildcard server could only admit the union of all. Sources: Istio's "Secure Gateways" and the
references of the kinds built here.
"""

from __future__ import annotations

from dataclasses import dataclass

from config import IngressGateway, Limits, names
from config.types import is_ip
from routing import certificate, tls
from routing.manifest import Json, Manifest, networking

PSEUDO_DOMAIN = "export.internal"
"""Domain of the hosts that exist only inside the ingress gateway; a ServiceEntry's host needs a dot."""


@dataclass(frozen=True)
class ProviderEndpoint:
    """One endpoint to export.

    slug: DNS label, unique in the stack; it names the objects. host: public host (SNI); port: public port;
    consumers: the DNS SANs admitted, or None for every client of the CA; address, target_port: the service.
    """

    slug: str
    gateway: IngressGateway
    host: str
    port: int
    server_secret: str
    consumers: tuple[str, ...] | None
    address: str
    target_port: int
    limits: Limits = Limits()
    min_tls_version: str = "TLSV1_3"
    connect_timeout: str = "5s"

    @property
    def name(self) -> str:
        """Name of the endpoint's Istio objects."""
        return names.exported(self.slug)

    @property
    def service_host(self) -> str:
        """The host by which the ingress gateway knows the service."""
        return f"{self.slug}.{PSEUDO_DOMAIN}"


def service_entry(endpoint: ProviderEndpoint) -> Manifest:
    """Where the service really is."""
    spec = {
        "hosts": [endpoint.service_host],
        "exportTo": tls.ONLY_HERE,
        "location": "MESH_EXTERNAL",
        "resolution": "STATIC" if is_ip(endpoint.address) else "DNS",
        "ports": [{"number": endpoint.target_port, "name": "tcp", "protocol": "TCP"}],
        "endpoints": [{"address": endpoint.address}],
    }
    return networking(
        "ServiceEntry",
        endpoint.name,
        endpoint.gateway.namespace,
        spec,
        annotations={"galley.istio.io/analyze-suppress": "IST0134"},
    )


def service_rule(endpoint: ProviderEndpoint) -> Manifest:
    """The endpoint's limits. The connection to the service itself carries what the consumer's application sent."""
    spec = {
        "host": endpoint.service_host,
        "exportTo": tls.ONLY_HERE,
        "trafficPolicy": {
            "connectionPool": tls.connection_pool(endpoint.connect_timeout, limits=endpoint.limits)
        },
    }
    return networking("DestinationRule", endpoint.name, endpoint.gateway.namespace, spec)


def public_server(endpoint: ProviderEndpoint) -> Manifest:
    """The server that the internet reaches: mutual TLS, one exact host, the consumers' names.

    An empty tuple of consumers would switch the check of the client's name off. Raises ValueError for it.
    """
    mutual: dict[str, Json] = {
        "mode": "MUTUAL",
        "credentialName": endpoint.server_secret,
        "minProtocolVersion": endpoint.min_tls_version,
    }
    if endpoint.consumers is not None:
        if not endpoint.consumers:
            raise ValueError(
                f"endpoint {endpoint.slug}: no consumers, which would admit every client of the CA"
            )
        mutual["subjectAltNames"] = list(endpoint.consumers)
    spec = {
        "selector": endpoint.gateway.server_selector,
        "servers": [
            {
                "port": {"number": endpoint.port, "name": "tls", "protocol": "TLS"},
                "hosts": [endpoint.host],
                "tls": mutual,
            }
        ],
    }
    return networking(
        "Gateway",
        endpoint.name,
        endpoint.gateway.namespace,
        spec,
        annotations={"galley.istio.io/analyze-suppress": "IST0138"},
    )


def public_route(endpoint: ProviderEndpoint) -> Manifest:
    """From the public server to the service."""
    destination = {"host": endpoint.service_host, "port": {"number": endpoint.target_port}}
    spec = {
        "hosts": [endpoint.host],
        "gateways": [endpoint.name],
        "exportTo": tls.ONLY_HERE,
        "tcp": [{"match": [{"port": endpoint.port}], "route": [{"destination": destination}]}],
    }
    return networking("VirtualService", endpoint.name, endpoint.gateway.namespace, spec)


def reach(endpoint: ProviderEndpoint) -> Manifest:
    """Lets the ingress gateway's Pods reach the service; a DNS name's addresses are not known here, so such a rule
    names the port alone."""
    rule: dict[str, Json] = {"ports": [{"protocol": "TCP", "port": endpoint.target_port}]}
    if is_ip(endpoint.address):
        rule["to"] = [{"ipBlock": {"cidr": tls.subnet(endpoint.address)}}]
    spec = {
        "podSelector": {"matchLabels": endpoint.gateway.selector},
        "policyTypes": ["Egress"],
        "egress": [rule],
    }
    namespace = endpoint.gateway.namespace
    return Manifest("networking.k8s.io/v1", "NetworkPolicy", endpoint.name, namespace, {"spec": spec})


def trust_anchor(
    gateway: IngressGateway, server_secret: str, ca_certificate: Json, crl: Json | None = None
) -> Manifest:
    """The Secret with the CAs that vouch for the consumers, beside the server Secret."""
    return certificate.trust_anchor(server_secret, gateway.namespace, ca_certificate, crl)
