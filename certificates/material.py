"""What is checked, against what, and what is found."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

CERTIFICATE = "tls.crt"
KEY = "tls.key"
TRUST = "ca.crt"
CRL = "ca.crl"
"""Keys of the Secret that Istio reads (Istio's "Secure Gateways", key formats)."""

ISSUER = "caCertificate"
"""Key of the vocabulary under which the authority that signed the certificate stands, where it is not `ca.crt`."""


class Usage(Enum):
    """Which side of the handshake a certificate is for."""

    SERVER = "server"
    CLIENT = "client"


class Severity(StrEnum):
    """What a problem does."""

    ERROR = "error"
    """Handshakes fail, or are not safe."""

    WARNING = "warning"
    """Handshakes will fail soon, or something has no effect."""


@dataclass(frozen=True)
class Material:
    """PEM texts, as they stand in the Secret; the key is None where it is not at hand. None of them appears in a repr:
    a key may have got into any."""

    certificate: str = field(repr=False)
    key: str | None = field(repr=False)
    trust: str | None = field(repr=False)
    crl: str | None = field(repr=False, default=None)

    @classmethod
    def of(cls, data: Mapping[str, str]) -> Material:
        """Out of a Secret's data; a key that must be there and is not counts as empty."""
        return cls(data.get(CERTIFICATE, ""), data.get(KEY, ""), data.get(TRUST), data.get(CRL))


@dataclass(frozen=True)
class Expectation:
    """What the certificate must be.

    name: the id that the other side looks for among the DNS names. issuer: PEM of the authority that signed it, where
    that is not in `ca.crt`. trust_elsewhere: `ca.crt` need not be there, since another Secret brings it. now: an aware
    datetime. warning: how long before the end it is said to end soon.
    """

    name: str
    usage: Usage
    now: datetime.datetime
    issuer: str | None = None
    trust_elsewhere: bool = False
    warning: datetime.timedelta = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. key: of the Secret; value: what stands there, never key material; check: the name of
    the check that found it."""

    check: str
    key: str
    value: str
    rule: str
    remedy: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        return f"{self.key}: {self.value} {self.rule}; {self.remedy}"
