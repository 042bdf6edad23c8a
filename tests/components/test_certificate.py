"""Gateways' certificates: where their Secrets come from, that they are judged first, and that keys stay secret."""

from __future__ import annotations

import base64
import datetime
import io
import json
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
import pytest

from certificates import material
from components import Certificate, CertificateArgs, declare_stack
from config import Certificate as CertificateConfig
from config.certificate import PRIVATE_KEY, SECRET_KEYS
from pki import CertificateAuthority, Issued, Kind
from pki.app import main
from tests.components import samples
from tests.components.recorder import Run, Secret, leaves, run

PROVIDER = "istio.data.example"
CERT_MANAGER = {
    "certManager": {"issuer": {"name": "corporate", "kind": "ClusterIssuer"}, "trustIssuer": True}
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    made = CertificateAuthority.create(tmp_path_factory.mktemp("pki") / "ca", "Example")
    made.issue_server(PROVIDER)
    made.issue_client(samples.CONSUMER_ID)
    return made


@pytest.fixture
def server(authority: CertificateAuthority) -> Issued:
    return authority.issued(Kind.SERVER, PROVIDER)


@pytest.fixture
def client(authority: CertificateAuthority) -> Issued:
    return authority.issued(Kind.CLIENT, samples.CONSUMER_ID)


def declared(
    raw: samples.Raw, secrets: Mapping[str, Mapping[str, str]] | None = None, *, preview: bool = False
) -> Run:
    stack = samples.parsed(raw)
    return run(lambda: declare_stack(stack, secrets=secrets), preview=preview)


def providing(**certificate: object) -> samples.Raw:
    return samples.provider(certificate=certificate)


def consuming(*providers: samples.Raw, **more: Any) -> samples.Raw:
    raw = samples.consumer(**more)
    raw["consumer"]["providers"] += providers
    return raw


def test_a_secret_that_exists_is_only_referred_to() -> None:
    done = declared(samples.provider())
    assert not [o for o in done.objects if o.kind in {"Secret", "Certificate"}]


@pytest.mark.parametrize("preview", [False, True])
def test_a_directory_s_files_become_the_secret(server: Issued, *, preview: bool) -> None:
    done = declared(providing(directory=str(server.folder)), preview=preview)

    made = done.named("provider-server.mesh-ingress-secret")
    assert (made.kind, made.inputs["metadata"]["name"]) == ("Secret", "provider-server")
    assert made.inputs["metadata"]["namespace"] == "mesh-ingress"
    assert made.inputs["stringData"] == {key: Secret(text) for key, text in server.files().items()}


def test_the_stack_s_secret_becomes_the_secret(client: Issued) -> None:
    raw = consuming(certificate={"stackSecret": "shop"})
    done = declared(raw, {"shop": client.files()})

    made = done.named("consumer-client.mesh-egress-secret")
    assert made.inputs["metadata"]["namespace"] == "mesh-egress"
    assert made.inputs["stringData"] == {key: Secret(text) for key, text in client.files().items()}


def test_a_private_key_is_nowhere_but_in_a_secret_leaf(server: Issued, client: Issued) -> None:
    raw = {
        **consuming(certificate={"directory": str(client.folder)}),
        **providing(stackSecret="data"),
    }
    done = declared(raw, {"data": server.files()})

    keys = [issued.files()["tls.key"] for issued in (server, client)]
    traces = [trace for key in keys for trace in _traces(key)]
    holding = [r for r in done if any(trace in repr(r.inputs) for trace in traces)]
    assert [r.kind for r in holding] == ["Secret", "Secret"]
    for registration in holding:
        plain = [leaf for _, leaf in leaves(registration.inputs) if not isinstance(leaf, Secret)]
        assert not any(trace in str(leaf) for trace in traces for leaf in plain)
    outputs = json.dumps([done.result, list(done.registered_outputs.values())], default=str)
    assert not any(trace in outputs for trace in ("PRIVATE KEY", *traces))
    args = CertificateArgs("k", "s", "n", "id", "server", CertificateConfig(), None, data=server.files())  # type: ignore[arg-type]
    assert keys[0].splitlines()[1] not in repr(args)


def _traces(key: str) -> list[str]:
    """What gives a private key away: a line of its PEM, and the middle of the base64 of the whole, however it is
    aligned."""
    aligned = (base64.b64encode(b"\0" * shift + key.encode()).decode() for shift in range(3))
    return [key.splitlines()[1], *(text[40:80] for text in aligned)]


def test_servers_come_after_the_secret_and_the_secret_after_the_right_to_read_it(server: Issued) -> None:
    done = declared(providing(directory=str(server.folder)))

    secret = "provider-server.mesh-ingress-secret"
    assert "provider-ingress-secret-reader-binding" in done.ancestors(done.named(secret))
    assert secret in done.ancestors(done.children("orders-main")["public-server"])


def test_every_client_secret_is_made_once(client: Issued) -> None:
    raw = consuming(
        {"name": "mail", "systemDomain": "istio.mail.example", "clientSecret": "mail-client"},
        {"name": "news", "systemDomain": "istio.news.example"},
        certificate={"directory": str(client.folder)},
    )
    done = declared(raw)

    made = [o.inputs["metadata"]["name"] for o in done.objects if o.kind == "Secret"]
    assert sorted(made) == ["consumer-client", "mail-client"]


def test_a_provider_may_want_a_certificate_of_its_own(client: Issued, tmp_path: Path) -> None:
    other = CertificateAuthority.create(tmp_path / "ca", "Other").issue_client(samples.CONSUMER_ID)
    mail = {
        "name": "mail",
        "systemDomain": "istio.mail.example",
        "clientSecret": "mail-client",
        "certificate": {"directory": str(other.folder)},
    }
    done = declared(consuming(mail, certificate={"directory": str(client.folder)}))

    made = {o.inputs["metadata"]["name"]: o.inputs["stringData"] for o in done.objects if o.kind == "Secret"}
    assert made["consumer-client"]["tls.crt"] == Secret(client.files()["tls.crt"])
    assert made["mail-client"]["tls.crt"] == Secret(other.files()["tls.crt"])


def test_cert_manager_is_asked_for_the_bare_id() -> None:
    raw = providing(certManager={**CERT_MANAGER["certManager"], "names": ["other.example"]})
    done = declared(raw)

    made = done.named("provider-server.mesh-ingress-request")
    assert made.type == "kubernetes:cert-manager.io/v1:Certificate"
    assert made.inputs["spec"] == {
        "secretName": "provider-server",
        "dnsNames": [PROVIDER, "other.example"],
        "usages": ["digital signature", "server auth"],
        "duration": "2160h",
        "renewBefore": "720h",
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": "Always"},
        "issuerRef": {"name": "corporate", "kind": "ClusterIssuer", "group": "cert-manager.io"},
    }
    assert made.inputs["metadata"]["annotations"]["pulumi.com/waitFor"] == "condition=Ready"
    assert made.name in done.ancestors(done.children("orders-main")["public-server"])


def test_a_rendered_request_waits_for_nothing() -> None:
    done = declared(samples.provider(cluster=samples.RENDERED, certificate=CERT_MANAGER))
    request = done.named("provider-server.mesh-ingress-request")
    assert "pulumi.com/waitFor" not in request.inputs["metadata"]["annotations"]


def test_cert_manager_makes_client_certificates_too() -> None:
    done = declared(consuming(certificate=CERT_MANAGER))
    spec = done.named("consumer-client.mesh-egress-request").inputs["spec"]
    assert (spec["dnsNames"], spec["usages"]) == (
        [samples.CONSUMER_ID],
        ["digital signature", "client auth"],
    )


def test_the_consumers_authority_and_its_list_win_over_those_in_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumers = CertificateAuthority.create(tmp_path / "ca", "Consumers")
    stranger = CertificateAuthority.create(tmp_path / "stranger", "Stranger")
    trust: dict[str, Any] = {
        "consumersCaCertificate": consumers.certificate,
        "consumersCrl": consumers.publish_crl(),
    }
    done = declared(samples.provider(certificate=CERT_MANAGER, **trust))

    anchor = done.named("provider-server-cacert.mesh-ingress")
    assert anchor.inputs["metadata"]["name"] == "provider-server-cacert"
    assert anchor.inputs["metadata"]["namespace"] == "mesh-ingress"
    assert anchor.inputs["stringData"] == {
        "ca.crt": trust["consumersCaCertificate"],
        "ca.crl": trust["consumersCrl"],
    }
    assert anchor.name in done.ancestors(done.children("orders-main")["public-server"])

    trust["consumersCrl"] += stranger.publish_crl()
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)
    declared(samples.provider(certificate=CERT_MANAGER, **trust))
    (warning,) = warnings
    assert "provider.consumersCrl: the list of 'CN=Stranger 1' is of no authority" in warning


GARBAGE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("way", [{}, CERT_MANAGER, {"directory": "made"}])
@pytest.mark.parametrize(
    ("key", "garbled"),
    [
        ("provider.consumersCaCertificate", lambda bad: samples.provider(consumersCaCertificate=bad)),
        ("provider.caCertificate", lambda bad: samples.provider(caCertificate=bad)),
        ("consumer.caCertificate", lambda bad: samples.consumer(caCertificate=bad)),
        (
            "consumer.providers[mail].caCertificate",
            lambda bad: consuming(
                {
                    "name": "mail",
                    "systemDomain": "istio.mail.example",
                    "clientSecret": "mail-client",
                    "caCertificate": bad,
                }
            ),
        ),
    ],
)
def test_an_authority_that_is_none_is_refused(
    key: str,
    garbled: Callable[[str], samples.Raw],
    way: samples.Raw,
    server: Issued,
    client: Issued,
) -> None:
    """Wherever it stands, and wherever the certificate beside it comes from."""
    for bad, rule in (
        (GARBAGE, "certificate 1 cannot be read"),
        (server.files()["tls.crt"], "is no authority"),
    ):
        raw = garbled(bad)
        role = "provider" if "provider" in raw else "consumer"
        folder = server.folder if role == "provider" else client.folder
        raw[role]["certificate"] = {"directory": str(folder)} if "directory" in way else way
        with pytest.raises(pulumi.RunError, match=rule) as refused:
            declared(raw)
        assert key.rpartition(".")[2] in str(refused.value)
        if role == "consumer" and "directory" not in way:
            assert key in str(refused.value)


@pytest.mark.parametrize("preview", [False, True])
def test_an_unfit_certificate_is_refused_before_anything_is_declared(
    server: Issued, client: Issued, *, preview: bool
) -> None:
    swapped = {**server.files(), "tls.key": client.files()["tls.key"]}
    raw = {
        **consuming(certificate={"directory": str(server.folder)}),
        **providing(stackSecret="data"),
    }
    with pytest.raises(pulumi.RunError) as refused:
        declared(raw, {"data": swapped}, preview=preview)
    message = str(refused.value)
    assert "3 findings" in message
    assert "provider.certificate: tls.key: the private key does not belong to" in message
    assert f"consumer.certificate: tls.crt: {PROVIDER}, *.{PROVIDER} lacks 'client.shop.example'" in message
    assert "consumer.certificate: tls.crt: 'CN=istio.data.example' (serial" in message
    assert "PRIVATE" not in message


def test_refusal_comes_before_the_first_registration(server: Issued) -> None:
    stack = samples.parsed(providing(directory=str(server.folder)))
    broken = stack.model_copy(
        update={
            "provider": samples.given(stack.provider).model_copy(
                update={"system_domain": "istio.mail.example"}
            )
        }
    )
    seen: list[object] = []

    def program() -> object:
        try:
            return declare_stack(broken)
        except pulumi.RunError as error:
            seen.append(error)
            return None

    done = run(program)
    assert seen
    assert not done.registrations


def test_the_component_refuses_by_itself(server: Issued) -> None:
    stack = samples.parsed(samples.provider())
    args = CertificateArgs(
        "provider.certificate",
        secret="provider-server",
        namespace="mesh-ingress",
        name="istio.mail.example",
        usage="server",
        config=CertificateConfig(),
        cluster=stack.cluster,
        data=server.files(),
    )
    with pytest.raises(pulumi.RunError, match=r"lacks 'istio\.mail\.example'"):
        run(lambda: Certificate("certificate", args))


def test_a_certificate_that_ends_soon_is_deployed_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = CertificateAuthority.create(tmp_path / "ca", "Example")
    issued = authority.issue_server(PROVIDER, lifetime=datetime.timedelta(days=20))
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)

    assert declared(providing(directory=str(issued.folder))).named("provider-server.mesh-ingress-secret")
    assert any("provider.certificate: tls.crt:" in w and "renew it" in w for w in warnings)
    warnings.clear()
    declared(providing(directory=str(issued.folder), warningDays=10))
    assert not warnings


def test_a_carried_certificate_without_its_key_is_refused(server: Issued) -> None:
    data = {key: text for key, text in server.files().items() if key != "tls.key"}
    with pytest.raises(
        pulumi.RunError, match=r"provider\.certificate: tls\.key: the text is missing or empty"
    ):
        declared(providing(stackSecret="data"), {"data": data})


def test_own_authorities_on_each_side(authority: CertificateAuthority, tmp_path: Path) -> None:
    """The Secret's `ca.crt` is the consumers' authority; the provider's own is spelled out, or it is refused."""
    consumers = CertificateAuthority.create(tmp_path / "consumers", "Consumers")
    mixed = {
        **authority.issued(Kind.SERVER, PROVIDER).files(),
        "ca.crt": consumers.certificate,
    }
    with pytest.raises(pulumi.RunError, match=r"does not lead to an authority in ca\.crt"):
        declared(providing(stackSecret="data"), {"data": mixed})
    raw = samples.provider(certificate={"stackSecret": "data"}, caCertificate=authority.certificate)
    assert declared(raw, {"data": mixed}).result["provider"]["caCertificate"] == authority.certificate


def test_the_stack_hands_out_the_authority_of_a_certificate_that_it_carries(
    authority: CertificateAuthority, server: Issued, client: Issued
) -> None:
    raw = {
        **consuming(certificate={"directory": str(client.folder)}),
        **providing(directory=str(server.folder)),
    }
    result = declared(raw).result
    assert result["provider"]["caCertificate"] == authority.certificate
    assert result["consumer"]["caCertificate"] == authority.certificate
    assert "missing" not in result


@pytest.mark.parametrize("role", ["provider", "consumer"])
def test_the_other_side_s_authority_is_never_handed_out_as_the_own(
    role: str, authority: CertificateAuthority, server: Issued, client: Issued, tmp_path: Path
) -> None:
    """Whoever trusts it as this side's would take the other side for it. Which one is meant is asked for, and so are
    both roots of this side while one replaces the other."""
    stranger = CertificateAuthority.create(tmp_path / "stranger", "Stranger").certificate
    issued = server if role == "provider" else client
    data = {**issued.files(), "ca.crt": authority.certificate + stranger}
    raw = (samples.provider if role == "provider" else samples.consumer)(certificate={"stackSecret": "data"})
    with pytest.raises(pulumi.RunError) as refused:
        declared(raw, {"data": data})
    assert f"{role}.caCertificate: null is missing" in str(refused.value)
    assert "(CN=Stranger 1)" in str(refused.value)
    for named in (authority.certificate, authority.certificate + samples.CA):
        raw[role]["caCertificate"] = named
        assert declared(raw, {"data": data}).result[role]["caCertificate"] == named


def test_a_provider_says_that_it_hands_out_no_authority() -> None:
    for raw in (samples.provider(), samples.provider(certificate=CERT_MANAGER)):
        result = declared(raw).result
        assert result["provider"]["caCertificate"] is None
        (missing,) = result["missing"]
        assert missing.startswith("provider.caCertificate: ")
        assert "set it to the PEM" in missing
    assert "missing" not in declared(samples.provider(caCertificate=samples.CA)).result


SERVER_COMMAND = (
    "Secret mesh-ingress/provider-server: kubectl --context north get secret provider-server --namespace mesh-ingress "
    "--output json | python -m pki check - --id istio.data.example --usage server"
)
CLIENT_COMMAND = (
    "Secret mesh-egress/consumer-client: kubectl --context north get secret consumer-client --namespace mesh-egress "
    "--output json | python -m pki check - --id client.shop.example --usage client"
)


def test_a_stack_names_the_command_that_checks_a_secret_which_it_does_not_make(server: Issued) -> None:
    two = [{"name": name, "systemDomain": f"{name}.example"} for name in ("data", "mail")]
    for raw, expected in (
        (samples.provider(), [SERVER_COMMAND]),
        (samples.consumer(providers=two), [CLIENT_COMMAND]),
        (
            samples.provider(caCertificate=samples.CA, consumersCaCertificate=samples.CA),
            [f"{SERVER_COMMAND} --issuer provider.caCertificate.pem --trust-elsewhere"],
        ),
        (
            samples.consumer(
                providers=[
                    two[0],
                    {**two[1], "clientSecret": "mail-client", "caCertificate": samples.CA},
                ]
            ),
            [CLIENT_COMMAND, f"{CLIENT_COMMAND} --trust-elsewhere".replace("consumer-client", "mail-client")],
        ),
    ):
        assert declared(raw).result["unchecked"] == expected
    for made in (providing(stackSecret="data"), samples.provider(certificate=CERT_MANAGER)):
        assert "unchecked" not in declared(made, {"data": server.files()}).result


def test_the_command_that_a_stack_names_is_understood(
    server: Issued, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = samples.provider(caCertificate=samples.CA, consumersCaCertificate=samples.CA)
    (said,) = declared(raw).result["unchecked"]
    command = shlex.split(said.rpartition("| python -m pki ")[2])
    data = {key: base64.b64encode(text.encode()).decode() for key, text in server.files().items()}
    secret = json.dumps({"kind": "Secret", "data": data}).encode()
    monkeypatch.chdir(tmp_path)
    Path("provider.caCertificate.pem").write_text(server.files()["ca.crt"])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(secret)))

    assert main(command) == 0


def test_both_definitions_of_the_secret_s_keys_agree() -> None:
    """The vocabulary and the checks may not import each other."""
    assert (PRIVATE_KEY, SECRET_KEYS) == (
        material.KEY,
        (material.CERTIFICATE, material.KEY, material.TRUST, material.CRL),
    )


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "tls.key").chmod(0o640), "mode 640"),
        (lambda folder: (folder / "tls.crt").unlink(), "does not exist"),
        (lambda folder: (folder / "ca.crt").write_bytes(b"\xff"), "cannot be read"),
        (lambda folder: (folder / "ca.crt").unlink(), "would refuse them all"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused(
    server: Issued, tmp_path: Path, harm: object, words: str
) -> None:
    for name, text in server.files().items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    assert callable(harm)
    harm(tmp_path)
    with pytest.raises(pulumi.RunError, match=words) as refused:
        declared(providing(directory=str(tmp_path)))
    assert "provider.certificate" in str(refused.value)


def test_a_stack_without_certificates_imports_no_cryptography() -> None:
    program = (
        "import sys, config, components, config.settings;"
        "sys.exit(any(name.split('.')[0] in {'certificates', 'cryptography'} for name in sys.modules))"
    )
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
