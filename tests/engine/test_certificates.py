"""Certificates on the real engine and a real API server: carried as secrets, renewed, revoked, refused at preview."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest

import tools
from lab.control_plane import ControlPlane
from pki import CertificateAuthority, Issued, Kind
from pki.app import main
from tests.engine import stacks
from tests.engine.conftest import NewNamespace
from tests.engine.project import Project, Stack

SECRET = "provider-server"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project", tools.engine_environment())


@pytest.fixture
def authority(tmp_path: Path) -> CertificateAuthority:
    return CertificateAuthority.create(tmp_path / "ca", "Example")


@pytest.fixture
def provider(
    project: Project, authority: CertificateAuthority, api_server: ControlPlane, fresh: NewNamespace
) -> Iterator[Stack]:
    """A provider's stack whose certificate is a secret of the stack."""
    config = stacks.provider(api_server.kubeconfig, fresh(), certificate={"stackSecret": "data"})
    made = project.stack("provider", config)
    yield made
    made.destroy().expect_success()


def store(project: Project, issued: Issued, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m pki store`."""
    for key in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"):
        monkeypatch.setenv(key, project.environment[key])
    place = ["--stack", "provider", "--secret", "data", "--project", str(project.directory)]
    assert main(["store", str(issued.folder), *place]) == 0


def served(plane: ControlPlane, stack: Stack, name: str = SECRET) -> dict[str, str]:
    """The data of a Secret in the cluster."""
    namespace = stack.outputs()["provider"]["ingressGateway"].partition("/")[0]
    found = plane.api.get("v1", "Secret", name, namespace)
    assert found is not None
    return {key: base64.b64decode(text).decode() for key, text in found["data"].items()}


def test_a_certificate_lives_in_the_stack_s_secrets_and_in_the_cluster_alone(
    provider: Stack,
    project: Project,
    authority: CertificateAuthority,
    api_server: ControlPlane,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = provider.preview()
    assert missing.code != 0
    assert "names no secret of this stack (meshbridge:certificate-data)" in missing.errors
    assert set(missing.operations) == {"meshbridge-provider"}, "more than the stack itself was begun"

    first = authority.issue_server(stacks.SYSTEM_DOMAIN)
    store(project, first, monkeypatch)
    before = first.files()
    assert "create" in provider.up().expect_success().counts
    assert served(api_server, provider) == before
    assert provider.outputs()["provider"]["caCertificate"] == authority.certificate
    line = before["tls.key"].splitlines()[1]
    written = [file for file in project.directory.rglob("*") if file.is_file() and not file.is_symlink()]
    assert len(written) > 2
    assert not [file for file in written if line.encode() in file.read_bytes()]

    authority.publish_crl()
    renewed = authority.renew(Kind.SERVER, stacks.SYSTEM_DOMAIN)
    store(project, renewed, monkeypatch)
    namespace = provider.outputs()["provider"]["ingressGateway"].partition("/")[0]
    assert provider.up().expect_success().operations == {f"{SECRET}.{namespace}-secret": "update"}
    after = served(api_server, provider)
    assert after == renewed.files()
    assert set(after) - set(before) == {"ca.crl"}

    stranger = authority.issue_server("istio.mail.example")
    store(project, stranger, monkeypatch)
    refused = provider.preview()
    assert refused.code != 0
    assert f"lacks {stacks.SYSTEM_DOMAIN!r}" in refused.errors
    assert "PRIVATE" not in refused.errors
    assert served(api_server, provider) == after
    store(project, renewed, monkeypatch)


def test_a_revocation_list_that_is_taken_out_is_gone_from_the_cluster(
    project: Project,
    authority: CertificateAuthority,
    api_server: ControlPlane,
    fresh: NewNamespace,
    tmp_path: Path,
) -> None:
    """One that stayed behind would refuse everyone once it has expired."""
    lists = authority.publish_crl()
    folder = tmp_path / "secret"
    folder.mkdir()
    for name, text in authority.issue_server(stacks.SYSTEM_DOMAIN).files().items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    namespace = fresh()
    common = {"certificate": {"directory": str(folder)}, "consumersCaCertificate": authority.certificate}
    stack = project.stack(
        "provider", stacks.provider(api_server.kubeconfig, namespace, consumersCrl=lists, **common)
    )
    try:
        stack.up().expect_success()
        held = [set(served(api_server, stack, name)) for name in (SECRET, f"{SECRET}-cacert")]
        assert held == [{"tls.crt", "tls.key", "ca.crt", "ca.crl"}, {"ca.crt", "ca.crl"}]

        (folder / "ca.crl").unlink()
        stack.configure(stacks.provider(api_server.kubeconfig, namespace, **common))
        stack.up().expect_success()
        held = [set(served(api_server, stack, name)) for name in (SECRET, f"{SECRET}-cacert")]
        assert held == [{"tls.crt", "tls.key", "ca.crt"}, {"ca.crt"}]
    finally:
        stack.destroy().expect_success()
