"""Identities, hosts and the pieces of TLS and TCP policy that several objects share."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from config import Cluster, Keepalive, Limits, MeshClient
from routing.manifest import Json

ONLY_HERE = ["."]
"""exportTo of everything that must not be seen outside its namespace."""

ANY_ACCOUNT = "*"
"""In a principal of an AuthorizationPolicy, every service account of its namespace."""


def service_host(name: str, namespace: str, cluster: Cluster) -> str:
    """The cluster-local host of a Service, always fully qualified."""
    return f"{name}.{namespace}.svc.{cluster.domain}"


def principal(cluster: Cluster, namespace: str, service_account: str) -> str:
    """A workload's identity as AuthorizationPolicy writes it: the SPIFFE ID without its scheme."""
    return f"{cluster.trust_domain}/ns/{namespace}/sa/{service_account}"


def spiffe(cluster: Cluster, namespace: str, service_account: str) -> str:
    """A workload's SPIFFE ID: the URI SAN of its mesh certificate."""
    return f"spiffe://{principal(cluster, namespace, service_account)}"


def subnet(address: str) -> str:
    """An address as the CIDR block that holds it alone: /32, or /128 for IPv6."""
    return str(ipaddress.ip_network(address))


def connection_pool(
    connect_timeout: str | None = None, keepalive: Keepalive | None = None, limits: Limits | None = None
) -> dict[str, Json]:
    """`connectionPool.tcp` of a DestinationRule. It stands at the top level only: Envoy's TCP proxy reads
    `idleTimeout` and `maxConnectionDuration` from there, and a subset's pool would replace all of it."""
    tcp: dict[str, Json] = {}
    if connect_timeout is not None:
        tcp["connectTimeout"] = connect_timeout
    if keepalive is not None:
        tcp["tcpKeepalive"] = {
            "time": f"{keepalive.time_seconds}s",
            "interval": f"{keepalive.interval_seconds}s",
            "probes": keepalive.probes,
        }
    if limits is not None:
        tcp |= {
            key: value
            for key, value in {
                "maxConnections": limits.max_connections,
                "idleTimeout": limits.idle_timeout,
                "maxConnectionDuration": limits.max_connection_duration,
            }.items()
            if value is not None
        }
    return {"tcp": tcp}


def mutual_in_mesh(sni: Json, peer: str) -> dict[str, Json]:
    """TLS of a sidecar (or gateway) towards a gateway of the same mesh, which must be the identity `peer`."""
    return {"mode": "ISTIO_MUTUAL", "sni": sni, "subjectAltNames": [peer]}


def accept_from_mesh(
    cluster: Cluster, clients: Sequence[MeshClient], more: Iterable[str] = ()
) -> dict[str, Json]:
    """TLS of the only server of a gateway towards the mesh. The allow-list stands in the handshake where every client names
    its service accounts; it matches whole SPIFFE IDs, so a client that admits its namespace needs `deny_others`."""
    tls: dict[str, Json] = {"mode": "ISTIO_MUTUAL"}
    if all(client.service_accounts for client in clients):
        allowed = [spiffe(cluster, c.namespace, account) for c in clients for account in c.service_accounts]
        tls["subjectAltNames"] = [*allowed, *(f"spiffe://{identity}" for identity in more)]
    return tls


def deny_others(
    cluster: Cluster,
    selector: Mapping[str, str],
    sni: Json,
    clients: Sequence[MeshClient],
    more: Iterable[str] = (),
) -> dict[str, Json]:
    """Spec of the AuthorizationPolicy that denies `sni` to all but the clients (Istio's "Authorization Policy").

    For gateways of one server: Istio puts every policy of a gateway into each of its filter chains.
    It denies rather than allows, because the first ALLOW policy would close the gateway for every other route.
    A whole namespace is the beginning of its principals: `notNamespaces` would admit its namesakes of other trust domains.
    """
    admitted = [
        principal(cluster, client.namespace, account)
        for client in clients
        for account in client.service_accounts or [ANY_ACCOUNT]
    ]
    source: dict[str, Json] = {"notPrincipals": [*admitted, *more]}
    return {
        "selector": {"matchLabels": dict(selector)},
        "action": "DENY",
        "rules": [{"from": [{"source": source}], "when": [{"key": "connection.sni", "values": [sni]}]}],
    }
