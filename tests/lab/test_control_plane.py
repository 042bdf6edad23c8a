"""What a control plane does before anything is started; the rest needs binaries and is in tests/engine."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from lab import components, control_plane
from lab.components import Layout, Ports, Site
from lab.control_plane import ControlPlane
from lab.errors import LabError

LAYOUT = Layout(Path("/lab"))
PORTS = Ports(*range(1, 10))


def test_every_user_has_a_token_of_its_own(tmp_path: Path) -> None:
    plane = ControlPlane("north", tmp_path, users={"guest": ()})

    assert plane.token() == plane.token("admin") != plane.token("guest")
    with pytest.raises(LabError, match="north has no user 'root'; there are: admin, guest"):
        plane.token("root")


def test_a_kubeconfig_with_any_token(tmp_path: Path) -> None:
    plane = ControlPlane("north", tmp_path)

    path = plane.kubeconfig_for("wrong", tmp_path / "kubeconfig")

    config = yaml.safe_load(path.read_text())
    assert config["users"][0]["user"]["token"] == "wrong"
    assert config["clusters"][0]["cluster"]["server"] == plane.server


def test_the_token_file_quotes_several_groups() -> None:
    text = control_plane._token_file({"admin": "t1", "guest": "t2"}, {"admin": ("a", "b"), "guest": ()})

    assert text.splitlines() == ['t1,admin,admin,"a,b"', "t2,guest,guest,"]


def test_two_control_planes_share_no_port(tmp_path: Path) -> None:
    north, south = ControlPlane("north", tmp_path / "n"), ControlPlane("south", tmp_path / "s")

    assert north.server != south.server
    assert not set(asdict(north._ports).values()) & set(asdict(south._ports).values())


def test_what_does_not_run_cannot_be_stopped_in_part(tmp_path: Path) -> None:
    plane = ControlPlane("north", tmp_path)

    for action in (plane.stop_api_server, plane.stop_istiod):
        with pytest.raises(LabError, match="does not run"):
            action()
    for action in (plane.start_api_server, plane.start_istiod):
        with pytest.raises(LabError, match="can only be started again after"):
            action()
    plane.stop()


def test_everything_listens_on_the_loopback_interface_only() -> None:
    arguments = [
        *components.etcd(LAYOUT, PORTS),
        *components.api_server(LAYOUT, PORTS, Site()),
        *components.istiod(LAYOUT, PORTS),
    ]
    addresses = [
        word for word in arguments if any(name in word for name in ("Addr=", "listen-", "bind-address"))
    ]

    assert len(addresses) == 8
    assert all("127.0.0.1" in word for word in addresses)


def test_the_webhook_fails_closed_for_every_group_of_istio() -> None:
    configuration = components.validation_webhook(PORTS, "Q0E=")

    (webhook,) = configuration["webhooks"]
    assert webhook["failurePolicy"] == "Fail"
    assert webhook["clientConfig"] == {
        "url": f"https://localhost:{PORTS.istiod_https}/validate",
        "caBundle": "Q0E=",
    }
    assert webhook["rules"][0]["apiGroups"] == list(components.ISTIO_GROUPS)
