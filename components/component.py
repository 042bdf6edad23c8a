"""What all components share: children named after their component, and the order between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pulumi

from components.resources import KubernetesObject, declare
from routing import Manifest, tls

PACKAGE = "meshbridge:index"


class Component(pulumi.ComponentResource):
    """A ComponentResource whose children are Kubernetes objects.

    What the component depends on, its first children depend on too, so that deletion is ordered as well as creation.
    """

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None) -> None:
        self._prefix = name
        given = opts.depends_on if opts is not None else None
        given = () if given is None else given
        if not isinstance(given, (Sequence, pulumi.Resource)):
            raise TypeError(f"{name}: depends_on must be a resource or resources, not an Output of them")
        self._prerequisites = cast(
            "list[pulumi.Resource]", [given] if isinstance(given, pulumi.Resource) else list(given)
        )
        super().__init__(f"{PACKAGE}:{type(self).__name__}", name, None, opts)

    def child(self, suffix: str, manifest: Manifest, *after: pulumi.Resource) -> KubernetesObject:
        """Declares the child `<component>-<suffix>`, after the given children or the component's prerequisites."""
        return declare(
            f"{self._prefix}-{suffix}", manifest, parent=self, after=list(after) or self._prerequisites
        )

    def kept(self, suffix: str, manifest: Manifest, *after: pulumi.Resource) -> KubernetesObject:
        """Declares a child named after its object, `<name>.<namespace>`, whose name does not follow from the component's.

        When the component gets another name, the object stays, and so must the resource: the engine would make a second
        one of the object and then delete the first, and with it the object. suffix: names the child among the
        component's; a state may know it as `<component>-<suffix>`.
        """
        return declare(
            f"{manifest.name}.{manifest.namespace}",
            manifest,
            parent=self,
            after=list(after) or self._prerequisites,
            formerly=[f"{self._prefix}-{suffix}"],
        )

    def owned(self, provider: pulumi.ProviderResource) -> pulumi.ResourceOptions:
        """Options of a child that is no Kubernetes object: after the component's prerequisites."""
        return pulumi.ResourceOptions(parent=self, provider=provider, depends_on=self._prerequisites)


def virtual_ip(
    service: KubernetesObject, fixed: str | None, *, rendered: bool
) -> pulumi.Output[str] | str | None:
    """The address of a virtual IP's Service: the fixed one, None where objects are only rendered, or the one that
    the cluster allocates.

    That one is unknown until the Service exists. The dry run of a preview does allocate an address, but not the one
    that the Service will get; the object's id tells the two apart.
    """
    if fixed is not None or rendered:
        return fixed
    return pulumi.Output.all(service.id, service.spec).apply(lambda known: str(known[1]["clusterIP"]))


def subnets(address: pulumi.Output[str] | str | None) -> Sequence[str | pulumi.Output[str]] | None:
    """An address as CIDR blocks that hold it alone; None for none."""
    if address is None:
        return None
    return [address.apply(tls.subnet) if isinstance(address, pulumi.Output) else tls.subnet(address)]
