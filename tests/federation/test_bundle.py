"""A federation bundle is accepted whole, unchanged, in time and from whom it was expected; else it says why not."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from hypothesis import given
from hypothesis import strategies as st

from config import ConfigError, ConsumerOutputs, ProviderOutputs, reference
from federation import Pins, Signer, create, verify
from federation.bundle import canonical
from tests.certificates.forge import CLIENT, NOW, SERVER, Form, authority, key, key_pem, leaf, pem

DAY = datetime.timedelta(days=1)
PROVIDER = "istio.data.example"
ROOT = authority("data-root")
NEW_ROOT = authority("data-root-2")
STRANGER = authority("stranger")
LEAF = leaf(PROVIDER, ROOT, (PROVIDER,), SERVER)
LATER = NOW + DAY


ROOT_CERTIFICATE = ROOT.certificate()
PINNED = Pins(ca_fingerprint=ROOT_CERTIFICATE.fingerprint(hashes.SHA256()).hex())


def outputs(**more: object) -> dict[str, Any]:
    return {
        "id": PROVIDER,
        "systemDomain": PROVIDER,
        "port": 9000.0,
        "caCertificate": pem(ROOT_CERTIFICATE),
        "ingressGateway": "mesh-ingress/provider-ingress",
        "address": None,
        "services": {
            "orders": {
                "consumers": ["client.shop.example"],
                "endpoints": {"primary": {"host": f"primary.{PROVIDER}", "port": 9000.0}},
            }
        },
        **more,
    }


def party(**more: object) -> ProviderOutputs:
    return reference.read_outputs(outputs(**more), "stack 'data'")


def signer(form: Form = LEAF) -> Signer:
    return Signer(pem(form.certificate()), key_pem(form.private).encode())


def made(form: Form | None = LEAF, lifetime: datetime.timedelta = 30 * DAY, **more: object) -> str:
    return create(party(**more), "stack 'data'", NOW, lifetime, signer(form) if form else None)


SIGNED, UNSIGNED = made(), made(None)


def refused(text: str, pins: Pins | None = PINNED, now: datetime.datetime = LATER) -> str:
    with pytest.raises(ConfigError) as error:
        verify(text, "bundle 'data.json'", now, pins)
    return str(error.value)


def resealed(change: Callable[[dict[str, Any]], object], text: str = SIGNED) -> str:
    """A bundle that somebody changed who knows how the digest is made, but not the provider's key."""
    content = json.loads(text)
    change(content)
    content["digest"] = f"sha256:{hashlib.sha256(canonical(content)).hexdigest()}"
    return json.dumps(content)


def test_a_signed_bundle_of_a_pinned_authority_is_accepted() -> None:
    bundle = verify(SIGNED, "bundle", LATER, PINNED)
    assert bundle.provider is not None
    assert (bundle.provider.id, bundle.provider.port) == (PROVIDER, 9000)
    assert bundle.provider.services["orders"].endpoints["primary"].host == f"primary.{PROVIDER}"


def test_an_unsigned_bundle_is_accepted_by_its_digest_alone() -> None:
    digest = json.loads(UNSIGNED)["digest"].removeprefix("sha256:")
    assert verify(UNSIGNED, "bundle", LATER, Pins(digest=digest)).signature is None
    assert "signature: null is missing" in refused(UNSIGNED)


def test_white_space_and_order_do_not_matter() -> None:
    content = json.loads(SIGNED)
    turned = json.dumps(dict(reversed(content.items())), indent=7)
    assert verify(turned, "bundle", LATER, PINNED).party.id == PROVIDER


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "the system domain": lambda b: b["provider"].update(systemDomain="istio.evil.example"),
    "the port": lambda b: b["provider"].update(port=9001),
    "the authority": lambda b: b["provider"].update(
        caCertificate=b["provider"]["caCertificate"] + pem(STRANGER.certificate())
    ),
    "a host": lambda b: b["provider"]["services"]["orders"]["endpoints"]["primary"].update(
        host=f"other.{PROVIDER}"
    ),
    "the consumers": lambda b: b["provider"]["services"]["orders"]["consumers"].append("x.example"),
    "the end": lambda b: b.update(expires="2099-01-01T00:00:00Z"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_bundle_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(SIGNED)
    change(content)
    assert "digest" in refused(json.dumps(content))
    assert "were changed after the bundle was made" in refused(json.dumps(content))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_changed_bundle_with_a_new_digest_is_refused_too(
    change: Callable[[dict[str, Any]], object],
) -> None:
    text = resealed(change)
    assert "signature.value" in refused(text)
    assert "is not the pinned one" in refused(
        text, Pins(digest=json.loads(SIGNED)["digest"].removeprefix("sha256:"))
    )


@given(st.integers(min_value=1, max_value=len(SIGNED) - 2))
def test_a_bundle_that_was_cut_short_is_refused(length: int) -> None:
    assert "cut short" in refused(SIGNED[:length])


@given(position=st.integers(0, len(SIGNED) - 1), other=st.characters(min_codepoint=33, max_codepoint=126))
def test_no_changed_character_goes_unseen(position: int, other: str) -> None:
    text = SIGNED[:position] + other + SIGNED[position + 1 :]
    try:
        bundle = verify(text, "bundle", LATER, PINNED)
    except ConfigError:
        return
    assert bundle.provider == verify(SIGNED, "bundle", LATER, PINNED).provider


@pytest.mark.parametrize(
    ("text", "pins", "now", "words"),
    [
        (SIGNED, PINNED, NOW + 31 * DAY, 'expires: "2030-01-31T00:00:00Z" has passed'),
        (SIGNED, PINNED, NOW - DAY, "lies in the future"),
        (SIGNED, Pins(ca_fingerprint="ab" * 32), LATER, "the bundle is of somebody else"),
        (SIGNED, Pins(digest="ab" * 32), LATER, "it is another bundle"),
        (SIGNED, Pins(PINNED.ca_fingerprint, id="istio.mail.example"), LATER, "is not 'istio.mail.example'"),
        (SIGNED, Pins(PINNED.ca_fingerprint, system_domain="x.example"), LATER, "provider.systemDomain"),
        ("[]", PINNED, LATER, "is no JSON object"),
        ("{}", PINNED, LATER, "format: null is missing but required"),
        (
            SIGNED.replace("federation/1", "federation/2"),
            PINNED,
            LATER,
            "must be one of 'meshbridge-federation/1'",
        ),
    ],
)
def test_what_is_not_as_expected_is_refused(
    text: str, pins: Pins, now: datetime.datetime, words: str
) -> None:
    assert words in refused(text, pins, now)


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = refused(SIGNED, Pins("ab" * 32, "cd" * 32, "istio.mail.example"), NOW + 31 * DAY)
    assert "4 findings" in said


def test_a_bundle_must_be_signed_with_the_provider_s_own_certificate() -> None:
    """Another certificate of the same authority, a consumer's for example, does not speak for the provider."""
    other = leaf("other", ROOT, ("client.shop.example",), SERVER)
    with pytest.raises(ConfigError, match=r"lacks 'istio\.data\.example'"):
        made(other)


def test_a_made_up_authority_is_told_by_the_pin_alone() -> None:
    forged = create(
        party(caCertificate=pem(STRANGER.certificate())),
        "x",
        NOW,
        DAY,
        signer(leaf(PROVIDER, STRANGER, (PROVIDER,), SERVER)),
    )
    assert verify(forged, "bundle", NOW, None).party.id == PROVIDER
    assert "the bundle is of somebody else" in refused(forged, now=NOW)


def test_a_forger_cannot_put_the_pinned_authority_beside_his_own() -> None:
    both = pem(ROOT_CERTIFICATE) + pem(STRANGER.certificate())
    forger = signer(leaf(PROVIDER, STRANGER, (PROVIDER,), SERVER))
    forged = create(party(caCertificate=both), "x", NOW, DAY, forger)
    assert "does not lead to an authority" in refused(forged, now=NOW)


@pytest.mark.parametrize("text", ["[" * 100_000, r'{"format": "\ud800"}'])
def test_what_json_cannot_be_read_or_digested_is_refused(text: str) -> None:
    assert "bundle: " in refused(text)


@pytest.mark.parametrize(
    ("key", "value"),
    [("issued", "9999-12-31T23:59:59-14:00"), ("expires", "0001-01-01T00:00:00+14:00")],
)
def test_a_time_at_the_edge_of_the_calendar_is_refused(key: str, value: str) -> None:
    assert value in refused(resealed(lambda bundle: bundle.update({key: value})))


def test_a_rotation_reaches_readers_who_pinned_the_old_authority() -> None:
    both = pem(ROOT_CERTIFICATE) + pem(NEW_ROOT.certificate())
    bundle = verify(made(caCertificate=both), "bundle", LATER, PINNED)
    assert bundle.party.ca_certificate == both


def test_a_bundle_never_outlives_the_certificate_that_signed_it() -> None:
    text = made(LEAF.but(end=NOW + 5 * DAY), 30 * DAY)
    assert json.loads(text)["expires"] == "2030-01-06T00:00:00Z"


def test_an_rsa_certificate_signs_as_well() -> None:
    text = made(LEAF.but(private=key("data-rsa", "rsa2048")))
    assert json.loads(text)["signature"]["algorithm"] == "rsa-pss-sha256"
    assert verify(text, "bundle", LATER, PINNED)


@pytest.mark.parametrize("value", ["", "AAAA", "not base 64!", base64.b64encode(b"x" * 70).decode()])
def test_a_signature_that_is_none_is_refused(value: str) -> None:
    content = json.loads(SIGNED)
    content["signature"]["value"] = value
    assert "signature.value" in refused(json.dumps(content))


def test_without_its_authority_a_provider_cannot_make_a_bundle() -> None:
    with pytest.raises(ConfigError, match=r"set `provider\.caCertificate`"):
        made(caCertificate=None)


CONSUMER = "client.shop.example"
CLIENT_LEAF = leaf(CONSUMER, ROOT, (CONSUMER,), CLIENT)


def consumers(form: Form = CLIENT_LEAF) -> str:
    about = ConsumerOutputs(id=CONSUMER, ca_certificate=pem(ROOT_CERTIFICATE))
    return create(about, "stack 'shop'", NOW, DAY, signer(form))


def test_a_consumer_s_bundle_carries_its_id_and_authority() -> None:
    bundle = verify(consumers(), "bundle", NOW, PINNED)
    assert (bundle.role, bundle.party.id, bundle.provider) == ("consumer", CONSUMER, None)
    assert bundle.party.ca_certificate == pem(ROOT_CERTIFICATE)


def test_a_consumer_signs_with_its_client_certificate() -> None:
    with pytest.raises(ConfigError, match="clientAuth"):
        consumers(leaf("c", ROOT, (CONSUMER,), SERVER))


@pytest.mark.parametrize("key", ["provider", "consumer"])
def test_a_bundle_is_of_one_side(key: str) -> None:
    both = resealed(lambda b: b.update(consumer=json.loads(consumers())["consumer"]))
    assert "one of the two" in refused(both)
    neither = resealed(lambda b: b.pop(key, None), consumers() if key == "consumer" else SIGNED)
    assert "one of the two" in refused(neither)


def test_an_authority_that_cannot_be_read_is_refused() -> None:
    garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    text = resealed(lambda b: b["provider"].update(caCertificate=garbage))
    for pins in (PINNED, None):
        assert "provider.caCertificate" in refused(text, pins)


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("garbage", key_pem(LEAF.private), "signature.certificates"),
        (pem(LEAF.certificate()), "garbage", "is no EC or RSA key"),
        (pem(LEAF.certificate()), key_pem(LEAF.private, b"secret"), "is encrypted"),
        (pem(LEAF.certificate()), key_pem(STRANGER.private), "signature.value"),
    ],
)
def test_a_signer_that_is_none_is_refused(certificate: str, key: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create(party(), "x", NOW, DAY, Signer(certificate, key.encode()))


def test_no_bundle_holds_a_key() -> None:
    assert "PRIVATE" not in SIGNED
    assert x509.load_pem_x509_certificates(json.loads(SIGNED)["signature"]["certificates"].encode())
