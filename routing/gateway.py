"""Gateway deployments: the proxy, its identity and rights, its Service, and what keeps it up.

The proxy is made by Istio's injector out of the `gateway` template (Istio's "Installing Gateways"); there is
nothing of Envoy here but the guard.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config import Cluster, EgressGateway, Provider, Workload
from config.edge_checks import PROXY_CONFIG
from config.gateway import NAMESPACE_LABEL
from config.types import STATUS_PORT, TELEMETRY_PORT
from routing import envoy, load_balancer
from routing.load_balancer import Exposure
from routing.manifest import Json, Manifest

ISTIOD_PORTS = (15010, 15012)
"""Ports of istiod that a proxy calls."""

DNS_PORT = 53
TO_DNS: Mapping[str, Json] = {
    "ports": [{"protocol": protocol, "port": DNS_PORT} for protocol in ("UDP", "TCP")]
}
"""A NetworkPolicy's rule for name resolution."""

SKIP_AWAIT = "pulumi.com/skipAwait"
"""Annotation by which Pulumi's Kubernetes provider does not wait for an object to become ready."""

RESTRICTED: Mapping[str, Json] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}
"""Security context of every container in a gateway's Pods."""

PROXY = "istio-proxy"
"""Name of the container that Istio's injector fills in."""

GUARDED_FILTER = "envoy.filters.network.tcp_proxy"


@dataclass(frozen=True)
class GatewayWorkload:
    """A gateway that the stack creates.

    labels: select its Pods and no others of its namespace. ports: of its Service, by name; each is the target port too, since the
    proxy may bind low ports. egress: rules of its NetworkPolicy beyond DNS and istiod. containers, volumes: beside
    the proxy. expects_proxy_protocol: of every connection, a PROXY protocol header first.
    """

    name: str
    namespace: str
    service_account: str
    labels: Mapping[str, str]
    ports: Mapping[str, int]
    service: Exposure
    workload: Workload
    cluster: Cluster
    ingress: Sequence[Json]
    egress: Sequence[Json]
    containers: Sequence[Json] = ()
    volumes: Sequence[Json] = ()
    expects_proxy_protocol: bool = False


def egress_workload(
    gateway: EgressGateway, cluster: Cluster, public_ports: Sequence[Json]
) -> GatewayWorkload:
    """The consumer's shared egress gateway: reached from the mesh, it reaches `public_ports` in the agreed networks."""
    networks = [{"ipBlock": {"cidr": cidr}} for cidr in gateway.egress_cidrs]
    return GatewayWorkload(
        name=gateway.name,
        namespace=gateway.namespace,
        service_account=gateway.identity,
        labels=gateway.selector,
        ports={"tls-mesh": gateway.port},
        service=Exposure(gateway.name),
        workload=gateway.workload,
        cluster=cluster,
        ingress=[{"from": [{"namespaceSelector": {}}], "ports": [{"protocol": "TCP", "port": gateway.port}]}],
        egress=[{"to": networks, "ports": [{"protocol": "TCP", "port": port}]} for port in public_ports],
    )


def ingress_workload(provider: Provider, cluster: Cluster) -> GatewayWorkload:
    """The provider's shared ingress gateway: reached from anywhere on its public port. What it may reach is said by
    each exported endpoint (`provider.reach`)."""
    gateway, port, balancer = provider.ingress_gateway, provider.port, provider.load_balancer
    return GatewayWorkload(
        name=gateway.name,
        namespace=gateway.namespace,
        service_account=gateway.identity,
        labels=gateway.selector,
        ports={"tls-public": port},
        service=load_balancer.exposure(provider),
        workload=gateway.workload,
        cluster=cluster,
        ingress=[{"ports": [{"protocol": "TCP", "port": port}]}],
        egress=[],
        expects_proxy_protocol=balancer is not None and balancer.sends_proxy_protocol,
    )


def _awaited(cluster: Cluster) -> dict[str, str]:
    return {} if cluster.await_readiness else {SKIP_AWAIT: "true"}


def namespace(name: str, registers_targets: bool = False) -> Manifest:
    """The namespace of a gateway that the stack creates. It is not forced: where another stack's annotation stands on it,
    the API server refuses.

    registers_targets: its Pods are targets of an AWS load balancer; a new one then counts as ready only once the load
    balancer finds it healthy, so that a rollout never runs ahead of it.
    """
    labels = {"elbv2.k8s.aws/pod-readiness-gate-inject": "enabled"} if registers_targets else {}
    return Manifest("v1", "Namespace", name, None, {}, labels=labels, forced=False)


def service_account(gateway: GatewayWorkload) -> Manifest:
    """The gateway's identity in the mesh."""
    return Manifest(
        "v1", "ServiceAccount", gateway.service_account, gateway.namespace, {}, labels=gateway.labels
    )


def secret_reader(name: str, namespace: str) -> Manifest:
    """The right to read the Secrets beside the gateway. Istiod serves a `credentialName` only to a proxy whose
    service account may list them, and a denial does not heal when the Role comes later."""
    rules = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}]
    return Manifest("rbac.authorization.k8s.io/v1", "Role", f"{name}-secrets", namespace, {"rules": rules})


def secret_reader_binding(name: str, namespace: str, service_account: str) -> Manifest:
    """Binds `secret_reader` to the gateway's service account."""
    body = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": f"{name}-secrets"},
        "subjects": [{"kind": "ServiceAccount", "name": service_account, "namespace": namespace}],
    }
    return Manifest("rbac.authorization.k8s.io/v1", "RoleBinding", f"{name}-secrets", namespace, body)


def deployment(gateway: GatewayWorkload) -> Manifest:
    """The proxies. `image: auto` and the annotation make Istio's injector fill in the rest.

    How long open connections may drain is a setting of the proxy (`ProxyConfig.terminationDrainDuration`), which pilot-agent
    reads from the Pod's annotation and from no environment variable.
    """
    labels = {**gateway.labels, NAMESPACE_LABEL: gateway.namespace, "sidecar.istio.io/inject": "true"}
    if gateway.workload.revision is not None:
        labels["istio.io/rev"] = gateway.workload.revision
    settings: dict[str, Json] = {"terminationDrainDuration": f"{gateway.workload.drain_seconds}s"}
    environment: Mapping[str, str] = {}
    if gateway.expects_proxy_protocol:
        settings |= load_balancer.EXPECT_PROXY_PROTOCOL
        environment = load_balancer.PROXY_PROTOCOL_ON_STATUS_PORT
    annotations = {
        PROXY_CONFIG: json.dumps(settings),
        **gateway.workload.pod_annotations,
        "inject.istio.io/templates": "gateway",
    }
    proxy: dict[str, Json] = {
        "name": PROXY,
        "image": "auto",
        "ports": [
            {"containerPort": port, "name": name, "protocol": "TCP"} for name, port in gateway.ports.items()
        ],
        "resources": {
            "requests": {"cpu": gateway.workload.cpu_request, "memory": gateway.workload.memory_request},
            "limits": {"memory": gateway.workload.memory_limit},
        },
        "securityContext": RESTRICTED,
    }
    if environment:
        proxy["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    pod: dict[str, Json] = {
        "serviceAccountName": gateway.service_account,
        "terminationGracePeriodSeconds": gateway.workload.drain_seconds + 15,
        "securityContext": {
            "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}],
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [proxy, *gateway.containers],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": dict(gateway.labels)},
            }
        ],
    }
    if gateway.volumes:
        pod["volumes"] = list(gateway.volumes)
    if gateway.workload.node_selector:
        pod["nodeSelector"] = dict(gateway.workload.node_selector)
    spec = {
        "selector": {"matchLabels": dict(gateway.labels)},
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": pod},
    }
    return Manifest(
        "apps/v1",
        "Deployment",
        gateway.name,
        gateway.namespace,
        {"spec": spec},
        labels=gateway.labels,
        annotations=_awaited(gateway.cluster),
    )


def service(gateway: GatewayWorkload) -> Manifest:
    """The Service of the gateway: one target port for each port, so that Istio knows which Pods serve a server."""
    exposed = gateway.service
    ports = [
        {"name": name, "port": port, "targetPort": port, "protocol": "TCP", "appProtocol": "tls"}
        for name, port in gateway.ports.items()
    ]
    if exposed.with_status_port:
        ports.append(
            {
                "name": "status",
                "port": STATUS_PORT,
                "targetPort": STATUS_PORT,
                "protocol": "TCP",
                "appProtocol": "http",
            }
        )
    spec = {
        "type": exposed.type,
        "selector": dict(gateway.labels),
        "ports": ports,
        **exposed.spec,
    }
    return Manifest(
        "v1",
        "Service",
        exposed.name,
        gateway.namespace,
        {"spec": spec},
        labels=gateway.labels,
        annotations={**_awaited(gateway.cluster), **exposed.annotations},
    )


def disruption_budget(gateway: GatewayWorkload) -> Manifest:
    """At most one replica is taken away at a time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": dict(gateway.labels)}}
    return Manifest("policy/v1", "PodDisruptionBudget", gateway.name, gateway.namespace, {"spec": spec})


def autoscaler(gateway: GatewayWorkload) -> Manifest:
    """Replicas by the proxies' CPU. Of a Pod's, Kubernetes makes no percentage where a container beside the proxy requests none
    (its page "Horizontal Pod Autoscaling")."""
    size = gateway.workload
    target = {"type": "Utilization", "averageUtilization": size.target_cpu_percent}
    measured = {"name": "cpu", "container": PROXY, "target": target}
    spec = {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": gateway.name},
        "minReplicas": size.min_replicas,
        "maxReplicas": size.max_replicas,
        "metrics": [{"type": "ContainerResource", "containerResource": measured}],
    }
    return Manifest(
        "autoscaling/v2", "HorizontalPodAutoscaler", gateway.name, gateway.namespace, {"spec": spec}
    )


def network_policy(gateway: GatewayWorkload) -> Manifest:
    """What may reach the gateway's Pods, and what they may reach: their ports, DNS, istiod, who else signs the mesh's
    certificates, and the upstreams."""
    signer = gateway.cluster.istio_csr
    spec = {
        "podSelector": {"matchLabels": dict(gateway.labels)},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            *gateway.ingress,
            {"ports": [{"protocol": "TCP", "port": port} for port in (STATUS_PORT, TELEMETRY_PORT)]},
        ],
        "egress": [
            TO_DNS,
            towards(gateway.cluster.mesh_namespace, ISTIOD_PORTS),
            *([towards(signer.namespace, [signer.port])] if signer is not None else []),
            *gateway.egress,
        ],
    }
    return Manifest("networking.k8s.io/v1", "NetworkPolicy", gateway.name, gateway.namespace, {"spec": spec})


def pods_of(namespace: str, labels: Mapping[str, str] | None = None) -> dict[str, Json]:
    """The Pods of a namespace, or those of them that have these labels, as the peer of a NetworkPolicy's rule."""
    selected = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    return {**selected, "podSelector": {"matchLabels": dict(labels)}} if labels is not None else {**selected}


def towards(namespace: str, ports: Sequence[int]) -> dict[str, Json]:
    """A NetworkPolicy's rule for connections to ports of a namespace's Pods."""
    return {"to": [pods_of(namespace)], "ports": [{"protocol": "TCP", "port": port} for port in ports]}


def upstream_guard(name: str, namespace: str, labels: Mapping[str, str]) -> Manifest:
    """The guard against unauthenticated upstream connections.

    By default Envoy's TCP proxy connects upstream at ClientHello, before it has seen the client's certificate; with
    a connection limit, stalled handshakes would then lock the legitimate consumer out (Envoy's TcpProxy reference,
    `upstream_connect_mode`). No early data is read, since `ON_DOWNSTREAM_TLS_HANDSHAKE` must not wait for any.
    """
    tcp_proxy = {
        "@type": f"{envoy.TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE",
        "max_early_data_bytes": 0,
    }
    return envoy.merged(
        f"{name}-guard",
        namespace,
        labels,
        applies_to="NETWORK_FILTER",
        filter_chain={"filter": {"name": GUARDED_FILTER}},
        value={"name": GUARDED_FILTER, "typed_config": tcp_proxy},
    )
