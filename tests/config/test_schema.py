"""The JSON Schema that editors use: it takes the stacks of this repository, and refuses what the models refuse.

A small reading of JSON Schema stands here, of the keywords that the schema uses and no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from config import schema
from tests.strategies import Data, stacks

STACKS = sorted((Path(__file__).parents[2] / "stacks").glob("Pulumi.*.yaml"))
SCHEMA = schema.schema()
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
ANNOTATIONS = {"description", "title", "default", "$schema", "$defs"}
READ = {"$ref", "anyOf", "enum", "const", "type", "required", "properties", "patternProperties", "items"}
READ |= {"additionalProperties"}


def violations(rule: Any, value: Any, path: str = "") -> Iterator[str]:
    """Where `value` breaks the schema `rule`."""
    if rule in (True, {}):
        return
    if rule is False:
        yield f"{path}: not allowed"
        return
    assert set(rule) <= ANNOTATIONS | READ, f"{path}: unread keywords {set(rule) - ANNOTATIONS - READ}"
    if "$ref" in rule:
        yield from violations(SCHEMA["$defs"][rule["$ref"].rpartition("/")[2]], value, path)
    if "anyOf" in rule and all(list(violations(option, value, path)) for option in rule["anyOf"]):
        yield f"{path}: fits none of the choices"
    if value not in rule.get("enum", [value]) or rule.get("const", value) != value:
        yield f"{path}: not one of {rule}"
    if "type" in rule:
        matches = isinstance(value, TYPES[rule["type"]])
        if not matches or (rule["type"] == "integer" and isinstance(value, bool)):
            yield f"{path}: no {rule['type']}"
            return
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from violations(rule.get("items", True), item, f"{path}[{number}]")
    if isinstance(value, dict):
        yield from _members(rule, value, path)


def _members(rule: Any, value: dict[str, Any], path: str) -> Iterator[str]:
    for key in set(rule.get("required", ())) - set(value):
        yield f"{path}.{key}: missing"
    for key, item in value.items():
        own = rule.get("properties", {}).get(key)
        patterns = [p for text, p in rule.get("patternProperties", {}).items() if re.search(text, key)]
        for member in [own] if own is not None else patterns or [rule.get("additionalProperties", True)]:
            yield from violations(member, item, f"{path}.{key}")


def in_file(data: Data) -> Data:
    return {"config": {f"meshbridge:{key}": value for key, value in data.items()}}


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.stem)
def test_it_accepts_the_stacks_of_this_repository(file: Path) -> None:
    assert list(violations(SCHEMA, yaml.safe_load(file.read_text()))) == []


@settings(max_examples=25)
@given(stacks())
def test_it_accepts_every_valid_stack(data: Data) -> None:
    assert list(violations(SCHEMA, in_file(data))) == []


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda data: data.update(provder={}), ".config.meshbridge:provder"),
        (lambda data: data["cluster"].update(contxt="north"), ".config.meshbridge:cluster.contxt"),
        (lambda data: data["cluster"].update(render="yes"), ".config.meshbridge:cluster.render"),
        (lambda data: data["cluster"].update(ipFamily="IPv5"), ".config.meshbridge:cluster.ipFamily"),
        (lambda data: data.pop("cluster"), ".config.meshbridge:cluster"),
    ],
)
def test_it_refuses_a_typo_where_it_stands(change: Any, where: str) -> None:
    data: Data = {"cluster": {"render": True}}
    change(data)
    assert [text.partition(": ")[0] for text in violations(SCHEMA, in_file(data))] == [where]


def test_it_leaves_the_keys_of_other_programs_alone() -> None:
    data = in_file({"cluster": {"render": True}})
    data["config"]["aws:region"] = "eu-central-1"
    assert list(violations(SCHEMA, data)) == []


def test_a_kubeconfig_must_be_encrypted() -> None:
    data = in_file({"cluster": {"kubeconfigSecret": True}, "kubeconfig": {"secure": "v1:abc"}})
    assert list(violations(SCHEMA, data)) == []
    data["config"]["meshbridge:kubeconfig"] = "users: []"
    assert list(violations(SCHEMA, data)) == [".config.meshbridge:kubeconfig: no object"]


def test_the_command_says_when_the_file_is_not_fresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "FILE", tmp_path / "schema.json")
    monkeypatch.setattr("sys.argv", ["schema", "--check"])
    assert schema.main() == 1
    assert "make schema" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["schema"])
    assert schema.main() == 0
    monkeypatch.setattr("sys.argv", ["schema", "--check"])
    assert schema.main() == 0
