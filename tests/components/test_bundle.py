"""A consumer that imports its provider's federation bundle, without a shared Pulumi backend."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pulumi
import pytest

from certificates import fingerprints
from components import declare_stack
from config import ConsumerOutputs, ProviderOutputs, reference
from federation import Signer, create
from pki import CertificateAuthority
from tests.components import samples
from tests.components.recorder import Run, run

PROVIDER = "istio.data.example"
HOST = f"main.orders.{PROVIDER}"
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    directory = tmp_path_factory.mktemp("pki") / "ca"
    return CertificateAuthority.create(directory, "Data", clock=lambda: NOW - datetime.timedelta(hours=1))


@pytest.fixture(scope="module")
def signer(authority: CertificateAuthority) -> Signer:
    files = authority.issue_server(PROVIDER).files()
    return Signer(files["tls.crt"], files["tls.key"].encode())


def outputs(authority: CertificateAuthority) -> Any:
    service = {
        "consumers": [samples.CONSUMER_ID],
        "endpoints": {"main": {"host": HOST, "port": 9443}},
    }
    return {
        "id": PROVIDER,
        "systemDomain": PROVIDER,
        "port": 9443,
        "caCertificate": authority.certificate,
        "ingressGateway": "mesh-ingress/provider-ingress",
        "address": None,
        "services": {"orders": service},
    }


def party(authority: CertificateAuthority) -> ProviderOutputs:
    return reference.read_outputs(outputs(authority), "stack 'data'")


@pytest.fixture
def bundle(authority: CertificateAuthority, signer: Signer, tmp_path: Path) -> Path:
    file = tmp_path / "data.bundle.json"
    file.write_text(create(party(authority), "stack 'data'", NOW, datetime.timedelta(days=30), signer))
    return file


def importing(bundle: Path, authority: CertificateAuthority, **provider: object) -> samples.Raw:
    pin = fingerprints(authority.certificate)[0]
    declared = {"name": "data", "bundle": str(bundle), "caFingerprint": pin, **provider}
    return samples.consumer(samples.an_import(endpoints=[{"name": "main"}]), provider=declared)


def consumed(raw: samples.Raw, *, preview: bool = False) -> Run:
    stack = samples.parsed(raw)
    return run(lambda: declare_stack(stack), preview=preview)


@pytest.mark.parametrize("preview", [False, True])
def test_host_port_id_and_authority_are_the_bundle_s(
    bundle: Path, authority: CertificateAuthority, *, preview: bool
) -> None:
    done = consumed(importing(bundle, authority), preview=preview)

    inputs = {key: child.inputs for key, child in done.children("orders-main").items()}
    assert inputs["service-entry"]["spec"]["hosts"] == [HOST]
    assert inputs["service-entry"]["spec"]["ports"][0]["number"] == 9443
    tls = inputs["upstream-rule"]["spec"]["trafficPolicy"]["tls"]
    assert (tls["sni"], tls["subjectAltNames"]) == (HOST, [PROVIDER])
    anchor = done.named("consumer-client-cacert.mesh-egress").inputs
    assert anchor["stringData"] == {"ca.crt": authority.certificate}
    assert not [r for r in done if r.type == "pulumi:pulumi:StackReference"]


def refused(raw: samples.Raw) -> str:
    stack, said = samples.parsed(raw), list[str]()

    def program() -> object:
        try:
            return declare_stack(stack)
        except pulumi.RunError as error:
            said.append(str(error))
            return None

    done = run(program)
    assert not done.registrations, "something was declared before the bundle was judged"
    return "".join(said)


def test_a_changed_bundle_is_refused_before_anything_is_declared(
    bundle: Path, authority: CertificateAuthority
) -> None:
    content = json.loads(bundle.read_text())
    content["provider"]["systemDomain"] = "istio.evil.example"
    bundle.write_text(json.dumps(content))
    said = refused(importing(bundle, authority))
    assert f"consumer.providers[data].bundle '{bundle}' is refused" in said
    assert "were changed after the bundle was made" in said


def test_a_bundle_cut_short_is_refused(bundle: Path, authority: CertificateAuthority) -> None:
    bundle.write_text(bundle.read_text()[:700])
    assert "cut short" in refused(importing(bundle, authority))


def test_an_expired_bundle_is_refused(bundle: Path, authority: CertificateAuthority, signer: Signer) -> None:
    made, lifetime = NOW - datetime.timedelta(minutes=4), datetime.timedelta(minutes=3)
    bundle.write_text(create(party(authority), "stack 'data'", made, lifetime, signer))
    assert "has passed" in refused(importing(bundle, authority))


def test_a_foreign_bundle_is_refused(bundle: Path, authority: CertificateAuthority) -> None:
    raw = importing(bundle, authority, caFingerprint="ab" * 32, id="istio.mail.example")
    said = refused(raw)
    assert "2 findings" in said
    assert "the bundle is of somebody else" in said
    assert "is not 'istio.mail.example'" in said


def test_a_bundle_that_is_not_there_is_refused(tmp_path: Path, authority: CertificateAuthority) -> None:
    said = refused(importing(tmp_path / "none.json", authority))
    assert "consumer.providers[data].bundle" in said
    assert "cannot be read" in said


def test_what_the_bundle_does_not_offer_is_refused(bundle: Path, authority: CertificateAuthority) -> None:
    raw = importing(bundle, authority)
    raw["consumer"]["imports"][0]["service"] = "billing"
    with pytest.raises(pulumi.RunError, match=r"is no service of bundle .*exported there: orders"):
        consumed(raw)


@pytest.fixture
def consumer_bundle(tmp_path: Path) -> tuple[Path, CertificateAuthority]:
    """A consumer's bundle, and its authority."""
    own = CertificateAuthority.create(tmp_path / "shop", "Shop")
    files = own.issue_client(samples.CONSUMER_ID).files()
    about = ConsumerOutputs(id=samples.CONSUMER_ID, ca_certificate=own.certificate)
    signed_by = Signer(files["tls.crt"], files["tls.key"].encode())
    file = tmp_path / "shop.bundle.json"
    file.write_text(create(about, "stack 'shop'", NOW, datetime.timedelta(days=30), signed_by))
    return file, own


def admitting(file: Path, own: CertificateAuthority, **more: Any) -> samples.Raw:
    pin = fingerprints(own.certificate)[0]
    return samples.provider(consumerBundles=[{"bundle": str(file), "caFingerprint": pin}], **more)


def test_a_consumer_s_authority_comes_with_its_bundle(
    consumer_bundle: tuple[Path, CertificateAuthority], authority: CertificateAuthority
) -> None:
    file, own = consumer_bundle
    done = consumed(admitting(file, own))
    anchor = done.named("provider-server-cacert.mesh-ingress")
    assert anchor.inputs["metadata"]["name"] == "provider-server-cacert"
    assert anchor.inputs["stringData"] == {"ca.crt": own.certificate}
    assert anchor.name in done.ancestors(done.children("orders-main")["public-server"])

    both = authority.certificate + own.certificate
    done = consumed(admitting(file, own, consumersCaCertificate=both))
    assert done.named("provider-server-cacert.mesh-ingress").inputs["stringData"] == {"ca.crt": both}


def test_a_bundle_of_a_consumer_that_may_use_nothing_is_refused(
    consumer_bundle: tuple[Path, CertificateAuthority],
) -> None:
    raw = admitting(*consumer_bundle)
    raw["provider"]["exports"][0]["consumers"] = ["client.desk.example"]
    assert "provider.consumerBundles[0].bundle: client.shop.example is of a consumer" in refused(raw)


def test_each_side_wants_the_other_side_s_bundle(
    bundle: Path, authority: CertificateAuthority, consumer_bundle: tuple[Path, CertificateAuthority]
) -> None:
    assert "is of a provider" in refused(admitting(bundle, authority))
    assert "is of a consumer" in refused(importing(*consumer_bundle))
    changed = consumer_bundle[0].read_text().replace("client.shop", "client.desk")
    consumer_bundle[0].write_text(changed)
    assert "were changed" in refused(admitting(*consumer_bundle))
