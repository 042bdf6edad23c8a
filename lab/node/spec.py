"""What a Pod's containers run with: environment, arguments, user and rights. Pure.

Sources: the Kubernetes pages "Define Dependent Environment Variables", "Downward API" and "Configure a Security Context
for a Pod or Container", and the API reference of Pod v1.
"""

from __future__ import annotations

import pwd
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lab.api import Object
from lab.node.images import Image

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NODE_MEMORY = 4 * 2**30
NODE_CPU = 2.0
"""What the node says it has; a container without limits is told these."""

CAPABILITIES = {
    "CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7, "SETPCAP": 8,
    "NET_BIND_SERVICE": 10, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_CHROOT": 18, "SYS_PTRACE": 19, "SYS_ADMIN": 21,
    "SYS_RESOURCE": 24, "MKNOD": 27, "AUDIT_WRITE": 29, "SETFCAP": 31,
}  # fmt: skip
"""The kernel's numbers (linux/capability.h)."""
DEFAULT_CAPABILITIES = frozenset(CAPABILITIES) - {"NET_ADMIN", "SYS_PTRACE", "SYS_ADMIN", "SYS_RESOURCE"}
"""Those that container runtimes give."""

_SUFFIXES = {
    "": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40,
}  # fmt: skip
_FIELD_WITH_KEY = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")

Lookup = Callable[[str, str], Mapping[str, str] | None]
"""The data of a ConfigMap or Secret of the Pod's namespace by kind and name; None where there is none."""


class NotYetError(Exception):
    """Something that the Pod needs is not there yet; the message says what."""


@dataclass(frozen=True)
class Identity:
    """As whom a container runs."""

    user: int
    group: int
    groups: tuple[int, ...]


def quantity(text: str) -> float:
    """A Kubernetes quantity such as `250m` or `1Gi` as a number."""
    number, suffix = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * _SUFFIXES[suffix]


def field(pod: Object, path: str, node: Mapping[str, str]) -> str:
    """A field of the Pod as the downward API gives it.

    Args:
        pod: the Pod.
        path: the field's path.
        node: the fields that the node decides, by path, such as `status.podIP`.
    """
    keyed = _FIELD_WITH_KEY.fullmatch(path)
    if keyed is not None:
        return str(pod["metadata"].get(keyed[1], {}).get(keyed[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = pod["metadata"].get(path.partition(".")[2], {})
        return "\n".join(f"{key}={_quoted(value)}" for key, value in sorted(pairs.items()))
    if path in node:
        return node[path]
    value: object = pod
    for part in path.split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return str(value)


def resource(container: Object, path: str, divisor: str) -> str:
    """A resource of the container as the downward API gives it, rounded up; without a limit, the node's."""
    group, _, name = path.partition(".")
    stated = container.get("resources", {}).get(group, {}).get(name)
    if stated is None and group == "requests":
        stated = container.get("resources", {}).get("limits", {}).get(name, "0")
    amount = quantity(stated) if stated is not None else {"memory": NODE_MEMORY, "cpu": NODE_CPU}[name]
    return str(int(-(-amount // (quantity(divisor) or 1))))


def environment(container: Object, pod: Object, node: Mapping[str, str], lookup: Lookup) -> dict[str, str]:
    """A container's environment.

    Args:
        container: of the Pod.
        pod: the Pod.
        node: see `field`.
        lookup: finds ConfigMaps and Secrets.

    Raises:
        NotYetError: a ConfigMap or Secret, or a key of it, is missing.
    """
    result = {"PATH": PATH, "HOSTNAME": pod["metadata"]["name"], "HOME": "/"}
    for source in container.get("envFrom", []):
        kind, reference = ("ConfigMap", source.get("configMapRef")) if "configMapRef" in source else (
            "Secret", source["secretRef"]
        )  # fmt: skip
        data = data_of(kind, reference, lookup)
        result |= {source.get("prefix", "") + key: value for key, value in data.items()}
    for entry in container.get("env", []):
        value = _value(entry, container, pod, node, lookup)
        if value is not None:
            result[entry["name"]] = expand(value, result)
    return result


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by the variable; unknown names stay, and `$$(NAME)` is a literal `$(NAME)`."""

    def replaced(match: re.Match[str]) -> str:
        if match[0].startswith("$$"):
            return match[0][1:]
        return variables.get(match[1], match[0])

    return re.sub(r"\$\$?\(([^)]*)\)", replaced, text)


def command(container: Object, image: Image, variables: Mapping[str, str]) -> list[str]:
    """Program and arguments: the Pod's `command` replaces the image's entrypoint, and its `args` the arguments."""
    own = container.get("command")
    arguments = container.get("args") or ([] if own else image.arguments)
    return [expand(word, variables) for word in (*(own or image.entrypoint), *arguments)]


def identity(container: Object, pod: Object, image: Image) -> Identity:
    """As whom a container runs: its own security context, else the Pod's, else the image's user."""
    outer, inner = pod["spec"].get("securityContext") or {}, container.get("securityContext") or {}
    user = inner.get("runAsUser", outer.get("runAsUser"))
    group = inner.get("runAsGroup", outer.get("runAsGroup"))
    if user is None:
        known = pwd.getpwnam(image.user)
        user, group = known.pw_uid, group if group is not None else known.pw_gid
    more = outer.get("supplementalGroups", []) + ([outer["fsGroup"]] if "fsGroup" in outer else [])
    return Identity(user, group or 0, tuple(more))


def capabilities(container: Object) -> list[int]:
    """The numbers of the capabilities that a container may have."""
    context = container.get("securityContext") or {}
    if context.get("privileged"):
        return list(range(64))
    changes = context.get("capabilities") or {}
    dropped = set(changes.get("drop", []))
    kept = frozenset() if "ALL" in dropped else DEFAULT_CAPABILITIES - dropped
    return sorted(CAPABILITIES[name] for name in kept | set(changes.get("add", [])))


def data_of(kind: str, reference: Mapping[str, object], lookup: Lookup) -> Mapping[str, str]:
    """The data of a referred ConfigMap or Secret; nothing if it is optional and missing.

    Raises:
        NotYetError: it is missing.
    """
    name = str(reference.get("name") or reference.get("secretName"))
    found = lookup(kind, name)
    if found is None and not reference.get("optional"):
        raise NotYetError(f"{kind} {name} not found")
    return found or {}


def _value(
    entry: Object, container: Object, pod: Object, node: Mapping[str, str], lookup: Lookup
) -> str | None:
    source = entry.get("valueFrom")
    if source is None:
        return str(entry.get("value", ""))
    if "fieldRef" in source:
        return field(pod, source["fieldRef"]["fieldPath"], node)
    if "resourceFieldRef" in source:
        reference = source["resourceFieldRef"]
        return resource(container, reference["resource"], reference.get("divisor", "1"))
    kind, key = (
        ("ConfigMap", "configMapKeyRef") if "configMapKeyRef" in source else ("Secret", "secretKeyRef")
    )
    reference = source[key]
    value = data_of(kind, reference, lookup).get(reference["key"])
    if value is None and not reference.get("optional"):
        raise NotYetError(f"{kind} {reference['name']} has no key {reference['key']}")
    return value


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
