"""Clients that begin a handshake and leave it, and those that are refused at its end: they take nothing from the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from lab.cluster import Cluster
from tests.lab.packets import stacks
from tests.lab.packets.refusals.outcome import Probe
from tests.lab.packets.refusals.world import (
    APPLICATION,
    BARE,
    CAPPED_HOST,
    CAPPED_SERVICE,
    EGRESS_POD,
    GATEWAY_HOST,
    INGRESS_POD,
    MESH_PORT,
    NO_SSL,
    World,
)

STALLED = 2 * stacks.CAP
"""More than the endpoint's most connections at a time."""


def _at_the_ingress_gateway(world: World) -> str:
    stall = world.stalled_from_internet(STALLED, CAPPED_HOST)
    return _beside(world, stall, world.provider, INGRESS_POD)


def _at_the_egress_gateway(world: World) -> str:
    stall = world.stalled_from_pod(BARE, STALLED, GATEWAY_HOST, MESH_PORT, CAPPED_HOST)
    return _beside(world, stall, world.consumer, EGRESS_POD)


def _beside(world: World, stall: AbstractContextManager[None], cluster: Cluster, pod: str) -> str:
    with stall:
        reply = world.from_pod(APPLICATION, CAPPED_SERVICE, 5432)
    return "the application is " + ("answered" if reply.received == NO_SSL else "shut out")


def _refused_at_the_ingress_gateway(world: World) -> str:
    def call() -> bool:
        replies = world.repeatedly_from_internet(STALLED, CAPPED_HOST)
        return any(reply.received for reply in replies)

    return _opened(world, world.provider, INGRESS_POD, call)


def _refused_at_the_egress_gateway(world: World) -> str:
    def call() -> bool:
        replies = [world.from_pod(BARE, GATEWAY_HOST, MESH_PORT, tls=True, sni=CAPPED_HOST) for _ in range(2)]
        return any(reply.received for reply in replies)

    return _opened(world, world.consumer, EGRESS_POD, call)


def _opened(world: World, cluster: Cluster, pod: str, call: Callable[[], bool]) -> str:
    before = world.connections_made(cluster, pod, stacks.CAPPED)
    if call():
        return "answered"
    opened = world.connections_made(cluster, pod, stacks.CAPPED) - before
    return "nothing is opened upstream" if opened == 0 else "a connection is opened upstream for each"


STALLED_INGRESS = Probe(
    "more stalled handshakes with the ingress gateway than it may have connections",
    _at_the_ingress_gateway,
    "the application is answered",
)
STALLED_EGRESS = Probe(
    "more stalled handshakes with the egress gateway than it may have connections",
    _at_the_egress_gateway,
    "the application is answered",
)
REFUSED_INGRESS = Probe(
    "clients that the ingress gateway refuses", _refused_at_the_ingress_gateway, "nothing is opened upstream"
)
REFUSED_EGRESS = Probe(
    "clients that the egress gateway refuses", _refused_at_the_egress_gateway, "nothing is opened upstream"
)
PROBES = (STALLED_INGRESS, STALLED_EGRESS, REFUSED_INGRESS, REFUSED_EGRESS)
