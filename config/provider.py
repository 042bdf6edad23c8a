"""The provider's side: who it is, and which services it exports to whom."""

from __future__ import annotations

from typing import Literal

from config import names
from config.certificate import Certificate
from config.consumer import Limits
from config.edge import Dns, LoadBalancer
from config.gateway import IngressGateway
from config.types import (
    DEFAULT_PORT,
    Address,
    Certificates,
    Duration,
    Fingerprint,
    Host,
    Identity,
    Label,
    Listener,
    Model,
    NonEmpty,
    Port,
    RevocationLists,
    Text,
)


class ExportedEndpoint(Model):
    """One endpoint of an exported service: one public host, dispatched by SNI."""

    name: Label
    """Name of the endpoint, unique in its service."""

    formerly: Label | None = None
    """Name that the endpoint had before, so that a rename replaces its objects instead of losing track of them."""

    host: Host
    """Public host, below the system domain: the SNI of its traffic."""

    address: Address
    """Where the service really is: an IP address or a DNS name."""

    port: Port
    """Port of the service at that address."""

    limits: Limits = Limits()
    """Limits of the endpoint on the ingress gateway."""


class Export(Model):
    """A service that named consumers may use."""

    name: Label
    """Name of the service, unique in the stack."""

    formerly: Label | None = None
    """Name that the export had before, so that a rename replaces its objects instead of losing track of them."""

    consumers: NonEmpty[Identity]
    """Consumer ids: the DNS SANs of the client certificates that are admitted."""

    endpoints: NonEmpty[ExportedEndpoint]
    """The service's endpoints."""


class ControlPlane(Model):
    """The public route of the broker's own calls."""

    host: Host | None = None
    """Public host. Default: `istio-broker.<systemDomain>`."""

    address: Address | None = None
    """Address of the broker; left out where this stack deploys it (`broker` with the role provider)."""

    port: Port | None = None
    """Port of the broker; left out likewise."""

    consumers: tuple[Identity, ...] = ()
    """Consumer ids that may call the broker."""

    open_to_all: bool = False
    """Admit every client whose certificate the CA signed, whatever its name."""


class ConsumerBundle(Model):
    """A consumer that handed over its federation bundle (`python -m pki bundle create --role consumer`)."""

    bundle: Text
    """Path of the bundle, relative to the project's."""

    ca_fingerprint: Fingerprint | None = None
    """SHA-256 of the consumer's CA certificate, learned by another way than the bundle, which must be signed by a client
    certificate of that CA."""

    bundle_digest: Fingerprint | None = None
    """SHA-256 of the bundle (its `digest`), learned by another way: this bundle and no other is accepted."""


class Provider(Model):
    """The cluster as a provider of services."""

    system_domain: Host
    """Domain below which all public hosts lie; the wildcard record `*.<systemDomain>` resolves to the gateway."""

    id: Identity | None = None
    """Provider id: the DNS SAN in the server certificate. Default: the system domain."""

    port: Listener = DEFAULT_PORT
    """Public port: of the load balancer, the gateway's Service and its listener."""

    ingress_gateway: IngressGateway = IngressGateway()
    """The gateway through which all consumers enter."""

    load_balancer: LoadBalancer | None = None
    """What stands before the ingress gateway; none: the gateway's own Service."""

    dns: Dns | None = None
    """Who makes the wildcard record; none: you do, and the stack says what it must be."""

    server_secret: Label = "provider-server"  # noqa: S105
    """Secret in the ingress gateway's namespace: tls.crt, tls.key, ca.crt and optionally ca.crl."""

    certificate: Certificate = Certificate()
    """Where that Secret comes from. Default: it exists already."""

    ca_certificate: Certificates | None = None
    """PEM of the CA that signs the server certificate, handed to consumers as an output of the stack; a certificate
    that the stack carries is checked against it. Default: the CA in the `ca.crt` beside that certificate, if it is the
    only one there."""

    consumers_ca_certificate: Certificates | None = None
    """PEM of the CAs that sign the consumers' client certificates; the stack then makes the Secret
    `<serverSecret>-cacert`, which wins over the `ca.crt` (and the `ca.crl`) of the server Secret. Each of these CAs can
    vouch for every consumer id."""

    consumer_bundles: tuple[ConsumerBundle, ...] = ()
    """Consumers whose bundles bring CAs, beside `consumersCaCertificate`. What they may use, `exports` say."""

    consumers_crl: RevocationLists | None = None
    """PEM of the revocation lists of these CAs, one of each; a list that expires refuses everyone."""

    min_tls_version: Literal["TLSV1_2", "TLSV1_3"] = "TLSV1_3"
    """Oldest TLS version that the gateway speaks."""

    connect_timeout: Duration = "5s"
    """Time within which a connection to the service must be made."""

    exports: tuple[Export, ...] = ()
    """The services exported."""

    control_plane: ControlPlane | None = None
    """The route of the broker's own calls; none: no such route."""

    @property
    def brings_ca(self) -> bool:
        """Whether the stack makes a Secret with the consumers' CA certificates."""
        return self.consumers_ca_certificate is not None or bool(self.consumer_bundles)

    @property
    def admitted(self) -> frozenset[str]:
        """The ids of all consumers that may use anything."""
        named = {consumer for export in self.exports for consumer in export.consumers}
        return frozenset(named | set(self.control_plane.consumers if self.control_plane else ()))

    @property
    def identity(self) -> str:
        """The provider id."""
        return self.id or self.system_domain

    @property
    def service_name(self) -> str:
        """Name of the Service before the ingress gateway's Pods. Each kind of load balancer has one of its own, so that
        a change of kind makes the new Service before the old one goes."""
        gateway, balancer = self.ingress_gateway, self.load_balancer
        if balancer is not None and not gateway.adopt:
            if balancer.aws_controller is not None:
                return names.load_balancer_service(gateway.name, balancer.aws_controller.scheme)
            if balancer.aws_nlb is not None:
                return names.target_service(gateway.name)
        return gateway.name

    @property
    def control_plane_host(self) -> str:
        """Public host of the broker's route."""
        host = self.control_plane.host if self.control_plane else None
        return host or names.control_plane_host(self.system_domain)
