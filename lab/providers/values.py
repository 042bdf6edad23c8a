"""Property values as the engine sends them, and as this package works with them.

On the wire a property bag is a protobuf Struct in which secrets, unknowns, assets and the like are marked by
signatures. Here it is plain JSON-like data in which a secret is a `Secret` and an unknown is `UNKNOWN`. Whole numbers
become `int`, since Kubernetes has no other use for a float.

Source page: "Pulumi resource provider protocol" of Pulumi's developer documentation.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, Union

from google.protobuf import struct_pb2

from tools import wire


class Unknown(enum.Enum):
    """The type of `UNKNOWN`, a value that is known only after the update."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown.UNKNOWN


@dataclass(frozen=True)
class Secret:
    """A value that must be encrypted wherever it is stored."""

    value: Value

    def __repr__(self) -> str:
        return "Secret([secret])"


Value: TypeAlias = Union[bool, int, float, str, Unknown, Secret, list["Value"], dict[str, "Value"], None]  # noqa: UP007 - recursive
Object: TypeAlias = dict[str, Value]

_EXACT_INTEGER = 2**53


def decode(struct: struct_pb2.Struct) -> Object:
    """Turn a property bag of the protocol into plain data.

    Raises:
        ValueError: a value is an asset, an archive or a resource reference, which no Kubernetes object contains.
    """
    return {key: _decode(value) for key, value in struct.fields.items()}


def _decode(value: struct_pb2.Value) -> Value:
    kind = value.WhichOneof("kind")
    result: Value = None
    if kind == "string_value":
        result = UNKNOWN if value.string_value in wire.UNKNOWN else str(value.string_value)
    elif kind == "struct_value":
        result = _decode_struct(value.struct_value)
    elif kind == "number_value":
        number = float(value.number_value)
        result = int(number) if number.is_integer() and abs(number) <= _EXACT_INTEGER else number
    elif kind == "bool_value":
        result = bool(value.bool_value)
    elif kind == "list_value":
        result = [_decode(item) for item in value.list_value.values]
    return result


def _decode_struct(struct: struct_pb2.Struct) -> Value:
    fields = struct.fields
    if wire.SIGNATURE not in fields:
        return {key: _decode(item) for key, item in fields.items()}
    signature = fields[wire.SIGNATURE].string_value
    if signature == wire.SECRET:
        return Secret(_decode(fields["value"]))
    if signature == wire.OUTPUT:
        inner: Value = _decode(fields["value"]) if "value" in fields else UNKNOWN
        return Secret(inner) if "secret" in fields and fields["secret"].bool_value else inner
    raise ValueError(
        "an asset, an archive or a resource reference cannot be part of a Kubernetes object: pass its content instead"
    )


def encode(properties: Object) -> struct_pb2.Struct:
    """Turn plain data into a property bag of the protocol."""
    struct = struct_pb2.Struct()
    _encode_into(struct, properties)
    return struct


def _encode_into(struct: struct_pb2.Struct, properties: Object) -> None:
    fields = struct.fields
    for key, value in properties.items():
        _encode(fields[key], value)


def _encode(target: struct_pb2.Value, value: Value) -> None:
    if isinstance(value, str):
        target.string_value = value
    elif isinstance(value, dict):
        target.struct_value.SetInParent()
        _encode_into(target.struct_value, value)
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, list):
        target.list_value.SetInParent()
        for item in value:
            _encode(target.list_value.values.add(), item)
    elif isinstance(value, Secret):
        _encode_into(target.struct_value, {wire.SIGNATURE: wire.SECRET, "value": value.value})
    elif value is UNKNOWN:
        target.string_value = wire.UNKNOWN_TEXT
    else:
        target.null_value = struct_pb2.NULL_VALUE


def reveal(value: Value) -> Value:
    """A copy of `value` in which secrets are replaced by what they hold."""
    if isinstance(value, Secret):
        return reveal(value.value)
    if isinstance(value, dict):
        return reveal_object(value)
    if isinstance(value, list):
        return [reveal(item) for item in value]
    return value


def reveal_object(properties: Object) -> Object:
    """`reveal` of an object."""
    return {key: reveal(item) for key, item in properties.items()}


def without_nulls(properties: Object) -> Object:
    """A copy without the keys whose value is null, at any depth: to Kubernetes, null is absent."""
    return {key: _without_nulls(item) for key, item in properties.items() if item is not None}


def _without_nulls(value: Value) -> Value:
    if isinstance(value, dict):
        return without_nulls(value)
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    if isinstance(value, Secret):
        return Secret(_without_nulls(value.value))
    return value


def rename_keys(value: Value, names: Callable[[str], str]) -> Value:
    """A copy in which every key `k`, at any depth, is `names(k)`."""
    if isinstance(value, dict):
        return {names(key): rename_keys(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [rename_keys(item, names) for item in value]
    if isinstance(value, Secret):
        return Secret(rename_keys(value.value, names))
    return value


def _walk(value: Value) -> Iterator[Value]:
    yield value
    if isinstance(value, dict):
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)
    elif isinstance(value, Secret):
        yield from _walk(value.value)


def has_unknown(value: Value) -> bool:
    """Whether anything in `value` is known only after the update."""
    return any(item is UNKNOWN for item in _walk(value))


def has_secret(value: Value) -> bool:
    """Whether anything in `value` is a secret."""
    return any(isinstance(item, Secret) for item in _walk(value))


def pluck(value: Value, *path: str) -> Value:
    """The value at `path`, or None where a step is missing or is not an object."""
    for key in path:
        if not isinstance(value, dict):
            return None
        value = value.get(key)
    return value


def text(value: Value, *path: str) -> str:
    """The string at `path`, or "" where there is none."""
    found = pluck(value, *path)
    return found if isinstance(found, str) else ""


def mapping(value: Value, *path: str) -> Object:
    """The object at `path`, or an empty one where there is none."""
    found = pluck(value, *path)
    return found if isinstance(found, dict) else {}


def sequence(value: Value, *path: str) -> list[Value]:
    """The list at `path`, or an empty one where there is none."""
    found = pluck(value, *path)
    return found if isinstance(found, list) else []


def integer(value: Value, *path: str) -> int | None:
    """The whole number at `path`, or None where there is none."""
    found = pluck(value, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else None
