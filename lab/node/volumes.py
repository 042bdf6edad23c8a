"""A Pod's volumes as directories, and their renewal.

Files are replaced in one step, so that a reader sees an old or a new one. Source: the Kubernetes page "Volumes".
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.api import Api, Object
from lab.node import spec
from lab.node.spec import NotYetError

TOKEN_LIFE = 3600
"""Seconds that a token lives if the Pod does not say."""
RENEW = 0.8
"""Part of its life after which a token is renewed, as the kubelet does."""


@dataclass
class Volumes:
    """The volumes of one Pod. `write` makes and renews them."""

    pod: Object
    directory: Path
    api: Api
    node: Mapping[str, str]
    """See `lab.node.spec.field`."""
    claims: Path = Path()
    """The directory of what PersistentVolumeClaims hold, which outlives Pods."""
    _claimed: dict[str, Path] = field(default_factory=dict)
    """Directory by the volume that claims it."""
    _tokens: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Token, and when it is to be renewed, by its file."""

    def path(self, volume: str) -> Path:
        """The directory of a volume."""
        return self._claimed.get(volume, self.directory / volume)

    def write(self) -> None:
        """Bring all volumes up to date.

        Raises:
            NotYetError: something that a volume needs is missing, or it is of a kind that the node does not have.
            ApiError: the API server does not answer.
        """
        for volume in self.pod["spec"].get("volumes", []):
            if "persistentVolumeClaim" in volume:
                self._claim(volume["name"], volume["persistentVolumeClaim"]["claimName"])
                continue
            target = self.path(volume["name"])
            target.mkdir(parents=True, exist_ok=True)
            if "emptyDir" in volume:
                target.chmod(0o777)
            else:
                _replace(target, self._files(volume))

    def lookup(self, kind: str, name: str) -> Mapping[str, str] | None:
        """The data of a ConfigMap or Secret of the Pod's namespace, as text."""
        found = self.api.get("v1", kind, name, self.pod["metadata"]["namespace"])
        if found is None:
            return None
        data: dict[str, str] = found.get("data") or {}
        if kind == "Secret":
            return {key: base64.b64decode(value).decode() for key, value in data.items()}
        return data

    def _claim(self, volume: str, claim: str) -> None:
        """The directory of a claim, empty at first, to which the claim is bound. Another claim of the name has another one."""
        found = self.api.get("v1", "PersistentVolumeClaim", claim, self.pod["metadata"]["namespace"])
        if found is None:
            raise NotYetError(f"PersistentVolumeClaim {claim} not found")
        place = self.claims / str(found["metadata"]["uid"])
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777)
        if not found["spec"].get("volumeName"):
            self.api.apply(_persistent_volume(found, place))
        self._claimed[volume] = place

    def _files(self, volume: Object) -> dict[str, str]:
        kinds: dict[str, Callable[[Object], dict[str, str]]] = {
            "configMap": lambda source: _selected(spec.data_of("ConfigMap", source, self.lookup), source),
            "secret": lambda source: _selected(spec.data_of("Secret", source, self.lookup), source),
            "downwardAPI": self._downward,
            "serviceAccountToken": lambda source: {source["path"]: self._token(source, volume["name"])},
        }
        if "projected" in volume:
            files: dict[str, str] = {}
            for source in volume["projected"]["sources"]:
                files |= self._files({"name": volume["name"], **source})
            return files
        for kind, write in kinds.items():
            if kind in volume:
                return write(volume[kind])
        raise NotYetError(
            f"volume {volume['name']}: the lab's node has no volumes of kind {set(volume) - {'name'}}"
        )

    def _downward(self, source: Object) -> dict[str, str]:
        return {
            item["path"]: spec.field(self.pod, item["fieldRef"]["fieldPath"], self.node)
            if "fieldRef" in item
            else self._resource(item["resourceFieldRef"])
            for item in source["items"]
        }

    def _resource(self, reference: Object) -> str:
        containers = [*self.pod["spec"].get("initContainers", []), *self.pod["spec"]["containers"]]
        container = next(c for c in containers if c["name"] == reference["containerName"])
        return spec.resource(container, reference["resource"], reference.get("divisor", "1"))

    def _token(self, source: Object, volume: str) -> str:
        key = f"{volume}/{source['path']}"
        token, renew_at = self._tokens.get(key, ("", 0.0))
        if time.monotonic() < renew_at:
            return token
        life = source.get("expirationSeconds", TOKEN_LIFE)
        metadata = self.pod["metadata"]
        reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        wanted = {"expirationSeconds": life, "boundObjectRef": reference}
        if "audience" in source:
            wanted["audiences"] = [source["audience"]]
        account = self.pod["spec"]["serviceAccountName"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": wanted}
        token = str(self.api.request("POST", path, request)["status"]["token"])
        self._tokens[key] = (token, time.monotonic() + life * RENEW)
        return token


def _persistent_volume(claim: Object, place: Path) -> Object:
    """The volume that a provisioner would make for a claim; the controllers bind the two."""
    metadata, spec = claim["metadata"], claim["spec"]
    reference = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    reference |= {key: metadata[key] for key in ("namespace", "name", "uid")}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{metadata['uid']}"},
        "spec": {
            "capacity": {"storage": spec["resources"]["requests"]["storage"]},
            "accessModes": spec["accessModes"],
            "storageClassName": spec.get("storageClassName", ""),
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": str(place)},
            "claimRef": reference,
        },
    }


def _selected(data: Mapping[str, str], source: Object) -> dict[str, str]:
    """The files of a ConfigMap or Secret volume: all keys, or the listed ones under their paths."""
    if "items" not in source:
        return dict(data)
    missing = [item["key"] for item in source["items"] if item["key"] not in data]
    if missing and not source.get("optional"):
        raise NotYetError(f"{source.get('name') or source.get('secretName')} has no key {', '.join(missing)}")
    return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}


def _replace(directory: Path, files: Mapping[str, str]) -> None:
    """Make a directory hold just these files."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            staging = path.with_name(f".{path.name}.new")
            staging.write_text(text)
            staging.replace(path)
    for path in directory.rglob("*"):
        if path.is_file() and str(path.relative_to(directory)) not in files:
            path.unlink()
