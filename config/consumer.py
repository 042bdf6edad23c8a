"""The consumer's side: who it is, whose services it imports, and which workloads may use them."""

from __future__ import annotations

from config.certificate import Certificate
from config.gateway import EgressGateway
from config.types import (
    DEFAULT_PORT,
    Certificates,
    Duration,
    Fingerprint,
    Host,
    Identity,
    Ip,
    KeepaliveProbes,
    KeepaliveSeconds,
    Label,
    Listener,
    Model,
    NonEmpty,
    Port,
    Positive,
    ServiceName,
    Text,
)


class Keepalive(Model):
    """TCP keepalive on the public hop; it must beat the load balancer's idle timeout (350 s on an AWS NLB)."""

    time_seconds: KeepaliveSeconds = 240
    """Seconds of silence before the first probe."""

    interval_seconds: KeepaliveSeconds = 30
    """Seconds between two probes."""

    probes: KeepaliveProbes = 3
    """Unanswered probes after which the connection is closed."""


class Limits(Model):
    """Limits of one endpoint, per gateway replica."""

    max_connections: Positive | None = None
    """Most connections at a time; none: Envoy's default."""

    idle_timeout: Duration | None = None
    """Time without a byte after which a connection is closed; none: Envoy's default of 1 h."""

    max_connection_duration: Duration | None = None
    """Longest life of a connection: the bound within which a revocation cuts running ones; none: no bound."""


class Provider(Model):
    """An organisation whose services are imported: spelled out, or by `stack` or `bundle`."""

    name: Label
    """Name by which imports refer to it."""

    stack: str | None = None
    """Fully qualified name of the provider's Pulumi stack (`organization/project/stack`); it then supplies
    the id, system domain, port, CA certificate and hosts."""

    bundle: Text | None = None
    """Path, relative to the project's, of the federation bundle that the provider handed over (`python -m pki bundle`);
    it supplies the same as `stack`, where no Pulumi backend is shared. It needs `caFingerprint` or `bundleDigest`."""

    ca_fingerprint: Fingerprint | None = None
    """SHA-256 of the provider's CA certificate, learned by another way than the bundle, which must be signed by a
    certificate of that CA. It stays as it is when the provider hands over a new bundle."""

    bundle_digest: Fingerprint | None = None
    """SHA-256 of the bundle (its `digest`), learned by another way: this bundle and no other is accepted."""

    system_domain: Host | None = None
    """Domain below which all its public hosts lie. With `bundle`: what it must say."""

    id: Identity | None = None
    """Provider id: the DNS SAN in its server certificate. Default: the system domain. With `bundle`: what it must
    say."""

    port: Port | None = None
    """Public port of its load balancer. Default: 9000, as a provider's own."""

    ca_certificate: Certificates | None = None
    """PEM of the CA that signs its server certificate; the stack then makes the Secret `<secret>-cacert`,
    which wins over the `ca.crt` of the client Secret."""

    ca_from_stack: bool = True
    """Take the CA certificate from the provider's stack or bundle; it is then an error when that has none.
    With `false`, the `ca.crt` of the client Secret decides alone."""

    client_secret: Label | None = None
    """Secret with the client certificate for this provider. Default: the consumer's `clientSecret`."""

    certificate: Certificate | None = None
    """Where that Secret comes from. Default: as the consumer's `certificate` says."""

    connect_timeout: Duration = "5s"
    """Time within which a TCP connection to the provider must be made."""

    keepalive: Keepalive = Keepalive()
    """TCP keepalive on the public hop."""

    load_balancer_idle_seconds: Positive = 350
    """Silence after which the provider's load balancer drops a connection; the keepalive must come sooner."""

    @property
    def source(self) -> str | None:
        """What supplies the provider's properties, for messages; None where they are spelled out."""
        if self.stack is not None:
            return f"stack {self.stack!r}"
        return f"bundle {self.bundle!r}" if self.bundle is not None else None

    @property
    def identity(self) -> str | None:
        """The provider id, when it is known from the configuration."""
        return self.id or self.system_domain

    @property
    def brings_ca(self) -> bool:
        """Whether the stack makes a Secret with the provider's CA certificate."""
        return self.ca_certificate is not None or (self.source is not None and self.ca_from_stack)

    @property
    def public_port(self) -> int:
        """The public port, when the provider is spelled out."""
        return self.port or DEFAULT_PORT


class ImportedEndpoint(Model):
    """One endpoint of an imported service: one virtual IP in the application's namespace."""

    name: Label
    """Name of the endpoint, unique in its service."""

    formerly: Label | None = None
    """Name that the endpoint had before, so that a rename replaces its objects instead of losing track of them. Set
    `service` to its former Service name to keep its virtual IP too."""

    host: Host | None = None
    """Public host of the endpoint, below the provider's system domain; left out when the provider is a stack."""

    port: Listener = 5555
    """Port on which applications address the virtual IP."""

    service: ServiceName | None = None
    """Name of the Service that carries the virtual IP. Default: `svc-<import>-<endpoint>`."""

    cluster_ip: Ip | None = None
    """A fixed virtual IP, from the cluster's service range; none: the cluster allocates it."""

    limits: Limits = Limits()
    """Limits of the endpoint on the egress gateway."""


class Import(Model):
    """A service of a provider that one application namespace uses."""

    name: Label
    """Name of the import, unique in the stack."""

    formerly: Label | None = None
    """Name that the import had before, so that a rename replaces its objects instead of losing track of them. Set `service`
    of the endpoints to their former Service names to keep their virtual IPs too."""

    provider: Label
    """Name of the provider, out of `consumer.providers`."""

    service: Label | None = None
    """Name of the service in the provider's stack. Default: the import's name."""

    namespace: Label
    """Namespace of the application. Its Pods need sidecars, which carry the routes: in an ambient namespace (label
    `istio.io/dataplane-mode: ambient`) ztunnel knows nothing of them, and every connection ends at the virtual IP."""

    service_accounts: tuple[Label, ...] = ()
    """Service accounts of that namespace that may use the service; none: all workloads of the namespace. Either is checked in
    the TLS handshake, before a byte passes. A whole namespace is admitted by an EnvoyFilter, for Istio itself compares whole
    names only; where a filter is unwelcome, list the accounts. Without its filter such an endpoint admits nobody."""

    endpoints: NonEmpty[ImportedEndpoint]
    """The service's endpoints."""


class SidecarPolicy(Model):
    """Timeouts of the sidecars of one application namespace towards the egress gateway. An endpoint's own limits
    act on the egress gateway; a sidecar closes a connection that is idle for 1 h unless this says otherwise."""

    namespace: Label
    """The application's namespace."""

    limits: Limits
    """Limits of all imports of the namespace together, per sidecar."""


class Consumer(Model):
    """The cluster as a consumer of other clusters' services."""

    id: Identity
    """Consumer id: the DNS SAN in the client certificate, by which providers know this cluster."""

    egress_gateway: EgressGateway = EgressGateway()
    """The gateway through which all imported traffic leaves."""

    client_secret: Label = "consumer-client"  # noqa: S105
    """Secret in the egress gateway's namespace: tls.crt, tls.key, ca.crt and optionally ca.crl."""

    certificate: Certificate = Certificate()
    """Where the client Secrets come from. Default: they exist already."""

    ca_certificate: Certificates | None = None
    """PEM of the CA that signs the client certificate, handed to providers as an output of the stack; a certificate
    that the stack carries is checked against it. Default: the CA in the `ca.crt` beside that certificate, if it is the
    only one there."""

    providers: tuple[Provider, ...] = ()
    """The providers whose services are imported."""

    imports: tuple[Import, ...] = ()
    """The services imported."""

    sidecars: tuple[SidecarPolicy, ...] = ()
    """Timeouts of the sidecars of single namespaces; none: Envoy's defaults."""
