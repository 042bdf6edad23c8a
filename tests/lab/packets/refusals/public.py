"""What arrives at the provider's public port and is none of the endpoint's consumers."""

from __future__ import annotations

from collections.abc import Callable

from lab import pki
from tests.lab.packets.refusals.outcome import Probe, answered, is_client, refused
from tests.lab.packets.refusals.world import DESK_HOST, INGRESS_POD, ORDERS_HOST, Certificates, World

INGRESS = "the ingress gateway"


def _call(world: World, sni: str | None, pair: pki.KeyPair | None, **more: object) -> str:
    logged = world.mark(world.provider, INGRESS_POD)
    reply = world.from_internet(sni, pair, **more)
    return answered(reply.received) if reply.received else refused(INGRESS, logged(is_client(reply)))


def _with(
    choose: Callable[[Certificates], pki.KeyPair | None], sni: str | None = ORDERS_HOST, **more: object
) -> Callable[[World], str]:
    return lambda world: _call(world, sni, choose(world.certificates), **more)


RIGHT = Probe("a consumer on its own SNI", _with(lambda they: they.right), "answered: b'N'")
"""Gets through, as the others would if nothing stood before them."""
OTHER_NAME = Probe(
    "another consumer's certificate",
    _with(lambda they: they.other_consumer),
    f"refused by {INGRESS}: SAN matcher, certificate SANs are [client.desk.example]",
)
NO_CERTIFICATE = Probe(
    "no certificate",
    _with(lambda _they: None),
    f"refused by {INGRESS}: peer did not provide required client certificate",
)
OTHER_AUTHORITY = Probe(
    "a certificate of another CA",
    _with(lambda they: they.other_authority),
    f"refused by {INGRESS}: unable to get local issuer certificate",
)
EXPIRED = Probe(
    "an expired certificate",
    _with(lambda they: they.expired),
    f"refused by {INGRESS}: certificate has expired",
)
REVOKED = Probe(
    "a revoked certificate", _with(lambda they: they.revoked), f"refused by {INGRESS}: certificate revoked"
)
OTHER_SNI = Probe(
    "a consumer on another consumer's SNI",
    _with(lambda they: they.right, DESK_HOST),
    f"refused by {INGRESS}: SAN matcher, certificate SANs are [client.shop.example]",
)
NO_SNI = Probe(
    "no SNI", _with(lambda they: they.right, None), f"refused by {INGRESS}: NR; filter_chain_not_found"
)
OLD_TLS = Probe(
    "TLS 1.2",
    _with(lambda they: they.right, newest="TLSv1_2"),
    f"refused by {INGRESS}: UNSUPPORTED PROTOCOL",
)
PLAIN_TEXT = Probe(
    "plain text at the public port",
    _with(lambda _they: None, None, tls=False),
    f"refused by {INGRESS}: WRONG VERSION NUMBER",
)
PROBES = (
    RIGHT, OTHER_NAME, NO_CERTIFICATE, OTHER_AUTHORITY, EXPIRED, REVOKED, OTHER_SNI, NO_SNI, OLD_TLS, PLAIN_TEXT,
)  # fmt: skip
