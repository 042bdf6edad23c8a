"""EgressGateway and IngressGateway: the shared gateways of a cluster, created or adopted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from components.component import Component
from components.resources import KubernetesObject, owner
from config import Cluster, names
from config import EgressGateway as EgressGatewayConfig
from config import Gateway as GatewayConfig
from config import Provider as ProviderConfig
from routing import GatewayWorkload, gateway
from routing.manifest import claim


@dataclass(frozen=True)
class GatewayChildren:
    """The children of a gateway that others refer to: what must exist before a server of the gateway does, the Pods with the
    labels that the server selects them by among it, and the Service (None for an adopted gateway)."""

    prerequisites: tuple[KubernetesObject, ...]
    service: KubernetesObject | None


def declare_workload(component: Component, workload: GatewayWorkload, *, guarded: bool) -> GatewayChildren:
    """Declares a gateway's deployment as children of `component`: identity, rights and restrictions first, so that
    no proxy ever runs without them."""
    owned = component.child("claim", claim(workload.name, workload.namespace, owner()))
    account = component.kept("service-account", gateway.service_account(workload), owned)
    prerequisites = _declare_rights(
        component, workload.name, workload.namespace, workload.service_account, account
    )
    if guarded:
        prerequisites += (
            _declare_guard(component, workload.name, workload.namespace, workload.labels, owned),
        )
    policy = component.child("network-policy", gateway.network_policy(workload), owned)
    deployment = component.child("deployment", gateway.deployment(workload), *prerequisites, policy)
    service = component.child("service", gateway.service(workload), deployment)
    component.child("disruption-budget", gateway.disruption_budget(workload), deployment)
    component.child("autoscaler", gateway.autoscaler(workload), deployment)
    return GatewayChildren((*prerequisites, deployment), service)


def _declare_rights(
    component: Component, name: str, namespace: str, service_account: str, *after: pulumi.Resource
) -> tuple[KubernetesObject, ...]:
    role = component.child("secret-reader", gateway.secret_reader(name, namespace), *after)
    manifest = gateway.secret_reader_binding(name, namespace, service_account)
    return (component.child("secret-reader-binding", manifest, role),)


def _declare_guard(
    component: Component, name: str, namespace: str, labels: Mapping[str, str], *after: pulumi.Resource
) -> KubernetesObject:
    return component.child("upstream-guard", gateway.upstream_guard(name, namespace, labels), *after)


def _declare_gateway(
    component: Component, config: GatewayConfig, workload: GatewayWorkload
) -> GatewayChildren:
    if not config.adopt:
        return declare_workload(component, workload, guarded=config.guard_upstream_connections)
    share = names.share(config.name, owner())
    prerequisites = _declare_rights(component, share, config.namespace, config.identity)
    if config.guard_upstream_connections:
        prerequisites += (_declare_guard(component, share, config.namespace, config.selector),)
    return GatewayChildren(prerequisites, None)


@dataclass(frozen=True)
class EgressGatewayArgs:
    """The consumer's egress gateway. public_ports: those of the providers."""

    gateway: EgressGatewayConfig
    cluster: Cluster
    public_ports: Sequence[pulumi.Input[int]]


class EgressGateway(Component):
    """The consumer's shared egress gateway. An adopted one gets only the rights and the guard that its servers
    need, under names of the stack's own: their owner, and other stacks that adopt it, have theirs."""

    prerequisites: tuple[KubernetesObject, ...]
    """What must exist before a server of the gateway does."""

    def __init__(
        self, name: str, args: EgressGatewayArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        workload = gateway.egress_workload(args.gateway, args.cluster, args.public_ports)
        self.prerequisites = _declare_gateway(self, args.gateway, workload).prerequisites
        self.register_outputs({})


@dataclass(frozen=True)
class IngressGatewayArgs:
    """The provider's ingress gateway."""

    provider: ProviderConfig
    cluster: Cluster


class IngressGateway(Component):
    """The provider's shared ingress gateway and its Service. An adopted one gets only the rights and the guard that its
    servers need, under names of the stack's own."""

    prerequisites: tuple[KubernetesObject, ...]
    """What must exist before a server of the gateway does."""

    service: KubernetesObject | None
    """The gateway's Service; None for an adopted one."""

    def __init__(
        self, name: str, args: IngressGatewayArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__(name, opts)
        workload = gateway.ingress_workload(args.provider, args.cluster)
        children = _declare_gateway(self, args.provider.ingress_gateway, workload)
        self.prerequisites, self.service = children.prerequisites, children.service
        self.register_outputs({})
