"""The inline program of one shard: the components of its bindings, and nothing else.

The gateways belong to the cluster's own stack. The components decide what is made; this says for which endpoints.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pulumi

from broker import network
from broker.settings import ConsumerSettings, ProviderSettings, Settings
from broker.store import ConsumerRoute, ProviderRoute
from components import (
    ConsumerEgress,
    ConsumerEgressArgs,
    KubernetesProvider,
    ProviderIngress,
    ProviderIngressArgs,
)
from config import names

SERVICE = "kubernetes:core/v1:Service"

Section = TypeVar("Section", ConsumerSettings, ProviderSettings)


@dataclass(frozen=True)
class Wanted:
    """A binding whose route shall be there. generation: of the route, as the store counts; virtual_ips: those that it
    got before, which credentials name that were handed out; applied: whether it has had a route; settled: whether it has
    just this one."""

    binding_id: str
    generation: int
    route: ConsumerRoute | ProviderRoute
    virtual_ips: tuple[str, ...] = ()
    applied: bool = False
    settled: bool = False

    @property
    def slugs(self) -> list[str]:
        """The names of its components, one an endpoint."""
        return [network.slug(self.binding_id, index) for index in range(len(self.route.endpoints))]


@dataclass
class Declared:
    """What one run of the program found out: the virtual IPs by slug, and the resources that each slug registered."""

    virtual_ips: dict[str, str] = field(default_factory=dict)
    resources: dict[str, set[str]] = field(default_factory=dict)


def plugin_of(settings: Settings) -> KubernetesProvider:
    """Declares the plugin for the broker's cluster. To be called inside the engine's run."""
    cluster = settings.cluster
    path = str(Path(cluster.kubeconfig).expanduser()) if cluster.kubeconfig is not None else None
    return KubernetesProvider("cluster", kubeconfig=path, context=cluster.context, rendered_to=None)


def declare(
    settings: Settings, plugin: KubernetesProvider, wanted: Sequence[Wanted], declared: Declared
) -> None:
    """Declares every endpoint of the wanted bindings. To be called inside the engine's run."""
    for binding in wanted:
        for slug, args in endpoints(settings, binding):
            names_of = declared.resources.setdefault(slug, set())
            options = pulumi.ResourceOptions(providers=[plugin], transformations=[_recorder(names_of)])
            if isinstance(args, ProviderIngressArgs):
                ProviderIngress(slug, args, options)
            else:
                _record_address(ConsumerEgress(slug, args, options), slug, declared)


def undeclarable(settings: Settings, binding: Wanted) -> str | None:
    """Why a binding cannot be declared; None where it can."""
    try:
        list(endpoints(settings, binding))
    except (TypeError, ValueError) as error:
        return str(error)
    return None


def endpoints(
    settings: Settings, binding: Wanted
) -> Iterator[tuple[str, ConsumerEgressArgs | ProviderIngressArgs]]:
    """Slug and args of each endpoint of a binding.

    Raises ValueError where the broker has no settings for the binding's side.
    """
    route = binding.route
    if isinstance(route, ProviderRoute):
        yield from _exported(_required(settings.provider, "provider"), binding.binding_id, route)
    else:
        yield from _imported(settings, _required(settings.consumer, "consumer"), binding, route)


def _exported(
    provider: ProviderSettings, binding_id: str, route: ProviderRoute
) -> Iterator[tuple[str, ProviderIngressArgs]]:
    for index, endpoint in enumerate(route.endpoints):
        slug = network.slug(binding_id, index)
        yield (
            slug,
            ProviderIngressArgs(
                slug=slug,
                gateway=provider.ingress_gateway,
                host=network.public_host(binding_id, index, provider.system_domain),
                port=provider.port,
                server_secret=provider.server_secret,
                consumers=(route.consumer_id,),
                address=endpoint.host,
                target_port=endpoint.port,
                limits=provider.limits,
                min_tls_version=provider.min_tls_version,
                connect_timeout=provider.connect_timeout,
            ),
        )


def _imported(
    settings: Settings, consumer: ConsumerSettings, binding: Wanted, route: ConsumerRoute
) -> Iterator[tuple[str, ConsumerEgressArgs]]:
    for index, endpoint in enumerate(route.endpoints):
        slug = network.slug(binding.binding_id, index)
        yield (
            slug,
            ConsumerEgressArgs(
                slug=slug,
                namespace=route.namespace,
                cluster=settings.cluster,
                gateway=consumer.egress_gateway,
                host=endpoint.host,
                port=endpoint.port,
                provider_id=route.provider_id,
                client_secret=consumer.client_secret,
                service=names.virtual_ip_service(slug),
                service_port=consumer.service_port,
                cluster_ip=binding.virtual_ips[index] if index < len(binding.virtual_ips) else None,
                limits=consumer.limits,
                connect_timeout=consumer.connect_timeout,
                keepalive=consumer.keepalive,
            ),
        )


def _required(section: Section | None, name: str) -> Section:
    if section is None:
        raise ValueError(
            f"a binding of the {name}'s side is stored, but the settings have no section `{name}`"
        )
    return section


def _recorder(names_of: set[str]) -> pulumi.ResourceTransformation:
    """Notes what is registered. A Service that is there keeps its address as it is, asked for or not: only one that has
    to be made again asks for the old one."""

    def record(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        names_of.add(args.name)
        if args.type_ != SERVICE:
            return None
        options = pulumi.ResourceOptions.merge(
            args.opts, pulumi.ResourceOptions(ignore_changes=["spec.clusterIP"])
        )
        return pulumi.ResourceTransformationResult(args.props, options)

    return record


def _record_address(component: ConsumerEgress, slug: str, declared: Declared) -> None:
    def record(vip: str | None) -> None:
        if vip is not None:
            declared.virtual_ips[slug] = vip

    component.vip.apply(record)
