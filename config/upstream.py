"""Upstreams outside every mesh, each reached through an egress gateway of its own."""

from __future__ import annotations

from typing import Literal

from config.consumer import Limits
from config.gateway import Workload
from config.types import (
    Address,
    Cidr,
    Duration,
    Host,
    Image,
    Ip,
    Label,
    Listener,
    Model,
    NonEmpty,
    PodLabels,
    Port,
    Positive,
    Text,
)

SERVER_PORT = 443
"""Port of a gateway's server, and of its Service."""

OPA_API_PORT, OPA_HEALTH_PORT = 8181, 8282
"""Ports on which an Open Policy Agent listens beside its gRPC port."""


class Tls(Model):
    """TLS that the gateway originates towards the upstream."""

    sni: Host | None = None
    """SNI to send. Default: the upstream's address."""

    subject_alt_names: tuple[Host, ...] = ()
    """Names of which the upstream's certificate must carry one. Default: the SNI."""

    credential_secret: Label | None = None
    """Secret in the gateway's namespace with the upstream's private CA (`ca.crt`), and with tls.crt and tls.key
    for a client certificate; none: the system's CAs."""

    client_certificate: bool = False
    """Present the client certificate of `credentialSecret` (mode MUTUAL)."""


class MeshClient(Model):
    """A namespace whose workloads may use the upstream."""

    namespace: Label
    """The namespace. Its Pods need sidecars: an ambient namespace knows nothing of the routes."""

    service_accounts: tuple[Label, ...] = ()
    """Service accounts that may use it; none: all workloads of the namespace. Where every client lists its own, they are
    checked in the TLS handshake; otherwise at the first byte that a client sends: until then a workload that is not listed,
    in the namespace of any client, holds a connection to a TCP or TLS upstream, and sees the greeting of a server that speaks
    first. List the accounts where that matters."""


class IngressEntry(Model):
    """Access from outside the mesh, through an ingress gateway that exists (HTTP and HTTPS upstreams)."""

    namespace: Label
    """Namespace of the ingress gateway's Pods."""

    labels: PodLabels
    """Labels that select the ingress gateway's Pods and no others."""

    service_account: Label
    """Service account of the ingress gateway's Pods."""

    server_secret: Label
    """Secret there with the server certificate of the proxied host."""

    http_port: Listener = 80
    """Port whose requests are redirected to HTTPS."""

    https_port: Listener = 443
    """Port that serves HTTPS."""

    min_tls_version: Literal["TLSV1_2", "TLSV1_3"] = "TLSV1_2"
    """Oldest TLS version that the server speaks. Its clients are any from outside, so it does not ask for the newest."""


class Opa(Model):
    """Authorization by an Open Policy Agent in the gateway's Pods."""

    image: Image
    """Image of OPA with the Envoy plugin, with tag or digest."""

    config_map: Label
    """ConfigMap in the gateway's namespace whose files are the policy."""

    extension_provider: Text = "opa"
    """Name of the provider in meshConfig.extensionProviders, whose service is `<namespace>/opa.local`; one for each
    namespace, because Istio refuses a service that it finds in several."""

    port: Listener = 9191
    """gRPC port of the provider in meshConfig.extensionProviders."""


class Readiness(Model):
    """Readiness coupled to the upstream: a Pod is ready only while a probe of the upstream succeeds.
    A blip of the upstream un-readies every replica; `outlierDetection` is the gentler way."""

    image: Image
    """Image of the probe's container, with tag or digest; it must hold `command`."""

    command: NonEmpty[str]
    """Command that exits with 0 while the upstream is well, for example
    `[curl, --fail, --silent, --max-time, "2", "https://api.example.com/health"]`."""

    idle_command: NonEmpty[str] = ("sleep", "infinity")
    """Command that keeps the container running between probes."""

    period_seconds: Positive = 10
    """Seconds between two probes."""

    timeout_seconds: Positive = 3
    """Seconds that a probe may take."""

    failure_threshold: Positive = 3
    """Failed probes after which the Pod is taken out of service."""


class OutlierDetection(Model):
    """Ejection of upstream addresses that fail."""

    consecutive_errors: Positive = 5
    """Failures in a row after which an address is ejected."""

    interval: Duration = "10s"
    """Time between two sweeps."""

    base_ejection_time: Duration = "30s"
    """Shortest ejection."""


class Upstream(Model):
    """A service outside every mesh, with an egress gateway of its own."""

    name: Label
    """Name of the upstream and of its gateway, unique in the stack."""

    namespace: Label
    """Namespace of the gateway."""

    create_namespace: bool = False
    """Whether the stack makes that namespace, and owns it: `destroy` then deletes the namespace with all that is
    in it."""

    formerly: Label | None = None
    """Name that the upstream had before, so that a rename replaces its objects instead of losing track of them."""

    protocol: Literal["HTTPS", "HTTP", "TCP", "TLS"]
    """What the upstream speaks. With HTTPS and TLS the gateway originates the TLS; applications send HTTP, or
    the plain protocol, which the mesh carries in mutual TLS up to the gateway."""

    host: Host
    """Host by which the mesh (and the ingress) addresses it: the SNI up to the gateway; never the upstream's own
    name."""

    address: Address
    """Where the upstream is: a DNS name or an IP address."""

    port: Port
    """Port of the upstream."""

    service_port: Listener = 5555
    """Port of the virtual IP on which applications address a TCP or TLS upstream."""

    cluster_ip: Ip | None = None
    """A fixed virtual IP for a TCP or TLS upstream; none: the cluster allocates it."""

    tls: Tls = Tls()
    """TLS towards an HTTPS or TLS upstream."""

    clients: NonEmpty[MeshClient]
    """Namespaces that may use it."""

    ingress: IngressEntry | None = None
    """Access from outside the mesh; none: only from the mesh."""

    opa: Opa | None = None
    """Authorization by an Open Policy Agent; none: by identity alone."""

    readiness: Readiness | None = None
    """Readiness coupled to the upstream; none: the proxy's own."""

    outlier_detection: OutlierDetection | None = None
    """Ejection of failing addresses; none: no ejection."""

    egress_cidrs: NonEmpty[Cidr] = ("0.0.0.0/0", "::/0")
    """Networks to which the gateway's Pods may connect on the upstream's port."""

    confine_clients: tuple[Cidr, ...] = ()
    """When given, a NetworkPolicy lets the Pods of the client namespaces reach only these networks (the cluster's Pod and
    Service ranges) and the Pods of the cluster, so that no workload bypasses the gateway. What the namespaces use outside
    of them is to be listed too: a DNS cache on the node, API servers on addresses of their own."""

    connect_timeout: Duration = "5s"
    """Time within which a connection to the upstream must be made."""

    limits: Limits = Limits()
    """Limits of the gateway towards the upstream."""

    guard_upstream_connections: bool = True
    """Open a TCP upstream's connection only after the client's TLS handshake."""

    workload: Workload = Workload()
    """Size and placement of the gateway."""

    @property
    def is_http(self) -> bool:
        """Whether the gateway routes requests (HTTP, HTTPS) rather than connections (TCP, TLS)."""
        return self.protocol in {"HTTP", "HTTPS"}

    @property
    def originates_tls(self) -> bool:
        """Whether the gateway originates TLS towards the upstream."""
        return self.protocol in {"HTTPS", "TLS"}
