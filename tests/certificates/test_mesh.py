"""Every check of a mesh's authority finds its fault, and no other check does."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from certificates import MESH_KEYS, Severity, check_mesh
from certificates.mesh import CA_CERTIFICATE, CHAIN, MESH_CA_KEY, MESH_CHECKS, ROOT, SHARED
from tests.certificates.forge import DAY, NOW, Form, authority, key, key_pem, leaf, pem

TOP = authority("mesh root")
MIDDLE = authority("mesh", TOP)
STRANGER = authority("stranger")
KEY_TEXT = key_pem(MIDDLE.private)
EXPIRED = {"start": NOW - 200 * DAY, "end": NOW - DAY}
FUTURE = {"start": NOW + DAY, "end": NOW + 90 * DAY}
WEAK_ROOT = TOP.but(private=key("mesh root rsa", "rsa2048"))

Data = Mapping[str, str]


def good(middle: Form = MIDDLE, top: Form = TOP) -> dict[str, str]:
    """A Secret as it should be, but for the given certificates."""
    own, root = middle.certificate(), top.certificate()
    return {
        CA_CERTIFICATE: pem(own),
        MESH_CA_KEY: key_pem(middle.private),
        CHAIN: pem(own, root),
        ROOT: pem(root),
    }


GOOD = good()
WEAK = pem(MIDDLE.but(issuer=WEAK_ROOT).certificate("sha1"))
CASES: dict[str, tuple[str, Data, str]] = {
    "a key is missing": ("mesh-keys", {k: v for k, v in GOOD.items() if k != CHAIN}, "cert-chain.pem: null is missing"),
    "a key too many": ("mesh-keys", {**GOOD, "tls.key": "x"}, "tls.key: set does not belong there"),
    "the certificate is cut short": ("pem-syntax", {**GOOD, CA_CERTIFICATE: GOOD[CA_CERTIFICATE][:-20]}, CA_CERTIFICATE),
    "the key is empty": ("pem-syntax", {**GOOD, MESH_CA_KEY: ""}, MESH_CA_KEY),
    "the root is none": ("pem-syntax", {**GOOD, ROOT: "root"}, ROOT),
    "the root holds the key": ("mesh-stray-key", {**GOOD, ROOT: GOOD[ROOT] + KEY_TEXT}, ROOT),
    "the chain holds the key": ("mesh-stray-key", {**GOOD, CHAIN: GOOD[CHAIN] + KEY_TEXT}, CHAIN),
    "the key is encrypted": ("mesh-key-encrypted", {**GOOD, MESH_CA_KEY: key_pem(MIDDLE.private, b"secret")}, "passphrase"),
    "the key is another one's": ("key-match", {**GOOD, MESH_CA_KEY: key_pem(STRANGER.private)}, MESH_CA_KEY),
    "two authorities": ("mesh-single", {**GOOD, CA_CERTIFICATE: GOOD[CHAIN]}, CA_CERTIFICATE),
    "a leaf": ("mesh-authority", good(leaf("l", TOP, ("l.example",))), "CA:TRUE"),
    "it may not sign certificates": (
        "mesh-authority",
        good(MIDDLE.but(usages=frozenset({"crl_sign"}))),
        "keyCertSign",
    ),
    "the chain begins with the root": ("mesh-begins", {**GOOD, CHAIN: GOOD[ROOT]}, CHAIN),
    "another root": ("mesh-chain", {**GOOD, ROOT: pem(STRANGER.certificate())}, ROOT),
    "its root may have no authority below it": ("mesh-path-length", good(top=TOP.but(path_length=0)), ROOT),
    "the root is none of certificates": ("authority", good(top=TOP.but(authority=False)), "CA:TRUE"),
    "it has expired": ("expired", good(MIDDLE.but(**EXPIRED)), CA_CERTIFICATE),
    "the root has expired": ("expired", {**(ended := good(top=TOP.but(**EXPIRED))), CHAIN: ended[CA_CERTIFICATE]}, ROOT),
    "it is not valid yet": ("not-yet-valid", good(MIDDLE.but(**FUTURE)), CA_CERTIFICATE),
    "it ends soon": ("expires-soon", good(MIDDLE.but(end=NOW + 20 * DAY)), "in 20 days"),
    "a weak key": ("key-strength", good(MIDDLE.but(private=key("mesh weak", "rsa1024"))), "1024"),
    "a broken hash": (
        "signature-hash",
        {**good(top=WEAK_ROOT), CA_CERTIFICATE: WEAK, CHAIN: WEAK},
        "SHA1",
    ),
    "an extension that nobody knows": ("critical-extension", good(MIDDLE.but(unknown=True)), CA_CERTIFICATE),
}  # fmt: skip


@pytest.mark.parametrize(("check", "data", "says"), CASES.values(), ids=CASES.keys())
def test_what_is_wrong_in_one_way_has_one_finding(check: str, data: Data, says: str) -> None:
    problems = check_mesh(data, NOW)
    assert {problem.check for problem in problems} == {check}
    told = "\n".join(map(str, problems))
    assert says in told
    assert KEY_TEXT.splitlines()[1] not in told


def test_every_check_has_a_case() -> None:
    assert {check for check, _, _ in CASES.values()} == {*MESH_CHECKS, *SHARED, "mesh-keys"}


@pytest.mark.parametrize(
    "data",
    [
        GOOD,
        {**GOOD, CHAIN: GOOD[CA_CERTIFICATE]},
        {**GOOD, ROOT: GOOD[ROOT] + pem(STRANGER.certificate())},
        good(top=TOP.but(path_length=1)),
    ],
    ids=["as made", "without the root in the chain", "two roots", "room for one authority"],
)
def test_a_good_one_has_none(data: Data) -> None:
    assert set(data) == set(MESH_KEYS)
    assert check_mesh(data, NOW) == []


def test_through_a_further_authority() -> None:
    lower = good(authority("lower", MIDDLE))
    assert [problem.check for problem in check_mesh(lower | {ROOT: GOOD[ROOT]}, NOW)] == ["mesh-chain"]
    chain = lower[CA_CERTIFICATE] + GOOD[CA_CERTIFICATE]
    assert check_mesh(lower | {ROOT: GOOD[ROOT], CHAIN: chain}, NOW) == []


def test_what_ends_soon_is_a_warning() -> None:
    (problem,) = check_mesh(good(MIDDLE.but(end=NOW + 20 * DAY)), NOW)
    assert problem.severity is Severity.WARNING
    assert check_mesh(good(MIDDLE.but(end=NOW + 20 * DAY)), NOW, 10 * DAY) == []
