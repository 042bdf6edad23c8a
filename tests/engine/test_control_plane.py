from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

import tools
from lab.api import Object
from lab.components import Site
from lab.control_plane import ControlPlane
from lab.errors import ApiError, LabError, ProcessError
from lab.processes import runs_directory
from tests.engine.conftest import RESTRICTED, NewNamespace

ISTIO = "networking.istio.io/v1"


def gateway(namespace: str, **server: object) -> Object:
    """A Gateway as a provider's, with parts of its server replaced."""
    servers = [
        {
            "port": {"number": 9000, "name": "tls-0", "protocol": "TLS"},
            "hosts": ["0.b1.istio.example.com"],
            "tls": {
                "mode": "MUTUAL",
                "credentialName": "provider",
                "subjectAltNames": ["consumer.example.com"],
            },
            **server,
        }
    ]
    return {
        "apiVersion": ISTIO,
        "kind": "Gateway",
        "metadata": {"name": "gw", "namespace": namespace},
        "spec": {"selector": {"istio": "ingressgateway"}, "servers": servers},
    }


def virtual_service(namespace: str, **spec: object) -> Object:
    """A VirtualService as a provider's, with parts of its spec replaced."""
    destination = {"host": f"db.{namespace}.svc.cluster.local", "port": {"number": 5432}}
    return {
        "apiVersion": ISTIO,
        "kind": "VirtualService",
        "metadata": {"name": "vs", "namespace": namespace},
        "spec": {
            "hosts": ["0.b1.istio.example.com"],
            "gateways": ["gw"],
            "tcp": [{"route": [{"destination": destination}]}],
            **spec,
        },
    }


def config_map(namespace: str, name: str = "kept") -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"a": "b"},
    }


def test_the_server_reports_the_pinned_version(api_server: ControlPlane) -> None:
    version = api_server.api.request("GET", "/version")

    assert version["gitVersion"] == tools.version("kube-apiserver")
    assert f"v{version['major']}.{version['minor']}." in version["gitVersion"]


def test_every_kind_of_istio_is_served(api_server: ControlPlane) -> None:
    for kind in ("Gateway", "VirtualService", "DestinationRule", "ServiceEntry", "Sidecar"):
        assert api_server.api.kind(ISTIO, kind).namespaced
    for kind in ("PeerAuthentication", "AuthorizationPolicy"):
        assert api_server.api.kind("security.istio.io/v1", kind).namespaced
    assert api_server.api.kind("networking.istio.io/v1alpha3", "EnvoyFilter").namespaced


def test_good_objects_are_accepted(api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()

    api_server.api.apply(gateway(namespace))
    api_server.api.apply(virtual_service(namespace))

    assert [item["metadata"]["name"] for item in api_server.api.items(ISTIO, "Gateway", namespace)] == ["gw"]
    assert [
        item["metadata"]["name"] for item in api_server.api.items(ISTIO, "VirtualService", namespace)
    ] == ["vs"]


def test_istiod_refuses_bad_objects_and_says_why(api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()
    bad = [
        (gateway(namespace, tls={"mode": "MUTUAL"}), "MUTUAL TLS requires a server certificate"),
        (gateway(namespace, hosts=["*.b1.*.example.com"]), "invalid"),
        (virtual_service(namespace, tcp=[], http=[], tls=[]), "http, tcp or tls must be provided"),
    ]

    for item, reason in bad:
        with pytest.raises(
            ApiError, match=f'admission webhook "rev.validation.istio.io" denied(.|\\n)*{reason}'
        ) as caught:
            api_server.api.apply(item)
        assert caught.value.status == 400
    assert api_server.api.items(ISTIO, "Gateway", namespace) == []
    assert api_server.api.items(ISTIO, "VirtualService", namespace) == []


def test_without_istiod_no_istio_object_is_accepted(api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()
    api_server.stop_istiod()
    try:
        with pytest.raises(ApiError, match="failed calling webhook"):
            api_server.api.apply(gateway(namespace))
        api_server.api.apply(config_map(namespace))
    finally:
        api_server.start_istiod()

    api_server.api.apply(gateway(namespace))


def test_the_controllers_work(api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()
    labels = {"app": "web"}
    api_server.api.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": namespace},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "web", "image": "web"}]},
                },
            },
        }
    )

    deadline = time.monotonic() + 20
    while len(api_server.api.items("v1", "Pod", namespace)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(api_server.api.items("v1", "Pod", namespace)) == 2


def test_a_wrong_token_is_unauthorized_and_a_user_without_rights_forbidden(
    api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    stranger = api_server.api_for("wrong")
    restricted = api_server.api_for(api_server.token(RESTRICTED))

    with pytest.raises(ApiError, match="Unauthorized") as unauthorized:
        stranger.items("v1", "ConfigMap", namespace)
    with pytest.raises(ApiError, match=f'User "{RESTRICTED}" cannot list') as forbidden:
        restricted.items("v1", "ConfigMap", namespace)
    assert (unauthorized.value.status, forbidden.value.status) == (401, 403)

    api_server.api.apply(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "viewer", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": RESTRICTED}],
        }
    )
    assert "kube-root-ca.crt" in {
        item["metadata"]["name"] for item in restricted.items("v1", "ConfigMap", namespace)
    }


def test_the_api_server_comes_back_with_its_address_and_its_data(
    api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    api_server.api.apply(config_map(namespace))
    before = api_server.api.get("v1", "ConfigMap", "kept", namespace)
    kubeconfig = api_server.kubeconfig.read_text()

    api_server.stop_api_server()
    try:
        with pytest.raises(ApiError, match="no answer") as away:
            api_server.api.get("v1", "ConfigMap", "kept", namespace)
        assert away.value.status == 0
    finally:
        api_server.start_api_server()

    assert before is not None
    assert api_server.api.get("v1", "ConfigMap", "kept", namespace) == before
    assert api_server.kubeconfig.read_text() == kubeconfig
    with pytest.raises(ApiError, match="admission webhook"):
        api_server.api.apply(gateway(namespace, tls={"mode": "MUTUAL"}))


def test_a_namespace_is_deleted_with_what_is_in_it(api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()
    api_server.api.apply(config_map(namespace))

    api_server.delete_namespace(namespace)

    assert api_server.api.get("v1", "Namespace", namespace) is None
    assert api_server.api.get("v1", "ConfigMap", "kept", namespace) is None


def test_stop_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    directory = tmp_path / "south"
    plane = ControlPlane("south", directory)
    plane.start()
    processes = plane.processes
    assert {process.name for process in processes} == {"etcd", "kube-apiserver", "kube-controller-manager"}
    with pytest.raises(LabError, match="is running already"):
        plane.start()
    own_state = f"south-{os.getpid()}-*.json"
    assert len(list(runs_directory().glob(own_state))) == 1

    plane.stop()
    plane.stop()

    assert not any(process.identity.alive() for process in processes)
    assert not directory.exists()
    assert list(runs_directory().glob(own_state)) == []


def test_a_part_that_fails_is_named_with_its_log_which_is_kept(tmp_path: Path) -> None:
    directory = tmp_path / "south"
    plane = ControlPlane("south", directory, site=Site(address="192.0.2.1"))

    with pytest.raises(
        ProcessError,
        match=r"kube-apiserver ended with exit code 1 before ready(.|\n)*cannot assign requested address",
    ):
        plane.start()

    assert [path.name for path in directory.iterdir()] == ["logs"]
    assert plane.processes == ()
    with pytest.raises(LabError, match="is not empty"):
        ControlPlane("south", directory).start()
    assert (directory / "logs" / "kube-apiserver.log").exists()
