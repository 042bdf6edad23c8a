"""The parts of the Open Service Broker API 2.17 that the proxies look at: headers, versions, paths, states."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import quote

API_VERSION = "X-Broker-API-Version"
REQUEST_IDENTITY = "X-Broker-API-Request-Identity"
ORIGINATING_IDENTITY = "X-Broker-API-Originating-Identity"
PROXY_VERSIONS = "X-Istio-Broker-Versions"
"""Each proxy adds its own version to the request and to the answer."""

SPOKEN = "2.17"
"""The version of the API that the proxies speak themselves."""

State = Literal["in progress", "succeeded", "failed"]

_VERSION = re.compile(r"([0-9]+)\.([0-9]+)")


def instance_path(instance_id: str) -> str:
    """The path of a service instance, from `/v2` on, percent-encoded."""
    return f"/v2/service_instances/{quote(instance_id, safe='')}"


def binding_path(instance_id: str, binding_id: str) -> str:
    """The path of a service binding, from `/v2` on, percent-encoded."""
    return f"{instance_path(instance_id)}/service_bindings/{quote(binding_id, safe='')}"


def is_below_v2(path: str) -> bool:
    """Whether a path, not percent-encoded, is the API's, however many slashes it has: below `/v2` or
    `/v1/osb/<broker id>/v2`."""
    segments = _segments(path)
    return segments[:1] == ["v2"] or (segments[:2] == ["v1", "osb"] and segments[3:4] == ["v2"])


def has_capitals(path: str) -> bool:
    """Whether a path, not percent-encoded, is the API's for programs that ignore case, though its words have capitals."""
    if not is_below_v2(path.lower()):
        return False
    segments = _segments(path)
    version = 3 if segments[0].lower() == "v1" else 0
    words = [*segments[: min(version, 2)], segments[version], *segments[version + 1 :: 2]]
    return any(word != word.lower() for word in words)


def speaks(version: str | None) -> bool:
    """Whether a caller of this version is understood: every 2.x (OSB "API Version Header")."""
    found = _VERSION.fullmatch(version or "")
    return found is not None and found[1] == "2"


def _segments(path: str) -> list[str]:
    return [segment for segment in path.split("/") if segment]
