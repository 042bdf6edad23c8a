"""The one error of the vocabulary, and how pydantic's errors become messages a person can act on.

Every message names the key, the value, the rule and the remedy; all findings of a file come in one error.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel
from pydantic_core import PydanticCustomError

from config.docs import descriptions

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

type_names = {
    "int_type": ("must be an integer", "write digits without quotes"),
    "string_type": ("must be a string", "put the value in quotes"),
    "bool_type": ("must be true or false", "write true or false without quotes"),
    "tuple_type": ("must be a list", "write one item a line, each behind '- '"),
    "dict_type": ("must be a mapping", "write 'key: value' lines below it"),
    "model_type": ("must be a mapping", "write 'key: value' lines below it"),
    "model_attributes_type": ("must be a mapping", "write 'key: value' lines below it"),
}


HIDDEN = "[hidden]"
"""Stands in messages for what may be confidential: a private key, and the value of a key that is not known."""

HOLDS_KEY = "holds a private key"
"""The rule that a value with a private key in it breaks, wherever it stands."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: `key` as a path (`provider.exports[0].host`), the `value` found there,
    the `rule` it breaks and the `remedy`."""

    key: str
    value: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: {self.value} {self.rule}; {self.remedy}"


class ConfigError(ValueError):
    """The stack's configuration is refused; nothing was touched. `findings` holds every reason."""

    def __init__(self, findings: Iterable[Finding], source: str = "the configuration") -> None:
        self.findings = tuple(findings)
        count = len(self.findings)
        lines = "\n".join(f"  {number}. {finding}" for number, finding in enumerate(self.findings, 1))
        super().__init__(f"{source} is refused, {count} finding{'s' if count != 1 else ''}:\n{lines}")


def refuse(rule: str, remedy: str) -> PydanticCustomError:
    """The error a field's validator raises: the rule that the value breaks and what to do about it."""
    return PydanticCustomError("rule", "{rule}", {"rule": rule, "remedy": remedy})


def holds_private_key(value: object) -> bool:
    """Whether a private key, PEM, stands anywhere in a value."""
    return "PRIVATE KEY" in json.dumps(value, ensure_ascii=False, default=str).upper()


def show(value: object) -> str:
    """A value as it stands in the file, cut to 80 characters; hidden when it holds a private key."""
    if holds_private_key(value):
        return HIDDEN
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def path(loc: Sequence[str | int], data: object) -> str:
    """The key path of `loc` in `data`, list items by their name where they have one:
    `("provider", "exports", 0, "host")` is `provider.exports[orders].host`."""
    text, here = "", data
    for part in loc:
        here = _descend(here, part)
        if isinstance(part, int):
            name = here.get("name") if isinstance(here, dict) else None
            text += f"[{name if isinstance(name, str) and not holds_private_key(name) else part}]"
        else:
            text += f".{part}" if text else part
    return text


def _descend(value: object, part: str | int) -> object:
    if isinstance(value, Mapping):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def finding(error: ErrorDetails, root: type[BaseModel], data: object) -> Finding:
    """Pydantic's error as a Finding. `root` is the model that was validated, `data` what it was given."""
    kind, loc, value = error["type"], error["loc"], error["input"]
    context: Mapping[str, object] = error.get("ctx", {})
    if kind == "rule":
        rule, remedy = str(context["rule"]), str(context["remedy"])
        if holds_private_key(value) and rule != HOLDS_KEY:
            rule, remedy = HOLDS_KEY, "remove it and revoke that key"
    elif kind == "extra_forbidden":
        close = resembling(root, loc)
        value = HIDDEN
        rule = f"is not a known key (known here: {', '.join(_keys(_model_at(root, loc[:-1])))})"
        remedy = f"did you mean {close!r}?" if close else "remove it"
    elif kind == "missing":
        model = _model_at(root, loc[:-1])
        field = next((name for name, f in model.model_fields.items() if f.alias == loc[-1]), "")
        description = descriptions(model).get(field, "")
        value, rule = None, "is missing but required"
        remedy = f"add it: {' '.join(description.split())}"
    elif kind == "literal_error":
        rule, remedy = f"must be one of {context['expected']}", "choose one of these"
    elif kind in type_names:
        rule, remedy = type_names[kind]
    else:
        rule, remedy = f"is not valid: {error['msg']}", "correct it"
    return Finding(path(loc, data), HIDDEN if value is HIDDEN else show(value), rule, remedy)


def resembling(root: type[BaseModel], loc: Sequence[str | int]) -> str | None:
    """The known key that the unknown one at `loc` resembles."""
    close = difflib.get_close_matches(str(loc[-1]), _keys(_model_at(root, loc[:-1])), n=1)
    return close[0] if close else None


def _keys(model: type[BaseModel]) -> list[str]:
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_at(root: type[BaseModel], loc: Sequence[str | int]) -> type[BaseModel]:
    """The model whose keys stand below `loc`."""
    model = root
    for part in loc:
        field = next((f for f in model.model_fields.values() if f.alias == part), None)
        if field is not None:
            model = _model_in(field.annotation) or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
