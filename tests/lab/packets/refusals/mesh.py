"""What happens inside the consumer's mesh: callers that are not the endpoint's, and peers that are not the right ones."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from lab.api import Object
from lab.lab import EGRESS_NAMESPACE, PROVIDER_ID
from lab.pki import Authority, KeyPair
from tests.lab.packets import stacks
from tests.lab.packets.refusals.outcome import Probe, answered, is_client, is_from, refused
from tests.lab.packets.refusals.world import (
    API_PORT,
    APPLICATION,
    BARE,
    EGRESS_POD,
    GATEWAY_HOST,
    IMPOSTOR,
    INGRESS_POD,
    INTRUDER,
    MESH_PORT,
    ORDERS_HOST,
    ORDERS_SERVICE,
    PROVIDER_CERTIFICATE,
    PYTHON,
    SSL_REQUEST,
    VISITOR,
    Reply,
    World,
    started,
    until,
)

SIDECAR, EGRESS, INGRESS = "the sidecar", "the egress gateway", "the ingress gateway"
HTTP_REQUEST = b"GET /orders HTTP/1.1\r\nHost: web\r\n\r\n"
OTHER_GATEWAY, OTHER_GATEWAY_POD = "desk-egress.desk-egress.svc.cluster.local", "desk-egress/desk-egress"
"""The egress gateway of another consumer in the same mesh."""


def _through_the_mesh(world: World, call: Callable[[], Reply], pod: str) -> str:
    """What becomes of a connection whose caller has a sidecar."""
    sidecar, gateway = world.mark(world.consumer, pod), world.mark(world.consumer, EGRESS_POD)
    reply = call()
    if reply.received:
        return answered(reply.received)
    line = sidecar(is_client(reply))
    if not line["upstream"] or line["upstream_failure"]:
        return refused(SIDECAR, line)
    return refused(EGRESS, gateway(is_from(world.address_of(pod))))


def _application(world: World) -> str:
    def call() -> Reply:
        return world.from_pod(APPLICATION, ORDERS_SERVICE, 5432)

    gateway = world.mark(world.consumer, EGRESS_POD)
    said = _through_the_mesh(world, call, APPLICATION)
    if not said.startswith("answered"):
        return said
    line = gateway(is_from(world.address_of(APPLICATION)))
    return f"{said}, {line['tls']} to the egress gateway, {line['upstream_tls']} to the provider"


def _from(pod: str, host: str, port: int, say: bytes = SSL_REQUEST) -> Callable[[World], str]:
    def run(world: World) -> str:
        return _through_the_mesh(world, lambda: world.from_pod(pod, host, port, say), pod)

    return run


def _intruder_at_the_gateway(world: World) -> str:
    def call() -> Reply:
        return world.from_pod(INTRUDER, GATEWAY_HOST, MESH_PORT, tls=True, sni=ORDERS_HOST)

    return _through_the_mesh(world, call, INTRUDER)


def _without_sidecar(
    host: str, pod: str, *, tls: bool = True, sni: str | None = ORDERS_HOST
) -> Callable[[World], str]:
    def run(world: World) -> str:
        logged = world.mark(world.consumer, pod)
        reply = world.from_pod(BARE, host, MESH_PORT, tls=tls, sni=sni)
        if reply.received:
            return answered(reply.received)
        return refused(EGRESS if pod == EGRESS_POD else "the other gateway", logged(is_client(reply)))

    return run


def _provider_directly(world: World) -> str:
    sidecar, ingress = world.mark(world.consumer, APPLICATION), world.mark(world.provider, INGRESS_POD)
    reply = world.from_pod(APPLICATION, ORDERS_HOST, world.port, tls=True, sni=ORDERS_HOST)
    if reply.received:
        return answered(reply.received)
    way = sidecar(is_client(reply))["cluster"]
    line = ingress(is_from(world.consumer.addresses.outside, sni=ORDERS_HOST))
    return f"{refused(INGRESS, line)}, reached as {way}"


def _provider_presents(make: Callable[[World], KeyPair]) -> Callable[[World], str]:
    def run(world: World) -> str:
        pair = make(world)
        shown = sha256(
            x509.load_pem_x509_certificate(pair.certificate).public_bytes(Encoding.DER)
        ).hexdigest()

        def put(secret: Object) -> None:
            secret["data"] |= {
                "tls.crt": base64.b64encode(pair.certificate).decode(),
                "tls.key": base64.b64encode(pair.key).decode(),
            }

        def is_shown() -> bool:
            return world.from_internet(ORDERS_HOST).server == shown

        with world.edited(world.provider, PROVIDER_CERTIFICATE, put):
            assert until(is_shown), "the ingress gateway does not present the certificate"
            said = _from(APPLICATION, ORDERS_SERVICE, 5432)(world)
        assert until(lambda: not is_shown()), "the ingress gateway still presents the certificate"
        return said

    return run


NO_HOST = ": UH"
"""Envoy's flag of a cluster without a healthy host, as `refused` ends with it."""

FAKE_SERVER = """
import os, socket, sys, threading
sys.stdin.readline()
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
with socket.create_server(("0.0.0.0", 443)) as server:
    print("serves", flush=True)
    while True:
        connection, _ = server.accept()
        with connection:
            if connection.recv(64):
                connection.sendall(b"impostor")
"""


def _impostor(world: World) -> str:
    """The gateway's Service leads to a Pod with another identity, and the application calls as ever."""

    def lead_astray(service: Object) -> None:
        service["spec"]["selector"] = {"app": "impostor"}

    said = ""
    place = world.address_of(IMPOSTOR)

    def is_astray() -> bool:
        nonlocal said
        sidecar = world.mark(world.consumer, APPLICATION)
        reply = world.from_pod(APPLICATION, ORDERS_SERVICE, 5432)
        line = sidecar(is_client(reply))
        said = answered(reply.received) if reply.received else refused(SIDECAR, line)
        return str(line["upstream"]).startswith(f"{place}:")

    command = world.consumer.command(IMPOSTOR, [*PYTHON, "-c", FAKE_SERVER])
    service = ("v1", "Service", EGRESS_NAMESPACE, EGRESS_POD.partition("/")[2])
    with started(command, "", "serves"), world.edited(world.consumer, service, lead_astray):
        assert until(is_astray), "the Service does not lead to the impostor"
        outcome = said
    back = until(lambda: not is_astray() and not said.endswith(NO_HOST))
    assert back, "the Service does not lead to the gateway again"
    return outcome


def _gateway_elsewhere(world: World) -> str:
    # What its container may run is the image's: curl is in it, Python is not.
    command = ["curl", "--verbose", "--insecure", f"https://{stacks.API_ADDRESS}:{API_PORT}/"]
    done = world.consumer.exec(EGRESS_POD, command, container="istio-proxy")
    if done.stdout:
        return answered(done.stdout.encode())
    return ", ".join(re.findall(r" failed: (.+)", done.stderr)) or done.stderr


def _sans(identity: str) -> str:
    return f"SAN matcher, certificate SANs are [{identity}]"


APPLICATION_WORKS = Probe(
    "the application itself",
    _application,
    "answered: b'N', TLSv1.3 to the egress gateway, TLSv1.3 to the provider",
)
"""Gets through."""
OTHER_ACCOUNT = Probe(
    "a service account that is not listed, at the virtual IP",
    _from(VISITOR, ORDERS_SERVICE, 5432),
    f"refused by {EGRESS}: {_sans('spiffe://shop.example/ns/shop/sa/visitor')}",
)
NAMESPACE_WORKS = Probe(
    "any service account, at the virtual IP of an endpoint of its whole namespace",
    _from(VISITOR, "svc-web-main.shop.svc.cluster.local", 8080, HTTP_REQUEST),
    answered(b"HTTP/1.1 200 OK\r\n"),
)
"""Gets through."""
OTHER_NAMESPACE = Probe(
    "another namespace, at the virtual IP",
    _from(INTRUDER, ORDERS_SERVICE, 5432),
    f"refused by {SIDECAR}: UH",
)
FORGED = Probe(
    "another namespace, by routes of its own, to an endpoint with listed accounts",
    _from(INTRUDER, "forged-orders.other.svc.cluster.local", 5432),
    f"refused by {EGRESS}: {_sans('spiffe://shop.example/ns/other/sa/default')}",
)
FORGED_TO_NAMESPACE = Probe(
    "another namespace, by routes of its own, to an endpoint of a whole namespace",
    _from(INTRUDER, "forged-web.other.svc.cluster.local", 8080, HTTP_REQUEST),
    f"refused by {EGRESS}: {_sans('spiffe://shop.example/ns/other/sa/default')}",
)
FORGED_TO_FIRST_SPEAKER = Probe(
    "the same, where the server speaks first",
    _from(INTRUDER, "forged-mariadb.other.svc.cluster.local", 3306, b""),
    f"refused by {EGRESS}: {_sans('spiffe://shop.example/ns/other/sa/default')}",
)
INTRUDER_AT_GATEWAY = Probe(
    "another namespace, at the egress gateway",
    _intruder_at_the_gateway,
    f"refused by {EGRESS}: peer did not provide required client certificate",
)
WITHOUT_SIDECAR = Probe(
    "a Pod without sidecar, by TLS, at the egress gateway",
    _without_sidecar(GATEWAY_HOST, EGRESS_POD),
    f"refused by {EGRESS}: peer did not provide required client certificate",
)
PLAIN_TEXT = Probe(
    "a Pod without sidecar, in plain text, at the egress gateway",
    _without_sidecar(GATEWAY_HOST, EGRESS_POD, tls=False, sni=None),
    f"refused by {EGRESS}: WRONG VERSION NUMBER",
)
OTHER_GATEWAY_SERVES = Probe(
    "another gateway of the mesh, asked for the endpoint",
    _without_sidecar(OTHER_GATEWAY, OTHER_GATEWAY_POD),
    "refused by the other gateway: NR; filter_chain_not_found",
)
DIRECTLY = Probe(
    "an application that calls the provider's public host",
    _provider_directly,
    f"refused by {INGRESS}: peer did not provide required client certificate, reached as PassthroughCluster",
)
WRONG_PROVIDER = Probe(
    "a provider with another name",
    _provider_presents(
        lambda world: world.lab.provider_authority.signers()[0].serving(["istio.other.example"])
    ),
    f"refused by {EGRESS}: {_sans('istio.other.example')}",
)
WRONG_AUTHORITY = Probe(
    "a provider of another CA",
    _provider_presents(lambda _world: Authority.create("another CA").serving([PROVIDER_ID])),
    f"refused by {EGRESS}: unable to get local issuer certificate",
)
IMPOSTOR_GATEWAY = Probe(
    "an impostor in the place of the egress gateway",
    _impostor,
    f"refused by {SIDECAR}: {_sans('spiffe://shop.example/ns/mesh-egress/sa/impostor')}",
)
GATEWAY_ELSEWHERE = Probe(
    "the egress gateway, to another port of the internet",
    _gateway_elsewhere,
    "No route to host",
)
BY_CALLER = (
    (APPLICATION_WORKS, DIRECTLY),
    (OTHER_ACCOUNT, NAMESPACE_WORKS),
    (OTHER_NAMESPACE, FORGED, FORGED_TO_NAMESPACE, FORGED_TO_FIRST_SPEAKER, INTRUDER_AT_GATEWAY),
    (WITHOUT_SIDECAR, PLAIN_TEXT, OTHER_GATEWAY_SERVES, GATEWAY_ELSEWHERE),
)
"""They leave everything as it is, and each caller's lines are told from those of the others."""
PROBES = tuple(probe for group in BY_CALLER for probe in group)
DISTURBING = (WRONG_PROVIDER, WRONG_AUTHORITY, IMPOSTOR_GATEWAY)
"""While they run, others do not get through."""
