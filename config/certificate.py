"""Where a gateway's certificate comes from: a Secret that exists, PEM that the stack carries, or cert-manager."""

from __future__ import annotations

from typing import Literal

from config.types import Duration, Host, Label, Model, Subdomain, Text, WarningDays

PRIVATE_KEY = "tls.key"
REQUIRED_KEYS = ("tls.crt", PRIVATE_KEY)
SECRET_KEYS = (*REQUIRED_KEYS, "ca.crt", "ca.crl")
"""Keys of a gateway's Secret that Istio reads (Istio's "Secure Gateways"), and those that it must have."""

SECRET_PREFIX = "certificate-"  # noqa: S105
"""What the names of the stack's secrets that hold a certificate begin with."""


class Issuer(Model):
    """Who signs, as cert-manager's `issuerRef` says it."""

    name: Subdomain
    """Name of the issuer."""

    kind: Text = "Issuer"
    """Its kind: `Issuer`, `ClusterIssuer`, or that of an external issuer."""

    group: Text = "cert-manager.io"
    """API group of that kind, for example `awspca.cert-manager.io`."""


class CertManager(Model):
    """A certificate that cert-manager keeps renewed. Its `ca.crt` is what the issuer puts there, and an ACME issuer puts
    none: the CA of the other side is given in the stack, or `trustIssuer` says that it is the issuer's."""

    issuer: Issuer
    """Who signs."""

    trust_issuer: bool = False
    """Whether the issuer's own CA, which it puts into `ca.crt`, is that of the other side too, who then need not be given
    one. Not with ACME: an issuer that puts nothing there makes the gateway refuse everyone."""

    names: tuple[Host, ...] = ()
    """Further DNS names beside the id."""

    duration: Duration = "2160h"
    """Life of each certificate."""

    renew_before: Duration = "720h"
    """How long before its end a certificate is renewed."""

    rotation_policy: Literal["Always", "Never"] = "Always"
    """Whether a renewal makes a new private key."""


class Certificate(Model):
    """Where the Secret comes from. With none of the three, it exists already and is only referred to."""

    stack_secret: Label | None = None
    """The stack carries it: `python -m pki store` writes it as the secret `meshbridge:certificate-<this name>`."""

    directory: Text | None = None
    """A directory with `tls.crt`, `tls.key`, `ca.crt` and optionally `ca.crl`, as `python -m pki` writes it, on the
    machine that deploys; relative to the project's."""

    cert_manager: CertManager | None = None
    """cert-manager makes it."""

    warning_days: WarningDays = 30
    """Days before its end from which on a certificate, an authority or a revocation list that the stack carries draws a
    warning at preview."""

    @property
    def carried(self) -> bool:
        """Whether the stack itself carries the private key."""
        return self.stack_secret is not None or self.directory is not None

    @property
    def made(self) -> bool:
        """Whether the stack makes the Secret, or has it made."""
        return self.carried or self.cert_manager is not None
