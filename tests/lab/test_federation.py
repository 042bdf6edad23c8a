from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509

from lab.errors import LabError
from lab.federation import Authority

IDENTITY = "client.shop.example"


@pytest.fixture
def consumers(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "consumers", "consumers")


@pytest.fixture
def providers(tmp_path: Path) -> Authority:
    return Authority.create(tmp_path / "providers", "providers")


def test_a_certificate_is_its_authority_s_and_lies_in_private_files(
    consumers: Authority, providers: Authority
) -> None:
    consumers.issue("client", IDENTITY, providers, "further.shop.example")

    certificate = x509.load_pem_x509_certificate(consumers.pair("client", IDENTITY).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [IDENTITY, "further.shop.example"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(consumers.pem))
    folder = consumers.folder("client", IDENTITY)
    assert (folder / "ca.crt").read_bytes() == providers.pem
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}


def test_a_renewal_takes_over_the_lists_of_the_peers(consumers: Authority, providers: Authority) -> None:
    consumers.issue("client", IDENTITY, providers)
    providers.issue("server", "istio.data.example", consumers)
    before = consumers.pair("client", IDENTITY)

    consumers.renew("client", IDENTITY, providers)
    consumers.revoke(before)
    providers.renew("server", "istio.data.example", consumers)

    assert consumers.pair("client", IDENTITY) != before
    revoked = x509.load_pem_x509_crl(
        (providers.folder("server", "istio.data.example") / "ca.crl").read_bytes()
    )
    serial = x509.load_pem_x509_certificate(before.certificate).serial_number
    assert revoked.get_revoked_certificate_by_serial_number(serial) is not None


def test_the_roots_sign_what_the_authority_would_not(consumers: Authority) -> None:
    consumers.run("rotate add")

    assert consumers.roots == {1: "issuing", 2: "next"}
    roots = x509.load_pem_x509_certificates(consumers.pem)
    for root, signer in zip(roots, consumers.signers(), strict=True):
        signed = x509.load_pem_x509_certificate(signer.serving(["anything"]).certificate)
        signed.verify_directly_issued_by(root)


def test_a_command_that_fails_says_why(consumers: Authority) -> None:
    with pytest.raises(LabError, match=r"`pki rotate leaves` .* failed: error: .*not the next step"):
        consumers.run("rotate leaves")
