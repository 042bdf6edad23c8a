"""The objects of a stack as they are in its cluster, one by one, in the order in which the engine made them."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.api import Object
from lab.cluster import Cluster
from lab.lab import Lab

SERVER_FIELDS = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "generation", "managedFields",
    "ownerReferences", "resourceVersion", "selfLink", "uid",
)  # fmt: skip
"""Metadata that the API server writes."""


@dataclass(frozen=True)
class Deployed:
    """One object of a stack."""

    cluster: Cluster
    name: str
    """The resource's in the program, such as `redis-main-egress-route`."""
    body: Object
    manager: str
    """The field manager that the engine applied it as; as another's, the next `up` would meet a conflict."""

    def __str__(self) -> str:
        return f"{self.cluster.name}/{self.name}"

    def apply(self) -> None:
        """Make it, or make it what it was."""
        metadata = self.body["metadata"]
        kind = self.cluster.api.kind(self.body["apiVersion"], self.body["kind"])
        path = kind.path(metadata["namespace"], metadata["name"])
        query = {"fieldManager": self.manager, "force": "true"}
        self.cluster.api.request("PATCH", path, self.body, "application/apply-patch+yaml", query)

    def delete(self) -> None:
        """Delete it, and what the cluster made because of it."""
        metadata = self.body["metadata"]
        api_version, kind = self.body["apiVersion"], self.body["kind"]
        self.cluster.api.delete(api_version, kind, metadata["name"], metadata["namespace"])


def deployed(lab: Lab, cluster: Cluster, stack: str) -> list[Deployed]:
    """The objects of a stack, in the order in which they were made."""
    exported = lab.project.pulumi("stack", "export", "--stack", lab.stack(stack).reference)
    resources: Sequence[dict[str, Any]] = json.loads(exported)["deployment"]["resources"]
    return [
        _read_back(cluster, resource["urn"].rpartition("::")[2], resource["outputs"])
        for resource in resources
        if resource.get("custom") and "kind" in resource.get("outputs", {})
    ]


def _read_back(cluster: Cluster, name: str, known: Object) -> Deployed:
    metadata = known["metadata"]
    found = cluster.api.get(known["apiVersion"], known["kind"], metadata["name"], metadata.get("namespace"))
    assert found is not None, f"{name} is not in the cluster"
    return Deployed(cluster, name, _as_applied(found, known), known["__fieldManager"])


def _as_applied(found: Object, known: Object) -> Object:
    """An object without what the server wrote into it; a Service keeps its address."""
    body = copy.deepcopy(found)
    body |= {"apiVersion": known["apiVersion"], "kind": known["kind"]}
    body.pop("status", None)
    for each in SERVER_FIELDS:
        body["metadata"].pop(each, None)
    return body
