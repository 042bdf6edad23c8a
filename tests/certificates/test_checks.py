"""Every check finds its fault, and no other check does: what is wrong in one way has one finding."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certificates import CHECKS, Expectation, Material, Severity, Usage, check, check_trust, own_authority
from tests.certificates.cases import (
    CASES,
    EXPECTED,
    LEAF,
    LIST,
    MIDDLE,
    OTHER,
    PROVIDER,
    ROOT,
    Case,
    direct,
    good,
    with_list,
)
from tests.certificates.forge import CLIENT, DAY, NOW, SERVER, leaf, pem, revocation_list


def found(case: Case, **options: frozenset[str]) -> set[str]:
    return {problem.check for problem in check(case.material, case.expected, **options)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_what_is_wrong_in_one_way_has_one_finding(case: Case) -> None:
    assert found(case) == {case.check}
    assert any(case.says in str(problem) for problem in check(case.material, case.expected))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_without_its_check_a_fault_goes_unseen(case: Case) -> None:
    """So that each check is proved by its own cases: without it they would fail, and none of the others'."""
    assert not found(case, disabled=frozenset({case.check}))
    others = frozenset(CHECKS) - {case.check}
    assert found(case, disabled=others) == {case.check}


def test_every_check_has_a_case() -> None:
    assert {case.check for case in CASES.values()} == set(CHECKS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_no_finding_shows_key_material(case: Case) -> None:
    secret = [line for line in (case.material.key or "").splitlines() if len(line) > 20]
    told = "\n".join(map(str, check(case.material, case.expected))) + repr(case.material)
    assert not any(line in told for line in secret)


GOOD: dict[str, tuple[Material, Expectation]] = {
    "through an intermediate": (good(), EXPECTED),
    "signed by the root": (direct(LEAF), EXPECTED),
    "with the root sent along": (
        replace(good(), certificate=good().certificate + pem(ROOT.certificate())),
        EXPECTED,
    ),
    "with CRLF and no end of the last line": (
        replace(good(), certificate=good().certificate.rstrip().replace("\n", "\r\n")),
        EXPECTED,
    ),
    "names in upper case": (good(LEAF.but(names=(PROVIDER.upper(),))), EXPECTED),
    "an expected name in upper case": (good(), replace(EXPECTED, name=PROVIDER.upper())),
    "with a revocation list": (with_list(pem(LIST)), EXPECTED),
    "another one's serial number revoked": (with_list(pem(revocation_list(ROOT, 42))), EXPECTED),
    "a client's": (
        good(leaf("c", MIDDLE, ("client.shop.example",), CLIENT)),
        Expectation("client.shop.example", Usage.CLIENT, NOW),
    ),
    "with the list of an intermediate": (with_list(pem(LIST, revocation_list(MIDDLE))), EXPECTED),
    "names that its authorities may vouch for": (
        good(
            LEAF,
            MIDDLE.but(permitted=(PROVIDER.upper(),), excluded=("mail.example", f"x.{PROVIDER}")),
            ROOT.but(permitted=("example",)),
        ),
        EXPECTED,
    ),
    "below an intermediate for servers": (good(LEAF, MIDDLE.but(purposes=(SERVER, CLIENT))), EXPECTED),
    "without usage extensions": (good(LEAF.but(usages=frozenset(), purposes=())), EXPECTED),
    "authorities of each side's own": (
        replace(good(), trust=pem(OTHER.certificate())),
        replace(EXPECTED, issuer=good().trust),
    ),
    "trust in another Secret": (
        replace(good(), trust=None),
        replace(EXPECTED, issuer=good().trust, trust_elsewhere=True),
    ),
    "comments between the blocks": (
        replace(good(), certificate="subject=x\n" + good().certificate),
        EXPECTED,
    ),
    "it ends after the warning days": (good(LEAF.but(end=NOW + 30 * DAY)), EXPECTED),
    "fewer warning days": (good(LEAF.but(end=NOW + 29 * DAY)), replace(EXPECTED, warning=7 * DAY)),
}


@pytest.mark.parametrize(("material", "expected"), GOOD.values(), ids=GOOD.keys())
def test_what_is_right_has_no_finding(material: Material, expected: Expectation) -> None:
    assert check(material, expected) == []


def test_what_refuses_nobody_yet_or_not_everybody_is_a_warning() -> None:
    severities = {
        problem.check: problem.severity
        for case in CASES.values()
        for problem in check(case.material, case.expected)
    }
    warnings = {name for name, severity in severities.items() if severity is Severity.WARNING}
    assert warnings == {"expires-soon", "peers-expired", "crl-issuer", "crl-expires-soon", "crl-unused"}


def test_of_two_trusted_authorities_the_own_one_is_told_apart() -> None:
    root, stranger = pem(ROOT.certificate()), pem(OTHER.certificate())
    assert own_authority(replace(good(), trust=root), EXPECTED) == (root, [])
    assert own_authority(replace(good(), trust=stranger + root + stranger), EXPECTED) == (root, ["CN=other"])
    assert own_authority(replace(good(), trust=stranger), EXPECTED) is None
    issued_elsewhere = replace(EXPECTED, issuer=root)
    assert own_authority(replace(good(), trust=stranger), issued_elsewhere) == (root, ["CN=other"])


def test_authorities_are_judged_without_a_certificate_too() -> None:
    root, day = pem(ROOT.certificate()), DAY
    assert check_trust(root, pem(LIST), NOW, 30 * day) == []
    assert check_trust(root, None, NOW, 30 * day) == []
    assert [p.check for p in check_trust(root, pem(revocation_list(OTHER)), NOW, day)] == [
        "crl-issuer",
        "crl-coverage",
    ]
    assert [p.check for p in check_trust(pem(LEAF.certificate()), None, NOW, day)] == ["authority"]
    assert [p.check for p in check_trust("", None, NOW, day)] == ["pem-syntax"]


texts = st.text(alphabet="-BEGINCERTIFICATEKY PRV\nAaz09+/=", max_size=200) | st.sampled_from(
    [good().certificate[:200], good().certificate, good().key, pem(LIST)]
)


@given(texts, texts, st.none() | texts, st.none() | texts)
def test_whatever_the_text_is_it_is_judged(
    certificate: str, key: str, trust: str | None, crl: str | None
) -> None:
    """Garbage never passes, and never raises."""
    problems = check(Material(certificate, key, trust, crl), EXPECTED)
    right = (certificate, key, trust) == (good().certificate, good().key, good().trust)
    assert right or any(problem.severity is Severity.ERROR for problem in problems)
