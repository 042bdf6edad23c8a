"""The docstrings below the fields are found, whatever else goes on in the process."""

from __future__ import annotations

import ast
import gc
import sys
from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from config import docs
from config.stack import Stack

parse = ast.parse


class Garbage:
    """Part of a cycle, so that only the collector frees it; then a traceback is logged, as a future's error is."""

    collected = 0

    def __init__(self) -> None:
        vars(self).update(itself=self)

    def __del__(self) -> None:
        Garbage.collected += 1
        parse("(" * 50 + "1" + ")" * 50)


@pytest.fixture
def collected_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first time that a source is parsed, the collector runs in the middle and there is something to collect."""
    docs._classes.cache_clear()
    before = gc.get_threshold()
    Garbage.collected = 0

    def parse_and_collect(source: str, *options: object, **named: object) -> ast.Module:
        if not Garbage.collected:
            gc.collect()
            Garbage()
            gc.set_threshold(2000)
        return parse(source)

    monkeypatch.setattr(ast, "parse", parse_and_collect)
    yield
    gc.set_threshold(*before)


def test_every_field_of_a_stack_has_a_docstring() -> None:
    assert set(docs.descriptions(Stack)) == set(Stack.model_fields)


def test_a_class_of_another_package_has_none_here() -> None:
    assert docs.descriptions(BaseModel) == {}


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="CPython 3.12 counts each thread's depth on its own")
@pytest.mark.usefixtures("collected_in_the_middle")
def test_a_traceback_that_is_logged_while_a_source_is_parsed_does_no_harm() -> None:
    assert set(docs.descriptions(Stack)) == set(Stack.model_fields)
    assert Garbage.collected
