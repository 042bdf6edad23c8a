"""General rules of the vocabulary: whatever comes in, a Stack or a ConfigError comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from config import ConfigError, Stack, parse, schema
from config.types import is_below
from tests.config.test_refusals import stack

STACKS = sorted((Path(__file__).parents[2] / "stacks").glob("Pulumi.*.yaml"))
PREFIX = "meshbridge:"

wild = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every path into a JSON value."""
    found = [path] if path else []
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        found += places(child, (*path, key))
    return found


def replace(value: Any, path: tuple[str | int, ...], by: object) -> None:
    """Puts `by` at a path, if an earlier replacement has left that place."""
    for part in path[:-1]:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return
    last: Any = path[-1]
    if isinstance(value, dict) or (isinstance(value, list) and last in range(len(value))):
        value[last] = by


@settings(max_examples=150)
@given(st.data())
def test_any_value_anywhere_is_accepted_or_refused_by_name(data: st.DataObject) -> None:
    changed = stack()
    for path in data.draw(st.lists(st.sampled_from(places(changed)), min_size=1, max_size=3)):
        replace(changed, path, data.draw(wild))
    try:
        assert isinstance(parse(changed), Stack)
    except ConfigError as error:
        assert error.findings
        assert all(f.key and f.rule and f.remedy for f in error.findings)
        assert "stand-in" not in str(error)


KNOWN = {field.alias or name for name, field in Stack.model_fields.items()}
"""Among the texts that hypothesis tries are those of the program itself."""


@given(st.text(max_size=12).filter(lambda key: key not in KNOWN))
def test_an_unknown_key_is_never_accepted(key: str) -> None:
    data = stack()
    data[key] = {}
    with pytest.raises(ConfigError) as refused:
        parse(data)
    assert refused.value.findings[0].key == key


@given(st.sampled_from(["a.example", "b.a.example", "ba.example", "example", "a.example.org"]))
def test_a_host_is_below_a_domain_by_whole_labels(host: str) -> None:
    assert is_below(host, "a.example") == (host.split(".")[-3:] == ["b", "a", "example"])


def test_a_stack_that_is_parsed_cannot_be_changed() -> None:
    parsed = parse(stack())
    with pytest.raises(ValueError, match="frozen"):
        parsed.cluster.render = True  # type: ignore[misc]


def test_a_stack_survives_its_own_json() -> None:
    parsed = parse(stack())
    assert parse(json.loads(parsed.model_dump_json(by_alias=True, exclude_unset=True))) == parsed


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.stem)
def test_the_stacks_of_the_repository_are_valid(file: Path) -> None:
    config = yaml.safe_load(file.read_text())["config"]
    parse({key.removeprefix(PREFIX): value for key, value in config.items()}, file.name)


def test_the_schema_is_fresh_and_describes_every_field() -> None:
    assert schema.FILE.read_text() == schema.text()
    described = schema.schema()
    assert f"{PREFIX}cluster" in described["properties"]["config"]["properties"]
    sections = {name: found for name, found in described["$defs"].items() if name != "JsonValue"}
    for name, model in sections.items():
        assert model["additionalProperties"] is False, name
        for field, definition in model["properties"].items():
            assert definition.get("description"), f"{name}.{field}"
