"""What the docstrings below the fields say, for error messages and the JSON Schema.

Pydantic reads them too (`use_attribute_docstrings`), but from the source of every class at every import, which takes
longer than all else that the vocabulary does then.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import itertools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

_ATTEMPTS = 100


def descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The docstring of each field that has one, by the field's name; a class's own wins over its bases'."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if base.__module__.startswith("config."):
            found |= _docstrings(base)
    return found


def describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Add the docstrings to the JSON Schema of a model (pydantic's `json_schema_extra`)."""
    for name, text in descriptions(model).items():
        alias = model.model_fields[name].alias or name
        schema["properties"][alias]["description"] = text


def _docstrings(cls: type) -> dict[str, str]:
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(_classes(cls.__module__)[cls.__name__].body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


@functools.cache
def _classes(module: str) -> Mapping[str, ast.ClassDef]:
    tree = _parsed(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _parsed(source: str) -> ast.Module:
    """The syntax tree, though another was made in the middle.

    CPython before 3.12 then fails with a SystemError. A traceback that is logged makes one: on another of the engine's
    threads, or on this one, when the collector of garbage meets a future whose error nobody read. Source: CPython's
    issue 106905.
    """
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(SystemError):
            return ast.parse(source)
    return ast.parse(source)
