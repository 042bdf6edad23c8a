"""The mesh's authority: that its Secret is where istiod reads it, that it is judged first, and that its key stays secret."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pulumi
import pytest

from components import declare_stack
from pki import CertificateAuthority, Issued, Purpose
from tests.components import samples
from tests.components.recorder import Run, Secret, leaves, run


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path_factory.mktemp("pki") / "mesh", "Mesh", purpose=Purpose.MESH)


@pytest.fixture(scope="module")
def issued(authority: CertificateAuthority) -> Issued:
    return authority.issue_mesh("north")


def declared(
    mesh_ca: samples.Raw, secrets: Mapping[str, Mapping[str, str]] | None = None, **cluster: object
) -> Run:
    stack = samples.parsed({"cluster": {**samples.APPLIED, **cluster, "meshCa": mesh_ca}})
    return run(lambda: declare_stack(stack, secrets=secrets))


@pytest.mark.parametrize("carried", ["directory", "stackSecret"])
def test_it_becomes_the_secret_that_istiod_reads(issued: Issued, carried: str) -> None:
    found = {"directory": str(issued.folder), "stackSecret": "mesh"}[carried]
    done = declared({carried: found}, {"mesh": issued.files()}, meshNamespace="mesh-root")

    made = done.named("mesh-ca-secret")
    metadata = made.inputs["metadata"]
    assert (made.kind, metadata["name"], metadata["namespace"]) == ("Secret", "cacerts", "mesh-root")
    assert made.inputs["stringData"] == {key: Secret(text) for key, text in issued.files().items()}


def test_a_second_stack_that_brings_one_is_refused_before_it_is_made(issued: Issued) -> None:
    done = declared({"directory": str(issued.folder)})

    owned = done.named("mesh-ca-claim")
    assert owned.inputs["metadata"]["name"] == "cacerts-owner"
    assert owned.inputs["immutable"] is True
    assert owned.name in done.ancestors(done.named("mesh-ca-secret"))
    assert len(done.objects) == 2


def test_its_key_is_nowhere_but_in_a_secret_leaf(issued: Issued) -> None:
    done = declared({"stackSecret": "mesh"}, {"mesh": issued.files()})

    line = issued.files()["ca-key.pem"].splitlines()[1]
    (holding,) = [made for made in done if line in repr(made.inputs)]
    plain = [leaf for _, leaf in leaves(holding.inputs) if not isinstance(leaf, Secret)]
    assert not any(line in str(leaf) for leaf in plain)
    assert line not in json.dumps([done.result, list(done.registered_outputs.values())], default=str)


def test_beside_the_roles_of_a_stack(issued: Issued) -> None:
    raw = samples.provider(cluster={**samples.APPLIED, "meshCa": {"directory": str(issued.folder)}})
    done = run(lambda: declare_stack(samples.parsed(raw)))
    assert done.named("mesh-ca-secret").inputs["metadata"]["namespace"] == "istio-system"
    assert done.children("orders-main")


def test_an_unfit_one_is_refused_before_anything_is_declared(issued: Issued) -> None:
    leaf = CertificateAuthority.create(issued.folder.parents[1] / "other", "Other").issue_client("a.example")
    wrong = {
        **issued.files(),
        "ca-cert.pem": leaf.files()["tls.crt"],
        "ca-key.pem": leaf.files()["tls.key"],
    }
    seen: list[str] = []
    stack = samples.parsed({"cluster": {**samples.APPLIED, "meshCa": {"stackSecret": "mesh"}}})

    def program() -> object:
        try:
            return declare_stack(stack, secrets={"mesh": wrong})
        except pulumi.RunError as error:
            seen.append(str(error))
            return None

    assert not run(program).registrations
    (message,) = seen
    assert "cluster.meshCa: ca-cert.pem: 'CN=a.example'" in message
    assert "is no authority (basicConstraints CA:TRUE is missing)" in message
    assert "cluster.meshCa: cert-chain.pem" in message
    assert "PRIVATE" not in message


def test_one_that_ends_soon_is_deployed_with_a_warning(
    issued: Issued, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", warnings.append)

    declared({"directory": str(issued.folder)})
    assert not warnings
    assert declared({"directory": str(issued.folder), "warningDays": 10**3}).objects
    assert any("cluster.meshCa: ca-cert.pem" in warning and "renew it" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "ca-key.pem").chmod(0o640), "mode 640"),
        (lambda folder: (folder / "root-cert.pem").unlink(), "root-cert.pem does not exist"),
        (lambda folder: (folder / "ca-cert.pem").write_bytes(b"\xff"), "cannot be read"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused(
    issued: Issued, tmp_path: Path, harm: Callable[[Path], object], words: str
) -> None:
    for name, text in issued.files().items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    harm(tmp_path)
    with pytest.raises(pulumi.RunError, match=words) as refused:
        declared({"directory": str(tmp_path)})
    assert "cluster.meshCa.directory" in str(refused.value)
