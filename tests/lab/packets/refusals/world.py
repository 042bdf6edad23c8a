"""What the probes need beside the lab: certificates good and bad, callers in every place, and ways to read what happened."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from config import Cluster as ClusterConfiguration
from config import EgressGateway
from lab import applications, pki
from lab.api import Object
from lab.cluster import Cluster
from lab.errors import LabError
from lab.lab import (
    CLIENT,
    CONSUMER_ID,
    EGRESS_NAMESPACE,
    INGRESS_NAMESPACE,
    PROVIDER,
    SERVER_SECRET,
    SERVICE,
    SYSTEM_DOMAIN,
    Lab,
)
from routing import consumer as routes
from tests.lab.packets import stacks
from tests.lab.packets.certificates import renew_server

PYTHON = (sys.executable, "-I", "-S")
"""Starts fast, and needs no more than its own library."""
CALL = (*PYTHON, "-c", Path(__file__).with_name("call.py").read_text())
"""The command that makes a connection; see `call.py`."""

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""PostgreSQL's question whether the server speaks TLS itself (protocol: SSLRequest)."""
NO_SSL = b"N"
"""The answer of one that does not: a byte that only the provider's database sends."""

ORDERS_HOST = f"primary.orders.{SYSTEM_DOMAIN}"
DESK_HOST, CAPPED_HOST = (f"{name}.{SYSTEM_DOMAIN}" for name in ("archive", stacks.CAPPED))
EGRESS_POD, INGRESS_POD = f"{EGRESS_NAMESPACE}/istio-egressgateway", f"{INGRESS_NAMESPACE}/provider-ingress"
GATEWAY_HOST = f"istio-egressgateway.{EGRESS_NAMESPACE}.svc.cluster.local"
MESH_PORT = 443
ORDERS_SERVICE = SERVICE
PROVIDER_CERTIFICATE = ("v1", "Secret", INGRESS_NAMESPACE, SERVER_SECRET)
CAPPED_SERVICE = f"svc-{stacks.CAPPED}-main.shop.svc.cluster.local"
WHOLE_NAMESPACE = ("web", "mariadb")
"""Imports that admit every workload of their namespace; of the second, the server speaks first."""
API_PORT = 8080
CLUSTER = ClusterConfiguration.model_validate({"trustDomain": "shop.example"})

APPLICATION = CLIENT
"""The endpoint's rightful user."""
VISITOR = "shop/visitor"
"""In the right namespace, with a service account that is not listed."""
INTRUDER = "other/intruder"
"""In another namespace, where routes to the gateway were made as its owner could make them."""
BARE = "shop/bare"
"""Without a sidecar."""
IMPOSTOR = f"{EGRESS_NAMESPACE}/impostor"
"""Beside the egress gateway, with another service account."""
REPORTER, READER = f"{stacks.REPORTS}/{stacks.REPORTER}", f"{stacks.REPORTS}/reader"
"""The upstream's client, and its neighbour that is none."""

LOST_ID = "lost.shop.example"
"""Id of a further certificate of the consumer, which is revoked."""

SETTLED = 20.0
"""Seconds within which a change has reached the proxies."""
LOGGED = 10.0
"""Seconds within which Envoy has written a connection's line; it writes each second."""


Reference = tuple[str, str, str, str]
"""Version, kind, namespace and name of an object."""


@dataclass(frozen=True)
class Reply:
    """What a caller saw."""

    client: str
    """Its own address and port."""
    server: str
    """SHA-256 of the certificate that it was shown."""
    received: bytes
    error: str


@dataclass(frozen=True)
class Certificates:
    """Of consumers, as the provider's ingress gateway may see them."""

    stranger: pki.Authority
    """Vouches for `other_authority`."""
    right: pki.KeyPair
    other_consumer: pki.KeyPair
    other_authority: pki.KeyPair
    expired: pki.KeyPair
    revoked: pki.KeyPair

    @classmethod
    def create(cls, lab: Lab) -> Self:
        """Certificates of the consumers' authority, but for the one that is not."""
        authority, stranger = lab.consumer_authority, pki.Authority.create("another CA")
        authority.issue("client", LOST_ID, lab.provider_authority, CONSUMER_ID)
        root = authority.signers()[0]
        return cls(
            stranger=stranger,
            right=authority.pair("client", CONSUMER_ID),
            other_consumer=authority.pair("client", stacks.DESK_ID),
            other_authority=stranger.serving([CONSUMER_ID]),
            expired=root.serving([CONSUMER_ID], lifetime=-datetime.timedelta(minutes=1)),
            revoked=authority.pair("client", LOST_ID),
        )


@dataclass
class World:
    """The lab with all callers; see `prepared`."""

    lab: Lab
    certificates: Certificates
    address: str
    """Of the provider's load balancer."""
    port: int = 9000

    @property
    def consumer(self) -> Cluster:
        """The consumer's cluster."""
        return self.lab.consumer

    @property
    def provider(self) -> Cluster:
        """The provider's cluster."""
        return self.lab.provider

    # Callers

    def from_internet(self, sni: str | None, pair: pki.KeyPair | None = None, **more: object) -> Reply:
        """Call the provider's public port with PostgreSQL's first question."""
        return _one(self._on_internet(self._public(sni, pair, **more)))

    def repeatedly_from_internet(self, times: int, sni: str) -> list[Reply]:
        """The same without a certificate, several times one after another."""
        return self._on_internet(self._public(sni, None, times=times))

    def _public(self, sni: str | None, pair: pki.KeyPair | None, **more: object) -> dict[str, object]:
        order = {"host": self.address, "port": self.port, "tls": True, "say": SSL_REQUEST.hex(), "sni": sni}
        if pair is not None:
            order |= {"certificate": pair.certificate.decode(), "key": pair.key.decode()}
        return order | more

    def _on_internet(self, order: Mapping[str, object]) -> list[Reply]:
        command = [*self.lab.internet.network.prefix, *CALL]
        done = subprocess.run(command, input=json.dumps(order), capture_output=True, text=True, check=True)
        return _replies(done.stdout)

    def from_pod(
        self,
        pod: str,
        host: str,
        port: int,
        say: bytes = SSL_REQUEST,
        *,
        user: int | None = None,
        tls: bool = False,
        sni: str | None = None,
        whole: bool = False,
    ) -> Reply:
        """Call from a Pod of the consumer's cluster, as its application or as another user."""
        order = {"host": host, "port": port, "say": say.hex(), "tls": tls, "sni": sni, "whole": whole}
        as_user = [] if user is None else ["setpriv", f"--reuid={user}", "--clear-groups"]
        done = self.consumer.exec(pod, [*as_user, *CALL], text=json.dumps(order))
        return _one(_replies(done.expect_success()))

    @contextlib.contextmanager
    def stalled_from_internet(self, times: int, sni: str) -> Iterator[None]:
        """So many handshakes with the provider's public port, without a certificate, that stop behind the ClientHello."""
        order = self._public(sni, None, times=times, hold=True)
        with started([*self.lab.internet.network.prefix, *CALL], order, "held"):
            yield

    @contextlib.contextmanager
    def stalled_from_pod(self, pod: str, times: int, host: str, port: int, sni: str) -> Iterator[None]:
        """The same from a Pod, with a server of its choice."""
        order = {"host": host, "port": port, "sni": sni, "times": times, "hold": True}
        with started(self.consumer.command(pod, CALL), order, "held"):
            yield

    # What happened

    def mark(
        self, cluster: Cluster, pod: str
    ) -> Callable[[Callable[[dict[str, Any]], bool]], dict[str, Any]]:
        """Remember the end of a proxy's access log; the function that is returned waits for a line that fits, of a connection
        that began since. (Envoy writes its lines up to a second after a connection's end.)"""
        file = cluster.log_file(pod, "istio-proxy")
        begin = file.stat().st_size
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

        def newer(fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
            found: list[dict[str, Any]] = []

            def look() -> bool:
                with file.open(errors="replace") as log:
                    log.seek(begin)
                    found[:] = [line for line in _json_lines(log) if str(line["start"]) >= now and fits(line)]
                return bool(found)

            cluster.wait_until(look, f"{pod} has logged the connection", LOGGED)
            return found[-1]

        return newer

    def address_of(self, pod: str) -> str:
        """A Pod's IP address."""
        return str(self.consumer.pod(pod)["status"]["podIP"])

    def connections_made(self, cluster: Cluster, pod: str, name: str) -> int:
        """Connections that a gateway has opened so far to the upstreams of the Envoy cluster whose name holds `name`."""
        said = json.loads(cluster.admin(pod, "/clusters?format=json"))
        return sum(
            int(stat.get("value", 0))
            for each in said["cluster_statuses"]
            if name in each["name"]
            for host in each.get("host_statuses", [])
            for stat in host["stats"]
            if stat["name"] == "cx_total"
        )

    # Changes that are taken back

    @contextlib.contextmanager
    def edited(self, cluster: Cluster, where: Reference, edit: Callable[[Object], None]) -> Iterator[None]:
        """An object as `edit` changes it."""
        api_version, kind, namespace, name = where
        path = cluster.api.kind(api_version, kind).path(namespace, name)
        before = cluster.api.request("GET", path)
        after = copy.deepcopy(before)
        edit(after)
        cluster.api.request("PUT", path, after)
        try:
            yield
        finally:
            # Somebody may have made it anew meanwhile.
            now = cluster.api.request("GET", path)
            cluster.api.request("PUT", path, before | {"metadata": now["metadata"]})

    @contextlib.contextmanager
    def removed(self, cluster: Cluster, *objects: Reference) -> Iterator[None]:
        """Objects deleted in this order; made again in the reverse one."""
        gone: list[Object] = []
        try:
            for api_version, kind, namespace, name in objects:
                found = cluster.api.get(api_version, kind, name, namespace)
                if found is None:
                    raise LabError(f"{cluster.name} has no {kind} {namespace}/{name}")
                cluster.api.delete(api_version, kind, name, namespace)
                gone.append(found)
            yield
        finally:
            for item in reversed(gone):
                _create(cluster, item)

    @contextlib.contextmanager
    def renewed(self, cluster: Cluster, where: Reference, edit: Callable[[Object], None]) -> Iterator[None]:
        """An object as `edit` changes it, and younger than all others; of servers that exclude each other, Istio takes the
        oldest."""
        api_version, kind, namespace, name = where
        changed = cluster.api.get(api_version, kind, name, namespace)
        if changed is None:
            raise LabError(f"{cluster.name} has no {kind} {namespace}/{name}")
        edit(changed)
        with self.removed(cluster, where):
            _create(cluster, changed)
            try:
                yield
            finally:
                cluster.api.delete(api_version, kind, name, namespace)


def _create(cluster: Cluster, item: Object) -> None:
    """Make an object of what another was."""
    for key in ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp"):
        item["metadata"].pop(key, None)
    item.pop("status", None)
    path = cluster.api.kind(item["apiVersion"], item["kind"]).path(item["metadata"]["namespace"])
    cluster.api.request("POST", path, item)


def until(done: Callable[[], bool], seconds: float = SETTLED) -> bool:
    """Ask again and again until it is so; whether it was in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@contextlib.contextmanager
def prepared(lab: Lab) -> Iterator[World]:
    """All callers, and a list of revoked certificates at the provider, where it stays."""
    certificates = Certificates.create(lab)
    address = lab.stack(PROVIDER).outputs()["provider"]["address"]
    world = World(lab, certificates, address)
    _revoke(world)
    with _callers(lab):
        yield world


def _revoke(world: World) -> None:
    revoked = world.certificates.revoked
    world.lab.consumer_authority.revoke(revoked)
    renew_server(world.lab)
    known = until(lambda: not world.from_internet(ORDERS_HOST, revoked).received)
    assert known, "the ingress gateway does not know of the list"


@contextlib.contextmanager
def _callers(lab: Lab) -> Iterator[None]:
    cluster = lab.consumer
    objects = [
        *applications.client("shop", "visitor", service_account="visitor"),
        *applications.client("shop", "bare", sidecar=False)[1:],
        *applications.client("other", "intruder"),
        *forged_routes("other"),
        *applications.client(EGRESS_NAMESPACE, "impostor", service_account="impostor")[1:],
        *applications.client(stacks.REPORTS, "reader", service_account="reader"),
    ]
    cluster.apply(*objects)
    try:
        for pod in (VISITOR, BARE, INTRUDER, IMPOSTOR, READER):
            namespace, _, name = pod.partition("/")
            cluster.wait_ready(namespace, name)
        yield
    finally:
        for item in reversed(objects):
            if item["kind"] not in {"Namespace", "ServiceAccount"}:
                metadata = item["metadata"]
                cluster.api.delete(item["apiVersion"], item["kind"], metadata["name"], metadata["namespace"])


def forged_routes(namespace: str) -> list[Object]:
    """What the owner of a namespace can make there to reach the egress gateway as an importing namespace does."""
    return [
        manifest.as_dict()
        for endpoint in (
            _forged("orders", namespace, ORDERS_HOST, 5432),
            *(
                _forged(name, namespace, f"{name}.{SYSTEM_DOMAIN}", stacks.SERVICES[name])
                for name in WHOLE_NAMESPACE
            ),
        )
        for manifest in (
            routes.virtual_ip(endpoint),
            routes.sidecar_rule(endpoint),
            routes.mesh_route(endpoint, None),
        )
    ]


def _forged(name: str, namespace: str, host: str, port: int) -> routes.ConsumerEndpoint:
    return routes.ConsumerEndpoint(
        slug=f"forged-{name}",
        namespace=namespace,
        cluster=CLUSTER,
        gateway=EgressGateway(),
        host=host,
        port=9000,
        provider_id=SYSTEM_DOMAIN,
        client_secret="unused",
        service=f"forged-{name}",
        service_port=port,
    )


@contextlib.contextmanager
def started(command: Sequence[str], first: object, ready: str) -> Iterator[subprocess.Popen[str]]:
    """A process that was told something and has said that it is ready; it ends with its stdin.

    Raises:
        LabError: it says something else.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(first) + "\n")
        process.stdin.flush()
        said = process.stdout.readline().strip()
        try:
            if said != ready:
                raise LabError(f"it does not say {ready!r}, but {said!r}: {process.stderr.read()}")
            yield process
        finally:
            process.stdin.close()


def _json_lines(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("{") and line.endswith("}\n"):
            yield json.loads(line)


def _replies(text: str) -> list[Reply]:
    return [
        Reply(each["client"], each["server"], bytes.fromhex(each["received"]), each["error"])
        for each in json.loads(text)
    ]


def _one(replies: list[Reply]) -> Reply:
    (reply,) = replies
    return reply
