"""A Kubernetes object as the builders return it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Json = object
"""A JSON value, any leaf of which may be a placeholder that the engine resolves (a Pulumi Output); builders pass
leaves through untouched, so the same function serves a plain string and a value known only at run time."""

MANAGED_BY = {"app.kubernetes.io/managed-by": "meshbridge"}

OWNER = "meshbridge.io/stack"
"""Annotation that names the stack an object belongs to."""

FORCE = {"pulumi.com/patchForce": "true"}
"""Annotation by which server-side apply takes back the fields that somebody changed by hand."""


@dataclass(frozen=True)
class Manifest:
    """`body` is what stands beside metadata: `spec`, or for example `rules` and `stringData`. `name` is text, or a
    placeholder like any leaf."""

    api_version: str
    kind: str
    name: Json
    namespace: str | None
    body: Mapping[str, Json]
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    forced: bool = True
    """Whether fields that somebody else set otherwise are taken over; False: they are an error."""

    @property
    def metadata(self) -> dict[str, Json]:
        """The object's metadata: name, namespace, labels and annotations."""
        metadata: dict[str, Json] = {"name": self.name, "labels": {**MANAGED_BY, **self.labels}}
        if self.namespace is not None:
            metadata["namespace"] = self.namespace
        if self.annotations:
            metadata["annotations"] = dict(self.annotations)
        return metadata

    @property
    def spec(self) -> Mapping[str, Json]:
        """The object's spec. Raises KeyError for a kind that has none."""
        spec = self.body["spec"]
        if not isinstance(spec, Mapping):
            raise TypeError(f"{self.kind} {self.name}: spec is no mapping")
        return spec

    def as_dict(self, owner: str | None = None) -> dict[str, Json]:
        """The object as the API server reads it. owner: fully qualified name of the stack that deploys it."""
        metadata = self.metadata
        if owner is not None:
            forced = FORCE if self.forced else {}
            metadata["annotations"] = {**self.annotations, **forced, OWNER: owner}
        return {"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata, **self.body}


def claim(name: str, namespace: str, owner: str) -> Manifest:
    """Names the stack that owns the objects called `name`. It is immutable, so a second stack that would make them too is
    refused before it touches anything; everything else is applied over what exists.
    """
    body = {"immutable": True, "data": {"stack": owner}}
    return Manifest("v1", "ConfigMap", f"{name}-owner", namespace, body)


def networking(
    kind: str,
    name: str,
    namespace: str,
    spec: Mapping[str, Json],
    annotations: Mapping[str, str] | None = None,
) -> Manifest:
    """An object of Istio's networking API. EnvoyFilter alone has no v1."""
    version = "v1alpha3" if kind == "EnvoyFilter" else "v1"
    return Manifest(
        f"networking.istio.io/{version}", kind, name, namespace, {"spec": spec}, annotations=annotations or {}
    )


def security(kind: str, name: str, namespace: str, spec: Mapping[str, Json]) -> Manifest:
    """An object of Istio's security API."""
    return Manifest("security.istio.io/v1", kind, name, namespace, {"spec": spec})
