"""A good Secret, and what is wrong in one way each: the check that must find it, and nothing else may."""

from __future__ import annotations

from dataclasses import dataclass, replace
from textwrap import indent

from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from certificates import Expectation, Material, Usage
from tests.certificates.forge import (
    CLIENT,
    DAY,
    NOW,
    SERVER,
    Form,
    authority,
    key,
    key_pem,
    leaf,
    pem,
    revocation_list,
)

PROVIDER = "istio.data.example"

ROOT = authority("root")
MIDDLE = authority("middle", ROOT)
OTHER = authority("other")
RSA_ROOT = authority("rsa-root").but(private=key("rsa-root", "rsa2048"))
LEAF = leaf(PROVIDER, MIDDLE, (PROVIDER, f"*.{PROVIDER}"), SERVER)
LIST = revocation_list(ROOT)

EXPECTED = Expectation(PROVIDER, Usage.SERVER, NOW)


@dataclass(frozen=True)
class Case:
    """A Secret, what is expected of it, and the check that finds its fault."""

    check: str
    material: Material
    expected: Expectation = EXPECTED
    says: str = ""


def good(form: Form = LEAF, middle: Form = MIDDLE, root: Form = ROOT) -> Material:
    """A Secret as it should be, but for the given certificates."""
    form = form.but(issuer=middle) if form.issuer is MIDDLE else form
    return Material(
        certificate=pem(form.certificate(), middle.certificate()),
        key=key_pem(form.private),
        trust=pem(root.certificate()),
    )


def direct(form: Form, root: Form = ROOT, *, weak: str | None = None) -> Material:
    """A Secret whose certificate the root signed itself."""
    made = form.but(issuer=root).certificate(weak)
    return Material(pem(made), key_pem(form.private), pem(root.certificate()))


def with_list(text: str) -> Material:
    return replace(good(), crl=text)


def _cases() -> dict[str, Case]:
    base, key_text = good(), key_pem(LEAF.private)
    first, second = (
        block + "-----END CERTIFICATE-----\n"
        for block in base.certificate.split("-----END CERTIFICATE-----\n")[:2]
    )
    stranger = OTHER.certificate()
    edge = base.certificate.index("-----END") - 40
    expired = {"start": NOW - 200 * DAY, "end": NOW - DAY}
    future = {"start": NOW + DAY, "end": NOW + 90 * DAY}
    client = leaf("c", MIDDLE, (PROVIDER,), CLIENT)
    root_zero = ROOT.but(path_length=0)
    cases: dict[str, Case] = {
        "the certificate is cut short": Case("pem-syntax", replace(base, certificate=base.certificate[:-20])),
        "the certificate is not base 64 of one": Case(
            "pem-syntax", replace(base, certificate=base.certificate[: edge - 8] + base.certificate[edge:])
        ),
        "tls.crt is indented": Case(
            "pem-syntax", replace(base, certificate=indent(base.certificate, "  ")), says="left edge"
        ),
        "tls.crt is folded into one line": Case(
            "pem-syntax", replace(base, certificate=base.certificate.replace("\n", " ")), says="left edge"
        ),
        "tls.crt begins with a byte order mark": Case(
            "pem-syntax", replace(base, certificate="\ufeff" + base.certificate), says="left edge"
        ),
        "two certificates were joined in one line": Case(
            "pem-syntax", replace(base, certificate=first.rstrip() + second), says="left edge"
        ),
        "ca.crt holds a request": Case(
            "pem-syntax",
            replace(base, trust=(base.trust or "") + second.replace("CERTIFICATE-", "CERTIFICATE REQUEST-")),
        ),
        "ca.crl is a certificate": Case("pem-syntax", with_list(first)),
        "tls.crt is empty": Case("pem-syntax", replace(base, certificate="")),
        "ca.crl is empty": Case("pem-syntax", with_list("")),
        "tls.key is empty": Case("pem-syntax", replace(base, key="")),
        "tls.key holds two keys": Case("pem-syntax", replace(base, key=key_text * 2)),
        "tls.key is not a key": Case(
            "pem-syntax", replace(base, key="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
        ),
        "ca.crt is missing": Case(
            "trust-missing", replace(base, trust=None), replace(EXPECTED, issuer=base.trust)
        ),
        "tls.crt holds the key": Case("stray-key", replace(base, certificate=base.certificate + key_text)),
        "ca.crt holds the key": Case("stray-key", replace(base, trust=(base.trust or "") + key_text)),
        "the key is encrypted": Case("key-encrypted", replace(base, key=key_pem(LEAF.private, b"secret"))),
        "the key is encrypted as OpenSSL once did": Case(
            "key-encrypted",
            replace(
                base,
                key=LEAF.private.private_bytes(
                    Encoding.PEM, PrivateFormat.TraditionalOpenSSL, BestAvailableEncryption(b"secret")
                ).decode(),
            ),
        ),
        "the key is another one's": Case("key-match", replace(base, key=key_pem(OTHER.private))),
        "the intermediate comes first": Case("order", replace(base, certificate=second + first)),
        "a stranger is sent along": Case(
            "order", replace(base, certificate=base.certificate + pem(stranger)), says="did not sign"
        ),
        "the certificate stands twice": Case("duplicates", replace(base, certificate=first + first + second)),
        "an authority stands twice": Case("duplicates", replace(base, trust=(base.trust or "") * 2)),
        "only a wildcard below the id": Case(
            "name", good(LEAF.but(names=(f"*.{PROVIDER}",))), says="literally"
        ),
        "only a wildcard that would cover the id": Case(
            "name", good(LEAF.but(names=("*.data.example",))), says="literally"
        ),
        "another's name": Case("name", good(LEAF.but(names=("istio.mail.example",)))),
        "a longer name": Case("name", good(LEAF.but(names=(f"x.{PROVIDER}",)))),
        "only a common name": Case("name", good(LEAF.but(names=())), says="common name"),
        "the certificate is an authority": Case("leaf-authority", good(LEAF.but(authority=True))),
        "the key may only encipher": Case(
            "key-usage", good(LEAF.but(usages=frozenset({"key_encipherment"})))
        ),
        "a client's certificate for a server": Case("extended-key-usage", good(client), says="serverAuth"),
        "a server's certificate for a client": Case(
            "extended-key-usage", base, replace(EXPECTED, usage=Usage.CLIENT), says="clientAuth"
        ),
        "an unknown critical extension": Case("critical-extension", good(LEAF.but(unknown=True))),
        "the intermediate is missing": Case("chain", replace(base, certificate=first), says="'CN=middle'"),
        "another authority's": Case("chain", replace(base, trust=pem(stranger))),
        "an authority of the same name": Case(
            "chain", replace(base, trust=pem(ROOT.but(private=OTHER.private).certificate()))
        ),
        "a forged signature": Case(
            "chain", replace(base, certificate=pem(LEAF.but(signed_by=OTHER.private).certificate()) + second)
        ),
        "ca.crt is of the peers only": Case(
            "chain", base, replace(EXPECTED, issuer=pem(stranger)), says="caCertificate"
        ),
        "an intermediate below an authority that admits none": Case(
            "path-length", good(LEAF, MIDDLE.but(issuer=root_zero), root_zero)
        ),
        "a name that the authority may not vouch for": Case(
            "name-constraints",
            good(LEAF, MIDDLE.but(permitted=("mail.example",))),
            says="permit mail.example",
        ),
        "a name that the root excludes": Case(
            "name-constraints", good(LEAF, MIDDLE, ROOT.but(excluded=("data.example",)))
        ),
        "only names below those that the authority may vouch for": Case(
            "name-constraints", good(LEAF, MIDDLE.but(permitted=(f".{PROVIDER}",)))
        ),
        "an intermediate for clients alone": Case(
            "authority-usage", good(LEAF, MIDDLE.but(purposes=(CLIENT,))), says="lacks serverAuth"
        ),
        "a certificate as the authority": Case(
            "authority", direct(LEAF, ROOT.but(authority=None, usages=frozenset()))
        ),
        "an authority that may only sign lists": Case(
            "authority", good(LEAF, MIDDLE.but(usages=frozenset({"crl_sign"})))
        ),
        "valid from tomorrow on": Case("not-yet-valid", good(LEAF.but(**future))),
        "expired yesterday": Case("expired", good(LEAF.but(**expired))),
        "the intermediate expired": Case("expired", good(LEAF, MIDDLE.but(**expired))),
        "the authority expired": Case("expired", good(LEAF, MIDDLE, ROOT.but(**expired))),
        "all authorities of the peers expired": Case(
            "expired",
            replace(base, trust=pem(OTHER.but(**expired).certificate())),
            replace(EXPECTED, issuer=base.trust),
        ),
        "an old authority beside the new one": Case(
            "peers-expired", replace(base, trust=(base.trust or "") + pem(OTHER.but(**expired).certificate()))
        ),
        "it ends within the warning days": Case(
            "expires-soon", good(LEAF.but(end=NOW + 29 * DAY)), says="in 29 days"
        ),
        "RSA of 1024 bits": Case("key-strength", good(LEAF.but(private=key("weak", "rsa1024")))),
        "a curve that gateways do not know": Case("key-strength", good(LEAF.but(private=key("odd", "k256")))),
        "Ed25519": Case("key-strength", good(LEAF.but(private=key("edwards", "ed25519")))),
        "signed with SHA-1": Case("signature-hash", direct(LEAF, RSA_ROOT, weak="sha1")),
        "signed with MD5": Case("signature-hash", direct(LEAF, RSA_ROOT, weak="md5")),
        "a list of a stranger": Case("crl-issuer", with_list(pem(LIST, revocation_list(OTHER)))),
        "a list that another one signed": Case(
            "crl-signature", with_list(pem(revocation_list(ROOT, signer=OTHER.private)))
        ),
        "an intermediate's list that another one signed": Case(
            "crl-signature", with_list(pem(LIST, revocation_list(MIDDLE, signer=OTHER.private)))
        ),
        "a list of an authority that may sign none": Case(
            "crl-signer",
            replace(good(root=ROOT.but(usages=frozenset({"key_cert_sign"}))), crl=pem(LIST)),
        ),
        "a list that ends within the warning days": Case(
            "crl-expires-soon", with_list(pem(revocation_list(ROOT, end=NOW + 29 * DAY))), says="in 29 days"
        ),
        "a list that expired": Case("crl-expired", with_list(pem(revocation_list(ROOT, end=NOW - DAY)))),
        "a list from tomorrow": Case(
            "crl-not-yet-valid", with_list(pem(revocation_list(ROOT, start=NOW + DAY)))
        ),
        "no list of one authority": Case(
            "crl-coverage", replace(with_list(pem(LIST)), trust=(base.trust or "") + pem(stranger))
        ),
        "the certificate is revoked": Case(
            "revoked",
            replace(direct(LEAF), crl=pem(revocation_list(ROOT, LEAF.serial))),
        ),
        "a list that counts for nobody": Case(
            "crl-unused", with_list(pem(LIST)), replace(EXPECTED, trust_elsewhere=True)
        ),
    }
    return cases


CASES: dict[str, Case] = _cases()
