"""When an object counts as ready, rule by rule, on objects as controllers write them."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from lab.providers import awaits
from lab.providers.api import Api
from lab.providers.awaits import NotReadyError, Waiting, check_ready, wait_gone, wait_ready
from lab.providers.objects import Kind, kind_of
from lab.providers.values import Object
from tests.lab.providers.conftest import Listener


class Server:
    """Answers with what is to be there, one answer after the other, the last one for ever."""

    def __init__(self, *looks: Object | None, related: list[Object] | None = None) -> None:
        self._looks = list(looks)
        self._related = related or []

    def find(self, kind: Kind, _namespace: str, name: str) -> Object | None:
        for item in self._related:
            if item["kind"] == kind.kind and _name(item) == name:
                return item
        if self._looks[0] is not None and self._looks[0]["kind"] != kind.kind:
            return None
        return self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        found = self.find(kind, namespace, name)
        assert found is not None
        return found

    def items(self, kind: Kind, _namespace: str) -> list[Object]:
        return [item for item in self._related if item["kind"] == kind.kind]


def api(*looks: Object | None, related: list[Object] | None = None) -> Api:
    return cast("Api", Server(*looks, related=related))


def _name(obj: Object) -> object:
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    return metadata["name"]


def thing(api_version: str, kind: str, spec: Any = None, status: Any = None, **metadata: Any) -> Object:
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "a", "namespace": "demo", "uid": "1", "generation": 2, **metadata},
        "spec": spec or {},
        "status": status or {},
    }


def condition(kind: str, status: str = "True", **more: str) -> dict[str, str]:
    return {"type": kind, "status": status, **more}


def missing(live: Object, *related: Object) -> list[str]:
    try:
        check_ready(api(live, related=list(related)), live, {})
    except NotReadyError as error:
        return error.missing
    return []


def deployment(revision: str, *conditions: dict[str, str], observed: int = 2) -> Object:
    status = {"observedGeneration": observed, "conditions": list(conditions)}
    annotations = {"deployment.kubernetes.io/revision": revision}
    return thing("apps/v1", "Deployment", status=status, annotations=annotations)


def owned(kind: str, owner: str, **more: Any) -> Object:
    api_version = "apps/v1" if kind == "ReplicaSet" else "v1"
    return thing(api_version, kind, ownerReferences=[{"uid": owner, "controller": True}], **more)


def replica_set(ready: int, revision: str = "1") -> Object:
    annotations = {"deployment.kubernetes.io/revision": revision}
    return owned(
        "ReplicaSet", "1", spec={"replicas": 2}, status={"readyReplicas": ready}, annotations=annotations
    )


def test_a_deployment_is_ready_when_its_current_replica_set_is() -> None:
    available = condition("Available")
    rolled = condition("Progressing", reason="NewReplicaSetAvailable")
    assert missing(deployment("1", available), replica_set(2)) == []
    assert missing(deployment("2", available, rolled), replica_set(2), replica_set(2, "2")) == []
    assert missing(deployment("1", available), replica_set(1)) == [
        "Waiting for app ReplicaSet to be available (1/2 Pods available)"
    ]
    assert missing(deployment("2", available), replica_set(2)) == ["Waiting for the ReplicaSet of revision 2"]
    assert missing(deployment("1", available, observed=1)) == [
        "Waiting for the Deployment controller to take notice"
    ]
    rolling = condition("Progressing", reason="ReplicaSetUpdated")
    assert missing(deployment("2", available, rolling), replica_set(2, "2")) == [
        "Minimum number of Pods to consider the application live was not attained"
    ]


def test_a_deployment_that_is_not_available_says_why() -> None:
    unavailable = condition("Available", "False", reason="MinimumReplicasUnavailable", message="too few")
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    status = {"containerStatuses": [{"name": "c", "state": waiting}]}
    live = replica_set(0)
    assert isinstance(live["metadata"], dict)
    live["metadata"]["uid"] = "rs"
    assert missing(deployment("1", unavailable), live, owned("Pod", "rs", status=status)) == [
        "[MinimumReplicasUnavailable] too few",
        "Minimum number of live Pods was not attained",
        "[Pod demo/a]: [ImagePullBackOff] no such image",
    ]


def test_a_pod_is_ready_or_done() -> None:
    ready = [condition(kind) for kind in ("PodScheduled", "Initialized", "Ready")]
    assert missing(thing("v1", "Pod", status={"conditions": ready})) == []
    assert missing(thing("v1", "Pod", status={"phase": "Succeeded"})) == []
    unschedulable = condition("PodScheduled", "False", message="0/1 nodes are available")
    assert missing(thing("v1", "Pod", status={"conditions": [unschedulable]})) == [
        "Waiting for Pod 'a' to be scheduled",
        "[Pod demo/a]: 0/1 nodes are available",
    ]


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"observedGeneration": 2, "replicas": 1, "readyReplicas": 1}, True),
        ({"observedGeneration": 2, "replicas": 1, "readyReplicas": 0}, False),
        ({"observedGeneration": 1, "replicas": 1, "readyReplicas": 1}, False),
    ],
)
def test_a_stateful_set_has_its_replicas(status: Any, ready: bool) -> None:
    assert (missing(thing("apps/v1", "StatefulSet", status=status)) == []) is ready


def test_a_daemon_set_runs_everywhere() -> None:
    counts = ("currentNumberScheduled", "updatedNumberScheduled", "numberAvailable", "numberReady")
    status = {"observedGeneration": 2, "desiredNumberScheduled": 2, **dict.fromkeys(counts, 2)}
    assert missing(thing("apps/v1", "DaemonSet", status=status)) == []
    assert missing(thing("apps/v1", "DaemonSet", status={**status, "numberReady": 1})) == [
        "numberReady: 1 out of 2 Pods"
    ]


def test_a_job_succeeds_or_fails() -> None:
    assert missing(thing("batch/v1", "Job", status={"conditions": [condition("Complete")]})) == []
    failed = condition("Failed", reason="BackoffLimitExceeded", message="too often")
    assert missing(thing("batch/v1", "Job", status={"conditions": [failed]})) == [
        "[BackoffLimitExceeded] too often"
    ]
    assert "Active: 1" in missing(thing("batch/v1", "Job", status={"active": 1}))[0]


SELECTS = {"selector": {"app": "x"}}


@pytest.mark.parametrize(
    "spec",
    [{}, {**SELECTS, "clusterIP": "None"}, {**SELECTS, "type": "ExternalName"}, {"type": "ClusterIP"}],
)
def test_a_service_that_selects_nothing_is_ready_at_once(spec: Any, engine: Listener) -> None:
    live = thing("v1", "Service", spec)
    assert wait_ready(api(live), live, {}, None, Waiting(engine, "", 0.01)) == live


def test_a_service_waits_until_its_endpoints_have_settled(
    engine: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = thing("v1", "Service", SELECTS)
    endpoints = thing("v1", "Endpoints")
    with pytest.raises(NotReadyError, match="timed out"):
        wait_ready(api(live, related=[endpoints]), live, {}, None, Waiting(engine, "", 0.05))
    monkeypatch.setattr(awaits, "_SETTLE_SECONDS", 0.05)
    assert wait_ready(api(live, related=[endpoints]), live, {}, None, Waiting(engine, "", 5)) == live
    with pytest.raises(NotReadyError, match="timed out"):
        wait_ready(api(live), live, {}, None, Waiting(engine, "", 0.3))
    pending: Object = {**endpoints, "subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}]}]}
    assert "Service does not target any Pods" in missing(live, pending)[0]


def test_a_load_balancer_waits_for_its_address() -> None:
    spec = {"type": "LoadBalancer"}
    assert "not allocated an IP address" in missing(thing("v1", "Service", spec))[0]
    status = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    assert missing(thing("v1", "Service", spec, status)) == []


@pytest.mark.parametrize(
    ("obj", "ready"),
    [
        (thing("v1", "PersistentVolume", status={"phase": "Available"}), True),
        (thing("v1", "PersistentVolumeClaim", status={"phase": "Pending"}), False),
        (thing("v1", "ResourceQuota", {"hard": {"pods": "1"}}, {"hard": {"pods": "1"}}), True),
        (thing("v1", "ResourceQuota", {"hard": {"pods": "1"}}), False),
        ({**thing("v1", "Secret"), "type": "kubernetes.io/service-account-token"}, False),
        ({**thing("v1", "Secret"), "type": "Opaque"}, True),
        (thing("v1", "ReplicationController", {"replicas": 1}, {"availableReplicas": 1}), True),
        (thing("networking.k8s.io/v1", "Ingress"), False),
        (thing("policy/v1", "PodDisruptionBudget"), True),
        (thing("networking.istio.io/v1", "Gateway"), True),
    ],
)
def test_the_smaller_rules(obj: Object, ready: bool, engine: Listener) -> None:
    try:
        wait_ready(api(obj), obj, {}, None, Waiting(engine, "", 0.01))
    except NotReadyError:
        assert not ready
    else:
        assert ready


def test_a_volume_claim_may_wait_for_its_first_pod(engine: Listener) -> None:
    claim = thing("v1", "PersistentVolumeClaim", {"storageClassName": "late"}, {"phase": "Pending"})
    late = {
        **thing("storage.k8s.io/v1", "StorageClass", name="late"),
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    assert wait_ready(api(claim, related=[late]), claim, {}, None, Waiting(engine, "", 0.01)) == claim


def annotated(**annotations: str) -> Object:
    return {"metadata": {"annotations": {f"pulumi.com/{key}": value for key, value in annotations.items()}}}


def test_annotations_change_what_is_waited_for(engine: Listener) -> None:
    pod = thing("v1", "Pod")
    assert wait_ready(api(pod), pod, annotated(skipAwait="true"), None, Waiting(engine, "", 0)) == pod
    with pytest.raises(NotReadyError):
        wait_ready(api(pod), pod, annotated(timeoutSeconds="1"), None, Waiting(engine, "", 0.01))
    check_ready(api(pod), pod, annotated(skipAwait="true"))


@pytest.mark.parametrize(
    ("expression", "ready"),
    [
        ("condition=Ready", True),
        ("condition=Ready=false", False),
        ("jsonpath={.status.phase}=Issued", True),
        ("jsonpath={.status.items[0].x}", True),
        ("jsonpath={.status.items[1].x}", False),
        ('["condition=Ready", "jsonpath={.status.phase}=Other"]', False),
    ],
)
def test_a_custom_resource_can_be_waited_for(expression: str, ready: bool, engine: Listener) -> None:
    status = {"conditions": [condition("Ready")], "phase": "Issued", "items": [{"x": 1}]}
    live = thing(
        "cert-manager.io/v1", "Certificate", status=status, annotations={"pulumi.com/waitFor": expression}
    )
    try:
        wait_ready(api(live), live, {}, None, Waiting(engine, "", 0.01))
    except NotReadyError as error:
        assert not ready
        assert error.missing[0].startswith("Waiting for ")
    else:
        assert ready


def test_a_wait_ends_when_the_object_changes(engine: Listener) -> None:
    pod, done = thing("v1", "Pod"), thing("v1", "Pod", status={"phase": "Succeeded"})
    assert wait_ready(api(pod, done), pod, {}, None, Waiting(engine, "", 5)) == done


def test_cancelling_interrupts_a_wait(engine: Listener) -> None:
    pod = thing("v1", "Pod")
    threading.Timer(0.1, engine.cancelled.set).start()
    with pytest.raises(NotReadyError, match="cancelled"):
        wait_ready(api(pod), pod, {}, None, Waiting(engine, "", 60))


def test_a_deletion_ends_when_the_object_is_gone_or_another_has_its_name(engine: Listener) -> None:
    old = thing("v1", "ConfigMap")
    waiting = Waiting(engine, "", 5)
    wait_gone(api(old, old, None), kind_of(old), old, {}, waiting)
    wait_gone(api(old, thing("v1", "ConfigMap", uid="2")), kind_of(old), old, {}, waiting)


def test_a_deletion_that_does_not_end_names_the_finalizers(engine: Listener) -> None:
    held = thing("v1", "ConfigMap", finalizers=["example.com/hold"])
    with pytest.raises(NotReadyError, match="timed out waiting to be deleted") as caught:
        wait_gone(api(held), kind_of(held), held, {}, Waiting(engine, "", 0.01))
    assert caught.value.missing == ["finalizers might be preventing deletion (example.com/hold)"]


def test_only_some_kinds_may_skip_waiting_for_their_deletion(engine: Listener) -> None:
    skip = annotated(skipAwait="true")
    pod, config_map = thing("v1", "Pod"), thing("v1", "ConfigMap")
    wait_gone(api(pod), kind_of(pod), pod, skip, Waiting(engine, "", 0.01))
    with pytest.raises(NotReadyError):
        wait_gone(api(config_map), kind_of(config_map), config_map, skip, Waiting(engine, "", 0.01))
