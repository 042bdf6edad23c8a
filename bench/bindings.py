"""The objects of whole bindings as the components make them, in their order, to apply them without the engine."""

from __future__ import annotations

from collections.abc import Iterator

from broker.program import Wanted, endpoints
from broker.settings import Settings
from broker.store import ConsumerRoute, ProviderRoute
from routing import ConsumerEndpoint, Manifest, ProviderEndpoint, consumer, provider
from routing.manifest import claim

OWNER = "organization/meshbridge/bench"
"""The stack in whose name the objects are made."""


def of_binding(read: Settings, binding_id: str, route: ConsumerRoute | ProviderRoute) -> Iterator[Manifest]:
    """The objects that a broker with these settings makes for a binding."""
    for _, args in endpoints(read, Wanted(binding_id, 1, route)):
        yield from provider_side(args) if isinstance(args, ProviderEndpoint) else consumer_side(args)


def consumer_side(endpoint: ConsumerEndpoint, virtual_ip: str | None = None) -> Iterator[Manifest]:
    """The objects of an imported endpoint: eight, and one more where it admits a whole namespace.

    virtual_ip: the Service's, where it is known before; else the host alone selects the route.
    """
    yield claim(endpoint.name, endpoint.gateway.namespace, OWNER)
    if not endpoint.service_accounts:
        yield consumer.admission(endpoint)
    yield consumer.service_entry(endpoint)
    yield consumer.upstream_rule(endpoint)
    yield consumer.egress_server(endpoint)
    yield consumer.egress_route(endpoint)
    yield consumer.sidecar_rule(endpoint)
    yield consumer.virtual_ip(endpoint)
    yield consumer.mesh_route(endpoint, None if virtual_ip is None else [f"{virtual_ip}/32"])


def provider_side(endpoint: ProviderEndpoint) -> Iterator[Manifest]:
    """The objects of an exported endpoint: five, and a sixth where the gateway is not another's."""
    yield claim(endpoint.name, endpoint.gateway.namespace, OWNER)
    if not endpoint.gateway.adopt:
        yield provider.reach(endpoint)
    yield provider.service_entry(endpoint)
    yield provider.service_rule(endpoint)
    yield provider.public_server(endpoint)
    yield provider.public_route(endpoint)
