"""Waiting for an object to become ready, or to be gone, by the official plugin's rules.

Each rule looks at one live object and says what is still missing; nothing missing is ready. Objects of other kinds, and
so all custom resources, are ready when the server has stored them. Rules are polled, from every 50 ms to once a second:
a watch would hold one connection per object that is waited for, and a deletion mostly ends before one is set up.

Annotations decide otherwise: `pulumi.com/skipAwait`, `pulumi.com/timeoutSeconds`, `pulumi.com/waitFor`.

Source pages: "pulumi-kubernetes await logic" of Pulumi's documentation; "Deployments", "Pod Lifecycle", "Jobs" and
"Service" of the Kubernetes documentation.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from lab.providers.api import Api
from lab.providers.diff import parse_path
from lab.providers.objects import (
    SKIP_AWAIT,
    TIMEOUT_SECONDS,
    Kind,
    annotation,
    describe,
    is_true,
    kind_of,
    name_of,
    namespace_of,
)
from lab.providers.plugin import Engine, Severity
from lab.providers.values import Object, Value, integer, mapping, sequence, text

WAIT_FOR: Final = "pulumi.com/waitFor"
_REVISION: Final = "deployment.kubernetes.io/revision"
_DEFAULT_TIMEOUT: Final = 600.0
_SETTLE_SECONDS: Final = 10.0
_FIRST_POLL: Final = 0.05
_LAST_POLL: Final = 1.0
_SKIPS_DELETE_AWAIT: Final = frozenset(
    {"Namespace", "Pod", "ReplicationController", "DaemonSet", "Deployment", "StatefulSet", "Job"}
)

_PODS: Final = Kind("", "v1", "Pod")
_REPLICA_SETS: Final = Kind("apps", "v1", "ReplicaSet")
_ENDPOINTS: Final = Kind("", "v1", "Endpoints")
_CLAIMS: Final = Kind("", "v1", "PersistentVolumeClaim")
_STORAGE_CLASSES: Final = Kind("storage.k8s.io", "v1", "StorageClass")


class NotReadyError(Exception):
    """An object was stored but has not become ready, or was not gone in time."""

    def __init__(self, message: str, missing: list[str], live: Object) -> None:
        self.missing = missing
        self.live = live
        super().__init__(message)


class _FailedError(Exception):
    """An object that will never become ready."""


@dataclass
class _Look:
    """One look at an object: the object, the server to ask for what belongs to it, and earlier looks."""

    api: Api
    live: Object
    settled_at_once: bool
    previous: Object | None = None
    _seen: dict[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return namespace_of(self.live)

    @property
    def uid(self) -> str:
        return text(self.live, "metadata", "uid")

    def owned(self, kind: Kind, uid: str) -> list[Object]:
        """Objects of a kind in the same namespace that `uid` owns."""
        return [item for item in self.api.items(kind, self.namespace) if _owner(item) == uid]

    def settled(self, what: str, fingerprint: str) -> bool:
        """Whether `what` has looked the same for a while."""
        if self.settled_at_once:
            return True
        before, since = self._seen.get(what, ("", 0.0))
        if before != fingerprint:
            self._seen[what] = (fingerprint, time.monotonic())
            return False
        return time.monotonic() - since >= _SETTLE_SECONDS


Rule = Callable[[_Look], list[str]]


@dataclass(frozen=True)
class Waiting:
    """For whom something is waited for."""

    engine: Engine
    """Told what is being waited for; ends the waiting when it is cancelled."""
    urn: str
    timeout: float
    """The resource's own timeout in seconds, 0 for none."""


def wait_ready(api: Api, live: Object, inputs: Object, previous: Object | None, waiting: Waiting) -> Object:
    """Wait until an object that was just created or changed is ready.

    Args:
        api: the server.
        live: the object as the server answered.
        inputs: its inputs, whose annotations may change what is waited for.
        previous: the object before the change, None when it is new.
        waiting: for whom.

    Returns:
        the object when it was ready.

    Raises:
        NotReadyError: it did not become ready in time, or never will, or the waiting was cancelled.
        ApiError, UnreachableError: the server does not answer.
    """
    rule, limit = _rule(live, inputs)
    if rule is None:
        return live
    look = _Look(api, live, settled_at_once=False, previous=previous)
    deadline = time.monotonic() + (waiting.timeout or _own_timeout(inputs) or limit)
    pause, told = _FIRST_POLL, ""
    while True:
        try:
            missing = rule(look)
        except _FailedError as error:
            raise NotReadyError(f"{describe(look.live)} failed", [str(error)], look.live) from error
        if not missing:
            return look.live
        if missing[0] != told:
            told = missing[0]
            waiting.engine.status(told, waiting.urn)
        if time.monotonic() >= deadline:
            raise NotReadyError(f"'{name_of(live)}' timed out waiting to be Ready", missing, look.live)
        if waiting.engine.cancelled.wait(pause):
            raise NotReadyError(f"Resource operation was cancelled for {name_of(live)!r}", missing, look.live)
        pause = min(pause * 1.5, _LAST_POLL)
        look.live = api.get(kind_of(live), namespace_of(live), name_of(live))


def check_ready(api: Api, live: Object, inputs: Object) -> None:
    """Look once whether an object is ready, as a refresh does.

    Raises:
        NotReadyError: it is not.
        ApiError, UnreachableError: the server does not answer.
    """
    rule = None if is_true(inputs, SKIP_AWAIT) else _REFRESH_RULES.get(_rule_key(live))
    if rule is None:
        return
    try:
        missing = rule(_Look(api, live, settled_at_once=True))
    except _FailedError as error:
        missing = [str(error)]
    if missing:
        raise NotReadyError(f"Resource '{name_of(live)}' was created but failed to initialize", missing, live)


def wait_gone(api: Api, kind: Kind, live: Object, inputs: Object, waiting: Waiting) -> None:
    """Wait until a deleted object is really gone, or another object has taken its name.

    Raises:
        NotReadyError: it is still there at the end of the timeout, or the waiting was cancelled.
        ApiError, UnreachableError: the server does not answer.
    """
    if is_true(inputs, SKIP_AWAIT) and kind.kind in _SKIPS_DELETE_AWAIT:
        return
    namespace, name, uid = namespace_of(live), name_of(live), text(live, "metadata", "uid")
    deadline = time.monotonic() + (waiting.timeout or _own_timeout(inputs) or _DEFAULT_TIMEOUT)
    pause, told = _FIRST_POLL, False
    while True:
        found = api.find(kind, namespace, name)
        if found is None or (uid and text(found, "metadata", "uid") != uid):
            return
        finalizers = ", ".join(str(item) for item in sequence(found, "metadata", "finalizers")) or "none"
        missing = [f"finalizers might be preventing deletion ({finalizers})"]
        if time.monotonic() >= deadline:
            waiting.engine.log(Severity.WARNING, missing[0], waiting.urn)
            raise NotReadyError(f"{describe(found)} timed out waiting to be deleted", missing, found)
        if waiting.engine.cancelled.wait(pause):
            raise NotReadyError(f"Resource operation was cancelled for {name!r}", missing, found)
        if not told and pause >= _LAST_POLL:
            told = True
            waiting.engine.status(f"waiting for deletion; {missing[0]}", waiting.urn)
        pause = min(pause * 1.5, _LAST_POLL)


def _own_timeout(inputs: Object) -> float:
    written = annotation(inputs, TIMEOUT_SECONDS)
    return float(written) if written.isdecimal() else 0.0


def _rule_key(obj: Object) -> tuple[str, str]:
    kind = kind_of(obj)
    return kind.group, kind.kind


def _rule(live: Object, inputs: Object) -> tuple[Rule | None, float]:
    if is_true(inputs, SKIP_AWAIT):
        return None, _DEFAULT_TIMEOUT
    wanted = annotation(live, WAIT_FOR)
    if wanted:
        return _wait_for(wanted), _DEFAULT_TIMEOUT
    key = _rule_key(live)
    return _RULES.get(key), _TIMEOUTS.get(key, _DEFAULT_TIMEOUT)


def _owner(obj: Object) -> str:
    for reference in sequence(obj, "metadata", "ownerReferences"):
        if mapping(reference).get("controller") is True:
            return text(reference, "uid")
    return ""


def _condition(obj: Value, kind: str) -> Object:
    for condition in sequence(obj, "status", "conditions"):
        if text(condition, "type") == kind:
            return mapping(condition)
    return {}


def _observed(obj: Object) -> bool:
    """Whether the controller has seen the latest change of the object."""
    return integer(obj, "status", "observedGeneration") == integer(obj, "metadata", "generation")


def _count(obj: Value, *path: str) -> int:
    return integer(obj, *path) or 0


def _pod_problems(pod: Object) -> list[str]:
    problems = []
    for status in sequence(pod, "status", "containerStatuses"):
        waiting, ended = mapping(status, "state", "waiting"), mapping(status, "state", "terminated")
        reason = text(waiting, "reason")
        if reason and reason != "ContainerCreating":
            problems.append(f"[{reason}] {text(waiting, 'message')}".rstrip())
        if text(ended, "reason"):
            code = _count(ended, "exitCode")
            problems.append(f"container {text(status, 'name')!r} completed with exit code {code}")
    for kind in ("PodScheduled", "Initialized", "Ready"):
        condition = _condition(pod, kind)
        if text(condition, "status") == "False" and text(condition, "message"):
            problems.append(text(condition, "message"))
            break
    return [f"[Pod {namespace_of(pod)}/{name_of(pod)}]: {problem}" for problem in problems]


def _pod(look: _Look) -> list[str]:
    if text(look.live, "status", "phase") == "Succeeded":
        return []
    for kind, state in (("PodScheduled", "scheduled"), ("Initialized", "initialized"), ("Ready", "ready")):
        if text(_condition(look.live, kind), "status") != "True":
            return [f"Waiting for Pod {name_of(look.live)!r} to be {state}", *_pod_problems(look.live)]
    return []


def _deployment(look: _Look) -> list[str]:
    revision = annotation(look.live, _REVISION)
    if not _observed(look.live) or not revision:
        return ["Waiting for the Deployment controller to take notice"]
    current = [
        item for item in look.owned(_REPLICA_SETS, look.uid) if annotation(item, _REVISION) == revision
    ]
    if not current:
        return [f"Waiting for the ReplicaSet of revision {revision}"]
    replica_set = current[0]
    wanted = integer(replica_set, "spec", "replicas")
    wanted = 1 if wanted is None else wanted
    live = _count(replica_set, "status", "readyReplicas")
    missing = _conditions_missing(look.live)
    unbound = _unbound_claims(look)
    if unbound:
        missing.append(f"Failed to bind PersistentVolumeClaim(s): {', '.join(unbound)}")
    if text(_condition(look.live, "Available"), "status") != "True":
        missing.append("Minimum number of live Pods was not attained")
    elif revision != "1" and not _rolled_out(look.live):
        missing.append("Minimum number of Pods to consider the application live was not attained")
    elif live < wanted:
        missing.append(f"Waiting for app ReplicaSet to be available ({live}/{wanted} Pods available)")
    if missing:
        for pod in look.owned(_PODS, text(replica_set, "metadata", "uid")):
            missing += _pod_problems(pod)
    return missing


def _rolled_out(deployment: Object) -> bool:
    progressing = _condition(deployment, "Progressing")
    return text(progressing, "status") == "True" and text(progressing, "reason") == "NewReplicaSetAvailable"


def _conditions_missing(deployment: Object) -> list[str]:
    missing = []
    for kind in ("Progressing", "Available"):
        condition = _condition(deployment, kind)
        if condition and text(condition, "status") != "True":
            missing.append(f"[{text(condition, 'reason')}] {text(condition, 'message')}")
    return missing


def _unbound_claims(look: _Look) -> list[str]:
    names = [
        text(volume, "persistentVolumeClaim", "claimName")
        for volume in sequence(look.live, "spec", "template", "spec", "volumes")
    ]
    unbound = []
    for name in filter(None, names):
        claim = look.api.find(_CLAIMS, look.namespace, name)
        if claim is not None and text(claim, "status", "phase") != "Bound":
            unbound.append(name)
    return unbound


def _stateful_set(look: _Look) -> list[str]:
    if not _observed(look.live):
        return ["Waiting for the StatefulSet controller to take notice"]
    replicas = integer(look.live, "spec", "replicas")
    wanted = 1 if replicas is None else replicas
    status = mapping(look.live, "status")
    ready = _count(status, "readyReplicas")
    current, update = text(status, "currentRevision"), text(status, "updateRevision")
    missing = []
    if not wanted == _count(status, "replicas") == ready:
        missing.append(f"{ready} out of {wanted} replicas succeeded readiness checks")
        for pod in look.owned(_PODS, look.uid):
            missing += _pod_problems(pod)
    if look.previous is not None and current != update:
        missing.append(
            f"StatefulSet controller failed to advance from revision {current!r} to revision {update!r}"
        )
    return missing


def _daemon_set(look: _Look) -> list[str]:
    if not _observed(look.live):
        return ["Waiting for the DaemonSet controller to take notice"]
    status = mapping(look.live, "status")
    wanted = _count(status, "desiredNumberScheduled")
    for counted in ("currentNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady"):
        if _count(status, counted) < wanted:
            return [f"{counted}: {_count(status, counted)} out of {wanted} Pods"]
    return []


def _replication_controller(look: _Look) -> list[str]:
    wanted, live = _count(look.live, "spec", "replicas"), _count(look.live, "status", "availableReplicas")
    return [] if wanted == live else [f"{live} out of {wanted} replicas are available"]


def _job(look: _Look) -> list[str]:
    failed = _condition(look.live, "Failed")
    if text(failed, "status") == "True":
        raise _FailedError(f"[{text(failed, 'reason')}] {text(failed, 'message')}")
    if text(_condition(look.live, "Complete"), "status") == "True":
        return []
    status = mapping(look.live, "status")
    counts = f"Active: {_count(status, 'active')} | Succeeded: {_count(status, 'succeeded')}"
    missing = [f"Waiting for Job to succeed ({counts} | Failed: {_count(status, 'failed')})"]
    for pod in look.owned(_PODS, look.uid):
        missing += _pod_problems(pod)
    return missing


def _service(look: _Look) -> list[str]:
    """A Service waits for its endpoints to settle, unless it selects no Pods; a load balancer for its address."""
    spec = mapping(look.live, "spec")
    missing = []
    is_external = text(spec, "type") == "ExternalName"
    if mapping(spec, "selector") and not is_external and text(spec, "clusterIP") != "None":
        endpoints = look.api.find(_ENDPOINTS, look.namespace, name_of(look.live))
        subsets = sequence(endpoints, "subsets")
        settled = look.settled("endpoints", json.dumps(subsets, default=repr))
        if not settled or (endpoints is None and not look.settled_at_once):
            missing.append("Finding Pods to direct traffic to")
        if any(sequence(subset, "notReadyAddresses") for subset in subsets):
            missing.append(
                "Service does not target any Pods. Selected Pods may not be ready, or field '.spec.selector' may not "
                "match labels on any Pods"
            )
    if text(spec, "type") == "LoadBalancer" and not sequence(look.live, "status", "loadBalancer", "ingress"):
        missing.append("Service was not allocated an IP address; does your cloud provider support this?")
    return missing


def _ingress(look: _Look) -> list[str]:
    if sequence(look.live, "status", "loadBalancer", "ingress"):
        return []
    return ["Ingress .status.loadBalancer field was not updated with a hostname/IP address"]


def _volume(look: _Look) -> list[str]:
    phase = text(look.live, "status", "phase")
    return [] if phase in ("Available", "Bound") else [f"PersistentVolume is {phase or 'new'}"]


def _claim(look: _Look) -> list[str]:
    phase = text(look.live, "status", "phase")
    if phase == "Bound":
        return []
    class_name = text(look.live, "spec", "storageClassName")
    storage_class = look.api.find(_STORAGE_CLASSES, "", class_name) if class_name else None
    if phase == "Pending" and text(storage_class, "volumeBindingMode") == "WaitForFirstConsumer":
        return []
    return [f"PersistentVolumeClaim is {phase or 'new'}"]


def _quota(look: _Look) -> list[str]:
    wanted, seen = mapping(look.live, "spec", "hard"), mapping(look.live, "status", "hard")
    return [] if wanted == seen else ["ResourceQuota is not yet in force"]


def _secret(look: _Look) -> list[str]:
    if text(look.live, "type") != "kubernetes.io/service-account-token" or mapping(look.live, "data"):
        return []
    return ["the token controller has not filled the Secret"]


def _wait_for(written: str) -> Rule:
    """The rule of a `pulumi.com/waitFor` annotation: one expression, or a JSON list of them."""
    try:
        parsed: object = json.loads(written)
    except ValueError:
        parsed = written
    expressions = [str(item) for item in parsed] if isinstance(parsed, list) else [written]
    for expression in expressions:
        if not expression.startswith(("condition=", "jsonpath=")):
            raise ValueError(f'{WAIT_FOR}: expected a "jsonpath=" or "condition=" prefix, got {expression!r}')

    def rule(look: _Look) -> list[str]:
        return [
            f"Waiting for {expression}" for expression in expressions if not _holds(look.live, expression)
        ]

    return rule


def _holds(obj: Object, expression: str) -> bool:
    kind, _, rest = expression.partition("=")
    left, has_value, wanted = rest.partition("=")
    if kind == "condition":
        return text(_condition(obj, left), "status").lower() == (wanted.lower() if has_value else "true")
    found: Value = obj
    for step in parse_path(left.strip("{}").lstrip(".")):
        if isinstance(step, int):
            found = found[step] if isinstance(found, list) and step < len(found) else None
        else:
            found = found.get(step) if isinstance(found, dict) else None
    return found is not None and (not has_value or str(found) == wanted)


_RULES: Final[dict[tuple[str, str], Rule]] = {
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _claim,
    ("", "Pod"): _pod,
    ("", "ReplicationController"): _replication_controller,
    ("", "ResourceQuota"): _quota,
    ("", "Secret"): _secret,
    ("", "Service"): _service,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "StatefulSet"): _stateful_set,
    ("batch", "Job"): _job,
    ("networking.k8s.io", "Ingress"): _ingress,
}
_REFRESH_RULES: Final = {
    key: rule
    for key, rule in _RULES.items()
    if key[1] in ("Pod", "Service", "DaemonSet", "Deployment", "StatefulSet", "Job", "Ingress")
}
_TIMEOUTS: Final = {
    ("", "PersistentVolume"): 300.0,
    ("", "PersistentVolumeClaim"): 300.0,
    ("", "ResourceQuota"): 60.0,
    ("", "Secret"): 5.0,
}
