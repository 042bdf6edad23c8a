"""What reaches an upstream on the internet, and who gets past its gateway or through it."""

from __future__ import annotations

import json

from config import names
from tests.lab.packets import stacks
from tests.lab.packets.refusals.outcome import Probe, answered, is_client, reason, refused
from tests.lab.packets.refusals.world import API_PORT, INTRUDER, READER, REPORTER, World

REQUEST = f"GET / HTTP/1.1\r\nHost: {stacks.API_HOST}\r\nConnection: close\r\n\r\n".encode()
GATEWAY = f"{names.upstream('api')}.egress-api.svc.cluster.local"
PROXY_USER = 1337
"""Whose connections the sidecar does not capture."""
HARMLESS = {"host", "connection", "x-request-id", "x-forwarded-proto", "x-envoy-original-host"}
"""Headers that the upstream may see: they name neither a workload nor anything inside the mesh but the proxied host."""


def _headers(world: World) -> str:
    reply = world.from_pod(REPORTER, stacks.API_HOST, 80, REQUEST, whole=True)
    status, _, body = reply.received.decode().partition("\r\n")
    if status != "HTTP/1.1 200 OK":
        return status
    seen = json.loads(body.partition("\r\n\r\n")[2])["headers"]
    return f"the upstream sees: {', '.join(sorted(set(seen) - HARMLESS)) or 'no header of the mesh'}"


def _other_account(world: World) -> str:
    logged = world.mark(world.consumer, READER)
    reply = world.from_pod(READER, stacks.API_HOST, 80, REQUEST)
    line = logged(is_client(reply))
    return answered(reply.received) if line["status"] == 200 else f"{line['status']}: {reason(line)}"


def _past_the_gateway(world: World) -> str:
    logged = world.mark(world.consumer, REPORTER)
    reply = world.from_pod(REPORTER, stacks.API_ADDRESS, API_PORT, REQUEST, tls=True)
    return answered(reply.received) if reply.received else refused("the network", logged(is_client(reply)))


def _past_the_sidecar(world: World) -> str:
    reply = world.from_pod(REPORTER, stacks.API_ADDRESS, API_PORT, REQUEST, tls=True, user=PROXY_USER)
    return answered(reply.received) if reply.received else reply.error


def _from_another_namespace(world: World) -> str:
    logged = world.mark(world.consumer, INTRUDER)
    reply = world.from_pod(INTRUDER, GATEWAY, 443, REQUEST, tls=True, sni=stacks.API_HOST)
    return answered(reply.received) if reply.received else refused("the network", logged(is_client(reply)))


HEADERS = Probe("headers of the mesh at the upstream", _headers, "the upstream sees: no header of the mesh")
OTHER_ACCOUNT = Probe(
    "a service account that is not listed, at the upstream's host",
    _other_account,
    "503: UC; upstream_reset_before_response_started{connection_termination}",
)
PAST_GATEWAY = Probe(
    "a workload that goes past the upstream's gateway",
    _past_the_gateway,
    "refused by the network: No route to host",
)
PAST_SIDECAR = Probe(
    "a workload that goes past its sidecar too", _past_the_sidecar, "OSError: [Errno 113] No route to host"
)
OTHER_NAMESPACE = Probe(
    "another namespace, at the upstream's gateway",
    _from_another_namespace,
    "refused by the network: No route to host",
)
PROBES = (HEADERS, OTHER_ACCOUNT, PAST_GATEWAY, PAST_SIDECAR, OTHER_NAMESPACE)
