"""The bundle's format, and what makes one acceptable.

The digest finds accidents. The signature proves that the bundle was made with the key of the provider's certificate, and
so says no more than that certificate: whoever makes up a CA can sign with it. Only a pin tells whose CA it is.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from pydantic import AwareDatetime, ValidationError

import certificates
from certificates import Expectation, Material, Severity, Usage
from config import ConfigError, ConsumerOutputs, Finding, ProviderOutputs
from config.errors import finding, show
from config.types import Model

FORMAT = "meshbridge-federation/1"
CLOCK_SKEW = datetime.timedelta(minutes=5)
SEALS = ("digest", "signature")
"""Keys that are no part of what is digested and signed."""

Party: TypeAlias = ProviderOutputs | ConsumerOutputs
Role: TypeAlias = Literal["provider", "consumer"]

_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


class Signature(Model):
    """A signature over the canonical JSON of the bundle without its seals."""

    algorithm: Literal["ecdsa-sha256", "rsa-pss-sha256"]
    """How it was made."""

    certificates: str
    """PEM of the certificate whose key made it, and its intermediates."""

    value: str
    """The signature, base64."""


class Bundle(Model):
    """What one organisation hands to another."""

    format: Literal["meshbridge-federation/1"]
    """Version of the format."""

    issued: AwareDatetime
    """When it was made."""

    expires: AwareDatetime
    """When it ends to be acceptable; the connections made with it do not end then."""

    provider: ProviderOutputs | None = None
    """A provider: the output `provider` of its stack."""

    consumer: ConsumerOutputs | None = None
    """A consumer: its id and CA. A bundle is either's."""

    digest: str
    """`sha256:` and the digest of the canonical JSON of the bundle without its seals."""

    signature: Signature | None = None
    """The signature of whoever hands it over; none where the key is not at hand."""

    @property
    def role(self) -> Role:
        """Which of the two it is of."""
        return "provider" if self.provider is not None else "consumer"

    @property
    def party(self) -> Party:
        """Whose it is. Raises ValueError when it is of nobody, which no verified bundle is."""
        found = self.provider or self.consumer
        if found is None:
            raise ValueError("the bundle was not verified")
        return found


@dataclass(frozen=True)
class Signer:
    """The certificate (with its intermediates) and key of whoever hands the bundle over, PEM."""

    certificate: str
    key: bytes


@dataclass(frozen=True)
class Pins:
    """What the reader knows by another way: the SHA-256 of the CA certificate, of the bundle, or both; and what it takes
    the other side to be."""

    ca_fingerprint: str | None = None
    digest: str | None = None
    id: str | None = None
    system_domain: str | None = None


def create(
    party: Party,
    source: str,
    now: datetime.datetime,
    lifetime: datetime.timedelta,
    signer: Signer | None = None,
) -> str:
    """A bundle of what a stack exports of its provider or consumer side, as JSON text.

    It ends after `lifetime`, or with the signer's certificate where that ends before. source: where the outputs come
    from, for messages. Raises ConfigError when they lack the CA certificate, or when the signer's certificate is not of
    that side: no reader would accept it.
    """
    role: Role = "provider" if isinstance(party, ProviderOutputs) else "consumer"
    if party.ca_certificate is None:
        rule = "is not exported, and without it the other side could check nobody"
        remedy = f"set `{role}.caCertificate` in that stack and deploy it"
        raise ConfigError([Finding(f"{role}.caCertificate", "null", rule, remedy)], source)
    content: dict[str, object] = {
        "format": FORMAT,
        "issued": _stamp(now),
        "expires": _stamp(_end(now + lifetime, signer)),
        role: party.model_dump(mode="json", by_alias=True),
    }
    signed = canonical(content)
    sealed = {**content, "digest": f"sha256:{hashlib.sha256(signed).hexdigest()}"}
    if signer is not None:
        algorithm, value = _sign(signer, signed)
        sealed["signature"] = {
            "algorithm": algorithm,
            "certificates": signer.certificate,
            "value": base64.b64encode(value).decode(),
        }
    text = json.dumps(sealed, indent=2, ensure_ascii=False) + "\n"
    verify(text, source, now, None)
    return text


def verify(text: str, source: str, now: datetime.datetime, pins: Pins | None) -> Bundle:
    """The bundle in a JSON text.

    pins: what it must agree with; None judges the bundle by itself, which says nothing about who made it. Raises
    ConfigError with everything that is wrong: it was changed or cut short, is expired, is not signed with the
    certificate of its side, or is not what was pinned.
    """
    content = _parsed(text, source)
    digest = f"sha256:{hashlib.sha256(canonical(content)).hexdigest()}"
    if content.get("format") == FORMAT and content.get("digest") != digest:
        rule = f"is not that of the contents ({digest}): they were changed after the bundle was made"
        raise ConfigError([_again("digest", content.get("digest"), rule)], source)
    try:
        bundle = Bundle.model_validate_json(text)
    except ValidationError as error:
        raise ConfigError([finding(e, Bundle, content) for e in error.errors()], source) from error
    if (bundle.provider is None) == (bundle.consumer is None):
        raise ConfigError([_again("provider, consumer", None, "must be there, one of the two")], source)
    findings = [
        *_time(bundle, now),
        *_signature(bundle, canonical(content), now, pins),
        *_pinned(bundle, pins),
    ]
    if findings:
        raise ConfigError(findings, source)
    return bundle


def canonical(content: Mapping[str, object]) -> bytes:
    """What is digested and signed: the JSON of all but the seals, keys sorted, without white space, in UTF-8 (RFC 8785,
    of which strings and whole numbers are used)."""
    rest = {key: value for key, value in content.items() if key not in SEALS}
    return json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _end(wanted: datetime.datetime, signer: Signer | None) -> datetime.datetime:
    if signer is None:
        return wanted
    try:
        chain = x509.load_pem_x509_certificates(signer.certificate.encode())
    except ValueError:
        return wanted  # The bundle is refused for it as soon as it is verified.
    return min(wanted, *(certificate.not_valid_after_utc for certificate in chain))


def _parsed(text: str, source: str) -> dict[str, object]:
    try:
        content = json.loads(text)
        canonical(content if isinstance(content, dict) else {})
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            [_again("bundle", text[:40], f"is no JSON, so it was cut short or changed ({error})")], source
        ) from error
    if not isinstance(content, dict):
        raise ConfigError([_again("bundle", content, "is no JSON object")], source)
    return content


def _time(bundle: Bundle, now: datetime.datetime) -> Iterator[Finding]:
    if now > bundle.expires:
        yield _again("expires", _shown(bundle.expires), "has passed")
    if now + CLOCK_SKEW < bundle.issued:
        yield _again("issued", _shown(bundle.issued), "lies in the future; is a clock wrong?")


def _signature(bundle: Bundle, signed: bytes, now: datetime.datetime, pins: Pins | None) -> Iterator[Finding]:
    """What is wrong with the signature and with the certificate that made it."""
    authorities = _authorities(bundle, pins)
    if authorities is None:
        return
    if bundle.signature is None:
        if pins is not None and pins.digest is None:
            yield _again(
                "signature", None, "is missing, so only the digest of the whole bundle could be pinned"
            )
        return
    usage = Usage.SERVER if bundle.role == "provider" else Usage.CLIENT
    expected = Expectation(bundle.party.id, usage, now, issuer=authorities, trust_elsewhere=True)
    material = Material(bundle.signature.certificates, None, None)
    problems = [p for p in certificates.check(material, expected) if p.severity is Severity.ERROR]
    for problem in problems:
        of_issuer = problem.key == "caCertificate"
        key = f"{bundle.role}.caCertificate" if of_issuer else "signature.certificates"
        yield Finding(key, problem.value, problem.rule, problem.remedy)
    if not problems and not _is_signed(bundle.signature, signed):
        yield _again(
            "signature.value", "[signature]", "was not made by the certificate beside it over these contents"
        )


def _authorities(bundle: Bundle, pins: Pins | None) -> str | None:
    """PEM of the authorities that may vouch for the signer: those that are pinned, else those of the bundle. None where
    the pinned one is not among them, or none can be read, which are findings of their own."""
    text = bundle.party.ca_certificate or ""
    try:
        loaded = x509.load_pem_x509_certificates(text.encode())
    except ValueError:
        return None
    if pins is None or pins.ca_fingerprint is None:
        return text
    pinned = [c for c in loaded if c.fingerprint(hashes.SHA256()).hex() == pins.ca_fingerprint]
    return "".join(c.public_bytes(serialization.Encoding.PEM).decode() for c in pinned) or None


def _pinned(bundle: Bundle, pins: Pins | None) -> Iterator[Finding]:
    party, role = bundle.party, bundle.role
    try:
        found = certificates.fingerprints(party.ca_certificate or "")
    except ValueError as error:
        yield _again(f"{role}.caCertificate", "[PEM]", f"holds no certificates ({error})")
        return
    if pins is None:
        return
    if pins.ca_fingerprint is not None and pins.ca_fingerprint not in found:
        rule = f"is not the pinned one ({pins.ca_fingerprint}): the bundle is of somebody else, or the CA was replaced"
        yield _ask(f"{role}.caCertificate", ", ".join(found), rule)
    if pins.digest is not None and bundle.digest.removeprefix("sha256:") != pins.digest:
        yield _ask("digest", bundle.digest, f"is not the pinned one ({pins.digest}): it is another bundle")
    system_domain = party.system_domain if isinstance(party, ProviderOutputs) else None
    for key, value, wanted in (
        (f"{role}.id", party.id, pins.id),
        (f"{role}.systemDomain", system_domain, pins.system_domain),
    ):
        if wanted is not None and value != wanted:
            yield _ask(key, value, f"is not {wanted!r}, as this stack expects")


def _sign(signer: Signer, content: bytes) -> tuple[str, bytes]:
    try:
        key = serialization.load_pem_private_key(signer.key, None)
    except (ValueError, TypeError):
        key = None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return "ecdsa-sha256", key.sign(content, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return "rsa-pss-sha256", key.sign(content, _PSS, hashes.SHA256())
    raise ConfigError(
        [
            Finding(
                "tls.key",
                "[hidden]",
                "is no EC or RSA key, or is encrypted",
                "sign with the key of the certificate beside it",
            )
        ],
        "the signer",
    )


def _is_signed(signature: Signature, content: bytes) -> bool:
    leaf = x509.load_pem_x509_certificates(signature.certificates.encode())[0].public_key()
    try:
        value = base64.b64decode(signature.value, validate=True)
        if isinstance(leaf, ec.EllipticCurvePublicKey) and signature.algorithm == "ecdsa-sha256":
            leaf.verify(value, content, ec.ECDSA(hashes.SHA256()))
            return True
        if isinstance(leaf, rsa.RSAPublicKey) and signature.algorithm == "rsa-pss-sha256":
            leaf.verify(value, content, _PSS, hashes.SHA256())
            return True
    except (InvalidSignature, binascii.Error):
        return False
    return False


def _again(key: str, value: object, rule: str) -> Finding:
    return Finding(key, show(value), rule, "ask for a new bundle (python -m pki bundle create)")


def _ask(key: str, value: str | None, rule: str) -> Finding:
    return Finding(
        key, show(value), rule, "ask the other side, by a way other than the bundle's, which one is right"
    )


def _shown(time: datetime.datetime) -> str:
    """A time as the bundle has it, which need not have one of the calendar's years in UTC."""
    return time.isoformat().replace("+00:00", "Z")


def _stamp(time: datetime.datetime) -> str:
    return time.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
