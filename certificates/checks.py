"""The checks, by name. Each finds one kind of fault and is silent about what another one finds.

Sources: RFC 5280 (profile, path validation, revocation lists), RFC 9110 and 9525 (names), Istio's "Secure Gateways" (the
Secret's keys), and OpenSSL's rules for the purpose of a certificate, which Envoy applies: an extension for (extended) key
usage that is absent admits every use, one that is present must name the use.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from certificates import pem
from certificates.material import (
    CERTIFICATE,
    CRL,
    ISSUER,
    KEY,
    TRUST,
    Expectation,
    Material,
    Problem,
    Severity,
    Usage,
)

Found = Iterator[tuple[str, str, str, str]]
"""Key, value, rule and remedy."""

E = TypeVar("E", bound=x509.ExtensionType)

PURPOSES = {
    Usage.SERVER: (ExtendedKeyUsageOID.SERVER_AUTH, "serverAuth"),
    Usage.CLIENT: (ExtendedKeyUsageOID.CLIENT_AUTH, "clientAuth"),
}
ANY_PURPOSE = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
MIN_RSA_BITS = 2048
BROKEN_HASHES = (hashes.MD5, hashes.SHA1)
WARNINGS = frozenset({"expires-soon", "peers-expired", "crl-issuer", "crl-expires-soon", "crl-unused"})


@dataclass(frozen=True)
class Subject:
    """The material, as far as it can be read, and what is expected of it."""

    material: Material
    expected: Expectation

    @cached_property
    def sent(self) -> list[x509.Certificate]:
        """The certificates that the gateway sends."""
        return pem.certificates(self.material.certificate)[0]

    @cached_property
    def key(self) -> PrivateKeyTypes | None:
        """The private key."""
        return pem.private_key(self.material.key)[0] if self.material.key is not None else None

    @cached_property
    def trusted(self) -> list[x509.Certificate]:
        """The authorities of the peers."""
        return pem.certificates(self.material.trust)[0] if self.material.trust is not None else []

    @cached_property
    def issuers(self) -> list[x509.Certificate]:
        """The authorities that may have signed the certificate."""
        if self.expected.issuer is not None:
            return pem.certificates(self.expected.issuer)[0]
        return self.trusted

    @cached_property
    def lists(self) -> list[x509.CertificateRevocationList]:
        """The revocation lists."""
        return pem.revocation_lists(self.material.crl)[0] if self.material.crl is not None else []

    @property
    def readable(self) -> bool:
        """Whether nothing that a chain is made of is hidden behind a fault of syntax."""
        texts = (self.material.certificate, self.expected.issuer or self.material.trust)
        return not any(pem.certificates(text)[1] for text in texts if text is not None)

    @cached_property
    def leaf(self) -> x509.Certificate | None:
        """The gateway's own certificate: the one that its key belongs to, else the first; None where neither can be
        read."""
        own = (c for c in self.sent if self.key is not None and c.public_key() == self.key.public_key())
        readable = not pem.certificates(self.material.certificate)[1]
        return next(own, self.sent[0] if readable else None)

    @property
    def intermediates(self) -> list[x509.Certificate]:
        """What is sent beside the gateway's own certificate."""
        return [certificate for certificate in self.sent if certificate != self.leaf]

    @cached_property
    def path(self) -> list[x509.Certificate] | None:
        """From the leaf to a trusted authority, by names and signatures; None where there is no such way."""
        return _path([self.leaf], self.intermediates, self.issuers) if self.leaf is not None else None

    @property
    def list_issuers(self) -> list[x509.Certificate]:
        """Whose revocation lists can be judged: the trusted authorities, and the intermediates that are sent."""
        return [*self.trusted, *self.intermediates]

    @property
    def expired_peers(self) -> list[x509.Certificate]:
        """Trusted authorities that ended and vouch for peers alone, as long as there is another that has not."""
        ended = [c for c in self.trusted if self.expected.now > c.not_valid_after_utc]
        others = len(set(ended)) < len(set(self.trusted))
        return [c for c in ended if c not in (self.path or ())] if others else []

    def everything(self) -> Iterator[tuple[str, x509.Certificate]]:
        """Every certificate with the key that it stands under."""
        yield from ((CERTIFICATE, certificate) for certificate in self.sent)
        yield from self.authorities()

    def authorities(self) -> Iterator[tuple[str, x509.Certificate]]:
        """Every trusted authority with the key that it stands under."""
        yield from ((TRUST, certificate) for certificate in self.trusted)
        if self.expected.issuer is not None:
            yield from (
                (ISSUER, certificate) for certificate in self.issuers if certificate not in self.trusted
            )


def check(
    material: Material, expected: Expectation, *, disabled: Collection[str] = frozenset()
) -> list[Problem]:
    """Every problem of the material, in the order of the checks. disabled: names of checks that are left out."""
    subject = Subject(material, expected)
    return [
        Problem(name, *found, severity=Severity.WARNING if name in WARNINGS else Severity.ERROR)
        for name, run in CHECKS.items()
        if name not in disabled
        for found in run(subject)
    ]


def check_trust(
    trust: str, crl: str | None, now: datetime.datetime, warning: datetime.timedelta
) -> list[Problem]:
    """Every problem of authorities and their revocation lists, PEM, that stand without a certificate of one's own."""
    nobody = Expectation("", Usage.CLIENT, now, warning=warning)
    found = check(Material("", None, trust, crl), nobody)
    return [problem for problem in found if problem.key in {TRUST, CRL}]


def _syntax(subject: Subject) -> Found:
    material, issuer = subject.material, subject.expected.issuer
    texts: list[tuple[str, list[pem.Fault]]] = [
        (CERTIFICATE, pem.certificates(material.certificate)[1]),
        (KEY, pem.private_key(material.key)[1] if material.key is not None else []),
        (TRUST, pem.certificates(material.trust)[1] if material.trust is not None else []),
        (CRL, pem.revocation_lists(material.crl)[1] if material.crl is not None else []),
        (ISSUER, pem.certificates(issuer)[1] if issuer is not None else []),
    ]
    for key, faults in texts:
        for value, rule in faults:
            yield key, value, rule, "give the whole PEM text, from '-----BEGIN' to the last '-----'"


def _trust(subject: Subject) -> Found:
    if subject.material.trust is None and not subject.expected.trust_elsewhere:
        yield (
            TRUST,
            "null",
            "is missing, so the gateway could not check its peers and would refuse them all",
            "add the certificates of the authorities that sign the peers' certificates",
        )


def _stray_key(subject: Subject) -> Found:
    material = subject.material
    texts = {CERTIFICATE: material.certificate, TRUST: material.trust, CRL: material.crl}
    for key, text in texts.items():
        if any(pem.is_key(label) for label, _ in pem.split(text or "").blocks):
            yield (
                key,
                "a private key",
                "stands among what is handed out to others",
                f"keep it in {KEY} alone, and replace it if this was shown to anyone",
            )


def _encrypted_key(subject: Subject) -> Found:
    if any(pem.is_encrypted(*block) for block in pem.split(subject.material.key or "").blocks):
        yield (
            KEY,
            "the private key",
            "is encrypted, and no gateway knows its passphrase",
            "decrypt it: openssl pkey -in ENCRYPTED -out tls.key",
        )


def _key_match(subject: Subject) -> Found:
    if (
        subject.key is not None
        and subject.leaf is not None
        and subject.leaf.public_key() != subject.key.public_key()
    ):
        yield (
            KEY,
            "the private key",
            f"does not belong to {named(subject.leaf)}",
            "give the key that this certificate was made for",
        )


def _order(subject: Subject) -> Found:
    chain = list(dict.fromkeys(subject.sent))
    if subject.leaf is not None and subject.leaf != chain[0]:
        yield (
            CERTIFICATE,
            named(chain[0]),
            f"stands before the gateway's own certificate {named(subject.leaf)}",
            "put the own certificate first, then each certificate's issuer",
        )
        return
    for before, after in itertools.pairwise(chain):
        if before.issuer != after.subject:
            yield (
                CERTIFICATE,
                named(after),
                f"stands behind {named(before)}, which it did not sign",
                "put each certificate's issuer behind it, and nothing else",
            )


def _duplicates(subject: Subject) -> Found:
    for key, certificates in ((CERTIFICATE, subject.sent), (TRUST, subject.trusted)):
        for certificate in dict.fromkeys(certificates):
            if certificates.count(certificate) > 1:
                yield key, named(certificate), "stands there more than once", "keep it once"


def _name(subject: Subject) -> Found:
    if subject.leaf is None:
        return
    wanted, extension = subject.expected.name, extension_of(subject.leaf, x509.SubjectAlternativeName)
    names = extension.get_values_for_type(x509.DNSName) if extension is not None else []
    if wanted.lower() in (name.lower() for name in names):
        return
    _, _, parent = wanted.partition(".")
    wildcards = {f"*.{wanted}", f"*.{parent}"} & {name.lower() for name in names}
    if wildcards:
        wildcard = min(wildcards)
        rule = (
            f"lacks {wanted!r} itself: the wildcard {wildcard!r} does not count, names are compared literally"
        )
    elif not names:
        rule = f"lacks {wanted!r}: it has no DNS names at all, and a common name does not count"
    else:
        rule = f"lacks {wanted!r}"
    yield (
        CERTIFICATE,
        ", ".join(names) or named(subject.leaf),
        rule,
        "have it issued with this DNS name (subjectAltName)",
    )


def _leaf_authority(subject: Subject) -> Found:
    if subject.leaf is not None and _is_authority(subject.leaf):
        yield (
            CERTIFICATE,
            named(subject.leaf),
            "is an authority: whoever holds its key could issue certificates for any name",
            "have a certificate issued that is none (basicConstraints CA:FALSE)",
        )


def _key_usage(subject: Subject) -> Found:
    usage = extension_of(subject.leaf, x509.KeyUsage)
    if usage is not None and not usage.digital_signature:
        yield (
            CERTIFICATE,
            named(subject.leaf),
            "may not sign handshakes: its key usage lacks digitalSignature",
            "have it issued with keyUsage digitalSignature",
        )


def _extended_key_usage(subject: Subject) -> Found:
    wanted, name = PURPOSES[subject.expected.usage]
    usage = extension_of(subject.leaf, x509.ExtendedKeyUsage)
    if usage is not None and wanted not in usage:
        yield (
            CERTIFICATE,
            named(subject.leaf),
            f"may not be used by a {subject.expected.usage.value}: its extended key usage lacks {name}",
            f"have it issued with extendedKeyUsage {name}",
        )


def _critical(subject: Subject) -> Found:
    for key, certificate in subject.everything():
        for extension in certificate.extensions:
            if extension.critical and isinstance(extension.value, x509.UnrecognizedExtension):
                yield (
                    key,
                    named(certificate),
                    f"has a critical extension that gateways do not know ({extension.oid.dotted_string})",
                    "have it issued without this extension",
                )


def _chain(subject: Subject) -> Found:
    if not subject.readable or subject.leaf is None or not subject.issuers or subject.path is not None:
        return
    where = ISSUER if subject.expected.issuer is not None else TRUST
    issuer = subject.leaf.issuer.rfc4514_string()
    yield (
        CERTIFICATE,
        named(subject.leaf),
        f"does not lead to an authority in {where} ({_list(subject.issuers)}); its issuer is {issuer!r}",
        f"append the missing intermediates; or, if its authority is not its peers' one, name it in {ISSUER}",
    )


def _name_constraints(subject: Subject) -> Found:
    """RFC 5280, 4.2.1.10, for DNS names, which are the only names that gateways compare."""
    extension = extension_of(subject.leaf, x509.SubjectAlternativeName)
    names = extension.get_values_for_type(x509.DNSName) if extension is not None else []
    for certificate in (subject.path or [])[1:]:
        constraints = extension_of(certificate, x509.NameConstraints)
        if constraints is None:
            continue
        permitted = _dns_names(constraints.permitted_subtrees)
        excluded = _dns_names(constraints.excluded_subtrees)
        refused = [
            name
            for name in names
            if (permitted and not _is_within(name, permitted)) or _is_within(name, excluded)
        ]
        if refused:
            allowed = f"{', '.join(permitted) or 'every name'}, but for {', '.join(excluded) or 'none'}"
            yield (
                CERTIFICATE,
                named(certificate),
                f"may not vouch for {', '.join(refused)}: its name constraints permit {allowed}",
                "have the certificate issued by an authority that may, or without these names",
            )


def _authority_usage(subject: Subject) -> Found:
    """An authority that names extended key usages passes no others on."""
    wanted, name = PURPOSES[subject.expected.usage]
    for certificate in (subject.path or [])[1:]:
        usage = extension_of(certificate, x509.ExtendedKeyUsage)
        if usage is not None and wanted not in usage and ANY_PURPOSE not in usage:
            yield (
                CERTIFICATE,
                named(certificate),
                f"may not vouch for a {subject.expected.usage.value}: its extended key usage lacks {name}",
                f"have the certificate issued by an authority with extendedKeyUsage {name}, or with none",
            )


def _path_length(subject: Subject) -> Found:
    for below, certificate in enumerate((subject.path or [])[1:]):
        constraints = extension_of(certificate, x509.BasicConstraints)
        allowed = constraints.path_length if constraints is not None else None
        if allowed is not None and below > allowed:
            yield (
                CERTIFICATE,
                named(certificate),
                f"admits {allowed} authorities below it, {below} are there",
                "have the certificate issued by an authority that may",
            )


def _authority(subject: Subject) -> Found:
    signers = [(CERTIFICATE, certificate) for certificate in dict.fromkeys(subject.intermediates)]
    for key, certificate in [*signers, *dict.fromkeys(subject.authorities())]:
        usage = extension_of(certificate, x509.KeyUsage)
        if not _is_authority(certificate):
            rule = "is no authority (basicConstraints CA:TRUE is missing), so it vouches for nobody"
        elif usage is not None and not usage.key_cert_sign:
            rule = "may not sign certificates: its key usage lacks keyCertSign"
        else:
            continue
        yield key, named(certificate), rule, "put the certificate of the authority itself here"


def _not_yet_valid(subject: Subject) -> Found:
    now = subject.expected.now
    for key, certificate in _once(subject.everything()):
        if now < certificate.not_valid_before_utc:
            yield (
                key,
                named(certificate),
                f"is valid only from {certificate.not_valid_before_utc:%F %T} UTC on",
                "wait until then, or correct the clock of this machine or of its issuer",
            )


def _expired(subject: Subject) -> Found:
    now, of_peers = subject.expected.now, subject.expired_peers
    for key, certificate in _once(subject.everything()):
        if now > certificate.not_valid_after_utc and certificate not in of_peers:
            yield (
                key,
                named(certificate),
                f"expired at {certificate.not_valid_after_utc:%F %T} UTC",
                "renew it" if key == CERTIFICATE else "replace it by the authority's present certificate",
            )


def _peers_expired(subject: Subject) -> Found:
    for certificate in dict.fromkeys(subject.expired_peers):
        yield (
            TRUST,
            named(certificate),
            f"expired at {certificate.not_valid_after_utc:%F %T} UTC; whom it signed is refused",
            "replace it by the authority's present certificate, or take it out",
        )


def _expires_soon(subject: Subject) -> Found:
    now, warning = subject.expected.now, subject.expected.warning
    for key, certificate in _once(subject.everything()):
        left = certificate.not_valid_after_utc - now
        if now <= certificate.not_valid_after_utc and left < warning:
            yield (
                key,
                named(certificate),
                f"expires at {certificate.not_valid_after_utc:%F %T} UTC, in {left.days} days",
                "renew it before then",
            )


def _key_strength(subject: Subject) -> Found:
    for key, certificate in _once(subject.everything()):
        public = certificate.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            if public.key_size >= MIN_RSA_BITS:
                continue
            what = f"RSA key of {public.key_size} bits"
        elif isinstance(public, ec.EllipticCurvePublicKey):
            if isinstance(public.curve, CURVES):
                continue
            what = f"key on the curve {public.curve.name}"
        else:
            what = f"key of the type {type(public).__name__.removesuffix('PublicKey')}"
        yield (
            key,
            named(certificate),
            f"has a {what}, which is too weak or unknown to gateways",
            f"use ECDSA on P-256, P-384 or P-521, or RSA of at least {MIN_RSA_BITS} bits",
        )


def _signature_hash(subject: Subject) -> Found:
    for key, certificate in _once(subject.everything()):
        used = _hash(certificate)
        if isinstance(used, BROKEN_HASHES) and certificate.subject != certificate.issuer:
            yield (
                key,
                named(certificate),
                f"is signed with {used.name.upper()}, which can be forged",
                "have it issued with SHA-256 or better",
            )


def _crl_issuer(subject: Subject) -> Found:
    for revoked in subject.lists:
        if subject.trusted and not _issuers_of(revoked, subject.list_issuers):
            yield (
                CRL,
                _list_of(revoked),
                f"is of no authority in {TRUST} ({_list(subject.trusted)}), so that its signature cannot be judged here",
                "leave it there only if peers send the certificate of this authority as an intermediate",
            )


def _crl_signature(subject: Subject) -> Found:
    for revoked in subject.lists:
        issuers = _issuers_of(revoked, subject.list_issuers)
        if issuers and not any(_signed_list(revoked, issuer) for issuer in issuers):
            yield (
                CRL,
                _list_of(revoked),
                f"is not signed by the authority in {TRUST} or {CERTIFICATE} whose name it bears",
                "fetch it from the authority again",
            )


def _crl_signer(subject: Subject) -> Found:
    for revoked in subject.lists:
        for issuer in dict.fromkeys(_issuers_of(revoked, subject.list_issuers)):
            usage = extension_of(issuer, x509.KeyUsage)
            if usage is not None and not usage.crl_sign and _signed_list(revoked, issuer):
                yield (
                    CRL,
                    _list_of(revoked),
                    "is of an authority that may sign none: its key usage lacks cRLSign; the gateway would refuse everyone",
                    "remove the lists, or have the authority's certificate issued with keyUsage cRLSign",
                )


def _crl_expired(subject: Subject) -> Found:
    for revoked in subject.lists:
        end = revoked.next_update_utc
        if end is not None and subject.expected.now > end:
            yield (
                CRL,
                _list_of(revoked),
                f"expired at {end:%F %T} UTC; the gateway would refuse everyone",
                "fetch the present one from the authority",
            )


def _crl_expires_soon(subject: Subject) -> Found:
    for revoked in subject.lists:
        end = revoked.next_update_utc
        left = end - subject.expected.now if end is not None else None
        if left is not None and datetime.timedelta() <= left < subject.expected.warning:
            yield (
                CRL,
                _list_of(revoked),
                f"expires at {end:%F %T} UTC, in {left.days} days; the gateway then refuses everyone",
                "deploy a newer one before then",
            )


def _crl_not_yet_valid(subject: Subject) -> Found:
    for revoked in subject.lists:
        if subject.expected.now < revoked.last_update_utc:
            yield (
                CRL,
                _list_of(revoked),
                f"is valid only from {revoked.last_update_utc:%F %T} UTC on; the gateway would refuse everyone",
                "wait until then, or correct the clock of this machine or of its issuer",
            )


def _crl_coverage(subject: Subject) -> Found:
    for certificate in dict.fromkeys(subject.trusted) if subject.lists else ():
        if not any(revoked.issuer == certificate.subject for revoked in subject.lists):
            yield (
                CRL,
                f"{len(subject.lists)} lists",
                f"hold none of {named(certificate)}; the gateway would refuse everyone whom it signed",
                f"append its list, or take it out of {TRUST}",
            )


def _crl_unused(subject: Subject) -> Found:
    if subject.expected.trust_elsewhere and subject.lists:
        yield (
            CRL,
            f"{len(subject.lists)} lists",
            f"are never read, since another Secret brings the authorities and wins over {TRUST}",
            f"let {TRUST} name the authorities where revocation is to count",
        )


def _revoked(subject: Subject) -> Found:
    leaf = subject.leaf
    for revoked in subject.lists if leaf is not None else ():
        if leaf is None or revoked.issuer != leaf.issuer:
            continue
        entry = revoked.get_revoked_certificate_by_serial_number(leaf.serial_number)
        if entry is not None:
            yield (
                CERTIFICATE,
                named(leaf),
                f"was revoked at {entry.revocation_date_utc:%F %T} UTC",
                "have a new one issued",
            )


CHECKS: Mapping[str, Callable[[Subject], Found]] = {
    "pem-syntax": _syntax,
    "trust-missing": _trust,
    "stray-key": _stray_key,
    "key-encrypted": _encrypted_key,
    "key-match": _key_match,
    "order": _order,
    "duplicates": _duplicates,
    "name": _name,
    "leaf-authority": _leaf_authority,
    "key-usage": _key_usage,
    "extended-key-usage": _extended_key_usage,
    "critical-extension": _critical,
    "chain": _chain,
    "name-constraints": _name_constraints,
    "authority-usage": _authority_usage,
    "path-length": _path_length,
    "authority": _authority,
    "not-yet-valid": _not_yet_valid,
    "expired": _expired,
    "peers-expired": _peers_expired,
    "expires-soon": _expires_soon,
    "key-strength": _key_strength,
    "signature-hash": _signature_hash,
    "crl-issuer": _crl_issuer,
    "crl-signature": _crl_signature,
    "crl-signer": _crl_signer,
    "crl-expired": _crl_expired,
    "crl-expires-soon": _crl_expires_soon,
    "crl-not-yet-valid": _crl_not_yet_valid,
    "crl-coverage": _crl_coverage,
    "crl-unused": _crl_unused,
    "revoked": _revoked,
}
"""The checks by name, in the order in which they are reported."""


def own_authority(material: Material, expected: Expectation) -> tuple[str, list[str]] | None:
    """PEM of the authority to which the certificate leads, and the names of those beside it in `ca.crt`, of which nothing
    tells whether they are this side's. None where it leads to none."""
    subject = Subject(material, expected)
    if subject.path is None:
        return None
    anchor = subject.path[-1]
    others = [c.subject.rfc4514_string() for c in dict.fromkeys(subject.trusted) if c != anchor]
    return anchor.public_bytes(serialization.Encoding.PEM).decode(), others


def _path(
    path: list[x509.Certificate], candidates: Sequence[x509.Certificate], anchors: Sequence[x509.Certificate]
) -> list[x509.Certificate] | None:
    last = path[-1]
    if last in anchors:
        return path
    for anchor in anchors:
        if _signed(last, anchor):
            return [*path, anchor]
    for candidate in candidates:
        if candidate not in path and _signed(last, candidate):
            found = _path([*path, candidate], candidates, anchors)
            if found is not None:
                return found
    return None


def _signed(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    if isinstance(_hash(certificate), BROKEN_HASHES):
        return (
            certificate.issuer == issuer.subject
        )  # Its signature proves nothing, which is a finding of its own.
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        return False
    return True


def _signed_list(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    return isinstance(key, (ec.EllipticCurvePublicKey, rsa.RSAPublicKey)) and revoked.is_signature_valid(key)


def _issuers_of(
    revoked: x509.CertificateRevocationList, authorities: Iterable[x509.Certificate]
) -> list[x509.Certificate]:
    return [certificate for certificate in authorities if certificate.subject == revoked.issuer]


def extension_of(certificate: x509.Certificate | None, kind: type[E]) -> E | None:
    """The extension of a kind, None where there is none."""
    if certificate is None:
        return None
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _dns_names(subtrees: Iterable[x509.GeneralName] | None) -> list[str]:
    return [name.value.lower() for name in subtrees or () if isinstance(name, x509.DNSName)]


def _is_within(name: str, subtrees: Iterable[str]) -> bool:
    """Whether a name lies in one of the subtrees: at or below it, below it where it begins with a dot, and anywhere where
    it is empty (as BoringSSL compares them)."""
    lower = name.lower()
    return any(
        not tree or lower == tree or lower.endswith(tree if tree.startswith(".") else f".{tree}")
        for tree in subtrees
    )


def _is_authority(certificate: x509.Certificate) -> bool:
    constraints = extension_of(certificate, x509.BasicConstraints)
    return constraints is not None and constraints.ca


def _hash(certificate: x509.Certificate) -> hashes.HashAlgorithm | None:
    try:
        return certificate.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None


def _once(
    certificates: Iterable[tuple[str, x509.Certificate]],
) -> Iterable[tuple[str, x509.Certificate]]:
    return dict.fromkeys(certificates)


def named(certificate: x509.Certificate | None) -> str:
    """A certificate as messages name it."""
    if certificate is None:
        return "none"
    subject = certificate.subject.rfc4514_string() or "no subject"
    return f"{subject!r} (serial {certificate.serial_number:x})"


def _list(certificates: Iterable[x509.Certificate]) -> str:
    return ", ".join(repr(certificate.subject.rfc4514_string()) for certificate in certificates)


def _list_of(revoked: x509.CertificateRevocationList) -> str:
    return f"the list of {revoked.issuer.rfc4514_string()!r}"
