"""Field ownership and patches, as pure functions; the rest of `cluster` is tested against a real API server."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lab.providers.api import ApiError, NoMatchError
from lab.providers.cluster import managed_by, merge_patch
from lab.providers.objects import Kind
from lab.providers.values import Object, Value

leaves: st.SearchStrategy[Value] = st.one_of(st.integers(0, 3), st.sampled_from(["x", "y"]))
bags: st.SearchStrategy[Object] = st.recursive(
    st.dictionaries(st.sampled_from("abc"), leaves, max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from("abc"), st.one_of(leaves, inner, st.lists(leaves, max_size=2)), max_size=3
    ),
    max_leaves=8,
)


def apply_merge_patch(target: Value, patch: Value) -> Value:
    """The algorithm of the merge patch standard."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = apply_merge_patch(result.get(key), value)
    return result


@given(bags, bags)
def test_a_merge_patch_leads_from_old_to_new(old: Object, new: Object) -> None:
    assert apply_merge_patch(old, merge_patch(old, new)) == new
    assert merge_patch(old, old) == {}


def entry(manager: str, operation: str, fields: Object, **more: Value) -> Object:
    return {"manager": manager, "operation": operation, "fieldsV1": fields, **more}


def test_the_creators_fields_are_taken_over_and_nobody_elses() -> None:
    created = entry("pulumi-kubernetes", "Update", {"f:data": {"f:a": {}}})
    kubectl = entry("kubectl", "Apply", {"f:data": {"f:b": {}}})
    mine = entry("me", "Apply", {"f:data": {"f:c": {}}})
    theirs = entry("istiod", "Update", {"f:status": {}})
    status = entry("kubectl", "Update", {"f:status": {}}, subresource="status")
    assert managed_by([created, theirs, kubectl, mine, status], "me") == [
        theirs,
        status,
        entry("me", "Apply", {"f:data": {"f:a": {}, "f:b": {}, "f:c": {}}}),
    ]
    assert managed_by([mine, theirs, status], "me") is None


def test_a_refusal_names_the_object_the_reason_and_a_remedy() -> None:
    body: Object = {"reason": "Forbidden", "message": "no way", "details": {"kind": "configmaps"}}
    said = str(ApiError(403, body, "ConfigMap demo/a"))
    assert said.startswith("ConfigMap demo/a: Forbidden: no way (the user of the kubeconfig may not do this")
    assert str(ApiError(502, {}, "x")) == "x: HTTP 502: the server gave no message"


def test_refusals_are_told_apart() -> None:
    missing_namespace = ApiError(404, {"reason": "NotFound", "details": {"kind": "namespaces"}}, "x")
    assert missing_namespace.not_found
    assert missing_namespace.namespace_not_found
    assert not ApiError(404, {"reason": "NotFound"}, "x").namespace_not_found
    assert ApiError(409, {"reason": "AlreadyExists"}, "x").already_exists
    assert not ApiError(409, {"reason": "AlreadyExists"}, "x").conflict
    assert ApiError(409, {"reason": "Conflict"}, "x").conflict
    assert ApiError(422, {"message": "spec.a: Invalid value: field is immutable"}, "x").immutable
    assert ApiError(400, {"message": "webhook does not support dry run"}, "x").dry_run_unsupported


def test_a_missing_definition_is_named() -> None:
    custom = str(NoMatchError(Kind("networking.istio.io", "v1", "Gateway")))
    assert "CustomResourceDefinition of Gateway.networking.istio.io is missing" in custom
    assert "does not serve that version" in str(NoMatchError(Kind("apps", "v1beta1", "Deployment")))
