"""JSON as it passes through. A document that nobody changes is not written anew (`changed`), so it comes out byte for byte.
In one that is, numbers keep their spelling (`1.10`, `1e5`, 40 digits), objects their order, texts their characters.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import TypeAlias

import simplejson

Json: TypeAlias = bool | int | float | Decimal | str | list["Json"] | dict[str, "Json"] | None
Document: TypeAlias = dict[str, Json]


class NotAnObjectError(ValueError):
    """The text is no JSON object."""


class _Number(Decimal):
    """A number that is written as it was read: `1e5` is not `1E+5`, and `-0` not `0`."""

    spelling: str

    def __new__(cls, spelling: str) -> _Number:
        made = super().__new__(cls, spelling)
        made.spelling = spelling
        return made

    def __str__(self) -> str:
        return self.spelling


def _integer(text: str) -> int | _Number:
    return _Number(text) if text == "-0" else int(text)


def load(text: bytes) -> Document:
    """A JSON object. Raises NotAnObjectError, which does not quote the text: it may hold secrets."""
    try:
        value = simplejson.loads(text, parse_float=_Number, parse_int=_integer, allow_nan=False)
    except (ValueError, RecursionError, InvalidOperation):
        raise NotAnObjectError("is no JSON") from None
    if not isinstance(value, dict):
        raise NotAnObjectError("is no JSON object")
    return value


def dump(value: Mapping[str, Json]) -> bytes:
    """The object as UTF-8; as ASCII where it holds lone surrogates, so that they survive as well."""
    try:
        return simplejson.dumps(value, use_decimal=True, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return simplejson.dumps(value, use_decimal=True, ensure_ascii=True).encode()


def changed(text: bytes, document: Mapping[str, Json]) -> bytes:
    """The text of the document: `text` itself where it says the same."""
    try:
        same = load(text) == document
    except NotAnObjectError:
        same = False
    return text if same else dump(document)


def child(document: Mapping[str, Json], *path: str) -> Json:
    """What stands at the path; None where nothing does."""
    here: Json = dict(document)
    for key in path:
        here = here.get(key) if isinstance(here, dict) else None
    return here
