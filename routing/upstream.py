"""EgressGatewayPerUpstream: one gateway for one service outside every mesh.

HTTP path: application -> sidecar =ISTIO_MUTUAL=> gateway -> upstream, by the proxied host; optionally from outside
through an ingress gateway. TCP path: as ConsumerEgress, from a virtual IP beside the gateway. Sources: the article
"Proxying legacy services using Istio egress gateways", Istio's "Egress Gateways with TLS Origination".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config import Cluster, IngressEntry, Upstream, names
from config.gateway import NAMESPACE_LABEL
from config.types import is_ip
from config.upstream import OPA_API_PORT, OPA_HEALTH_PORT, SERVER_PORT
from routing import tls
from routing.consumer import virtual_ip_service
from routing.gateway import RESTRICTED, GatewayWorkload
from routing.load_balancer import Exposure
from routing.manifest import Json, Manifest, networking, security

MESH_HTTP_PORT = 80
SUBSET = "upstream"
LABEL = "meshbridge.io/egress"
"""Pod label that selects the gateway of one upstream."""

PSEUDO_DOMAIN = "address.internal"
"""Domain of the hosts by which a gateway knows upstreams that have only an IP address."""

OPA_HOST = "opa.local"

PROBE_USER = 65532
"""Numeric user of the upstream's probe. Kubelets refuse a container that must not run as root while its image names its user
in words, as curl's does, or names none."""

SYSTEM_CAS = "system"
"""`caCertificates` of a rule that trusts the certificate authorities of the proxy's operating system."""

MESH_HEADERS = (
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-envoy-decorator-operation",
    "x-envoy-external-address",
    "x-envoy-attempt-count",
    "x-envoy-peer-metadata",
    "x-envoy-peer-metadata-id",
)
"""Request headers that the mesh adds and no upstream must see; the first carries the workload's certificate."""


@dataclass(frozen=True)
class UpstreamGateway:
    """An upstream in its cluster: what all its objects are made from."""

    upstream: Upstream
    cluster: Cluster

    @property
    def name(self) -> str:
        """Name of the routing objects."""
        return names.upstream(self.upstream.name)

    @property
    def namespace(self) -> str:
        """Namespace of the gateway and of its objects."""
        return self.upstream.namespace

    @property
    def labels(self) -> dict[str, str]:
        """Labels that select the gateway's Pods and no others of its namespace."""
        return {LABEL: self.upstream.name}

    @property
    def server_selector(self) -> dict[str, str]:
        """Labels that select them and no others of any namespace, as Istio looks for the Pods of a server."""
        return {**self.labels, NAMESPACE_LABEL: self.namespace}

    @property
    def host(self) -> str:
        """Host of the gateway's Service."""
        return tls.service_host(self.name, self.namespace, self.cluster)

    @property
    def service_name(self) -> str:
        """Name of the Service with the virtual IP of a TCP or TLS upstream."""
        return names.virtual_ip_service(self.upstream.name)

    @property
    def service_host(self) -> str:
        """Local host of that Service."""
        return tls.service_host(self.service_name, self.namespace, self.cluster)

    @property
    def upstream_host(self) -> str:
        """Host by which the gateway knows the upstream: its name, or a made-up one for an IP address."""
        address = self.upstream.address
        return f"{self.upstream.name}.{PSEUDO_DOMAIN}" if is_ip(address) else address

    @property
    def authority(self) -> str:
        """The Host header that the upstream expects, with the port where it is not the protocol's own."""
        upstream = self.upstream
        name = upstream.tls.sni or upstream.address
        default = 443 if upstream.originates_tls else 80
        bracketed = f"[{name}]" if ":" in name else name
        return bracketed if upstream.port == default else f"{bracketed}:{upstream.port}"

    @property
    def ingress_principals(self) -> tuple[str, ...]:
        """Identity of the ingress gateway that may call this one."""
        entry = self.upstream.ingress
        return (tls.principal(self.cluster, entry.namespace, entry.service_account),) if entry else ()

    @property
    def client_namespaces(self) -> list[str]:
        """Every namespace that routes to this gateway, with its own, sorted."""
        return sorted(
            {self.namespace, *self._entries, *(client.namespace for client in self.upstream.clients)}
        )

    @property
    def foreign_namespaces(self) -> list[str]:
        """Every namespace but its own in which it has objects, sorted."""
        confined = self.upstream.clients if self.upstream.confine_clients else ()
        return sorted({*self._entries, *(client.namespace for client in confined)})

    @property
    def _entries(self) -> list[str]:
        """The namespace of the ingress gateway that calls this one, if there is one."""
        return [self.upstream.ingress.namespace] if self.upstream.ingress else []

    @property
    def peer(self) -> str:
        """The gateway's SPIFFE ID."""
        return tls.spiffe(self.cluster, self.namespace, self.name)


def workload(gateway: UpstreamGateway) -> GatewayWorkload:
    """The gateway's Deployment and what belongs to it; OPA and the probe of the upstream stand in containers of
    their own."""
    upstream = gateway.upstream
    containers: list[Json] = []
    volumes: list[Json] = []
    if upstream.opa is not None:
        containers.append(
            {
                "name": "opa",
                "image": upstream.opa.image,
                "args": [
                    "run",
                    "--server",
                    f"--addr=localhost:{OPA_API_PORT}",
                    f"--diagnostic-addr=:{OPA_HEALTH_PORT}",
                    f"--set=plugins.envoy_ext_authz_grpc.addr=127.0.0.1:{upstream.opa.port}",
                    "--set=decision_logs.console=true",
                    "/policy",
                ],
                "readinessProbe": {
                    "httpGet": {"path": "/health?plugins", "port": OPA_HEALTH_PORT, "scheme": "HTTP"}
                },
                "securityContext": RESTRICTED,
                "volumeMounts": [{"name": "policy", "mountPath": "/policy", "readOnly": True}],
            }
        )
        volumes.append({"name": "policy", "configMap": {"name": upstream.opa.config_map}})
    if upstream.readiness is not None:
        containers.append(
            {
                "name": "upstream-probe",
                "image": upstream.readiness.image,
                "command": list(upstream.readiness.idle_command),
                "readinessProbe": {
                    "exec": {"command": list(upstream.readiness.command)},
                    "periodSeconds": upstream.readiness.period_seconds,
                    "timeoutSeconds": upstream.readiness.timeout_seconds,
                    "failureThreshold": upstream.readiness.failure_threshold,
                },
                "securityContext": {**RESTRICTED, "runAsUser": PROBE_USER},
            }
        )
    return GatewayWorkload(
        name=gateway.name,
        namespace=gateway.namespace,
        service_account=gateway.name,
        labels=gateway.labels,
        ports={"tls-mesh": SERVER_PORT},
        service=Exposure(gateway.name),
        workload=upstream.workload,
        cluster=gateway.cluster,
        ingress=[
            {
                "from": [
                    {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
                    for namespace in gateway.client_namespaces
                ],
                "ports": [{"protocol": "TCP", "port": SERVER_PORT}],
            }
        ],
        egress=[
            {
                "to": [{"ipBlock": {"cidr": cidr}} for cidr in upstream.egress_cidrs],
                "ports": [{"protocol": "TCP", "port": upstream.port}],
            }
        ],
        containers=containers,
        volumes=volumes,
    )


def peer_authentication(gateway: UpstreamGateway) -> Manifest:
    """Mutual TLS for whatever else listens in the gateway's Pods; the gateway's own server demands it itself."""
    spec = {"selector": {"matchLabels": gateway.labels}, "mtls": {"mode": "STRICT"}}
    return security("PeerAuthentication", gateway.name, gateway.namespace, spec)


def service_entry(gateway: UpstreamGateway) -> Manifest:
    """The upstream, seen by this namespace alone, so that no workload elsewhere can address it past the gateway."""
    upstream = gateway.upstream
    spec: dict[str, Json] = {
        "hosts": [gateway.upstream_host],
        "exportTo": tls.ONLY_HERE,
        "location": "MESH_EXTERNAL",
        "resolution": "DNS",
        "ports": [
            {"number": upstream.port, "name": upstream.protocol.lower(), "protocol": upstream.protocol}
        ],
    }
    if is_ip(upstream.address):
        spec |= {"resolution": "STATIC", "endpoints": [{"address": upstream.address}]}
    return networking("ServiceEntry", gateway.name, gateway.namespace, spec)


def upstream_rule(gateway: UpstreamGateway) -> Manifest:
    """The hop to the upstream: TLS with a checked name where the protocol has TLS, and the limits."""
    upstream = gateway.upstream
    policy: dict[str, Json] = {
        "connectionPool": tls.connection_pool(upstream.connect_timeout, limits=upstream.limits)
    }
    if upstream.originates_tls:
        sni = upstream.tls.sni or upstream.address
        origination: dict[str, Json] = {
            "mode": "MUTUAL" if upstream.tls.client_certificate else "SIMPLE",
            "sni": sni,
            "subjectAltNames": list(upstream.tls.subject_alt_names) or [sni],
        }
        if upstream.tls.credential_secret is not None:
            origination["credentialName"] = upstream.tls.credential_secret
        else:
            origination["caCertificates"] = SYSTEM_CAS
        policy["tls"] = origination
    if upstream.outlier_detection is not None:
        policy["outlierDetection"] = {
            "consecutive5xxErrors": upstream.outlier_detection.consecutive_errors,
            "interval": upstream.outlier_detection.interval,
            "baseEjectionTime": upstream.outlier_detection.base_ejection_time,
        }
    spec = {
        "host": gateway.upstream_host,
        "exportTo": tls.ONLY_HERE,
        "workloadSelector": {"matchLabels": gateway.labels},
        "trafficPolicy": policy,
        "subsets": [{"name": SUBSET}],
    }
    return networking("DestinationRule", gateway.name, gateway.namespace, spec)


def access_policy(gateway: UpstreamGateway) -> Manifest:
    """Denies the upstream to every workload but the clients (and the ingress gateway, where it has one)."""
    upstream = gateway.upstream
    spec = tls.deny_others(
        gateway.cluster, gateway.labels, upstream.host, upstream.clients, gateway.ingress_principals
    )
    return security("AuthorizationPolicy", gateway.name, gateway.namespace, spec)


def server(gateway: UpstreamGateway) -> Manifest:
    """The gateway's server: mutual TLS of the mesh, the proxied host."""
    upstream = gateway.upstream
    protocol = "HTTPS" if upstream.is_http else "TLS"
    spec = {
        "selector": gateway.server_selector,
        "servers": [
            {
                "port": {"number": SERVER_PORT, "name": protocol.lower(), "protocol": protocol},
                "hosts": [upstream.host],
                "tls": tls.accept_from_mesh(gateway.cluster, upstream.clients, gateway.ingress_principals),
            }
        ],
    }
    return networking("Gateway", gateway.name, gateway.namespace, spec)


def egress_route(gateway: UpstreamGateway) -> Manifest:
    """From the gateway's server to the upstream. A request loses what the mesh added to it."""
    upstream = gateway.upstream
    destination = {"host": gateway.upstream_host, "port": {"number": upstream.port}, "subset": SUBSET}
    spec: dict[str, Json] = {"hosts": [upstream.host], "gateways": [gateway.name], "exportTo": tls.ONLY_HERE}
    if upstream.is_http:
        spec["http"] = [
            {
                "match": [{"port": SERVER_PORT}],
                "rewrite": {"authority": gateway.authority},
                "headers": {"request": {"remove": list(MESH_HEADERS)}},
                "route": [{"destination": destination}],
            }
        ]
    else:
        spec["tcp"] = [{"match": [{"port": SERVER_PORT}], "route": [{"destination": destination}]}]
    return networking("VirtualService", gateway.name, gateway.namespace, spec)


def mesh_rule(gateway: UpstreamGateway) -> Manifest:
    """The hop from sidecars and the ingress gateway to this gateway."""
    subset = {
        "name": SUBSET,
        "trafficPolicy": {"tls": tls.mutual_in_mesh(gateway.upstream.host, gateway.peer)},
    }
    spec = {"host": gateway.host, "exportTo": gateway.client_namespaces, "subsets": [subset]}
    return networking("DestinationRule", names.upstream_mesh(gateway.upstream.name), gateway.namespace, spec)


def mesh_host(gateway: UpstreamGateway) -> Manifest:
    """Makes the proxied host known to the clients' sidecars, which otherwise have no HTTP port to route it on."""
    spec = {
        "hosts": [gateway.upstream.host],
        "exportTo": sorted(client.namespace for client in gateway.upstream.clients),
        "location": "MESH_INTERNAL",
        "resolution": "NONE",
        "ports": [{"number": MESH_HTTP_PORT, "name": "http", "protocol": "HTTP"}],
    }
    return networking("ServiceEntry", names.upstream_mesh(gateway.upstream.name), gateway.namespace, spec)


def virtual_ip(gateway: UpstreamGateway) -> Manifest:
    """The Service whose cluster IP applications address, for a TCP or TLS upstream."""
    upstream = gateway.upstream
    return virtual_ip_service(
        gateway.service_name, gateway.namespace, gateway.cluster, upstream.service_port, upstream.cluster_ip
    )


def mesh_route(gateway: UpstreamGateway, destination_subnets: Json | None = None) -> Manifest:
    """From the clients' sidecars (and the ingress gateway) to this gateway.

    `destination_subnets`: the virtual IP of a TCP or TLS upstream as a list of CIDR blocks, where it is known.
    """
    upstream = gateway.upstream
    route = [{"destination": {"host": gateway.host, "port": {"number": SERVER_PORT}, "subset": SUBSET}}]
    spec: dict[str, Json] = {"exportTo": gateway.client_namespaces, "gateways": ["mesh"]}
    if upstream.is_http:
        spec["hosts"] = [upstream.host]
        if upstream.ingress is not None:
            spec["gateways"] = ["mesh", f"{upstream.ingress.namespace}/{gateway.name}"]
        spec["http"] = [{"route": route}]
    else:
        match: dict[str, Json] = {"port": upstream.service_port}
        if destination_subnets is not None:
            match["destinationSubnets"] = destination_subnets
        spec["hosts"] = [gateway.service_host]
        spec["tcp"] = [{"match": [match], "route": route}]
    return networking("VirtualService", names.upstream_mesh(gateway.upstream.name), gateway.namespace, spec)


def ingress_server(gateway: UpstreamGateway, entry: IngressEntry) -> Manifest:
    """The servers of the ingress gateway for the proxied host: HTTPS, and HTTP that redirects to it."""
    host = gateway.upstream.host
    spec = {
        "selector": dict(entry.labels),
        "servers": [
            {
                "port": {"number": entry.http_port, "name": "http", "protocol": "HTTP"},
                "hosts": [host],
                "tls": {"httpsRedirect": True},
            },
            {
                "port": {"number": entry.https_port, "name": "https", "protocol": "HTTPS"},
                "hosts": [host],
                "tls": {
                    "mode": "SIMPLE",
                    "credentialName": entry.server_secret,
                    "minProtocolVersion": entry.min_tls_version,
                },
            },
        ],
    }
    return networking("Gateway", gateway.name, entry.namespace, spec)


def opa_service(gateway: UpstreamGateway, port: int) -> Manifest:
    """Where the proxy finds OPA: in its own Pod."""
    spec = {
        "hosts": [OPA_HOST],
        "exportTo": tls.ONLY_HERE,
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": port, "name": "grpc", "protocol": "GRPC"}],
        "endpoints": [{"address": "127.0.0.1"}],
    }
    return networking("ServiceEntry", names.upstream_opa(gateway.upstream.name), gateway.namespace, spec)


def opa_policy(gateway: UpstreamGateway, provider: str) -> Manifest:
    """Asks OPA about every request for the proxied host (Istio's "External Authorization")."""
    spec = {
        "selector": {"matchLabels": gateway.labels},
        "action": "CUSTOM",
        "provider": {"name": provider},
        "rules": [{"to": [{"operation": {"ports": [str(SERVER_PORT)]}}]}],
    }
    return security("AuthorizationPolicy", names.upstream_opa(gateway.upstream.name), gateway.namespace, spec)


def confinement(gateway: UpstreamGateway, namespace: str, cidrs: Sequence[str]) -> Manifest:
    """Lets the Pods of a client namespace reach the cluster alone: the sidecar's REGISTRY_ONLY is no boundary,
    because a process can go past its sidecar."""
    everything_inside: Mapping[str, Json] = {
        "to": [{"namespaceSelector": {}}, *({"ipBlock": {"cidr": c}} for c in cidrs)]
    }
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [everything_inside]}
    return Manifest("networking.k8s.io/v1", "NetworkPolicy", gateway.name, namespace, {"spec": spec})
