"""What counts as a change, and which changes need a new object."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.providers.diff import (
    Change,
    Path,
    PropertyChange,
    compare,
    force_new,
    format_path,
    must_delete_first,
    parse_path,
    without_ignored,
)
from lab.providers.objects import Kind, kind_of, prune
from lab.providers.values import UNKNOWN, Object, Value

keys = st.text(st.sampled_from('ab.["]/-'), min_size=1, max_size=4)
leaves: st.SearchStrategy[Value] = st.one_of(
    st.booleans(), st.integers(0, 9), st.sampled_from(["x", "y", ""])
)
values: st.SearchStrategy[Value] = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=10,
)
bags: st.SearchStrategy[Object] = st.dictionaries(keys, values, max_size=4)


def changes(
    old: Object, new: Object, *replace_on: str, before: Object | None = None
) -> dict[str, PropertyChange]:
    patterns = [parse_path(pattern) for pattern in replace_on]
    found = compare(old, new, before if before is not None else old, patterns)
    return {format_path(change.path): change for change in found}


@given(bags)
def test_an_object_does_not_differ_from_itself(obj: Object) -> None:
    assert compare(obj, copy.deepcopy(obj), obj, []) == ()


@given(bags, bags)
def test_the_changes_lead_from_the_old_object_to_the_new(old: Object, new: Object) -> None:
    """Putting the new value at each changed path, deletions from the end, makes the new object."""
    result = copy.deepcopy(old)
    found = compare(old, new, {}, [])
    for change in (*(c for c in found if c.change is not Change.DELETE), *_deletions(found)):
        _put(result, change, new)
    assert compare(result, new, {}, []) == ()


def _deletions(found: tuple[PropertyChange, ...]) -> list[PropertyChange]:
    return [change for change in reversed(found) if change.change is Change.DELETE]


def _put(root: Value, change: PropertyChange, new: Value) -> None:
    *parents, last = change.path
    target, source = root, new
    for step in parents:
        target = _at(target, step)
        source = _at(source, step)
    if change.change is Change.DELETE:
        assert isinstance(target, dict | list)
        del target[last]  # type: ignore[arg-type]  # a list has an index, an object has a key
    elif isinstance(target, list):
        assert isinstance(last, int)
        target[last : last + 1] = [copy.deepcopy(_at(source, last))]
    else:
        assert isinstance(target, dict)
        assert isinstance(last, str)
        target[last] = copy.deepcopy(_at(source, last))


def _at(value: Value, step: str | int) -> Value:
    if isinstance(step, int):
        assert isinstance(value, list)
        return value[step]
    assert isinstance(value, dict)
    return value[step]


steps = st.one_of(keys.filter(lambda key: "\\" not in key), st.integers(0, 20))


@given(st.lists(steps, max_size=5).map(lambda rest: ("root", *rest)))
def test_a_written_path_is_read_back(path: Path) -> None:
    assert parse_path(format_path(path)) == path


@given(bags, bags)
def test_pruning_keeps_only_what_the_inputs_have(live: Object, inputs: Object) -> None:
    pruned = prune(live, inputs)
    assert set(pruned) == set(live) & set(inputs)
    assert prune(pruned, inputs) == pruned


@given(bags)
def test_pruning_to_itself_changes_nothing(obj: Object) -> None:
    assert prune(obj, obj) == obj


def test_each_change_has_its_path_and_kind() -> None:
    old: Object = {
        "metadata": {"labels": {"a.b/c": "1"}},
        "spec": {"ports": [{"port": 1}, {"port": 2}], "gone": 1},
    }
    new: Object = {"metadata": {"labels": {"a.b/c": "2"}}, "spec": {"ports": [{"port": 1, "name": "x"}]}}
    assert {path: change.change for path, change in changes(old, new).items()} == {
        'metadata.labels["a.b/c"]': Change.UPDATE,
        "spec.ports[0].name": Change.ADD,
        "spec.ports[1]": Change.DELETE,
        "spec.gone": Change.DELETE,
    }


@pytest.mark.parametrize(
    ("old", "new", "replaced"),
    [
        ({"spec": {"selector": {"app": "a"}}}, {"spec": {"selector": {"app": "b"}}}, True),
        ({"spec": {"selector": {"app": "a"}}}, {"spec": {}}, True),
        ({"spec": {}}, {"spec": {"selector": {"app": "a"}}}, True),
        ({}, {"spec": {"selector": {"app": "a"}}}, True),
        ({}, {"spec": {"replicas": 1}}, False),
        ({"spec": {"replicas": 1}}, {"spec": {"replicas": 2}}, False),
        ({"spec": {"selectors": 1}}, {"spec": {"selectors": 2}}, False),
        ({"spec": {"selector": "a"}}, {"spec": {"selector": UNKNOWN}}, True),
    ],
)
def test_a_change_at_below_or_above_an_immutable_field_needs_a_new_object(
    old: Object, new: Object, replaced: bool
) -> None:
    assert any(change.replace for change in changes(old, new, "spec.selector").values()) == replaced


def test_a_list_in_the_table_stands_for_all_its_elements() -> None:
    old: Object = {"spec": {"containers": [{"image": "a"}, {"image": "b", "name": "x"}]}}
    new: Object = {"spec": {"containers": [{"image": "a"}, {"image": "c", "name": "y"}]}}
    found = changes(old, new, "spec.containers[*].image")
    assert {path: change.replace for path, change in found.items()} == {
        "spec.containers[1].image": True,
        "spec.containers[1].name": False,
    }


def test_what_the_server_dropped_because_it_is_empty_is_no_change() -> None:
    inputs: Object = {"metadata": {"labels": {}}, "spec": {"hosts": []}}
    live: Object = {"metadata": {}, "spec": {}}
    assert changes(live, inputs, before=inputs) == {}
    assert set(changes(live, inputs, before=live)) == {"metadata.labels", "spec.hosts"}


def test_an_unknown_is_a_change_even_of_an_equal_value() -> None:
    assert changes({"a": "x"}, {"a": UNKNOWN})["a"].change is Change.UPDATE
    assert changes({}, {"a": UNKNOWN})["a"].change is Change.ADD


@pytest.mark.parametrize(
    ("old", "new"),
    [("1Gi", "1024Mi"), ("2", "2000m"), ("2", 2), ("1500m", "1.5"), ("1k", "1e3"), ("0", "0.0")],
)
def test_equal_amounts_are_no_change(old: str, new: Value) -> None:
    def resources(amount: Value) -> Object:
        return {"resources": {"limits": {"x": amount}}}

    assert changes(resources(old), resources(new)) == {}
    assert set(changes({"data": {"x": old}}, {"data": {"x": new}})) == {"data.x"}


@pytest.mark.parametrize(("old", "new"), [("1Gi", "1G"), ("1", "1m"), ("1", "one"), ("1", True)])
def test_different_amounts_are_a_change(old: str, new: Value) -> None:
    assert changes({"limits": {"x": old}}, {"limits": {"x": new}})


def test_true_is_not_one() -> None:
    assert set(changes({"a": True, "b": 0}, {"a": 1, "b": False})) == {"a", "b"}


def written(kind: Kind, inputs: Object, **mutable: bool) -> set[str]:
    return {format_path(path) for path in force_new(kind, inputs, **mutable)} - {
        "metadata.name",
        "metadata.namespace",
        "kind",
    }


@pytest.mark.parametrize(
    ("api_version", "kind", "fields"),
    [
        ("v1", "Service", {"spec.clusterIP"}),
        ("apps/v1", "Deployment", {"spec.selector"}),
        ("apps/v1", "DaemonSet", {"spec.selector"}),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", {"roleRef"}),
        ("batch/v1", "Job", {"spec.completions", "spec.parallelism", "spec.selector", "spec.template"}),
        ("v1", "ConfigMap", {"binaryData", "data"}),
        ("v1", "Secret", {"type", "stringData", "data"}),
        ("networking.istio.io/v1", "Gateway", set()),
        ("policy/v1", "PodDisruptionBudget", set()),
        ("example.com/v1", "Service", set()),
    ],
)
def test_the_table_of_immutable_fields(api_version: str, kind: str, fields: set[str]) -> None:
    obj: Object = {"apiVersion": api_version, "kind": kind}
    assert written(kind_of(obj), obj) == fields


def test_data_is_changed_in_place_where_the_provider_says_so_and_the_object_does_not_forbid_it() -> None:
    secret, config_map = Kind("", "v1", "Secret"), Kind("", "v1", "ConfigMap")
    assert written(secret, {}, secret_mutable=True) == {"type"}
    assert written(secret, {"immutable": True}, secret_mutable=True) == {"type", "stringData", "data"}
    assert written(config_map, {}, config_map_mutable=True) == set()
    assert written(config_map, {"immutable": True}, config_map_mutable=True) == {"binaryData", "data"}


def test_ignored_changes_go_with_all_that_is_below_them() -> None:
    found = compare({"spec": {"a": [1, 2], "b": 1}}, {"spec": {"a": [3, 4], "b": 2}}, {}, [])
    left = {format_path(change.path) for change in without_ignored(found, ["spec.a[*]"])}
    assert left == {"spec.b"}
    assert without_ignored(found, ["spec"]) == ()
    assert without_ignored(found, []) == found


def named(name: Value, **annotations: Value) -> Object:
    return {"metadata": {"name": name, "namespace": "demo", "annotations": {**annotations}}}


def test_the_old_object_goes_first_only_where_the_new_one_takes_its_name() -> None:
    assert must_delete_first(named("a"), named("a"))
    assert not must_delete_first(named("b"), named("a"))
    assert not must_delete_first({"metadata": {"name": "a", "namespace": "other"}}, named("a"))
    assert not must_delete_first(named("a", **{"pulumi.com/autonamed": "true"}), named("a"))
    assert not must_delete_first(named(UNKNOWN), named("a"))
