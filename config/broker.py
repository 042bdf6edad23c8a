"""The broker proxy of a cluster: how it is run, for whom, and what comes behind it.

Who the cluster is (its ids, domains, gateways, Secrets and providers) is said by `consumer` and `provider` alone.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from config import names
from config.consumer import Limits
from config.types import (
    Annotations,
    Bytes,
    Cidr,
    Cpu,
    Host,
    Label,
    Listener,
    Model,
    NodeLabels,
    NonEmpty,
    PinnedImage,
    Port,
    Positive,
    ServiceName,
    ServiceUrl,
    Subdomain,
)

UPSTREAM_TIMEOUT = 60
"""Seconds that a service broker gets."""
UPSTREAM_MARGIN = 15
"""Seconds that a consumer's broker gives the provider's for its own work."""

FindingCode = Literal[
    "tls-name",
    "http-host",
    "member-discovery",
    "dns-srv",
    "conflict",
    "host-shared",
    "endpoint-not-mapped",
    "port-not-stated",
    "not-understood",
    "mapping-unused",
]
"""What may be found about adapted credentials (docs/credentials.md)."""


def upstream_timeout(role: str, deploy_timeout: int) -> int:
    """Seconds that the next broker gets: of a consumer, it waits for another broker and for a route itself. deploy_timeout:
    seconds that a call waits for its route."""
    return UPSTREAM_TIMEOUT + (deploy_timeout + UPSTREAM_MARGIN if role == "consumer" else 0)


class Callers(Model):
    """Who may call the broker. At least one of `namespaces` and `networks` says from where; with `provider.controlPlane` the
    ingress gateway may always."""

    secret: Label | None = None
    """Secret of type kubernetes.io/basic-auth in the broker's namespace: `username` and `password` that callers must
    send."""

    anonymous: bool = False
    """Admit every caller, where something before the broker authenticates them."""

    namespaces: tuple[Label, ...] = ()
    """Namespaces whose Pods call it: the platform's, a service manager's, Prometheus'."""

    networks: tuple[Cidr, ...] = ()
    """Networks outside the cluster from which it is called."""

    tls_secret: Label | None = None
    """Secret in the broker's namespace with the certificate that it serves (tls.crt, tls.key); none: plain HTTP."""


class BrokerUpstream(Model):
    """The next broker in the chain."""

    url: ServiceUrl | None = None
    """Where it is, for example a service manager. None, in the role consumer: the control-plane route of `provider`, through
    the egress gateway (the standalone scenario)."""

    host: Host | None = None
    """Public host of that route, where the provider is spelled out and has given it one of its own. Default:
    `istio-broker.<its systemDomain>`."""

    pod_port: Port | None = None
    """Port of its Pods, where `url` names a Service that maps another one. Default: the URL's."""

    secret: Label | None = None
    """Secret of type kubernetes.io/basic-auth in the broker's namespace: the user there. None: the caller's
    Authorization is passed on where the broker did not check it itself."""

    ca_secret: Label | None = None
    """Secret in the broker's namespace with the CA of its certificate (ca.crt); none: the system's CAs."""

    client_certificate: bool = False
    """Present the client certificate of `caSecret` (tls.crt, tls.key)."""

    timeout_seconds: Positive | None = None
    """Seconds within which it must answer. Default: 60; in the role consumer, whose upstream waits for another broker and for
    a route, 75 and `deployTimeoutSeconds`."""


class Traces(Model):
    """Where OpenTelemetry traces of calls, upstream requests and updates go."""

    url: ServiceUrl
    """A collector that speaks OTLP over HTTP, for example 'http://collector.observability.svc.cluster.local:4318'."""

    pod_port: Port | None = None
    """Port of its Pods, where `url` names a Service that maps another one. Default: the URL's."""


class Store(Model):
    """Where bindings and the state of their stacks are kept, outside the Pods, so that any number of replicas shares them."""

    secret: Label
    """Secret in the broker's namespace: `database` (`postgresql+psycopg://…`) and `state` (`postgres://…`)."""

    ports: NonEmpty[Port] = (5432,)
    """Ports of the two, to which the Pods may connect."""


class BrokerVolume(Model):
    """The volume of a broker without `store`: SQLite and the state of the stacks."""

    size: Bytes = "1Gi"
    """Size of the PersistentVolumeClaim."""

    storage_class: Subdomain | None = None
    """Its StorageClass; none: the cluster's default."""


class BrokerWorkload(Model):
    """Size and placement of the broker's Pods. An update of a stack runs two more processes in the Pod: the engine and its
    plugin."""

    cpu_request: Cpu = "250m"
    """CPU that each replica reserves."""

    memory_request: Bytes = "512Mi"
    """Memory that each replica reserves."""

    memory_limit: Bytes = "2Gi"
    """Memory at which a replica is ended."""

    node_selector: NodeLabels = Field(default_factory=dict)
    """Node labels that the replicas need."""

    pod_annotations: Annotations = Field(default_factory=dict)
    """Further annotations of the Pods."""


class Probes(Model):
    """How the kubelet asks the broker whether it lives (`/health`) and can work (`/ready`)."""

    period_seconds: Positive = 10
    """Seconds between two probes."""

    timeout_seconds: Positive = 5
    """Seconds that a probe may take."""

    failure_threshold: Positive = 3
    """Failed probes after which a Pod is restarted, or taken out of service."""

    startup_seconds: Positive = 120
    """Seconds within which it must have started, the migration of its database included."""


class Broker(Model):
    """The broker proxy that the stack deploys (`docs/broker.md`)."""

    role: Literal["consumer", "provider", "forward"]
    """Which side of the chain it is; `forward` passes everything on and makes no route."""

    image: PinnedImage
    """Its image, with tag or digest: the entrypoint is `python -m broker`, `pulumi` and its Kubernetes plugin are on PATH."""

    name: ServiceName = "broker"
    """Name of its Deployment, Service and service account."""

    namespace: Label = "mesh-broker"
    """Namespace of its Pods; the Secrets that it refers to must lie there."""

    create_namespace: bool = False
    """Whether the stack makes that namespace, and owns it: `destroy` then deletes the namespace with all that is in
    it."""

    port: Listener = 8080
    """Port of its Service and its Pods."""

    network_profile: str | None = None
    """URN of the network that both proxies serve, for example `urn:local.example:public`; needed but for `forward`."""

    callers: Callers
    """Who may call it."""

    upstream: BrokerUpstream = BrokerUpstream()
    """The next broker in the chain."""

    provider: Label | None = None
    """The provider whose services are bound, out of `consumer.providers`, in the role consumer: its domain is believed and its
    client Secret, timeouts and keepalive hold for the bindings."""

    namespaces: tuple[Label, ...] = ()
    """Application namespaces in which bindings may be made, in the role consumer. The first is that of a bind without a
    Kubernetes context."""

    service_port: Listener = 5555
    """Port of the bindings' virtual IPs."""

    limits: Limits = Limits()
    """Limits of each endpoint of a binding."""

    service_name_prefix: str = ""
    """Put before each service's name in the catalog by the provider's broker, and taken away by the consumer's."""

    plan_metadata: dict[str, JsonValue] = Field(default_factory=dict)
    """Merged into the metadata of every plan of the catalog, in the role provider."""

    refuse: tuple[FindingCode, ...] | None = None
    """Findings with which adapted credentials are refused instead of handed out with a warning. None: those that no client
    could use, `conflict` and `dns-srv`."""

    replicas: Positive = 1
    """Replicas; more than one needs `store`."""

    store: Store | None = None
    """Where bindings and state are kept; none: on a volume of the one replica."""

    volume: BrokerVolume = BrokerVolume()
    """That volume."""

    shards: Positive = 8
    """Stacks over which new bindings are spread."""

    deploy_timeout_seconds: Positive = 45
    """Seconds that a call waits for its route."""

    api_server_ports: NonEmpty[Port] = (443, 6443)
    """Ports of the cluster's API server behind its Service, to which the Pods may connect."""

    traces: Traces | None = None
    """Where it sends traces; none: nowhere."""

    workload: BrokerWorkload = BrokerWorkload()
    """Size and placement."""

    probes: Probes = Probes()
    """How the kubelet looks after it."""

    @property
    def standalone(self) -> bool:
        """Whether its calls go through the egress gateway to the provider's control-plane route."""
        return self.role == "consumer" and self.upstream.url is None

    @property
    def upstream_timeout_seconds(self) -> int:
        """Seconds within which the next broker must answer."""
        return self.upstream.timeout_seconds or upstream_timeout(self.role, self.deploy_timeout_seconds)

    @property
    def selector(self) -> dict[str, str]:
        """The labels that select its Pods and no others."""
        return {"app.kubernetes.io/name": "meshbridge-broker", "app.kubernetes.io/instance": self.name}

    @property
    def upstream_service(self) -> str:
        """Name of the Service whose virtual IP leads to the provider's control-plane route."""
        return names.virtual_ip_service(names.BROKER_UPSTREAM)
