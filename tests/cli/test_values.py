"""Secrets are masked wherever they stand, unknown values are named, and differences are found."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from cli.values import (
    COMPUTED,
    MASKED,
    Difference,
    differences,
    look_up,
    mask,
    mask_object,
    mask_text,
    shaped,
    show_path,
)
from tools.wire import OUTPUT, SECRET, SIGNATURE, UNKNOWN

PASSWORD = "correct-horse"
CIPHERTEXT = "v1:tt96FqDDo77dpFIz:EQv0cpaD2MuCDE4+abc/def=="
KEY = "-----BEGIN EC PRIVATE KEY-----\ncorrect-horse\n-----END EC PRIVATE KEY-----"

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "secret",
    [
        {SIGNATURE: SECRET, "ciphertext": CIPHERTEXT},
        {SIGNATURE: SECRET, "plaintext": json.dumps(PASSWORD)},
        {SIGNATURE: OUTPUT, "secret": True, "value": PASSWORD},
        json.dumps({SIGNATURE: SECRET, "plaintext": json.dumps(PASSWORD)}),
    ],
)
def test_every_form_of_a_secret_is_masked(secret: JsonValue) -> None:
    assert mask({"a": [{"b": secret}]}) == {"a": [{"b": MASKED}]}


@pytest.mark.parametrize("userinfo", ["me:correct-horse", "correct-horse", "me:correct@horse"])
def test_a_url_s_user_and_password_are_masked_within_text(userinfo: str) -> None:
    text = f"unable to open bucket postgres://{userinfo}@db.example/state: no route"
    assert mask_text(text) == f"unable to open bucket postgres://{MASKED}@db.example/state: no route"
    assert mask_text("https://db.example/a@b") == "https://db.example/a@b"


def test_ciphertext_and_private_keys_are_masked_within_text() -> None:
    assert mask_text(f"x {CIPHERTEXT} y") == f"x {MASKED} y"
    assert mask_text(f"pem: {KEY}\nrest") == f"pem: {MASKED}\nrest"
    assert mask_text("-----BEGIN PRIVATE KEY-----\ncut off") == MASKED


@given(values, values)
def test_a_secret_never_survives(before: JsonValue, after: JsonValue) -> None:
    sealed: JsonValue = {SIGNATURE: SECRET, "plaintext": PASSWORD}
    assert PASSWORD not in json.dumps(mask([before, sealed, {"deep": [sealed, KEY]}, after]))


def test_a_kubernetes_secret_keeps_only_its_keys() -> None:
    masked = mask_object(
        {"kind": "Secret", "data": {"tls.key": PASSWORD}, "stringData": PASSWORD, "type": "Opaque"}
    )
    assert masked == {"kind": "Secret", "data": {"tls.key": MASKED}, "stringData": MASKED, "type": "Opaque"}


@pytest.mark.parametrize("unknown", [*UNKNOWN, {SIGNATURE: OUTPUT}])
def test_unknown_values_are_named(unknown: JsonValue) -> None:
    assert mask({"a": unknown}) == {"a": COMPUTED}


def test_a_known_output_value_is_its_value() -> None:
    assert mask({SIGNATURE: OUTPUT, "value": [1, UNKNOWN[0]]}) == [1, COMPUTED]


def test_assets_are_named() -> None:
    assert mask({SIGNATURE: "c44067f5952c0a294b673a41bacd8c17", "text": PASSWORD}) == "[asset]"


def test_what_begins_with_underscores_is_the_engines() -> None:
    assert mask_object({"__provider": "x", "a": 1}) == {"a": 1}


def test_differences_by_path() -> None:
    old: JsonValue = {"a": {"b": [1, 2], "gone": "x"}, "same": [{"k": 1}], "x.y": 1}
    new: JsonValue = {"a": {"b": [1, 3, 4], "made": {}}, "same": [{"k": 1}], "x.y": 2}
    assert differences(old, new) == (
        Difference("a.b[1]", "2", "3"),
        Difference("a.b[2]", None, "4"),
        Difference("a.gone", "x", None),
        Difference("a.made", None, "{}"),
        Difference('["x.y"]', "1", "2"),
    )


@given(values, values)
def test_differences_are_symmetric_and_empty_for_equals(old: JsonValue, new: JsonValue) -> None:
    assert differences(old, old) == ()
    there = {(d.path, d.old, d.new) for d in differences(old, new)}
    back = {(d.path, d.new, d.old) for d in differences(new, old)}
    assert there == back


def test_what_a_server_fills_in_is_no_difference() -> None:
    live: JsonValue = {"a": 1, "uid": "x", "b": [{"c": 2, "default": True}, {"extra": 1}]}
    wanted: JsonValue = {"a": 1, "b": [{"c": 2}], "missing": 1}
    assert shaped(live, wanted) == {"a": 1, "b": [{"c": 2}, {"extra": 1}]}


@pytest.mark.parametrize("path", [("a", "b"), ("a", 0, "c"), ("x.y", "z"), ("a", 'q"uote')])
def test_paths_are_found_again(path: tuple[str | int, ...]) -> None:
    value: JsonValue = "found"
    for part in reversed(path):
        value = [value] if isinstance(part, int) else {part: value}
    assert look_up(value, show_path(path)) == "found"
    assert look_up(value, "missing.path") is None
