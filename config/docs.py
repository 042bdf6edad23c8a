"""What the docstrings below the fields say, for error messages and the JSON Schema.

Pydantic reads them too (`use_attribute_docstrings`), but from the source of every class at every import, which takes
longer than all else that the vocabulary does then.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import BaseModel

_parsing = threading.Lock()
"""CPython before 3.12 fails with a SystemError when two threads make syntax trees at once, as the engine's threads would
that report what is wrong. Source: CPython's issue 106905.
"""


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
    with _parsing:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    if not isinstance(tree, ast.ClassDef):
        raise TypeError(f"{cls} is no class")
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(tree.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }
