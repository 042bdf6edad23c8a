"""Adapts the credentials of a binding to where its endpoints are for the client: a pure function without I/O.

    adapted = adapt(credentials, [Mapping(source=Endpoint(host="db.example", port=5432), target=...)])
    adapted.credentials, adapted.endpoints, adapted.findings

`docs/credentials.md` shows everything that is understood.

    AdaptError            nothing is adapted; no message holds a value of the credentials
    ├── MappingsError     no mappings, or two that contradict each other
    ├── ComplexityError      the credentials are nested too deep
    └── RefusedError      the policy refuses what was found
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from broker.credentials.documents import ComplexityError, Context, Json, Walk, copy
from broker.credentials.endpoints import AdaptError, Endpoint, Mapping, MappingsError, Routes
from broker.credentials.findings import REFUSED_BY_DEFAULT, Code, Finding, RefusedError

__all__ = [
    "REFUSED_BY_DEFAULT",
    "AdaptError",
    "Adapted",
    "Code",
    "ComplexityError",
    "Endpoint",
    "Finding",
    "Json",
    "Mapping",
    "MappingsError",
    "RefusedError",
    "adapt",
]


@dataclass(frozen=True)
class Adapted:
    """Credentials for the client. `endpoints` are the mappings' targets, in their order; `findings` say what the client
    may trip over."""

    credentials: dict[str, Json]
    endpoints: tuple[Endpoint, ...]
    findings: tuple[Finding, ...]


def adapt(
    credentials: dict[str, Json],
    mappings: Iterable[Mapping],
    *,
    refuse: Collection[Code] = REFUSED_BY_DEFAULT,
) -> Adapted:
    """The credentials with each mapped source replaced by its target; everything that is no endpoint keeps its value
    and its type, and what was passed in is not changed.

    Each source is mapped once (a→b and b→c never make a into c). Raises MappingsError, ComplexityError, and RefusedError when
    something with a code in `refuse` was found.
    """
    routes = Routes(mappings)
    adapted = {key: copy(value) for key, value in credentials.items()}
    walk = Walk(routes)
    walk.object(adapted, Context("credentials"))
    findings = walk.findings()
    if any(finding.code in refuse for finding in findings):
        raise RefusedError(findings, refuse)
    return Adapted(adapted, tuple(mapping.target for mapping in routes.mappings), findings)
