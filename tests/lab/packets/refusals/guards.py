"""What keeps each probe from getting through, taken away one at a time.

`python -m tests.lab.packets.refusals` does so with all of them in one lab and writes docs/guards.md.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from config import names
from lab.api import Object
from lab.errors import LabError
from lab.lab import CLIENT_SECRET, CONSUMER, EGRESS_NAMESPACE, INGRESS_NAMESPACE, PROVIDER, SERVER_SECRET
from tests.lab.packets import stacks
from tests.lab.packets.refusals import mesh, public, removal, stalls, upstreams
from tests.lab.packets.refusals.outcome import Probe
from tests.lab.packets.refusals.world import (
    DESK_HOST,
    SETTLED,
    WHOLE_NAMESPACE,
    Reference,
    World,
    until,
)

ISTIO, SECURITY = "networking.istio.io/v1", "security.istio.io/v1"
FILTERS = "networking.istio.io/v1alpha3"
Place = tuple[str, Reference]
"""A cluster's name, and an object there."""

UNTRIED = "could not be tried"
"""How the outcome of a probe that failed itself begins; this says nothing about a guard."""

ORDERS, REPLICA, CAPPED = (
    names.slug(*pair) for pair in (("orders", "primary"), ("orders", "replica"), (stacks.CAPPED, "main"))
)
EXPORT, IMPORT = names.exported(ORDERS), names.imported(ORDERS)
UPSTREAM, CONFINING = names.upstream("api"), names.upstream("ledger")
IMPORTS = (
    ORDERS,
    REPLICA,
    CAPPED,
    *(names.slug(name, "main") for name in (*stacks.SERVICES, "letters")),
)
"""Of the application's namespace. Istio merges the DestinationRules of their one host where all are exported alike."""
ADMITTING = tuple(names.imported(names.slug(name, "main")) for name in WHOLE_NAMESPACE)


def _provider(kind: str, name: str = EXPORT, version: str = ISTIO) -> Place:
    return PROVIDER, (version, kind, INGRESS_NAMESPACE, name)


def _egress(kind: str, name: str = IMPORT, version: str = ISTIO) -> Place:
    return CONSUMER, (version, kind, EGRESS_NAMESPACE, name)


def _shop(kind: str, name: str = IMPORT) -> Place:
    return CONSUMER, (ISTIO, kind, "shop", name)


def _upstream(kind: str, version: str = ISTIO) -> Place:
    return CONSUMER, (version, kind, "egress-api", UPSTREAM)


@dataclass(frozen=True)
class Change:
    """An object that is changed, or removed where there is no `edit`. anew: it is replaced by a younger one."""

    where: Place
    edit: Callable[[World, Object], None] | None = None
    anew: bool = False

    @contextlib.contextmanager
    def made(self, world: World) -> Iterator[None]:
        """As long as the change stands."""
        side, item = self.where
        cluster = {CONSUMER: world.consumer, PROVIDER: world.provider}[side]
        edit = self.edit
        if edit is None:
            with world.removed(cluster, item):
                yield
        else:
            put = world.renewed if self.anew else world.edited
            with put(cluster, item, lambda found: edit(world, found)):
                yield


@dataclass(frozen=True)
class Guard:
    """What is taken away, and the probes that then say something else."""

    name: str
    changes: tuple[Change, ...]
    falls: tuple[Probe, ...]

    @contextlib.contextmanager
    def gone(self, world: World) -> Iterator[None]:
        """Without the guard; afterwards with it again, and its probes hold.

        Raises:
            AssertionError: a probe does not hold again.
        """
        with contextlib.ExitStack() as changes:
            for change in self.changes:
                changes.enter_context(change.made(world))
            yield
        for probe in self.falls:
            assert holds(world, probe), f"{probe.name}: does not hold again with {self.name}"


def holds(world: World, probe: Probe) -> bool:
    """Whether a probe comes to say what it says while every guard stands."""
    return until(lambda: outcome(world, probe) == probe.expected)


def said_without(world: World, probe: Probe) -> str:
    """What a probe says once the guard's absence has reached the proxies; what it says at last, if that changes nothing."""
    said = probe.expected

    def falls() -> bool:
        nonlocal said
        said = outcome(world, probe)
        return fell(probe, said)

    until(falls, SETTLED)
    return said


def fell(probe: Probe, said: str) -> bool:
    """Whether a probe that was tried said something else than while every guard stands."""
    return said != probe.expected and not said.startswith(UNTRIED)


def outcome(world: World, probe: Probe) -> str:
    """What a probe says, or why it could not be tried."""
    try:
        return probe.run(world)
    except (LabError, AssertionError) as error:
        return f"{UNTRIED}: {error}"


def _server(edit: Callable[[dict[str, Any]], None]) -> Callable[[World, Object], None]:
    """An edit of the one server of a Gateway."""
    return lambda _world, item: edit(item["spec"]["servers"][0])


def _server_tls(**values: object) -> Callable[[World, Object], None]:
    """The TLS of a Gateway's server with these values, without those that are None."""
    return _server(lambda server: _merge(server["tls"], values))


def _policy_tls(**values: object) -> Callable[[World, Object], None]:
    """The same of a DestinationRule."""
    return lambda _world, item: _merge(item["spec"]["trafficPolicy"]["tls"], values)


def _subset_tls(**values: object) -> Callable[[World, Object], None]:
    """The same of a DestinationRule's one subset."""
    return lambda _world, item: _merge(item["spec"]["subsets"][0]["trafficPolicy"]["tls"], values)


def _merge(target: dict[str, Any], values: dict[str, object]) -> None:
    for key, value in values.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = value


def _spec(**values: object) -> Callable[[World, Object], None]:
    return lambda _world, item: _merge(item["spec"], values)


def _any_host(_world: World, item: Object) -> None:
    if item["kind"] == "Gateway":
        item["spec"]["servers"][0]["hosts"] = ["*"]
    else:
        item["spec"]["hosts"] = ["*"]


def _no_longest_life(_world: World, item: Object) -> None:
    del item["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["maxConnectionDuration"]


def _no_revocations(_world: World, item: Object) -> None:
    del item["data"]["ca.crl"]


def _trust_the_stranger(world: World, item: Object) -> None:
    trusted = base64.b64decode(item["data"]["ca.crt"]) + world.certificates.stranger.pem
    item["data"]["ca.crt"] = base64.b64encode(trusted).decode()
    _no_revocations(world, item)  # where there is one list, Envoy asks for one of every CA


def _keep_headers(_world: World, item: Object) -> None:
    del item["spec"]["http"][0]["headers"]


def _any_namespace(_world: World, item: Object) -> None:
    value = item["spec"]["configPatches"][0]["patch"]["value"]
    context = value["transport_socket"]["typed_config"]["common_tls_context"]
    (name,) = context["combined_validation_context"]["default_validation_context"][
        "match_typed_subject_alt_names"
    ]
    name["matcher"]["prefix"] = name["matcher"]["prefix"].partition("/ns/")[0]


def _plain(server: dict[str, Any]) -> None:
    server["port"]["protocol"] = "TCP"
    del server["tls"]


OTHER_NAMESPACES = (mesh.FORGED_TO_NAMESPACE, mesh.FORGED_TO_FIRST_SPEAKER)
MESH_IDENTITY = (mesh.OTHER_ACCOUNT, mesh.FORGED)
NO_WAY_TO_THE_PROVIDER = (mesh.APPLICATION_WORKS, mesh.WRONG_PROVIDER, mesh.WRONG_AUTHORITY)
"""Without the application's way to the provider there is no telling what the provider shows."""
GUARDS = (
    Guard(
        "provider Gateway: `subjectAltNames`",
        (Change(_provider("Gateway"), _server_tls(subjectAltNames=None)),),
        (public.OTHER_NAME,),
    ),
    Guard(
        "provider Gateway of the other consumer: `subjectAltNames`",
        (Change(_provider("Gateway", names.exported("archive-main")), _server_tls(subjectAltNames=None)),),
        (public.OTHER_SNI,),
    ),
    Guard(
        "provider Gateway: `mode: MUTUAL` (is `OPTIONAL_MUTUAL`)",
        (Change(_provider("Gateway"), _server_tls(mode="OPTIONAL_MUTUAL", subjectAltNames=None)),),
        (public.NO_CERTIFICATE, public.OTHER_NAME, mesh.DIRECTLY),
    ),
    Guard(
        "provider Gateway: `mode: MUTUAL` (is `SIMPLE`)",
        (Change(_provider("Gateway"), _server_tls(mode="SIMPLE", subjectAltNames=None)),),
        (
            public.OTHER_NAME, public.NO_CERTIFICATE, public.OTHER_AUTHORITY, public.EXPIRED, public.REVOKED,
            mesh.DIRECTLY,
        ),
    ),
    Guard(
        "provider Gateway: TLS (protocol `TCP`)",
        (Change(_provider("Gateway", names.exported(REPLICA)), _server(_plain), anew=True),),
        (public.PLAIN_TEXT, public.NO_SNI),
    ),
    Guard(
        "provider Gateway: `hosts` (any)",
        (Change(_provider("Gateway"), _any_host), Change(_provider("VirtualService"), _any_host)),
        (public.NO_SNI, public.PLAIN_TEXT),
    ),
    Guard(
        "provider Gateway: `minProtocolVersion`",
        (Change(_provider("Gateway"), _server_tls(minProtocolVersion="TLSV1_2")),),
        (public.OLD_TLS,),
    ),
    Guard(
        "provider Secret: `ca.crt` (trusts another CA too), and `ca.crl`",
        (Change(_provider("Secret", SERVER_SECRET, "v1"), _trust_the_stranger),),
        (public.OTHER_AUTHORITY, public.REVOKED),
    ),
    Guard(
        "provider Secret: `ca.crl`",
        (Change(_provider("Secret", SERVER_SECRET, "v1"), _no_revocations),),
        (public.REVOKED,),
    ),
    Guard(
        "provider DestinationRule: `maxConnectionDuration`",
        (Change(_provider("DestinationRule", names.exported(CAPPED)), _no_longest_life),),
        (removal.REMOVED,),
    ),
    Guard(
        "provider EnvoyFilter",
        (Change(_provider("EnvoyFilter", "provider-ingress-guard", FILTERS)),),
        (stalls.STALLED_INGRESS, stalls.REFUSED_INGRESS),
    ),
    Guard(
        "consumer DestinationRule to the provider: `subjectAltNames`",
        (Change(_egress("DestinationRule"), _policy_tls(subjectAltNames=None)),),
        (mesh.WRONG_PROVIDER,),
    ),
    Guard(
        "consumer DestinationRule to the provider: verification (`insecureSkipVerify`)",
        (Change(_egress("DestinationRule"), _policy_tls(insecureSkipVerify=True, subjectAltNames=None)),),
        (mesh.WRONG_AUTHORITY, mesh.WRONG_PROVIDER),
    ),
    Guard(
        "consumer DestinationRule to the provider: `mode: MUTUAL` (is `DISABLE`)",
        (Change(_egress("DestinationRule"), _policy_tls(mode="DISABLE")),),
        NO_WAY_TO_THE_PROVIDER,
    ),
    Guard(
        "consumer DestinationRule to the provider: `sni` (another)",
        (Change(_egress("DestinationRule"), _policy_tls(sni=DESK_HOST)),),
        (mesh.APPLICATION_WORKS,),
    ),
    Guard(
        "egress Gateway: `subjectAltNames`",
        (Change(_egress("Gateway"), _server_tls(subjectAltNames=None)),),
        MESH_IDENTITY,
    ),
    Guard(
        "EnvoyFilters of endpoints of a whole namespace",
        tuple(Change(_egress("EnvoyFilter", name, FILTERS)) for name in ADMITTING),
        (mesh.NAMESPACE_WORKS,),
    ),
    Guard(
        "EnvoyFilters of endpoints of a whole namespace: `prefix` (any namespace)",
        tuple(Change(_egress("EnvoyFilter", name, FILTERS), _any_namespace) for name in ADMITTING),
        OTHER_NAMESPACES,
    ),
    Guard(
        "EnvoyFilters of endpoints of a whole namespace, and their Gateways' `subjectAltNames`",
        (
            *(Change(_egress("Gateway", name), _server_tls(subjectAltNames=None)) for name in ADMITTING),
            *(Change(_egress("EnvoyFilter", name, FILTERS)) for name in ADMITTING),
        ),
        OTHER_NAMESPACES,
    ),
    Guard(
        "egress Gateway: `mode: ISTIO_MUTUAL` (is `SIMPLE`)",
        (
            Change(
                _egress("Gateway"),
                _server_tls(mode="SIMPLE", credentialName=CLIENT_SECRET, subjectAltNames=None),
            ),
        ),
        (mesh.WITHOUT_SIDECAR, mesh.INTRUDER_AT_GATEWAY, *MESH_IDENTITY, *NO_WAY_TO_THE_PROVIDER),
    ),
    Guard(
        "egress Gateway: TLS (protocol `TCP`)",
        (Change(_egress("Gateway", names.imported(REPLICA)), _server(_plain), anew=True),),
        (mesh.PLAIN_TEXT,),
    ),
    Guard(
        "egress Gateway: `selector`",
        (Change(_egress("Gateway"), _spec(selector=None)), Change(_egress("VirtualService"), _spec(exportTo=["*"]))),
        (mesh.OTHER_GATEWAY_SERVES,),
    ),
    Guard(
        "egress NetworkPolicy",
        (Change(_egress("NetworkPolicy", "istio-egressgateway", "networking.k8s.io/v1")),),
        (mesh.GATEWAY_ELSEWHERE,),
    ),
    Guard(
        "egress EnvoyFilter",
        (Change(_egress("EnvoyFilter", "istio-egressgateway-guard", FILTERS)),),
        (stalls.STALLED_EGRESS, stalls.REFUSED_EGRESS),
    ),
    Guard(
        "ServiceEntry of the provider: `exportTo`",
        (Change(_egress("ServiceEntry"), _spec(exportTo=["*"])),),
        (mesh.DIRECTLY,),
    ),
    Guard(
        "sidecar DestinationRule: `subjectAltNames`",
        (Change(_shop("DestinationRule"), _subset_tls(subjectAltNames=None)),),
        (mesh.IMPOSTOR_GATEWAY,),
    ),
    Guard(
        "sidecar DestinationRule: `sni` (another)",
        (Change(_shop("DestinationRule"), _subset_tls(sni=DESK_HOST)),),
        (mesh.OTHER_ACCOUNT, *NO_WAY_TO_THE_PROVIDER),
    ),
    Guard(
        "sidecar DestinationRule: `mode: ISTIO_MUTUAL` (is `DISABLE`)",
        (Change(_shop("DestinationRule"), _subset_tls(mode="DISABLE")),),
        (mesh.OTHER_ACCOUNT, mesh.IMPOSTOR_GATEWAY, *NO_WAY_TO_THE_PROVIDER),
    ),
    Guard(
        "sidecar DestinationRules and VirtualService: `exportTo`",
        (
            *(Change(_shop("DestinationRule", names.imported(slug)), _spec(exportTo=["*"])) for slug in IMPORTS),
            Change(_shop("VirtualService"), _spec(exportTo=["*"])),
        ),
        (mesh.OTHER_NAMESPACE,),
    ),
    Guard(
        "upstream VirtualService: `headers.request.remove`",
        (Change(_upstream("VirtualService"), _keep_headers),),
        (upstreams.HEADERS,),
    ),
    Guard(
        "upstream gateway's NetworkPolicy",
        (Change(_upstream("NetworkPolicy", "networking.k8s.io/v1")),),
        (upstreams.OTHER_NAMESPACE,),
    ),
    Guard(
        "NetworkPolicy of the client's namespace (`confineClients`)",
        (Change((CONSUMER, ("networking.k8s.io/v1", "NetworkPolicy", stacks.REPORTS, CONFINING))),),
        (upstreams.PAST_GATEWAY, upstreams.PAST_SIDECAR),
    ),
    # Last: what sidecars opened meanwhile stays in their pools, where another guard refuses it.
    Guard(
        "upstream Gateway: `subjectAltNames`",
        (Change(_upstream("Gateway"), _server_tls(subjectAltNames=None)),),
        (upstreams.OTHER_ACCOUNT,),
    ),
    Guard(
        "upstream Gateway: `subjectAltNames`, and the AuthorizationPolicy",
        (
            Change(_upstream("Gateway"), _server_tls(subjectAltNames=None)),
            Change(_upstream("AuthorizationPolicy", SECURITY)),
        ),
        (upstreams.OTHER_ACCOUNT,),
    ),
)  # fmt: skip

TOGETHER = (public.PROBES[::2], public.PROBES[1::2], *mesh.BY_CALLER, upstreams.PROBES)
"""Groups of probes that may run beside each other; those of one group follow one another."""
ALONE = (*mesh.DISTURBING, *stalls.PROBES)
"""Probes that others would disturb, or that disturb others."""
SLOW = removal.PROBES
"""Probes that last as long as the connection they follow."""
PROBES = (*public.PROBES, *mesh.PROBES, *mesh.DISTURBING, *upstreams.PROBES, *stalls.PROBES, *SLOW)
