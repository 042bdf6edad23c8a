"""What changes between the state and the new inputs, and which changes need a new object.

The table of fields that force a replacement, and when the old object must go first, are the official plugin's.

Source pages: "Diff" of Pulumi's resource provider protocol; "Property paths" of Pulumi's documentation; the API
reference of Kubernetes for which fields are immutable; "Quantity" of the same for resource amounts.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TypeAlias

from lab.providers.objects import AUTONAMED, Kind, is_named, is_true, name_of, namespace_of
from lab.providers.values import UNKNOWN, Object, Value, pluck

Path: TypeAlias = tuple[str | int, ...]


class Change(enum.Enum):
    """What happens to one property."""

    ADD = "add"
    DELETE = "delete"
    UPDATE = "update"


@dataclass(frozen=True)
class PropertyChange:
    """One changed property: where, how, and whether it needs a new object."""

    path: Path
    change: Change
    replace: bool


_SELECTOR = ("spec.selector",)
_STATEFUL_SET = (
    "spec.podManagementPolicy",
    "spec.revisionHistoryLimit",
    "spec.selector",
    "spec.serviceName",
    "spec.volumeClaimTemplates",
)
_JOB = ("spec.completions", "spec.parallelism", "spec.selector", "spec.template")
_CONTAINER_FIELDS = (
    "args",
    "command",
    "env",
    "image",
    "imagePullPolicy",
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "resources",
    "securityContext",
    "stdin",
    "stdinOnce",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
)
_POD_FIELDS = (
    "affinity",
    "automountServiceAccountToken",
    "dnsConfig",
    "dnsPolicy",
    "enableServiceLinks",
    "hostAliases",
    "hostIPC",
    "hostNetwork",
    "hostPID",
    "hostname",
    "imagePullSecrets",
    "nodeName",
    "nodeSelector",
    "overhead",
    "preemptionPolicy",
    "priority",
    "priorityClassName",
    "readinessGates",
    "restartPolicy",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccount",
    "serviceAccountName",
    "shareProcessNamespace",
    "subdomain",
    "terminationGracePeriodSeconds",
    "volumes",
)
_POD = (
    *(f"spec.{name}" for name in _POD_FIELDS),
    *(f"spec.{place}.*.{name}" for place in ("containers", "initContainers") for name in _CONTAINER_FIELDS),
)
_VOLUME_SOURCES = (
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
)
_VOLUME_CLAIM = ("spec.accessModes", "spec.selector", "spec.storageClassName", "spec.volumeName")

_FORCE_NEW: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "PersistentVolume"): tuple(f"spec.{name}" for name in _VOLUME_SOURCES),
    ("", "PersistentVolumeClaim"): _VOLUME_CLAIM,
    ("", "Pod"): _POD,
    ("", "ResourceQuota"): ("spec.scopes",),
    ("", "Service"): ("spec.clusterIP",),
    ("apps", "DaemonSet"): _SELECTOR,
    ("apps", "Deployment"): _SELECTOR,
    ("apps", "StatefulSet"): _STATEFUL_SET,
    ("batch", "Job"): _JOB,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): ("roleRef",),
    ("rbac.authorization.k8s.io", "RoleBinding"): ("roleRef",),
    ("storage.k8s.io", "StorageClass"): ("parameters", "provisioner"),
}
_IDENTITY = ("metadata.name", "metadata.namespace", "kind")


def force_new(
    kind: Kind, inputs: Object, *, secret_mutable: bool = False, config_map_mutable: bool = False
) -> list[Path]:
    """The properties of an object whose change needs a new object; `*` stands for any index of a list.

    Of a Secret that includes its type and data, of a ConfigMap its data, unless the provider is told that they are
    mutable and the object does not call itself immutable.
    """
    patterns: tuple[str, ...] = _FORCE_NEW.get((kind.group, kind.kind), ())
    immutable = inputs.get("immutable") is True
    if (kind.group, kind.kind) == ("", "Secret"):
        patterns = ("type",) if secret_mutable and not immutable else ("type", "stringData", "data")
    elif (kind.group, kind.kind) == ("", "ConfigMap") and (immutable or not config_map_mutable):
        patterns = ("binaryData", "data")
    return [tuple(pattern.split(".")) for pattern in (*_IDENTITY, *patterns)]


def format_path(path: Path) -> str:
    """A path as the engine writes it: `spec.ports[0].name`, `metadata.annotations["a.b/c"]`."""
    result = ""
    for step in path:
        if isinstance(step, int):
            result += f"[{step}]"
        elif any(character in step for character in '."[]'):
            escaped = step.replace('"', '\\"')
            result += f'["{escaped}"]'
        else:
            result += f".{step}" if result else step
    return result


_PATH_STEP = re.compile(r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+|\*)\]|\.?([^.\[\]]+)')


def parse_path(written: str) -> Path:
    """The reverse of `format_path`; a `*` step is kept as it is."""
    steps: list[str | int] = []
    for quoted, index, plain in _PATH_STEP.findall(written):
        if index:
            steps.append("*" if index == "*" else int(index))
        else:
            steps.append(plain or quoted.replace('\\"', '"'))
    return tuple(steps)


def compare(
    old: Object, new: Object, old_inputs: Object, replace_on: list[Path]
) -> tuple[PropertyChange, ...]:
    """The changes that turn `old`, the stored object pruned to the fields of its inputs, into `new`.

    An empty object or list that the inputs have had all along is not a change though the server has dropped it.
    """
    comparison = _Comparison(replace_on)
    comparison.objects((), old, new, old_inputs)
    return tuple(comparison.changes)


@dataclass
class _Comparison:
    replace_on: list[Path]
    changes: list[PropertyChange] = field(default_factory=list)

    def objects(self, path: Path, old: Object, new: Object, old_inputs: Value) -> None:
        for key, value in new.items():
            step = (*path, key)
            before = pluck(old_inputs, key)
            if key in old:
                self.values(step, old[key], value, before)
            elif value not in ({}, [], None) or before != value:
                self.record(step, Change.ADD, value)
        for key, value in old.items():
            if key not in new:
                self.record((*path, key), Change.DELETE, value)

    def lists(self, path: Path, old: list[Value], new: list[Value], old_inputs: Value) -> None:
        before = old_inputs if isinstance(old_inputs, list) else []
        for index, value in enumerate(new):
            if index < len(old):
                self.values((*path, index), old[index], value, before[index] if index < len(before) else None)
            else:
                self.record((*path, index), Change.ADD, value)
        for index in range(len(new), len(old)):
            self.record((*path, index), Change.DELETE, old[index])

    def values(self, path: Path, old: Value, new: Value, old_inputs: Value) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            self.objects(path, old, new, old_inputs)
        elif isinstance(old, list) and isinstance(new, list):
            self.lists(path, old, new, old_inputs)
        elif new is UNKNOWN or not _same(path, old, new):
            self.record(path, Change.UPDATE, new)

    def record(self, path: Path, change: Change, value: Value) -> None:
        replace = any(_touches(path, value, pattern) for pattern in self.replace_on)
        self.changes.append(PropertyChange(path, change, replace))


def _touches(path: Path, value: Value, pattern: Path) -> bool:
    """Whether a change at `path` changes what `pattern` names: at it, below it, or above it with it in `value`."""
    for step, wanted in zip(path, pattern, strict=False):
        if wanted not in ("*", step):
            return False
    return len(path) >= len(pattern) or _contains(value, pattern[len(path) :])


def _contains(value: Value, pattern: Path) -> bool:
    if not pattern:
        return True
    if value is UNKNOWN:
        return False
    if pattern[0] == "*":
        return isinstance(value, list) and any(_contains(item, pattern[1:]) for item in value)
    return isinstance(value, dict) and pattern[0] in value and _contains(value[str(pattern[0])], pattern[1:])


def _same(path: Path, old: Value, new: Value) -> bool:
    if isinstance(old, bool) or isinstance(new, bool):
        return old is new
    if old == new:
        return True
    if any(step in ("limits", "requests", "hard", "capacity") for step in path):
        before, after = _quantity(old), _quantity(new)
        return before is not None and before == after
    return False


_QUANTITY = re.compile(r"([+-]?[0-9]*\.?[0-9]+)(?:[eE]([+-]?[0-9]+)|(n|u|m|k|[KMGTPE]i|[MGTPE])?)")
_SUFFIXES = {
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10**3),
    **{unit: Decimal(10 ** (3 * power)) for power, unit in enumerate("MGTPE", start=2)},
    **{f"{unit}i": Decimal(2 ** (10 * power)) for power, unit in enumerate("KMGTPE", start=1)},
}


def _quantity(value: Value) -> Decimal | None:
    """An amount such as `500m` or `1Gi`, which the server rewrites into its shortest form."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        return None
    number, exponent, suffix = match.groups()
    return Decimal(number).scaleb(int(exponent or 0)) * _SUFFIXES.get(suffix or "", Decimal(1))


def without_ignored(
    changes: tuple[PropertyChange, ...], ignored: Iterable[str]
) -> tuple[PropertyChange, ...]:
    """The changes that are neither at nor below one of the `ignored` paths (`ignoreChanges`)."""
    paths = [parse_path(path) for path in ignored]
    return tuple(change for change in changes if not any(_below(change.path, path) for path in paths))


def _below(path: Path, ancestor: Path) -> bool:
    return len(path) >= len(ancestor) and all(
        wanted in ("*", step) for step, wanted in zip(path, ancestor, strict=False)
    )


def must_delete_first(new: Object, old_live: Object) -> bool:
    """Whether a replacement has to delete the old object first, because the new one takes its very name."""
    return (
        is_named(new)
        and not is_true(new, AUTONAMED)
        and name_of(new) == name_of(old_live)
        and namespace_of(new) == namespace_of(old_live)
    )
