"""Property values from the engine's JSON, made fit to show: secrets masked, unknown values named, differences found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from tools import wire

MASKED = "[secret]"
COMPUTED = "[computed]"

_unknown = re.compile("|".join(wire.UNKNOWN))
_ciphertext = re.compile(r"v1:[A-Za-z0-9+/]{16}:[A-Za-z0-9+/]+={0,2}")
_private_key = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
_userinfo = re.compile(r"://[^/\s]*@")
_path_part = re.compile(r"\[(\d+)\]|\[(\"(?:[^\"\\]|\\.)*\")\]|([^.\[\]]+)")


@dataclass(frozen=True)
class Difference:
    """One property that changes. None is "not there"."""

    path: str
    old: str | None
    new: str | None


def mask_text(text: str) -> str:
    """`text` without secrets, be they a URL's user and password, and without the engine's placeholders."""
    if wire.SIGNATURE in text:
        return MASKED
    text = _userinfo.sub(f"://{MASKED}@", _private_key.sub(MASKED, text))
    return _unknown.sub(COMPUTED, _ciphertext.sub(MASKED, text))


def mask(value: JsonValue) -> JsonValue:
    """`value` without secrets and without the engine's placeholders, at any depth."""
    if isinstance(value, str):
        return mask_text(value)
    if isinstance(value, list):
        return [mask(item) for item in value]
    if isinstance(value, dict):
        return _mask_mapping(value)
    return value


def _mask_mapping(value: Mapping[str, JsonValue]) -> JsonValue:
    match value.get(wire.SIGNATURE):
        case None:
            return {key: mask(item) for key, item in value.items()}
        case kind if kind == wire.OUTPUT and value.get("secret") is not True:
            return mask(value["value"]) if "value" in value else COMPUTED
        case kind if kind in (wire.SECRET, wire.OUTPUT):
            return MASKED
        case _:
            return "[asset]"


def mask_object(inputs: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """The inputs of a resource, masked; of a Kubernetes Secret only the keys remain, whatever the engine says."""
    shown = {key: mask(value) for key, value in inputs.items() if not key.startswith("__")}
    if inputs.get("kind") == "Secret":
        for key in ("data", "stringData"):
            content = shown.get(key)
            if isinstance(content, dict):
                shown[key] = dict.fromkeys(content, MASKED)
            elif content is not None:
                shown[key] = MASKED
    return shown


def differences(old: JsonValue, new: JsonValue) -> tuple[Difference, ...]:
    """The properties in which two masked values differ, sorted by path."""
    before, after = dict(_leaves(old, ())), dict(_leaves(new, ()))
    changed = (path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return tuple(
        Difference(show_path(path), before.get(path), after.get(path)) for path in sorted(changed, key=_order)
    )


def shaped(value: JsonValue, shape: JsonValue) -> JsonValue:
    """`value` without the mapping keys that `shape` does not have (what a server fills in), at any depth."""
    if isinstance(value, dict) and isinstance(shape, dict):
        return {key: shaped(value[key], item) for key, item in shape.items() if key in value}
    if isinstance(value, list) and isinstance(shape, list):
        known = [shaped(item, like) for item, like in zip(value, shape, strict=False)]
        return [*known, *value[len(shape) :]]
    return value


def look_up(value: JsonValue, path: str) -> str | None:
    """The property at one of the engine's paths (`spec.ports[0]["a.b"]`), as text."""
    for index, quoted, plain in _path_part.findall(path):
        key = json.loads(quoted) if quoted else plain
        if isinstance(value, list) and index and int(index) < len(value):
            value = value[int(index)]
        elif isinstance(value, dict) and key in value:
            value = value[key]
        else:
            return None
    return show(value)


def show(value: JsonValue) -> str:
    """A value as text: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


_Path = tuple[str | int, ...]


def show_path(path: _Path) -> str:
    """`("spec", "hosts", 0)` as `spec.hosts[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part or re.search(r"[.\[\]\"\s]", part):
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
        else:
            text += f".{part}" if text else part
    return text


def _leaves(value: JsonValue, path: _Path) -> Iterator[tuple[_Path, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path, show(value)


def _order(path: _Path) -> list[tuple[int, int, str]]:
    return [(1, part, "") if isinstance(part, int) else (0, 0, part) for part in path]
