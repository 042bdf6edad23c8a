"""A Secret as Kubernetes prints it (`kubectl get secret -o json` or `-o yaml`). What is said of one shows nothing of its
values: one of them is a private key."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping

import yaml

from pki.errors import PkiError

SHOWN_BY = "Give one Secret as `kubectl get secret NAME --namespace NAMESPACE -o json` prints it."


def secret(text: bytes, source: str, keys: Iterable[str]) -> dict[str, str]:
    """The texts under those of the `keys` that a Secret has.

    text: JSON or YAML. source: where it comes from, for messages. Raises PkiError when it is no Secret, or what stands
    under a key is no text.
    """
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        raise PkiError(f"{source} is neither JSON nor YAML.", SHOWN_BY) from None
    if not isinstance(found, Mapping) or found.get("kind") != "Secret":
        kind = found.get("kind") if isinstance(found, Mapping) else None
        what = f"is a {kind}" if isinstance(kind, str) else "has no `kind`"
        raise PkiError(f"{source} is no Secret: it {what}.", SHOWN_BY)
    data = found.get("data")
    values = data if isinstance(data, Mapping) else {}
    return {key: _decoded(values[key], source, key) for key in keys if key in values}


def _decoded(value: object, source: str, key: str) -> str:
    try:
        return base64.b64decode(str(value), validate=True).decode("ascii")
    except (binascii.Error, ValueError):
        raise PkiError(f"{source}: `{key}` is not PEM in base64.", SHOWN_BY) from None
