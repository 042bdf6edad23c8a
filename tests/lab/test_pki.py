from __future__ import annotations

import datetime
import ipaddress

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization

from lab import pki


def test_a_serving_certificate_descends_from_its_authority_and_names_its_hosts() -> None:
    authority = pki.Authority.create("north")
    pair = authority.serving(["127.0.0.1", "localhost"])

    certificate = x509.load_pem_x509_certificate(pair.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address("127.0.0.1")]
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pem))
    key = serialization.load_pem_private_key(pair.key, password=None)
    assert key.public_key() == certificate.public_key()


def test_authorities_of_two_clusters_are_strangers() -> None:
    north, south = pki.Authority.create("a"), pki.Authority.create("a")

    certificate = x509.load_pem_x509_certificate(north.serving(["localhost"]).certificate)

    certificate.verify_directly_issued_by(north.certificate)
    with pytest.raises(InvalidSignature):
        certificate.verify_directly_issued_by(south.certificate)


def test_a_certificate_of_a_negative_lifetime_has_expired() -> None:
    pair = pki.Authority.create("north").serving(["localhost"], lifetime=-datetime.timedelta(minutes=1))

    certificate = x509.load_pem_x509_certificate(pair.certificate)
    assert certificate.not_valid_before_utc < certificate.not_valid_after_utc
    assert certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC)
