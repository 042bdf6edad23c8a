"""The X.509 profile: which fields the certificates and revocation lists of an authority carry (RFC 5280).

Every function is pure: keys and times come in, signed objects go out.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

CLOCK_SKEW = datetime.timedelta(minutes=5)
"""How far a certificate begins in the past, for peers whose clock is late."""

MAX_COMMON_NAME = 64
"""Longest common name (RFC 5280, ub-common-name)."""


SERVER_USAGE = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_USAGE = ExtendedKeyUsageOID.CLIENT_AUTH


class KeyType(StrEnum):
    """Algorithm and size of a private key."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    RSA_3072 = "rsa-3072"


def new_key(kind: KeyType) -> PrivateKey:
    """A new private key."""
    match kind:
        case KeyType.EC_P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.EC_P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyType.RSA_3072:
            return rsa.generate_private_key(65537, 3072)


def key_pem(key: PrivateKey) -> bytes:
    """A private key as unencrypted PKCS #8, which Istio and Envoy read."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem(certificate: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """A certificate or a revocation list as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


@dataclass(frozen=True)
class Signer:
    """An authority: its certificate and its key."""

    certificate: x509.Certificate
    key: PrivateKey


@dataclass(frozen=True)
class Validity:
    """From `start` (less CLOCK_SKEW) for `lifetime`."""

    start: datetime.datetime
    lifetime: datetime.timedelta

    @property
    def begin(self) -> datetime.datetime:
        """notBefore."""
        return self.start - CLOCK_SKEW

    @property
    def end(self) -> datetime.datetime:
        """notAfter."""
        return self.start + self.lifetime


def root(name: str, key: PrivateKey, validity: Validity, path_length: int) -> x509.Certificate:
    """A self-signed authority. path_length: how many authorities may stand below it."""
    subject = _subject(name)
    public = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = _authority(_builder(subject, subject, key, validity), key, path_length)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(public)
    return builder.add_extension(identifier, critical=False).sign(key, hashes.SHA256())


def intermediate(name: str, key: PrivateKey, signer: Signer, validity: Validity) -> x509.Certificate:
    """An authority below `signer` that signs leaves only."""
    builder = _authority(_builder(_subject(name), signer.certificate.subject, key, validity), key, 0)
    return _below(builder, signer.certificate).sign(signer.key, hashes.SHA256())


def leaf(
    names: Sequence[str], usage: x509.ObjectIdentifier, key: PrivateKey, signer: Signer, validity: Validity
) -> x509.Certificate:
    """A certificate for the DNS names, the first of which is also its common name where that is short enough."""
    short = len(names[0]) <= MAX_COMMON_NAME
    subject = _subject(names[0]) if short else x509.Name([])
    builder = _builder(subject, signer.certificate.subject, key, validity)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_key_usage(authority=False), True),
        (x509.ExtendedKeyUsage([usage]), False),
        (x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), not short),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return _below(builder, signer.certificate).sign(signer.key, hashes.SHA256())


def revocation_list(
    signer: Signer,
    revoked: Iterable[tuple[int, datetime.datetime, x509.ReasonFlags]],
    number: int,
    validity: Validity,
) -> x509.CertificateRevocationList:
    """The revocation list of `signer`. revoked: serial, time and reason; number: higher than in the list before."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(validity.begin)
        .next_update(validity.end)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_issuer_identifier(signer.certificate), critical=False)
    )
    for serial, when, reason in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when)
        if reason is not x509.ReasonFlags.unspecified:
            entry = entry.add_extension(x509.CRLReason(reason), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(signer.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PrivateKey, validity: Validity
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(validity.begin)
        .not_valid_after(validity.end)
    )


def _authority(
    builder: x509.CertificateBuilder, key: PrivateKey, path_length: int
) -> x509.CertificateBuilder:
    return (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _below(builder: x509.CertificateBuilder, issuer: x509.Certificate) -> x509.CertificateBuilder:
    return builder.add_extension(_issuer_identifier(issuer), critical=False)


def _issuer_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
