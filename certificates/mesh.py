"""Whether an intermediate authority will do for istiod to sign a mesh's certificates with.

Sources: Istio's "Plug in CA Certificates" (the Secret `cacerts`), and istiod's `NewVerifiedKeyCertBundleFromFile`
(security/pkg/pki/util/keycertbundle.go), which ends istiod where the key or the chain does not fit.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certificates import pem
from certificates.checks import CHECKS, Found, Subject, check, extension_of, named
from certificates.material import KEY, TRUST, Expectation, Material, Problem, Usage

CA_CERTIFICATE = "ca-cert.pem"
MESH_CA_KEY = "ca-key.pem"
CHAIN = "cert-chain.pem"
ROOT = "root-cert.pem"
MESH_KEYS = (CA_CERTIFICATE, MESH_CA_KEY, CHAIN, ROOT)
"""Keys of the Secret."""

SHARED = frozenset(
    {
        "pem-syntax", "key-match", "critical-extension", "authority", "not-yet-valid", "expired", "expires-soon",
        "key-strength", "signature-hash",
    }
)  # fmt: skip
"""Checks of gateways' certificates that hold for an authority of a mesh too."""


@dataclass(frozen=True)
class _Mesh:
    """The Secret's data, all of whose keys are there, and what of it can be read."""

    data: Mapping[str, str]
    expected: Expectation

    @cached_property
    def own(self) -> list[x509.Certificate]:
        """What stands where the one intermediate authority must."""
        return pem.certificates(self.data[CA_CERTIFICATE])[0]

    @cached_property
    def chain(self) -> list[x509.Certificate]:
        """What istiod hands out with each certificate that it signs."""
        return pem.certificates(self.data[CHAIN])[0]

    @cached_property
    def material(self) -> Material:
        """The same as if it were a gateway's: the authority, what stands above it, and the roots."""
        above = [certificate for certificate in self.chain if certificate not in self.own]
        texts = [certificate.public_bytes(Encoding.PEM).decode() for certificate in above]
        return Material(
            "\n".join([self.data[CA_CERTIFICATE], *texts]), self.data[MESH_CA_KEY], self.data[ROOT]
        )

    @cached_property
    def path(self) -> list[x509.Certificate] | None:
        """From the authority to a root, by names and signatures; None where there is no such way."""
        material = Material(self.material.certificate, None, self.data[ROOT])
        return Subject(material, self.expected).path

    @property
    def readable(self) -> bool:
        """Whether nothing that a chain is made of is hidden behind a fault of syntax."""
        return not any(pem.certificates(self.data[key])[1] for key in MESH_KEYS if key != MESH_CA_KEY)


def check_mesh(
    data: Mapping[str, str],
    now: datetime.datetime,
    warning: datetime.timedelta = Expectation.warning,
) -> list[Problem]:
    """Every problem of the data of a Secret `cacerts`.

    now: an aware datetime. warning: how long before the end it is said to end soon.
    """
    wrong = list(_keys(data))
    if wrong:
        return [Problem("mesh-keys", *found) for found in wrong]
    mesh = _Mesh(data, Expectation("", Usage.SERVER, now, warning=warning))
    shared = check(mesh.material, mesh.expected, disabled=CHECKS.keys() - SHARED)
    return [
        *(Problem(name, *found) for name, run in MESH_CHECKS.items() for found in run(mesh)),
        *(
            Problem(p.check, _NAMES.get(p.key, _OWN), p.value, p.rule, p.remedy, severity=p.severity)
            for p in shared
        ),
    ]


_OWN = f"{CA_CERTIFICATE}, {CHAIN}"
_NAMES = {KEY: MESH_CA_KEY, TRUST: ROOT}
"""Of a gateway's keys, those of `cacerts`; what it sends, these are two of."""


def _keys(data: Mapping[str, str]) -> Found:
    for key in MESH_KEYS:
        if key not in data:
            yield (
                key,
                "null",
                "is missing, and istiod would not start",
                "give all of: " + ", ".join(MESH_KEYS),
            )
    for key in data.keys() - set(MESH_KEYS):
        yield key, "set", "does not belong there", "keep only: " + ", ".join(MESH_KEYS)


def _stray_key(mesh: _Mesh) -> Found:
    for key in (CA_CERTIFICATE, CHAIN, ROOT):
        if any(pem.is_key(label) for label, _ in pem.split(mesh.data[key]).blocks):
            yield (
                key,
                "a private key",
                "stands among what every workload is given",
                f"keep it in {MESH_CA_KEY} alone, and replace it if this was shown to anyone",
            )


def _encrypted_key(mesh: _Mesh) -> Found:
    if any(pem.is_encrypted(*block) for block in pem.split(mesh.data[MESH_CA_KEY]).blocks):
        yield (
            MESH_CA_KEY,
            "the private key",
            "is encrypted, and istiod knows no passphrase",
            f"decrypt it: openssl pkey -in ENCRYPTED -out {MESH_CA_KEY}",
        )


def _single(mesh: _Mesh) -> Found:
    if len(mesh.own) > 1:
        yield (
            CA_CERTIFICATE,
            f"{len(mesh.own)} certificates",
            "stand where the one authority that istiod signs with must",
            f"put what is above it into {CHAIN}",
        )


def _authority(mesh: _Mesh) -> Found:
    for certificate in mesh.own[:1]:
        constraints = extension_of(certificate, x509.BasicConstraints)
        usage = extension_of(certificate, x509.KeyUsage)
        if constraints is None or not constraints.ca:
            rule = (
                "is no authority (basicConstraints CA:TRUE is missing), so what it signs is trusted by nobody"
            )
        elif usage is not None and not usage.key_cert_sign:
            rule = "may not sign certificates: its key usage lacks keyCertSign"
        else:
            continue
        yield (
            CA_CERTIFICATE,
            named(certificate),
            rule,
            "have an intermediate authority issued: python -m pki mesh-ca",
        )


def _begins(mesh: _Mesh) -> Found:
    if mesh.own and mesh.chain and mesh.chain[0] != mesh.own[0]:
        yield (
            CHAIN,
            named(mesh.chain[0]),
            f"stands where the authority itself must, {named(mesh.own[0])}",
            f"put {CA_CERTIFICATE} first, then each certificate's issuer",
        )


def _chain(mesh: _Mesh) -> Found:
    if mesh.readable and mesh.own and mesh.path is None:
        yield (
            CA_CERTIFICATE,
            named(mesh.own[0]),
            f"does not lead to a root in {ROOT}; its issuer is {mesh.own[0].issuer.rfc4514_string()!r}",
            f"put the missing intermediates into {CHAIN}, and the root that signed them into {ROOT}",
        )


def _path_length(mesh: _Mesh) -> Found:
    for below, certificate in enumerate((mesh.path or [])[1:], 1):
        constraints = extension_of(certificate, x509.BasicConstraints)
        allowed = constraints.path_length if constraints is not None else None
        if allowed is not None and below > allowed:
            yield (
                ROOT if certificate == (mesh.path or [])[-1] else CHAIN,
                named(certificate),
                f"admits {allowed} authorities below it, {below} are there",
                "have the authority issued by one that may: python -m pki create --purpose mesh",
            )


MESH_CHECKS: Mapping[str, Callable[[_Mesh], Found]] = {
    "mesh-stray-key": _stray_key,
    "mesh-key-encrypted": _encrypted_key,
    "mesh-single": _single,
    "mesh-authority": _authority,
    "mesh-begins": _begins,
    "mesh-chain": _chain,
    "mesh-path-length": _path_length,
}
"""The checks of a mesh's authority alone, by name."""
