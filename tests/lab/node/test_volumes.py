from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.node.spec import NotYetError
from lab.node.volumes import Volumes

POD = {"name": "web-1", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}}


class Cluster:
    """Answers as an API server does for the objects that it is given."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.tokens: list[dict[str, Any]] = []
        self.applied: list[dict[str, Any]] = []

    def get(self, _version: str, kind: str, name: str, _namespace: str) -> dict[str, Any] | None:
        return self.objects.get((kind, name))

    def apply(self, item: dict[str, Any]) -> None:
        self.applied.append(item)

    def request(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        assert (method, path) == ("POST", "/api/v1/namespaces/shop/serviceaccounts/orders/token")
        self.tokens.append(body["spec"])
        return {"status": {"token": f"token-{len(self.tokens)}"}}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def volumes(tmp_path: Path, cluster: Cluster, **volume: object) -> Volumes:
    spec = {"serviceAccountName": "orders", "containers": [], "volumes": [{"name": "v", **volume}]}
    return Volumes({"metadata": POD, "spec": spec}, tmp_path, cluster, {})  # type: ignore[arg-type]


def files(tmp_path: Path) -> dict[str, str]:
    root = tmp_path / "v"
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_a_config_map_follows_its_changes(tmp_path: Path, cluster: Cluster) -> None:
    made = volumes(tmp_path, cluster, configMap={"name": "settings"})
    cluster.objects["ConfigMap", "settings"] = {"data": {"a": "1", "b": "2"}}
    made.write()
    assert files(tmp_path) == {"a": "1", "b": "2"}

    cluster.objects["ConfigMap", "settings"] = {"data": {"a": "3"}}
    made.write()
    assert files(tmp_path) == {"a": "3"}


def test_a_secret_is_decoded_and_its_items_get_their_paths(tmp_path: Path, cluster: Cluster) -> None:
    cluster.objects["Secret", "tls"] = {"data": {"tls.crt": "Y2VydA==", "tls.key": "a2V5"}}

    volumes(
        tmp_path, cluster, secret={"secretName": "tls", "items": [{"key": "tls.crt", "path": "x/c.pem"}]}
    ).write()

    assert files(tmp_path) == {"x/c.pem": "cert"}


def test_what_is_missing_is_waited_for_unless_it_is_optional(tmp_path: Path, cluster: Cluster) -> None:
    with pytest.raises(NotYetError, match="Secret tls not found"):
        volumes(tmp_path, cluster, secret={"secretName": "tls"}).write()

    volumes(tmp_path, cluster, secret={"secretName": "tls", "optional": True}).write()
    assert files(tmp_path) == {}


def test_a_projected_volume_joins_its_sources(tmp_path: Path, cluster: Cluster) -> None:
    cluster.objects["ConfigMap", "root"] = {"data": {"ca.crt": "ca"}}
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": "istio-ca", "expirationSeconds": 600}},
        {"configMap": {"name": "root", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]

    volumes(tmp_path, cluster, projected={"sources": sources}).write()

    assert files(tmp_path) == {"token": "token-1", "ca.crt": "ca", "labels": 'app="web"'}
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web-1", "uid": "u1"}
    assert cluster.tokens == [
        {"expirationSeconds": 600, "boundObjectRef": reference, "audiences": ["istio-ca"]}
    ]


def test_a_token_is_renewed_before_it_expires_and_not_earlier(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 1000}}
    made = volumes(tmp_path, cluster, projected={"sources": [source]})
    seen = []
    for now in (0.0, 799.0, 801.0):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        made.write()
        seen.append(files(tmp_path)["token"])

    assert seen == ["token-1", "token-1", "token-2"]


def test_an_empty_dir_is_writable_by_all_and_kept(tmp_path: Path, cluster: Cluster) -> None:
    made = volumes(tmp_path, cluster, emptyDir={})
    made.write()
    (tmp_path / "v" / "kept").write_text("x")
    made.write()

    assert files(tmp_path) == {"kept": "x"}
    assert (tmp_path / "v").stat().st_mode & 0o777 == 0o777


def test_a_kind_that_the_node_does_not_have_is_named(tmp_path: Path, cluster: Cluster) -> None:
    with pytest.raises(NotYetError, match=r"no volumes of kind .*hostPath"):
        volumes(tmp_path, cluster, hostPath={"path": "/"}).write()


def a_claim(uid: str) -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"metadata": {"uid": uid, "name": "data", "namespace": "shop"}, "spec": spec}


def test_what_a_claim_holds_outlives_the_pod_and_not_the_claim(tmp_path: Path, cluster: Cluster) -> None:
    def mounted(pod: str) -> Path:
        claim = {"persistentVolumeClaim": {"claimName": "data"}}
        spec = {"containers": [], "volumes": [{"name": "v", **claim}]}
        wanted = {"metadata": POD, "spec": spec}
        found = Volumes(wanted, tmp_path / pod, cluster, {}, tmp_path / "claims")  # type: ignore[arg-type]
        found.write()
        return found.path("v")

    with pytest.raises(NotYetError, match="data not found"):
        mounted("one")
    cluster.objects["PersistentVolumeClaim", "data"] = a_claim("first")
    (mounted("one") / "kept").write_text("here")
    (volume,) = cluster.applied
    assert (volume["kind"], volume["spec"]["claimRef"]["uid"]) == ("PersistentVolume", "first")
    assert volume["spec"]["capacity"] == {"storage": "1Gi"}
    cluster.objects["PersistentVolumeClaim", "data"]["spec"]["volumeName"] = volume["metadata"]["name"]
    assert (mounted("two") / "kept").read_text() == "here"
    assert cluster.applied == [volume]
    assert mounted("two").stat().st_mode & 0o777 == 0o777
    cluster.objects["PersistentVolumeClaim", "data"] = a_claim("second")
    assert list(mounted("three").iterdir()) == []
