"""Namespaces that a stack is to make, and that were there before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pytest

from components import declare_stack
from components.namespaces import makers
from tests.components import samples
from tests.components.recorder import DryRun, Plugin, Registration, run

OWNED: Mapping[str, Any] = {
    "f:annotations": {"f:meshbridge.io/stack": {}},
    "f:labels": {"f:app.kubernetes.io/managed-by": {}},
}
NAMED: Mapping[str, Any] = {"f:labels": {".": {}, "f:kubernetes.io/metadata.name": {}}}


def entry(manager: str, operation: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """One field manager of an object, as the API server returns it."""
    return {"manager": manager, "operation": operation, "fieldsV1": {"f:metadata": metadata}}


OURS = entry("pulumi-kubernetes-1", "Apply", OWNED)
INTERRUPTED = entry("pulumi-kubernetes-0", "Apply", OWNED)
CREATED = entry("kubectl-create", "Update", NAMED)
APPLIED = entry("argocd", "Apply", {"f:labels": {"f:team": {}}})
LABELLED = entry("kubectl-label", "Update", {"f:labels": {"f:team": {}}})
OVERRULED = entry("pulumi-kubernetes-7", "Apply", {"f:labels": {"f:app.kubernetes.io/managed-by": {}}})


@pytest.mark.parametrize(
    ("fields", "is_new", "expected"),
    [
        ([OURS], True, []),
        ([OURS, INTERRUPTED], True, []),
        ([OURS, CREATED], True, ["kubectl-create"]),
        ([OURS, APPLIED], True, ["argocd"]),
        ([OURS, OVERRULED], True, ["pulumi-kubernetes-7"]),
        ([OURS, CREATED], False, ["kubectl-create"]),
        ([OURS, APPLIED, LABELLED], False, []),
        ([], True, []),
    ],
)
def test_who_set_its_fields_says_who_made_it(
    fields: Sequence[Mapping[str, Any]], is_new: bool, expected: list[str]
) -> None:
    assert list(makers(fields, is_new=is_new)) == expected


@dataclass
class Answering(Plugin):
    """An API server that answers who set the fields of namespaces, to a preview (no id) or an update."""

    fields: Sequence[Mapping[str, Any]]
    identifier: str = field(default="")

    def created(self, registration: Registration) -> tuple[str, Mapping[str, Any]]:
        identifier, state = DryRun().created(registration)
        if registration.kind == "Namespace":
            metadata = {**registration.inputs["metadata"], "managedFields": self.fields}
            return self.identifier, {**state, "metadata": metadata}
        return identifier, state


STACK = samples.parsed(samples.consumer(egressGateway={"createNamespace": True}))


def test_a_preview_refuses_a_namespace_that_is_there() -> None:
    with pytest.raises(
        pulumi.RunError, match=r"'mesh-egress' exists and was made by 'kubectl-create'"
    ) as refused:
        run(lambda: declare_stack(STACK), plugin=Answering([OURS, CREATED]), preview=True)

    assert "Set `createNamespace: false`" in str(refused.value)
    assert "state delete" not in str(refused.value)


def test_an_update_that_nobody_previewed_says_how_to_get_out_of_it() -> None:
    with pytest.raises(pulumi.RunError, match=r"pulumi state delete 'urn:.*::namespace-mesh-egress'"):
        run(lambda: declare_stack(STACK), plugin=Answering([OURS, CREATED], "mesh-egress"))


@pytest.mark.parametrize(("fields", "preview"), [([OURS, INTERRUPTED], True), ([OURS, APPLIED], False)])
def test_a_namespace_of_the_stack_s_own_is_left_to_it(
    fields: Sequence[Mapping[str, Any]], preview: bool
) -> None:
    plugin = Answering(fields, "" if preview else "mesh-egress")
    run(lambda: declare_stack(STACK), plugin=plugin, preview=preview)


def test_a_namespace_is_not_taken_from_another_stack() -> None:
    """The API server refuses to exchange the stack's annotation, unless it is forced to."""
    done = run(lambda: declare_stack(STACK))

    annotations = done.named("namespace-mesh-egress").inputs["metadata"]["annotations"]
    assert annotations.keys() == {"meshbridge.io/stack"}
