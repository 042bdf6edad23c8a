"""The namespaces that a stack makes for its gateways, and refuses to take over from somebody else.

They are deleted with all that is in them, so one that was there before must not become the stack's by being applied over.
Two things keep it away: the API server, for a namespace that another stack annotated (it is applied without force); and
what the API server answers, in a preview already, about who set the object's fields (Kubernetes' "Server-Side Apply",
`managedFields`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pulumi

from components.resources import KubernetesObject, declare
from routing import gateway
from routing.manifest import OWNER

CREATOR = "f:kubernetes.io/metadata.name"
"""The label that the API server gives each namespace. Whoever POSTed the namespace owns it; who applied it does not."""


def declare_namespace(
    name: str, registers_targets: bool, provider: pulumi.ProviderResource
) -> KubernetesObject:
    """Declares a namespace of the stack's own. The run fails with pulumi.RunError when somebody else made it."""
    made = declare(f"namespace-{name}", gateway.namespace(name, registers_targets), provider=provider)
    _refuse_foreign(name, made)
    return made


def _refuse_foreign(name: str, made: KubernetesObject) -> pulumi.Output[bool]:
    async def checked(metadata: Mapping[str, Any]) -> bool:
        is_new = not await made.id.is_known()
        maker = next(makers(metadata.get("managedFields") or (), is_new=is_new), None)
        if maker is not None:
            raise pulumi.RunError(_refusal(name, maker, await made.urn.future(), is_new=is_new))
        return True

    return made.metadata.apply(checked)


def makers(fields: Sequence[Mapping[str, Any]], *, is_new: bool) -> Iterator[str]:
    """Who made a namespace that the stack did not make: names of field managers.

    is_new: the stack is about to make it (a preview). Then everybody who has applied anything else than this stack's
    annotation was there before; later, others may well add fields to a namespace of the stack.
    """
    for entry in fields:
        metadata = (entry.get("fieldsV1") or {}).get("f:metadata", {})
        if entry.get("operation") == "Update":
            foreign = CREATOR in metadata.get("f:labels", {})
        else:
            foreign = is_new and f"f:{OWNER}" not in metadata.get("f:annotations", {})
        if foreign:
            yield str(entry.get("manager"))


def _refusal(name: str, maker: str, urn: str | None, *, is_new: bool) -> str:
    kept = (
        "" if is_new else f"; first take it out of the state, or it is deleted: pulumi state delete '{urn}'"
    )
    return (
        f"createNamespace: namespace {name!r} exists and was made by {maker!r}; it would become this stack's, and `down` "
        f"would delete it with all that is in it. Set `createNamespace: false`, or choose another namespace{kept}"
    )
