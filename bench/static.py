"""The hand-minimal counterpart of the product's path: three Envoys with a static configuration each. Pure.

application -> Envoy beside it =TLS=> Envoy on the consumer's side =TLS=> load balancer, Envoy on the provider's side -> service.
Both TLS legs are mutual and check the peer's name, as the product's do. Source: Envoy's "TCP proxy" and "TLS" references.
"""

from __future__ import annotations

import json

from lab.api import Object
from lab.pki import Authority, KeyPair

PORT = 9443
"""Of the two Envoys that are called over TLS."""
_TYPES = "type.googleapis.com/envoy.extensions"


def beside_the_client(port: int, upstream: str, own: KeyPair, peers: Authority) -> Object:
    """The first Envoy, which the application reaches on its loopback interface."""
    return _bootstrap("127.0.0.1", port, upstream, PORT, client=_peer(own, peers, "egress"))


def towards_the_provider(upstream: str, own: KeyPair, peers: Authority) -> Object:
    """The second."""
    sides = {"server": _peer(own, peers, "application"), "client": _peer(own, peers, "ingress")}
    return _bootstrap("0.0.0.0", PORT, upstream, PORT, **sides)  # noqa: S104 - the container's


def towards_the_service(upstream: str, port: int, own: KeyPair, peers: Authority) -> Object:
    """The third."""
    return _bootstrap("0.0.0.0", PORT, upstream, port, server=_peer(own, peers, "egress"))  # noqa: S104


def arguments(bootstrap: Object, concurrency: int) -> list[str]:
    """Arguments of Envoy."""
    return [
        "--config-yaml",
        json.dumps(bootstrap),
        "--concurrency",
        str(concurrency),
        "--disable-hot-restart",
        "--log-level",
        "warning",
    ]


def _peer(own: KeyPair, peers: Authority, name: str) -> Object:
    """A TLS context: the own certificate, and the only name that the peer may have."""
    return {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {
                "certificate_chain": {"inline_string": own.certificate.decode()},
                "private_key": {"inline_string": own.key.decode()},
            }
        ],
        "validation_context": {
            "trusted_ca": {"inline_string": peers.pem.decode()},
            "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
        },
    }


def _bootstrap(
    address: str,
    port: int,
    upstream: str,
    upstream_port: int,
    *,
    server: Object | None = None,
    client: Object | None = None,
) -> Object:
    proxy = {
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "tcp",
            "cluster": "upstream",
        },
    }
    chain: Object = {"filters": [proxy]}
    if server is not None:
        chain["transport_socket"] = _transport_socket(
            "DownstreamTlsContext", {"require_client_certificate": True, "common_tls_context": server}
        )
    cluster: Object = {
        "name": "upstream",
        "type": "STRICT_DNS",
        "dns_lookup_family": "V4_ONLY",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _socket(upstream, upstream_port)}}]}],
        },
    }
    if client is not None:
        cluster["transport_socket"] = _transport_socket(
            "UpstreamTlsContext", {"sni": "bench.example", "common_tls_context": client}
        )
    listener = {"name": "listener", "address": _socket(address, port), "filter_chains": [chain]}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _transport_socket(kind: str, context: Object) -> Object:
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {"@type": f"{_TYPES}.transport_sockets.tls.v3.{kind}", **context},
    }


def _socket(address: str, port: int) -> Object:
    return {"socket_address": {"address": address, "port_value": port}}
