"""Kinds, names, namespaces, normal forms and the stored state."""

from __future__ import annotations

import pytest

from lab.providers.objects import (
    FIELD_MANAGER_KEY,
    INPUTS_KEY,
    Kind,
    adopt_autoname,
    autoname,
    checkpoint,
    field_manager,
    identifier,
    is_named,
    is_patch,
    kind_of,
    kind_of_token,
    mark_secrets,
    name_of_urn,
    normalize,
    parse_checkpoint,
    parse_identifier,
    token_of_urn,
)
from lab.providers.values import UNKNOWN, Object, Secret, reveal_object

URN = "urn:pulumi:stack::project::pkg:index:Parent$kubernetes:core/v1:Service::a::b"


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("kubernetes:core/v1:Service", Kind("", "v1", "Service")),
        ("kubernetes:networking.istio.io/v1:Gateway", Kind("networking.istio.io", "v1", "Gateway")),
        ("kubernetes:apps/v1:Deployment", Kind("apps", "v1", "Deployment")),
    ],
)
def test_a_token_names_a_kind(token: str, kind: Kind) -> None:
    assert kind_of_token(token) == kind


@pytest.mark.parametrize("token", ["kubernetes:yaml:ConfigFile", "aws:ec2/vpc:Vpc", "kubernetes", ""])
def test_other_tokens_are_refused(token: str) -> None:
    with pytest.raises(ValueError, match="not an object of the Kubernetes API"):
        kind_of_token(token)


def test_an_object_names_its_kind() -> None:
    assert kind_of({"apiVersion": "v1", "kind": "Pod"}) == Kind("", "v1", "Pod")
    assert str(kind_of({"apiVersion": "apps/v1", "kind": "Deployment"})) == "apps/v1/Deployment"


@pytest.mark.parametrize(
    ("kind", "namespaced"),
    [
        (Kind("", "v1", "Service"), True),
        (Kind("", "v1", "Namespace"), False),
        (Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition"), False),
        (Kind("networking.istio.io", "v1", "Gateway"), None),
        (Kind("gateway.networking.k8s.io", "v1", "Gateway"), None),
        (Kind("example.com", "v1", "Namespace"), None),
    ],
)
def test_only_built_in_kinds_have_a_known_scope(kind: Kind, namespaced: bool | None) -> None:
    assert kind.namespaced is namespaced


def test_a_urn_is_taken_apart() -> None:
    assert token_of_urn(URN) == "kubernetes:core/v1:Service"
    assert name_of_urn(URN) == "a::b"


def test_patches_are_told_from_kinds_that_end_alike() -> None:
    urn = "urn:pulumi:s::p::kubernetes:core/v1:ServicePatch::x"
    assert is_patch(urn, "Service")
    assert not is_patch(URN, "Service")


@pytest.mark.parametrize(("namespace", "written"), [("demo", "demo/name"), ("", "name")])
def test_an_identifier_is_read_back(namespace: str, written: str) -> None:
    metadata: Object = {"name": "name", **({"namespace": namespace} if namespace else {})}
    assert identifier({"metadata": metadata}) == written
    assert parse_identifier(written) == (namespace, "name")


def test_names_are_drawn_from_the_seed_and_kept() -> None:
    first: Object = {}
    again: Object = {}
    other: Object = {}
    for obj, seed in ((first, b"1"), (again, b"1"), (other, b"2")):
        autoname(obj, "urn:pulumi:s::p::t::web", seed, "")
    assert first == again != other
    proposed: Object = {"metadata": {}}
    autoname(proposed, URN, b"", "proposed")
    assert proposed["metadata"] == {"name": "proposed", "annotations": {"pulumi.com/autonamed": "true"}}
    fresh: Object = {"metadata": {"labels": {"a": "b"}}}
    adopt_autoname(fresh, first)
    assert fresh["metadata"] == {**_metadata(first), "labels": {"a": "b"}}


def _metadata(obj: Object) -> Object:
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)
    return metadata


def test_a_name_that_is_unknown_is_a_name() -> None:
    assert is_named({"metadata": {"name": UNKNOWN}})
    assert is_named({"metadata": UNKNOWN})
    assert not is_named({"metadata": {"name": ""}})
    assert not is_named({})


def test_a_name_of_the_program_is_not_replaced_by_an_old_one() -> None:
    obj: Object = {"metadata": {"name": "mine"}}
    adopt_autoname(obj, {"metadata": {"name": "old", "annotations": {"pulumi.com/autonamed": "true"}}})
    assert obj == {"metadata": {"name": "mine"}}


def test_the_field_manager_follows_from_the_resource() -> None:
    annotated: Object = {"metadata": {"annotations": {"pulumi.com/patchFieldManager": "me"}}}
    assert field_manager(URN, {FIELD_MANAGER_KEY: "before"}, annotated) == "me"
    assert field_manager(URN, {FIELD_MANAGER_KEY: "before"}, {}) == "before"
    assert field_manager(URN, {}, {}) == field_manager(URN, {}, {}) != field_manager(URN + "x", {}, {})
    assert field_manager(URN, {}, {}).startswith("pulumi-kubernetes-")


def test_a_secrets_plain_text_becomes_data() -> None:
    secret: Object = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA==\n"}, "stringData": {"b": "y"}}
    assert normalize(secret) == {"apiVersion": "v1", "kind": "Secret", "data": {"a": "eA==", "b": "eQ=="}}
    assert secret["stringData"] == {"b": "y"}
    broken: Object = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "no base64"}}
    assert normalize(broken) == broken


def test_what_only_the_server_sets_is_no_input() -> None:
    obj: Object = {"kind": "ConfigMap", "metadata": {"name": "a", "uid": "1", "resourceVersion": "2"}}
    assert normalize(obj) == {"kind": "ConfigMap", "metadata": {"name": "a"}}


def test_a_definition_loses_what_the_server_drops() -> None:
    crd: Object = {
        "kind": "CustomResourceDefinition",
        "spec": {"preserveUnknownFields": False, "group": "x"},
        "status": {},
    }
    assert normalize(crd) == {"kind": "CustomResourceDefinition", "spec": {"group": "x"}}


def test_a_state_is_read_back() -> None:
    inputs: Object = {"kind": "ConfigMap", "data": {"a": "x"}}
    live: Object = {**inputs, "metadata": {"uid": "1"}}
    state = checkpoint(inputs, live, {}, "v1", "me")
    assert state[INPUTS_KEY] == inputs
    old_inputs, old_live = parse_checkpoint(state)
    assert old_inputs == inputs
    assert old_live.items() >= live.items()


def test_schema_extensions_are_spelled_with_underscores_in_a_state() -> None:
    live: Object = {"schema": {"x-kubernetes-list-type": "map"}}
    state = checkpoint({}, live, {}, "v1", "me")
    assert state["schema"] == {"x_kubernetes_list_type": "map"}
    assert parse_checkpoint(state)[1]["schema"] == live["schema"]


def test_secrets_are_marked_leaf_by_leaf_and_lists_as_a_whole() -> None:
    live: Object = {"data": {"a": "x", "b": "y"}, "args": ["a", "b"], "added": 1}
    given: Object = {"data": {"a": Secret("x"), "b": "y"}, "args": ["a", Secret("b")]}
    marked = mark_secrets(live, given)
    assert marked == {"data": {"a": Secret("x"), "b": "y"}, "args": Secret(["a", "b"]), "added": 1}
    assert reveal_object(marked) == live


def test_the_data_of_a_secret_is_always_secret() -> None:
    live: Object = {"kind": "Secret", "data": {"a": "x"}, "metadata": {"name": "n"}}
    state = checkpoint(live, live, {}, "v1", "me")
    assert state["data"] == Secret({"a": "x"})
    inputs = state[INPUTS_KEY]
    assert isinstance(inputs, dict)
    assert inputs["data"] == Secret({"a": "x"})
    assert state["metadata"] == {"name": "n"}
