"""Rotation of what the gateways hold, as an operator does it: `python -m pki`, and then `up` of the stacks."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from cryptography import x509

from lab import pki
from lab.api import Object
from lab.cluster import Cluster
from lab.federation import Authority, Kind
from lab.lab import (
    CLIENT_SECRET,
    CONSUMER,
    CONSUMER_ID,
    EGRESS_NAMESPACE,
    INGRESS_NAMESPACE,
    PROVIDER,
    PROVIDER_ID,
    SERVER_SECRET,
    Lab,
)
from tests.lab.packets import stacks
from tests.lab.packets.access import EGRESS_POD

PROVIDER_ANCHOR = f"{CLIENT_SECRET}-cacert"
"""The Secret, of the consumer's stack, whose CA vouches for the provider."""
ROTATION = {
    frozenset({"issuing"}): "add",
    frozenset({"issuing", "next"}): "leaves",
    frozenset({"issuing", "retiring"}): "remove",
}
"""The next step of a root's rotation, by the states of the trusted roots."""


def renew_client(lab: Lab) -> str:
    """A new certificate for the consumer, deployed by its stack. Returns its serial number as Envoy writes it."""
    lab.consumer_authority.renew("client", CONSUMER_ID, lab.provider_authority)
    lab.up(CONSUMER)
    return client(lab)


def renew_server(lab: Lab) -> str:
    """The same for the provider, which also takes over the consumers' roots and revocation lists."""
    lab.provider_authority.renew("server", PROVIDER_ID, lab.consumer_authority)
    lab.up(PROVIDER)
    return server(lab)


def client(lab: Lab) -> str:
    """The serial number of the consumer's certificate in use."""
    return serial(lab.consumer_authority.pair("client", CONSUMER_ID).certificate)


def server(lab: Lab) -> str:
    """The same of the provider's."""
    return serial(lab.provider_authority.pair("server", PROVIDER_ID).certificate)


def rotate(lab: Lab, step: str) -> None:
    """One step of the rotation of both authorities' roots, deployed to all of both sides."""
    for authority in (lab.consumer_authority, lab.provider_authority):
        authority.run(f"rotate {step}")
    renew_and_deploy(lab)


def end_rotation(lab: Lab) -> None:
    """Bring a rotation that was not carried through to its end, without deploying anything."""
    for authority in (lab.consumer_authority, lab.provider_authority):
        while (step := _next_step(authority)) != "add":
            authority.run(f"rotate {step}")


def renew_and_deploy(lab: Lab) -> None:
    """Renew the certificates of all gateways, each with what its peers' authority says now, and deploy them."""
    held: tuple[tuple[Authority, Kind, tuple[str, str], Authority], ...] = (
        (lab.provider_authority, "server", (PROVIDER_ID, stacks.MAIL_DOMAIN), lab.consumer_authority),
        (lab.consumer_authority, "client", (CONSUMER_ID, stacks.DESK_ID), lab.provider_authority),
    )
    for authority, kind, identities, peers in held:
        for identity in identities:
            authority.renew(kind, identity, peers)
    lab.up_together(stacks.providers(lab))
    lab.up_together({name: each for name, each in stacks.consumers(lab).items() if "consumer" in each})


@contextmanager
def client_replaced(lab: Lab, pair: pki.KeyPair) -> Iterator[None]:
    """While it lasts, the consumer's Secret holds a certificate that its stack would refuse."""
    with _replaced(lab.consumer, EGRESS_NAMESPACE, CLIENT_SECRET, pair):
        yield


@contextmanager
def server_replaced(lab: Lab, pair: pki.KeyPair) -> Iterator[None]:
    """The same of the provider's."""
    with _replaced(lab.provider, INGRESS_NAMESPACE, SERVER_SECRET, pair):
        yield


def serial(certificate: bytes) -> str:
    """The serial number of a certificate, PEM, as Envoy writes it: the hexadecimal digits of whole bytes."""
    number = x509.load_pem_x509_certificate(certificate).serial_number
    return number.to_bytes((number.bit_length() + 7) // 8, "big").hex()


def trusts(consumer: Cluster, root: bytes) -> bool:
    """Whether the egress gateway believes a root, PEM, about the provider."""
    dump = json.loads(consumer.admin(EGRESS_POD, "/config_dump?resource=dynamic_active_secrets"))
    anchors = [
        each["secret"]["validation_context"]
        for each in dump["configs"]
        if each["name"] == f"kubernetes://{PROVIDER_ANCHOR}"
    ]
    return any(root in base64.b64decode(anchor["trusted_ca"]["inline_bytes"]) for anchor in anchors)


def _next_step(authority: Authority) -> str:
    return ROTATION[frozenset(state for state in authority.roots.values() if state != "removed")]


@contextmanager
def _replaced(cluster: Cluster, namespace: str, secret: str, pair: pki.KeyPair) -> Iterator[None]:
    path = f"/api/v1/namespaces/{namespace}/secrets/{secret}"

    def patch(data: Mapping[str, str]) -> None:
        cluster.api.request("PATCH", path, {"data": data}, "application/merge-patch+json")

    before: Object = cluster.api.request("GET", path)["data"]
    bad = {"tls.crt": pair.certificate, "tls.key": pair.key}
    patch({key: base64.b64encode(text).decode() for key, text in bad.items()})
    try:
        yield
    finally:
        patch({key: before[key] for key in bad})
