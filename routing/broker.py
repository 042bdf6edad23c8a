"""The broker's deployment: its identity and rights, its settings, its Pods, and what may reach them.

Its rights are those that the routes of bindings need and no others: the kinds of ConsumerEgress and ProviderIngress, in the
namespaces where those lie. Its Secrets exist already and are mounted; none of their contents stands in an object here.
Sources: the Kubernetes pages "Using RBAC Authorization", "Pod Security Standards" (restricted) and "Network Policies";
`broker/settings.py` for the settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config import Broker, Cluster, Consumer, ImportedProvider, Provider, names
from config.types import url_port
from routing import gateway, tls
from routing.gateway import RESTRICTED
from routing.manifest import Json, Manifest

USER = 65532
"""Numeric user and group of the Pods: `nonroot` of most minimal images."""

SETTINGS, SECRETS, TLS, UPSTREAM_TLS = (
    "/etc/broker/settings",
    "/etc/broker/secrets",
    "/etc/broker/tls",
    "/etc/broker/upstream-tls",
)
DATA, WORK = "/var/lib/broker", "/work"
ENVIRONMENT = {"HOME": WORK, "TMPDIR": WORK, "USER": "broker"}
"""The only place that the engine may write to, and a name for a user that the image need not know."""
TRACES = "OTEL_EXPORTER_OTLP_ENDPOINT"
"""Where traces go (OpenTelemetry's "OTLP Exporter Configuration")."""
SETTINGS_FILE = "settings.json"
DIGEST = "meshbridge.io/settings"
"""Annotation of the Pods with the digest of their settings, which replaces them when those change."""

END_PERIOD = 25
"""Seconds that the broker gets to end beside its time-outs: 10 s for which a call may wait before it does anything, and the
rest for what runs in the background."""

STARTUP_PERIOD = 2
"""Seconds between two looks whether it has started, which should be seen soon."""

HOLD = {"proxy.istio.io/config": '{"holdApplicationUntilProxyStarts": true}'}
"""The broker starts once its sidecar carries its connections."""

VERBS = ("get", "list", "watch", "create", "patch", "delete")
"""What the engine's plugin does to an object: it applies on the server, reads, waits, and deletes."""

ISTIO = "networking.istio.io"
IN_EGRESS: Mapping[str, Sequence[str]] = {
    "": ("configmaps",),
    ISTIO: ("destinationrules", "envoyfilters", "gateways", "serviceentries", "virtualservices"),
}
"""What a binding has in the egress gateway's namespace, by API group."""
IN_APPLICATION: Mapping[str, Sequence[str]] = {
    "": ("services",),
    ISTIO: ("destinationrules", "virtualservices"),
}
"""What it has in the application's."""
IN_INGRESS: Mapping[str, Sequence[str]] = {
    "": ("configmaps",),
    ISTIO: ("destinationrules", "gateways", "serviceentries", "virtualservices"),
}
"""What it has in the ingress gateway's."""
IN_OWN_INGRESS: Mapping[str, Sequence[str]] = {**IN_INGRESS, "networking.k8s.io": ("networkpolicies",)}
"""The same, where the gateway may reach nothing but what is exported."""


@dataclass(frozen=True)
class BrokerDeployment:
    """A broker that the stack deploys. upstream: URL of the next one. system_domain: of the provider whose services are
    bound (role consumer), or a placeholder. imported: that provider. consumer, provider: of the stack, by role."""

    config: Broker
    cluster: Cluster
    upstream: str
    consumer: Consumer | None = None
    provider: Provider | None = None
    imported: ImportedProvider | None = None
    system_domain: Json | None = None

    @property
    def name(self) -> str:
        """Name of its Deployment, Service and service account."""
        return self.config.name

    @property
    def namespace(self) -> str:
        """Namespace of its Pods."""
        return self.config.namespace

    @property
    def host(self) -> str:
        """The local host under which it is called."""
        return tls.service_host(self.name, self.namespace, self.cluster)

    @property
    def keeps(self) -> bool:
        """Whether it keeps bindings and state in its Pods."""
        return self.config.role != "forward" and self.config.store is None

    @property
    def behind_route(self) -> bool:
        """Whether the provider's control-plane route leads to it."""
        return self.provider is not None and self.provider.control_plane is not None


def upstream_url(broker: Broker, cluster: Cluster) -> str:
    """The URL of the next broker: the local address of the provider's control-plane route, where no other is named."""
    if broker.upstream.url is not None:
        return broker.upstream.url
    return (
        f"http://{tls.service_host(broker.upstream_service, broker.namespace, cluster)}:{broker.service_port}"
    )


def service_account(broker: BrokerDeployment) -> Manifest:
    """The broker's identity, towards the API server and in the mesh."""
    return _object("v1", "ServiceAccount", broker, {})


def rights(broker: BrokerDeployment) -> dict[str, Mapping[str, Sequence[str]]]:
    """The resources that the routes of its bindings are made of, by namespace and API group."""
    config = broker.config
    if config.role == "consumer" and broker.consumer is not None:
        applications = dict.fromkeys(config.namespaces, IN_APPLICATION)
        return {broker.consumer.egress_gateway.namespace: IN_EGRESS, **applications}
    if config.role == "provider" and broker.provider is not None:
        ingress = broker.provider.ingress_gateway
        return {ingress.namespace: IN_INGRESS if ingress.adopt else IN_OWN_INGRESS}
    return {}


def route_maker(broker: BrokerDeployment, namespace: str) -> Manifest:
    """The right to make the routes of bindings in a namespace."""
    groups = rights(broker)[namespace]
    rules = [
        {"apiGroups": [group], "resources": list(resources), "verbs": list(VERBS)}
        for group, resources in groups.items()
    ]
    return Manifest("rbac.authorization.k8s.io/v1", "Role", _routes(broker), namespace, {"rules": rules})


def route_maker_binding(broker: BrokerDeployment, namespace: str) -> Manifest:
    """Grants `route_maker` to the broker."""
    body = {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": _routes(broker)},
        "subjects": [{"kind": "ServiceAccount", "name": broker.name, "namespace": broker.namespace}],
    }
    return Manifest("rbac.authorization.k8s.io/v1", "RoleBinding", _routes(broker), namespace, body)


def _routes(broker: BrokerDeployment) -> str:
    return names.broker_routes(broker.name, broker.namespace)


def settings(broker: BrokerDeployment) -> dict[str, Json]:
    """The settings file, as `broker.settings` reads it. Secrets come from files; see `deployment`."""
    config, wildcard = broker.config, "[::]" if broker.cluster.ip_family == "IPv6" else "0.0.0.0"  # noqa: S104 - a Pod
    found: dict[str, Json] = {
        "role": config.role,
        "upstream": broker.upstream,
        "upstreamTimeout": config.upstream_timeout_seconds,
        "listen": f"{wildcard}:{config.port}",
        "anonymous": config.callers.anonymous,
    }
    if config.callers.tls_secret is not None:
        found |= {"tlsCertificate": f"{TLS}/tls.crt", "tlsKey": f"{TLS}/tls.key"}
    if config.upstream.ca_secret is not None:
        found["upstreamCa"] = f"{UPSTREAM_TLS}/ca.crt"
    if config.upstream.client_certificate:
        found |= {"upstreamCertificate": f"{UPSTREAM_TLS}/tls.crt", "upstreamKey": f"{UPSTREAM_TLS}/tls.key"}
    if config.role == "forward":
        return found
    found |= {
        "stack": config.name,
        "shards": config.shards,
        "networkProfile": config.network_profile,
        "deployTimeout": config.deploy_timeout_seconds,
        "cluster": {
            "trustDomain": broker.cluster.trust_domain,
            "domain": broker.cluster.domain,
            "ipFamily": broker.cluster.ip_family,
        },
    }
    if config.refuse is not None:
        found["refuse"] = list(config.refuse)
    if broker.keeps:
        found |= {"database": f"sqlite:///{DATA}/broker.db", "state": f"file://{DATA}/state"}
    common = {
        "limits": config.limits.model_dump(by_alias=True, exclude_none=True),
        "serviceNamePrefix": config.service_name_prefix,
    }
    if config.role == "consumer" and broker.consumer is not None and broker.imported is not None:
        found["consumer"] = {**common, **_consumer(broker, broker.consumer, broker.imported)}
    if config.role == "provider" and broker.provider is not None:
        found["provider"] = {**common, **_provider(config, broker.provider)}
    return found


def _consumer(broker: BrokerDeployment, consumer: Consumer, imported: ImportedProvider) -> dict[str, Json]:
    config, egress = broker.config, consumer.egress_gateway
    return {
        "id": consumer.id,
        "namespaces": list(config.namespaces),
        "systemDomains": [broker.system_domain],
        "egressGateway": {
            "name": egress.name,
            "namespace": egress.namespace,
            "labels": egress.selector,
            "adopt": egress.adopt,
            "serviceAccount": egress.identity,
            "port": egress.port,
        },
        "clientSecret": imported.client_secret or consumer.client_secret,
        "servicePort": config.service_port,
        "connectTimeout": imported.connect_timeout,
        "keepalive": imported.keepalive.model_dump(by_alias=True),
    }


def _provider(config: Broker, provider: Provider) -> dict[str, Json]:
    ingress = provider.ingress_gateway
    return {
        "systemDomain": provider.system_domain,
        "id": provider.identity,
        "port": provider.port,
        "ingressGateway": {
            "name": ingress.name,
            "namespace": ingress.namespace,
            "labels": ingress.selector,
            "adopt": ingress.adopt,
        },
        "serverSecret": provider.server_secret,
        "minTlsVersion": provider.min_tls_version,
        "connectTimeout": provider.connect_timeout,
        "planMetadata": config.plan_metadata,
    }


def config_map(broker: BrokerDeployment, text: Json) -> Manifest:
    """The settings file. text: `settings` as JSON, which YAML reads too."""
    return _object("v1", "ConfigMap", broker, {"data": {SETTINGS_FILE: text}})


def volume_claim(broker: BrokerDeployment) -> Manifest:
    """The volume for bindings and state. Nobody waits for it: many are bound only when a Pod wants them."""
    volume = broker.config.volume
    spec: dict[str, Json] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": volume.size}},
    }
    if volume.storage_class is not None:
        spec["storageClassName"] = volume.storage_class
    annotations = {gateway.SKIP_AWAIT: "true"}
    return _object("v1", "PersistentVolumeClaim", broker, {"spec": spec}, annotations)


def deployment(broker: BrokerDeployment, digest: Json) -> Manifest:
    """The Pods. digest: of the settings.

    A broker that keeps its bindings on a volume ends before its successor starts: its database serves one process.
    """
    config = broker.config
    volumes, mounts = _volumes(broker)
    annotations = {**(HOLD if config.standalone else {}), **config.workload.pod_annotations}
    pod: dict[str, Json] = {
        "serviceAccountName": broker.name,
        "automountServiceAccountToken": config.role != "forward",
        "terminationGracePeriodSeconds": config.deploy_timeout_seconds
        + config.upstream_timeout_seconds
        + END_PERIOD,
        "securityContext": {
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(broker, mounts)],
        "volumes": volumes,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": config.selector},
            }
        ],
    }
    if config.workload.node_selector:
        pod["nodeSelector"] = dict(config.workload.node_selector)
    rolling = {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    spec = {
        "replicas": config.replicas,
        "selector": {"matchLabels": config.selector},
        "strategy": {"type": "Recreate"} if broker.keeps else rolling,
        "template": {
            "metadata": {
                "labels": {**config.selector, **_injection(broker)},
                "annotations": {**annotations, DIGEST: digest},
            },
            "spec": pod,
        },
    }
    awaited = {} if broker.cluster.await_readiness else {gateway.SKIP_AWAIT: "true"}
    return _object("apps/v1", "Deployment", broker, {"spec": spec}, awaited)


def _injection(broker: BrokerDeployment) -> dict[str, str]:
    """A sidecar carries the calls of a standalone consumer's broker to the egress gateway. One behind the control-plane route has
    none, because the ingress gateway sends what was in the TLS as it is. Elsewhere the namespace decides."""
    if broker.config.standalone:
        return {"sidecar.istio.io/inject": "true"}
    return {"sidecar.istio.io/inject": "false"} if broker.behind_route else {}


def _container(broker: BrokerDeployment, mounts: Sequence[Json]) -> dict[str, Json]:
    config, probes, size = broker.config, broker.config.probes, broker.config.workload
    scheme = "HTTPS" if config.callers.tls_secret is not None else "HTTP"
    secrets = ["--secrets", SECRETS] if _secret_files(broker) else []
    environment = {**ENVIRONMENT, **({TRACES: config.traces.url} if config.traces is not None else {})}

    def asking(path: str, period: int, failures: int) -> dict[str, Json]:
        asked = {"path": path, "port": config.port, "scheme": scheme}
        times = {"periodSeconds": period, "timeoutSeconds": probes.timeout_seconds}
        return {"httpGet": asked, **times, "failureThreshold": failures}

    return {
        "name": "broker",
        "image": config.image,
        "args": ["serve", "--settings", f"{SETTINGS}/{SETTINGS_FILE}", *secrets],
        "env": [{"name": name, "value": value} for name, value in environment.items()],
        "ports": [{"name": "osb", "containerPort": config.port, "protocol": "TCP"}],
        "startupProbe": asking("/health", STARTUP_PERIOD, -(-probes.startup_seconds // STARTUP_PERIOD)),
        "livenessProbe": asking("/health", probes.period_seconds, probes.failure_threshold),
        "readinessProbe": asking("/ready", probes.period_seconds, probes.failure_threshold),
        "resources": {
            "requests": {"cpu": size.cpu_request, "memory": size.memory_request},
            "limits": {"memory": size.memory_limit},
        },
        "securityContext": RESTRICTED,
        "volumeMounts": list(mounts),
    }


def _volumes(broker: BrokerDeployment) -> tuple[list[Json], list[Json]]:
    """The volumes and where they are mounted: a writable one for the engine's files, and, read-only, the settings and the
    referred Secrets, each file of which is named after its setting."""
    config, files = broker.config, _secret_files(broker)
    sources = [
        {"secret": {"name": name, "items": [{"key": key, "path": path} for key, path in items.items()]}}
        for name, items in files
    ]
    read_only: dict[str, tuple[str, dict[str, Json]]] = {
        "settings": (SETTINGS, {"configMap": {"name": broker.name}})
    }
    if sources:
        read_only["secrets"] = (SECRETS, {"projected": {"sources": sources, "defaultMode": 0o440}})
    tls_secrets = (
        ("tls", TLS, config.callers.tls_secret),
        ("upstream-tls", UPSTREAM_TLS, config.upstream.ca_secret),
    )
    for volume, path, secret in tls_secrets:
        if secret is not None:
            read_only[volume] = (path, {"secret": {"secretName": secret, "defaultMode": 0o440}})
    writable: dict[str, tuple[str, dict[str, Json]]] = {"work": (WORK, {"emptyDir": {}})}
    if broker.keeps:
        writable["data"] = (DATA, {"persistentVolumeClaim": {"claimName": broker.name}})
    both = {**read_only, **writable}
    volumes: list[Json] = [{"name": name, **source} for name, (_, source) in both.items()]
    mounts: list[Json] = [
        {"name": name, "mountPath": path, **({"readOnly": True} if name in read_only else {})}
        for name, (path, _) in both.items()
    ]
    return volumes, mounts


def _secret_files(broker: BrokerDeployment) -> list[tuple[str, Mapping[str, str]]]:
    """The Secrets whose values are settings, each with the settings' names by the Secret's keys."""
    config, files = broker.config, list[tuple[str, Mapping[str, str]]]()
    if config.callers.secret is not None:
        files.append((config.callers.secret, {"username": "username", "password": "password"}))
    if config.upstream.secret is not None:
        user = {"username": "upstream_username", "password": "upstream_password"}
        files.append((config.upstream.secret, user))
    if config.store is not None:
        files.append((config.store.secret, {"database": "database", "state": "state"}))
    return files


def service(broker: BrokerDeployment) -> Manifest:
    """The Service under which it is called. appProtocol keeps Istio from sniffing the protocol; the port is that of the
    Pods too, because network policies name the latter."""
    config = broker.config
    protocol = "https" if config.callers.tls_secret is not None else "http"
    port = {
        "name": f"{protocol}-osb",
        "port": config.port,
        "targetPort": config.port,
        "protocol": "TCP",
        "appProtocol": protocol,
    }
    spec = {"type": "ClusterIP", "selector": config.selector, "ports": [port]}
    awaited = {} if broker.cluster.await_readiness else {gateway.SKIP_AWAIT: "true"}
    return _object("v1", "Service", broker, {"spec": spec}, awaited)


def disruption_budget(broker: BrokerDeployment) -> Manifest:
    """At most one replica is taken away at a time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": broker.config.selector}}
    return _object("policy/v1", "PodDisruptionBudget", broker, {"spec": spec})


def network_policy(broker: BrokerDeployment) -> Manifest:
    """What may reach the Pods: their callers, and the ingress gateway where the control-plane route leads here. What they may
    reach: DNS, the mesh's control plane, the API server, the next broker, the store, and the collector of traces."""
    config, cluster = broker.config, broker.cluster
    callers: list[Json] = [gateway.pods_of(namespace) for namespace in config.callers.namespaces]
    callers += [{"ipBlock": {"cidr": network}} for network in config.callers.networks]
    if broker.behind_route and broker.provider is not None:
        ingress = broker.provider.ingress_gateway
        callers.append(gateway.pods_of(ingress.namespace, ingress.selector))
    signer = cluster.istio_csr
    ports: list[int] = []
    if config.role != "forward":
        ports += config.api_server_ports
        ports += config.store.ports if config.store is not None else ()
    egress: list[Json] = []
    if config.upstream.url is not None:
        ports.append(config.upstream.pod_port or url_port(config.upstream.url))
    elif broker.consumer is not None:
        shared = broker.consumer.egress_gateway
        egress.append({"to": [gateway.pods_of(shared.namespace, shared.selector)]})
    if config.traces is not None:
        ports.append(config.traces.pod_port or url_port(config.traces.url))
    spec = {
        "podSelector": {"matchLabels": config.selector},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": callers, "ports": [{"protocol": "TCP", "port": config.port}]}],
        "egress": [
            gateway.TO_DNS,
            gateway.towards(cluster.mesh_namespace, gateway.ISTIOD_PORTS),
            *([gateway.towards(signer.namespace, [signer.port])] if signer is not None else []),
            *egress,
            {"ports": [{"protocol": "TCP", "port": port} for port in sorted(set(ports))]},
        ],
    }
    return _object("networking.k8s.io/v1", "NetworkPolicy", broker, {"spec": spec})


def _object(
    api_version: str,
    kind: str,
    broker: BrokerDeployment,
    body: Mapping[str, Json],
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    return Manifest(
        api_version,
        kind,
        broker.name,
        broker.namespace,
        body,
        labels=broker.config.selector,
        annotations=annotations or {},
    )
