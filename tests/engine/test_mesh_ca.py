"""istiod signs with the authority that a stack brings: `python -m pki mesh-ca`, `store`, `up`, and then istiod."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

import tools
from lab import components
from lab.control_plane import ControlPlane
from pki import CertificateAuthority, Kind
from pki.app import main
from tests.engine.project import Project

ISTIOD = "istiod.istio-system.svc"
CLUSTER = "north"


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> list[components.Ports]:
    """Where istiod listens, once it has been started; it reads the Secret itself, for no kubelet mounts it here."""
    arguments, environment = components.istiod, components.istiod_environment
    started: list[components.Ports] = []

    def noted(layout: components.Layout, ports: components.Ports) -> list[str]:
        started.append(ports)
        return arguments(layout, ports)

    monkeypatch.setattr(components, "istiod", noted)
    monkeypatch.setattr(
        components, "istiod_environment", lambda cluster: environment(cluster) | {"USE_REMOTE_CERTS": "true"}
    )
    return started


def test_istiod_takes_the_authority_out_of_the_secret(
    tmp_path: Path, ports: list[components.Ports], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "mesh"
    assert main(["create", str(directory), "--name", "Example mesh", "--purpose", "mesh"]) == 0
    assert main(["mesh-ca", str(directory), CLUSTER]) == 0
    issued = CertificateAuthority.open(directory).issued(Kind.MESH, CLUSTER)
    project = Project(tmp_path / "project", tools.engine_environment())
    for key in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"):
        monkeypatch.setenv(key, project.environment[key])
    plane = ControlPlane(CLUSTER, tmp_path / CLUSTER)
    with plane:
        cluster = {"kubeconfig": str(plane.kubeconfig), "meshCa": {"stackSecret": "mesh"}}
        stack = project.stack("mesh", {"cluster": cluster})
        place = ["--stack", "mesh", "--secret", "mesh", "--project", str(project.directory)]
        assert main(["store", str(issued.folder), *place]) == 0
        assert stack.up().expect_success().operations["mesh-ca-secret"] == "create"

        plane.has_istiod = True
        plane.start_istiod()

        published = plane.api.get("v1", "ConfigMap", "istio-ca-root-cert", "default")
        assert published is not None
        assert published["data"]["root-cert.pem"] == issued.files()["root-cert.pem"]
        context = ssl.create_default_context(cafile=str(issued.folder / "root-cert.pem"))
        with (
            socket.create_connection(("127.0.0.1", ports[0].istiod_secure_grpc), 10) as connection,
            context.wrap_socket(connection, server_hostname=ISTIOD) as secured,
        ):
            presented = secured.getpeercert() or {}
    assert presented["issuer"] == ((("commonName", f"Example mesh {CLUSTER}"),),)
