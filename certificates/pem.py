"""PEM text (RFC 7468) as certificates, keys and revocation lists, and what in it is none."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

T = TypeVar("T")
Fault: TypeAlias = tuple[str, str]
"""What stands there, and what is wrong with it."""

_BLOCK = re.compile(
    r"^-----BEGIN (?P<label>[A-Z0-9 ]+)-----[^\S\n]*\n(?:(?!-----).)*^-----END (?P=label)-----(?=[^\S\n]*$)",
    re.DOTALL | re.MULTILINE,
)
"""As BoringSSL, and so Envoy, finds them: with a first and a last line that begin at the left edge and stand alone."""


@dataclass(frozen=True)
class Blocks:
    """A text's blocks, each as label and PEM, and the faults between them."""

    blocks: tuple[tuple[str, str], ...]
    faults: tuple[Fault, ...]

    def labelled(self, wanted: str) -> list[str]:
        """The blocks with this label."""
        return [block for label, block in self.blocks if label == wanted]

    def others(self, wanted: str) -> list[str]:
        """The other labels, but for those of keys."""
        return [label for label, _ in self.blocks if label != wanted and not is_key(label)]


def split(text: str) -> Blocks:
    """The PEM blocks of a text. What stands between them is a comment, unless it is a piece of a block."""
    blocks = tuple((match["label"], match[0] + "\n") for match in _BLOCK.finditer(text))
    rest = _BLOCK.sub("", text)
    faults: list[Fault] = []
    if "-----BEGIN" in rest or "-----END" in rest:
        faults.append(
            ("a block", "lacks its first or last line, or these do not stand alone at the left edge")
        )
    elif not blocks:
        faults.append(("the text", "holds no PEM block" if text.strip() else "is missing or empty"))
    return Blocks(blocks, tuple(faults))


def is_key(label: str) -> bool:
    """Whether a block of this label is a private key."""
    return label.endswith("PRIVATE KEY")


def is_encrypted(label: str, block: str) -> bool:
    """Whether a private key needs a passphrase."""
    return label.startswith("ENCRYPTED") or "Proc-Type: 4,ENCRYPTED" in block


def certificates(text: str) -> tuple[list[x509.Certificate], list[Fault]]:
    """The certificates of a PEM text, and what is wrong with it."""
    return _load(text, "CERTIFICATE", "certificate", _certificate)


def revocation_lists(text: str) -> tuple[list[x509.CertificateRevocationList], list[Fault]]:
    """The revocation lists of a PEM text, and what is wrong with it."""
    return _load(text, "X509 CRL", "revocation list", x509.load_pem_x509_crl)


def private_key(text: str) -> tuple[PrivateKeyTypes | None, list[Fault]]:
    """The one private key of a PEM text, None where it is encrypted or there is none; and what is wrong with it."""
    found = split(text)
    keys = [(label, block) for label, block in found.blocks if is_key(label)]
    faults = list(found.faults)
    if len(keys) != 1:
        return None, faults or [(f"{len(keys)} private keys", "stand where one must be")]
    ((label, block),) = keys
    if is_encrypted(label, block):
        return None, faults
    try:
        return serialization.load_pem_private_key(block.encode(), None), faults
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None, [*faults, ("the private key", "cannot be read")]


def fingerprints(text: str) -> list[str]:
    """SHA-256 of each certificate of a PEM text, hexadecimal. Raises ValueError when it holds anything else."""
    loaded, faults = certificates(text)
    if faults:
        what, rule = faults[0]
        raise ValueError(f"{what} {rule}")
    return [certificate.fingerprint(hashes.SHA256()).hex() for certificate in loaded]


def _certificate(block: bytes) -> x509.Certificate:
    """A certificate, all of whose parts can be read. Raises ValueError."""
    certificate = x509.load_pem_x509_certificate(block)
    try:
        _ = certificate.extensions, certificate.public_key()
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    return certificate


def _load(text: str, label: str, what: str, load: Callable[[bytes], T]) -> tuple[list[T], list[Fault]]:
    found = split(text)
    faults = [*found.faults, *((f"a block {other!r}", f"is no {what}") for other in found.others(label))]
    if not found.labelled(label) and not faults:
        faults.append(("the text", f"holds no {what}"))
    loaded: list[T] = []
    for number, result in enumerate(_each(found.labelled(label), load), 1):
        if isinstance(result, ValueError):
            faults.append((f"{what} {number}", f"cannot be read ({result})"))
        else:
            loaded.append(result)
    return loaded, faults


def _each(blocks: list[str], load: Callable[[bytes], T]) -> Iterator[T | ValueError]:
    for block in blocks:
        try:
            yield load(block.encode())
        except ValueError as error:
            yield error
