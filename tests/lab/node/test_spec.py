from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lab.node import spec
from lab.node.images import Image
from lab.node.spec import NotYetError

POD = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "labels": {"app": "web", "tier": 'a"b'},
        "annotations": {"note": "x"},
    },
    "spec": {"serviceAccountName": "orders"},
}
NODE = {"status.podIP": "10.0.1.1"}
DATA: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("ConfigMap", "settings"): {"mode": "fast"},
    ("Secret", "token"): {"key": "s3cret"},
}


def lookup(kind: str, name: str) -> Mapping[str, str] | None:
    return DATA.get((kind, name))


def variables(*entries: dict[str, Any], **container: object) -> dict[str, str]:
    """The environment without what every container has."""
    found = spec.environment({"env": list(entries), **container}, POD, NODE, lookup)
    return {key: value for key, value in found.items() if key not in {"PATH", "HOSTNAME", "HOME"}}


def of(**source: object) -> dict[str, Any]:
    return {"name": "X", "valueFrom": source}


@pytest.mark.parametrize(
    ("source", "value"),
    [
        (of(fieldRef={"fieldPath": "metadata.name"}), "web-1"),
        (of(fieldRef={"fieldPath": "metadata.labels['app']"}), "web"),
        (of(fieldRef={"fieldPath": "metadata.annotations['missing']"}), ""),
        (of(fieldRef={"fieldPath": "spec.serviceAccountName"}), "orders"),
        (of(fieldRef={"fieldPath": "status.podIP"}), "10.0.1.1"),
        (of(configMapKeyRef={"name": "settings", "key": "mode"}), "fast"),
        (of(secretKeyRef={"name": "token", "key": "key"}), "s3cret"),
    ],
)
def test_values_from_elsewhere(source: dict[str, Any], value: str) -> None:
    assert variables(source) == {"X": value}


@pytest.mark.parametrize(
    "source",
    [
        of(configMapKeyRef={"name": "settings", "key": "other"}),
        of(secretKeyRef={"name": "other", "key": "key"}),
    ],
)
def test_what_is_missing_is_waited_for_unless_it_is_optional(source: dict[str, Any]) -> None:
    with pytest.raises(NotYetError):
        variables(source)

    (reference,) = source["valueFrom"].values()
    reference["optional"] = True
    assert variables(source) == {}


def test_a_variable_may_refer_to_earlier_ones_only() -> None:
    assert variables(
        {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)-$(C)"}, {"name": "C", "value": "3"}
    ) == {
        "A": "1",
        "B": "1-$(C)",
        "C": "3",
    }


def test_a_doubled_dollar_is_a_literal_one() -> None:
    assert spec.expand("$$(A) $(A) $(B) $", {"A": "1"}) == "$(A) 1 $(B) $"


def test_all_keys_of_a_config_map_at_once() -> None:
    assert variables(envFrom=[{"prefix": "S_", "configMapRef": {"name": "settings"}}]) == {"S_mode": "fast"}


@pytest.mark.parametrize(
    ("text", "number"), [("250m", 0.25), ("2", 2), ("1Gi", 2**30), ("5k", 5000), ("1.5Mi", 1.5 * 2**20)]
)
def test_quantities(text: str, number: float) -> None:
    assert spec.quantity(text) == number


@pytest.mark.parametrize(
    ("resources", "path", "divisor", "value"),
    [
        ({"limits": {"memory": "1Gi"}}, "limits.memory", "1", str(2**30)),
        ({"limits": {"memory": "1Gi"}}, "limits.memory", "1Mi", "1024"),
        ({"limits": {"cpu": "1500m"}}, "limits.cpu", "1", "2"),
        ({}, "limits.cpu", "1", "2"),
        ({"limits": {"cpu": "3"}}, "requests.cpu", "1", "3"),
        ({}, "requests.memory", "1", "0"),
    ],
)
def test_resources_round_up_and_default_as_kubernetes_says(
    resources: dict[str, Any], path: str, divisor: str, value: str
) -> None:
    assert spec.resource({"resources": resources}, path, divisor) == value


def test_labels_in_a_file_are_quoted() -> None:
    assert spec.field(POD, "metadata.labels", NODE) == 'app="web"\ntier="a\\"b"'


IMAGE = Image(("serve",), arguments=("--default",), user="root")


@pytest.mark.parametrize(
    ("container", "words"),
    [
        ({}, ["serve", "--default"]),
        ({"args": ["$(A)"]}, ["serve", "1"]),
        ({"command": ["sh", "-c"]}, ["sh", "-c"]),
        ({"command": ["sh"], "args": ["x"]}, ["sh", "x"]),
    ],
)
def test_command_and_arguments_of_the_pod_replace_those_of_the_image(
    container: dict[str, Any], words: list[str]
) -> None:
    assert spec.command(container, IMAGE, {"A": "1"}) == words


def test_a_container_runs_as_it_says_else_as_the_pod_says_else_as_the_image_says() -> None:
    pod = {"spec": {"securityContext": {"runAsUser": 1, "runAsGroup": 2, "fsGroup": 3}}}

    assert spec.identity({"securityContext": {"runAsUser": 7}}, pod, IMAGE) == spec.Identity(7, 2, (3,))
    assert spec.identity({}, pod, IMAGE) == spec.Identity(1, 2, (3,))
    assert spec.identity({}, {"spec": {}}, IMAGE) == spec.Identity(0, 0, ())


@pytest.mark.parametrize(
    ("context", "has", "lacks"),
    [
        ({}, {"CHOWN", "NET_BIND_SERVICE"}, {"NET_ADMIN", "SYS_ADMIN"}),
        ({"capabilities": {"drop": ["ALL"]}}, set(), {"CHOWN", "NET_ADMIN"}),
        ({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}, {"NET_ADMIN"}, {"CHOWN"}),
        ({"capabilities": {"drop": ["CHOWN"]}}, {"SETUID"}, {"CHOWN"}),
        ({"privileged": True}, {"SYS_ADMIN", "NET_ADMIN"}, set()),
    ],
)
def test_capabilities(context: dict[str, Any], has: set[str], lacks: set[str]) -> None:
    kept = set(spec.capabilities({"securityContext": context}))

    assert {spec.CAPABILITIES[name] for name in has} <= kept
    assert not {spec.CAPABILITIES[name] for name in lacks} & kept
