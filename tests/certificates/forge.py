"""Certificates and revocation lists with any fault, for the checks to find."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

NOW = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
SERVER = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@cache
def key(name: str, kind: str = "p256") -> Key:
    """A private key, the same one for the same name."""
    match kind:
        case "p256":
            return ec.generate_private_key(ec.SECP256R1())
        case "k256":
            return ec.generate_private_key(ec.SECP256K1())
        case "ed25519":
            return ed25519.Ed25519PrivateKey.generate()
        case "rsa1024":
            return rsa.generate_private_key(65537, 1024)  # noqa: S505
        case _:
            return rsa.generate_private_key(65537, 2048)


def key_pem(private: Key, passphrase: bytes | None = None) -> str:
    encryption = (
        serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    )
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return private.private_bytes(encoding, form, encryption).decode()


def pem(*items: x509.Certificate | x509.CertificateRevocationList) -> str:
    return "".join(item.public_bytes(serialization.Encoding.PEM).decode() for item in items)


@dataclass(frozen=True)
class Form:
    """The fields of a certificate; tests change one of them. issuer: None signs itself."""

    subject: str
    private: Key
    issuer: Form | None = None
    names: tuple[str, ...] = ()
    authority: bool | None = None
    path_length: int | None = None
    usages: frozenset[str] = frozenset()
    purposes: tuple[ObjectIdentifier, ...] = ()
    start: datetime.datetime = NOW - 100 * DAY
    end: datetime.datetime = NOW + 100 * DAY
    permitted: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    unknown: bool = False
    signed_by: Key | None = None
    serial: int = field(default_factory=x509.random_serial_number)

    def but(self, **changes: object) -> Form:
        """The same certificate with other fields."""
        return replace(self, **changes)  # type: ignore[arg-type]

    @property
    def name(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.subject)])

    def certificate(self, weak: str | None = None) -> x509.Certificate:
        """The certificate; weak: "sha1" or "md5", for a signature that only an RSA issuer can make."""
        issuer = self.issuer or self
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name)
            .public_key(self.private.public_key())
            .serial_number(self.serial)
            .not_valid_before(self.start)
            .not_valid_after(self.end)
        )
        if self.names:
            names = x509.SubjectAlternativeName([x509.DNSName(name) for name in self.names])
            builder = builder.add_extension(names, critical=False)
        if self.authority is not None:
            constraints = x509.BasicConstraints(self.authority, self.path_length)
            builder = builder.add_extension(constraints, critical=True)
        if self.usages:
            builder = builder.add_extension(_usage(self.usages), critical=True)
        if self.purposes:
            builder = builder.add_extension(x509.ExtendedKeyUsage(self.purposes), critical=False)
        if self.permitted or self.excluded:
            builder = builder.add_extension(_constraints(self.permitted, self.excluded), critical=True)
        if self.unknown:
            odd = x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")
            builder = builder.add_extension(odd, critical=True)
        signer = self.signed_by or issuer.private
        made = builder.sign(
            signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
        )
        return made if weak is None else _resigned(made, signer, weak)


def authority(subject: str, issuer: Form | None = None) -> Form:
    """An authority as it should be."""
    usages = frozenset({"key_cert_sign", "crl_sign"})
    return Form(subject, key(subject), issuer, authority=True, usages=usages)


def leaf(subject: str, issuer: Form, names: Iterable[str], *purposes: ObjectIdentifier) -> Form:
    """A certificate as it should be."""
    usages = frozenset({"digital_signature"})
    return Form(subject, key(subject), issuer, tuple(names), False, usages=usages, purposes=purposes)


def revocation_list(
    issuer: Form,
    *serials: int,
    start: datetime.datetime = NOW - 10 * DAY,
    end: datetime.datetime = NOW + 100 * DAY,
    signer: Key | None = None,
) -> x509.CertificateRevocationList:
    """A list of `issuer`, by default signed with its key."""
    builder = (
        x509.CertificateRevocationListBuilder().issuer_name(issuer.name).last_update(start).next_update(end)
    )
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(start)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(signer or issuer.private, hashes.SHA256())


def _constraints(permitted: tuple[str, ...], excluded: tuple[str, ...]) -> x509.NameConstraints:
    trees = [[x509.DNSName(name) for name in names] or None for names in (permitted, excluded)]
    return x509.NameConstraints(*trees)


def _usage(usages: frozenset[str]) -> x509.KeyUsage:
    every = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign "
        "crl_sign encipher_only decipher_only"
    )
    return x509.KeyUsage(**{name: name in usages for name in every.split()})


_RSA_HASHES = {"sha1": (5, hashes.SHA1()), "md5": (4, hashes.MD5())}  # noqa: S303
_PREFIX = bytes.fromhex("06092a864886f70d0101")


def _resigned(certificate: x509.Certificate, signer: Key, weak: str) -> x509.Certificate:
    """The same certificate, signed with a broken hash, which no library does any more. The identifiers of RSA's
    signature algorithms differ in their last byte alone (RFC 8017, appendix A.2.4)."""
    assert isinstance(signer, rsa.RSAPrivateKey)
    number, algorithm = _RSA_HASHES[weak]
    body = certificate.tbs_certificate_bytes.replace(_PREFIX + b"\x0b", _PREFIX + bytes([number]))
    signature = signer.sign(body, padding.PKCS1v15(), algorithm)
    identifier = _der(0x30, _PREFIX + bytes([number]) + b"\x05\x00")
    whole = _der(0x30, body + identifier + _der(0x03, b"\x00" + signature))
    return x509.load_der_x509_certificate(whole)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = bytes([size]) if size < 128 else bytes([0x82, *size.to_bytes(2, "big")])
    return bytes([tag]) + length + content
