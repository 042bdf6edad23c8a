"""Property values survive the way to the engine and back."""

from __future__ import annotations

import pytest
from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from lab.providers.values import (
    UNKNOWN,
    Object,
    Secret,
    Value,
    decode,
    encode,
    has_secret,
    has_unknown,
    reveal,
    without_nulls,
)

leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer()),
    st.text(),
    st.just(UNKNOWN),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(), inner, max_size=3),
        inner.filter(lambda value: not isinstance(value, Secret)).map(Secret),
    ),
    max_leaves=12,
)
bags = st.dictionaries(st.text(), values, max_size=4)


@given(bags)
def test_what_is_sent_comes_back(properties: Object) -> None:
    assert decode(encode(properties)) == properties


@given(values)
def test_what_is_revealed_holds_no_secret(value: Value) -> None:
    assert not has_secret(reveal(value))
    assert has_unknown(reveal(value)) == has_unknown(value)


@given(bags)
def test_null_is_absent(properties: Object) -> None:
    def has_null_key(value: Value) -> bool:
        if isinstance(value, Secret):
            return has_null_key(value.value)
        if isinstance(value, list):
            return any(has_null_key(item) for item in value)
        return isinstance(value, dict) and any(item is None or has_null_key(item) for item in value.values())

    assert not has_null_key(without_nulls(properties))


def test_ports_are_whole_numbers_and_flags_are_not() -> None:
    decoded = decode(encode({"port": 443, "on": True, "ratio": 0.5}))
    assert {key: type(value) for key, value in decoded.items()} == {"port": int, "on": bool, "ratio": float}


def output(**fields: object) -> struct_pb2.Struct:
    bag = struct_pb2.Struct()
    signature = {"4dabf18193072939515e22adb298388d": "d0e6a833031e9bbcd3f4e8bde6ca49a4"}
    bag.update({"value": {**signature, **fields}})
    return bag


def test_outputs_are_read() -> None:
    assert decode(output(value="x")) == {"value": "x"}
    assert decode(output(value="x", secret=True)) == {"value": Secret("x")}
    assert decode(output()) == {"value": UNKNOWN}


def test_an_asset_is_refused() -> None:
    bag = struct_pb2.Struct()
    bag.update({"file": {"4dabf18193072939515e22adb298388d": "c44067f5952c0a294b673a41bacd8c17"}})
    with pytest.raises(ValueError, match="pass its content instead"):
        decode(bag)


def test_a_secret_does_not_show_itself() -> None:
    assert "hunter2" not in repr(Secret("hunter2"))
