"""How long a bind takes, and where the time goes: the broker against the stock Automation API and direct server-side apply.

All three make the same fourteen objects of a binding (nine in the consumer's cluster, five in the provider's) in one run, by
turns, on one API server. The bind is whole: platform, consumer's broker, provider's broker and service broker are four
processes. The stock way is what the Automation API's documentation shows, once for each side; the direct way is one client
that applies one object after the other on one connection. Every few rounds all bindings are removed, untimed, so that all three
work at the same sizes.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from pulumi import automation as auto

import tools
from bench.bindings import OWNER, of_binding
from bench.table import Section, percentile, verdict
from broker import settings
from broker.engine import PROJECT, Engine
from broker.network import Endpoint, PublicEndpoint, public_host
from broker.program import Declared, Wanted, declare, endpoints, plugin_of
from broker.settings import Settings
from broker.store import ConsumerRoute, ProviderRoute
from components import ConsumerEgressArgs
from lab.api import Object
from lab.control_plane import ControlPlane
from lab.kubeconfig import read_kubeconfig
from routing import Manifest
from routing import consumer as consumer_objects
from tests.broker.chain import CONSUMER_ID, SYSTEM_DOMAIN, wait_until
from tests.engine.brokers import APPLICATIONS, BrokerChain
from tools.progress import Detail

CALLERS = 64
GOAL_SECONDS, GOAL_SHARE, GOAL_THROUGHPUT = 1.5, 0.5, 1.0
TOGETHER = 5
"""Bindings that gather before all are removed."""
PAUSE = 5.0
"""Seconds between single binds, as between the rounds."""
SIDES = ("provider", "consumer")
"""In the order in which a bind reaches them."""
OBJECTS = 14
"""Objects of one binding, on both sides."""

APPLY = "application/apply-patch+yaml"
FIELD_MANAGER = "meshbridge-bench"

Seconds = list[float]


def measure(rounds: int, callers: int, detail: Detail, turns: int = 3) -> list[Section]:
    """The latency of single binds, and the throughput of many callers.

    rounds: binds of each way, 100 for a p99 that is one; turns: times that all callers bind at once; detail: is told what is
    being done.
    """
    os.environ.update(tools.engine_environment())
    with (
        tempfile.TemporaryDirectory(prefix="meshbridge-bench-") as name,
        ControlPlane("bench", Path(name) / "control-plane") as plane,
        _chain(Path(name), plane) as chain,
    ):
        read = {side: settings.read({}, chain.folder / side / "settings.yaml") for side in SIDES}
        single = _Single(chain, plane, read, Path(name))
        for number in range(rounds):
            detail(f"round {number + 1} of {rounds}")
            single.round(number)
        shares = single.shares()
        unchanged = [_unchanged(read[side], side, Path(name), max(5, rounds // 5)) for side in SIDES]
        detail(f"{callers} callers at once")
        many = [_together(chain, turn, callers) for turn in range(turns)]
        detail(f"single binds beside {callers} bindings")
        crowded = _crowded(chain, callers, max(10, rounds // 5))
        creates = _created(plane, read, callers * turns)
    return [
        _latency(single, shares, [sum(both) for both in zip(*unchanged, strict=True)], crowded, callers),
        _throughput(many, creates, callers),
    ]


@contextmanager
def _chain(folder: Path, plane: ControlPlane) -> Iterator[BrokerChain]:
    """Both sides in one cluster, with one stack each, as the stock way has."""
    chain = BrokerChain(folder / "chain", plane, plane, shards=1, shardSize=1000)
    try:
        chain.start()
        chain.platform.provision().raise_for_status()
        yield chain
    finally:
        chain.close()


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


class _Single:
    """Single binds, each way by turns. `stock`: of both sides together."""

    def __init__(
        self, chain: BrokerChain, plane: ControlPlane, read: Mapping[str, Settings], folder: Path
    ) -> None:
        self._chain, self._read, self._folder = chain, read, folder
        self._client = _Client(plane)
        self._there: list[int] = []
        self._updates: dict[str, Seconds] = {side: [] for side in SIDES}
        self._read_lines = dict.fromkeys(SIDES, 0)
        self.binds: Seconds = []
        self.stock: Seconds = []
        self.direct: Seconds = []

    def round(self, number: int) -> None:
        """One more binding, each way."""
        for side in SIDES:
            self._logged(side)
        self.binds.append(_timed(lambda: _bound(self._chain, f"bind-{number}")))
        for side in SIDES:
            self._updates[side].append(self._update(side))
        self._there.append(number)
        self.stock.append(sum(_timed(lambda side=side: self._stock(side)) for side in SIDES))  # type: ignore[misc]
        self.direct.append(_made(_Objects(self._client, self._read, f"direct-{number}"), self._client.apply))
        if len(self._there) == TOGETHER:
            self._remove()

    def shares(self) -> dict[str, Seconds]:
        """What each side's updates took of the binds, as the brokers log it, and the rest of each bind."""
        provider, consumer = self._updates["provider"], self._updates["consumer"]
        rest = [
            whole - first - second
            for whole, first, second in zip(self.binds, provider, consumer, strict=True)
        ]
        return {**self._updates, "rest": rest}

    def _remove(self) -> None:
        _unbound(self._chain, [f"bind-{number}" for number in self._there])
        for number in self._there:
            for path in reversed(_Objects(self._client, self._read, f"direct-{number}").paths):
                self._client.delete(path)
        self._there.clear()
        for side in SIDES:
            self._stock(side)

    def _stock(self, side: str) -> None:
        """One update of one side's stack, as the Automation API's documentation does it."""
        state = self._folder / f"stock-{side}"
        state.mkdir(exist_ok=True)
        names = [f"stock-{number}" for number in self._there]
        wanted = [Wanted(name, 1, _route(side, name)) for name in names]
        stack = auto.create_or_select_stack(
            f"stock-{side}",
            project_name=PROJECT,
            program=lambda: declare(self._read[side], plugin_of(self._read[side]), wanted, Declared()),
            opts=auto.LocalWorkspaceOptions(
                env_vars={
                    "PULUMI_BACKEND_URL": tools.state_url(state),
                    "PULUMI_CONFIG_PASSPHRASE": "bench",
                }
            ),
        )
        stack.up()

    def _update(self, side: str) -> float:
        """Seconds of the updates that a broker did for the bind that it has just answered."""
        found: Seconds = []

        def logged() -> bool:
            found.extend(self._logged(side))
            return bool(found)

        wait_until(logged, f"the {side}'s broker has logged its update")
        return sum(found)

    def _logged(self, side: str) -> Seconds:
        """Seconds of each update that a broker has logged since the last call."""
        text = (self._chain.folder / side / "broker.log").read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        records = [json.loads(line) for line in lines[self._read_lines[side] :] if line.startswith("{")]
        self._read_lines[side] = len(lines)
        return [record["seconds"] for record in records if record["event"] == "updated"]


def _unchanged(read: Settings, side: str, folder: Path, times: int) -> Seconds:
    """Seconds of an update by the broker's own engine that has nothing to do: what starting everything costs."""
    state = folder / f"unchanged-{side}"
    engine = Engine(read.model_copy(update={"state": state.as_uri(), "stack": f"unchanged-{side}"}))
    names = [f"unchanged-{number}" for number in range(TOGETHER)]
    wanted = [Wanted(name, 1, _route(side, name)) for name in names]
    try:
        engine.apply(0, wanted, [])
        return [_timed(lambda: engine.apply(0, wanted, [])) for _ in range(times)]
    finally:
        engine.close()


def _bound(chain: BrokerChain, name: str) -> None:
    chain.platform.bind(name).raise_for_status()


def _together(chain: BrokerChain, turn: int, callers: int) -> tuple[float, Seconds]:
    """All callers bind at once: seconds until the last is answered, and of each call."""
    with _bound_at_once(chain, [f"many-{turn}-{number}" for number in range(callers)]) as taken:
        return taken


def _crowded(chain: BrokerChain, others: int, times: int) -> Seconds:
    """Seconds of single binds, each after a pause, while so many other bindings are there."""
    names = [f"crowded-{number}" for number in range(times)]
    taken = []
    with _bound_at_once(chain, [f"other-{number}" for number in range(others)]):
        for name in names:
            time.sleep(PAUSE)
            taken.append(_timed(lambda name=name: _bound(chain, name)))  # type: ignore[misc]
        _unbound(chain, names)
    return taken


@contextmanager
def _bound_at_once(chain: BrokerChain, names: Sequence[str]) -> Iterator[tuple[float, Seconds]]:
    """Bindings that are made at once, and removed at once afterwards: see `_together`."""
    with ThreadPoolExecutor(len(names)) as pool:
        taken: Seconds = []
        whole = _timed(
            lambda: taken.extend(pool.map(lambda name: _timed(lambda: _bound(chain, name)), names))
        )
    yield whole, taken
    _unbound(chain, names)


def _unbound(chain: BrokerChain, names: Sequence[str]) -> None:
    with ThreadPoolExecutor(len(names)) as pool:
        for answer in pool.map(chain.platform.unbind, names):
            answer.raise_for_status()


def _route(side: str, name: str) -> ConsumerRoute | ProviderRoute:
    if side == "provider":
        return ProviderRoute(consumer_id=CONSUMER_ID, endpoints=(Endpoint(host="10.0.0.1", port=5432),))
    host = public_host(name, 0, SYSTEM_DOMAIN)
    return ConsumerRoute(
        namespace=APPLICATIONS,
        provider_id=SYSTEM_DOMAIN,
        endpoints=(PublicEndpoint(host=host, port=9000),),
    )


class _Client:
    """One client of an API server, on one connection, as Kubernetes' own clients are."""

    def __init__(self, plane: ControlPlane) -> None:
        access, token = read_kubeconfig(plane.kubeconfig)
        authority = ssl.create_default_context(cadata=access.authority.decode())
        self._connection = http.client.HTTPSConnection(urlsplit(access.server).netloc, context=authority)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._kind = plane.api.kind

    def path(self, manifest: Manifest) -> str:
        """The URL path of a collection that an object belongs to."""
        return self._kind(manifest.api_version, manifest.kind).path(manifest.namespace)

    def apply(self, collection: str, item: Object) -> Object:
        """Server-side apply."""
        path = f"{collection}/{item['metadata']['name']}?fieldManager={FIELD_MANAGER}&force=true"
        return self._request("PATCH", path, item, APPLY)

    def create(self, collection: str, item: Object) -> Object:
        """Creation."""
        return self._request("POST", collection, item, "application/json")

    def delete(self, path: str) -> None:
        """Deletion of one object."""
        self._request("DELETE", path, None, "application/json")

    def _request(self, method: str, path: str, body: Object | None, content_type: str) -> Object:
        data = None if body is None else json.dumps(body)
        self._connection.request(method, path, data, {**self._headers, "Content-Type": content_type})
        answer = self._connection.getresponse()
        raw = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {raw[:300]!r}")
        made: Object = json.loads(raw)
        return made


class _Objects:
    """The objects of one binding, both sides, in the order in which they are made; the last one waits for the address of
    the Service before it."""

    def __init__(self, client: _Client, read: Mapping[str, Settings], name: str) -> None:
        manifests = [m for side in SIDES for m in of_binding(read[side], name, _route(side, name))]
        assert len(manifests) == OBJECTS
        collections = [client.path(manifest) for manifest in manifests]
        self.paths = [f"{c}/{m.name}" for c, m in zip(collections, manifests, strict=True)]
        bodies = [dict(manifest.as_dict(OWNER)) for manifest in manifests[:-1]]
        self.before = list(zip(collections, bodies, strict=False))
        self.last = collections[-1]
        ((_, args),) = endpoints(read["consumer"], Wanted(name, 1, _route("consumer", name)))
        assert isinstance(args, ConsumerEgressArgs)
        self._args = args

    def mesh_route(self, service: Object) -> Object:
        """The last object."""
        address = f"{service['spec']['clusterIP']}/32"
        return dict(consumer_objects.mesh_route(self._args, [address]).as_dict(OWNER))


def _made(objects: _Objects, make: Callable[[str, Object], Object]) -> float:
    """Seconds in which one client makes all objects of a binding, one after the other."""
    began = time.perf_counter()
    for collection, body in objects.before:
        made = make(collection, body)
    make(objects.last, objects.mesh_route(made))
    return time.perf_counter() - began


def _created(plane: ControlPlane, read: Mapping[str, Settings], count: int) -> Seconds:
    """Seconds of each of so many bindings whose objects are created one after the other."""
    client = _Client(plane)
    return [_made(_Objects(client, read, f"sequential-{number}"), client.create) for number in range(count)]


def _latency(
    single: _Single, shares: Mapping[str, Seconds], unchanged: Seconds, crowded: Seconds, others: int
) -> Section:
    binds, stock, direct = single.binds, single.stock, single.direct
    plugin = "official" if tools.kubernetes_plugin().official else "stand-in"
    rows = [
        _row("bind, whole chain, both sides", binds),
        _row("of it: the provider's update", shares["provider"]),
        _row("of it: the consumer's update", shares["consumer"]),
        _row("of it: the rest (four processes, HTTP, databases, waking)", shares["rest"]),
        _row(f"bind, whole chain, beside {others} bindings", crowded),
        _row("for comparison: updates that change nothing, both sides", unchanged),
        _row("stock Automation API, both sides", stock),
        _row("direct server-side apply, both sides", direct),
    ]
    half = statistics.median(binds)
    share = half / statistics.median(stock)
    said = [
        verdict("Seconds of a whole bind, p50", half, f"≤ {GOAL_SECONDS}", met=half <= GOAL_SECONDS),
        verdict(
            "A whole bind against the stock path, p50", share, f"≤ {GOAL_SHARE}", met=share <= GOAL_SHARE
        ),
        f"Against direct server-side apply, p50: {half / statistics.median(direct):.0f} times.",
    ]
    text = (
        f"Seconds, {len(binds)} rounds; in each, one binding of {OBJECTS} objects is made each way, on one API server of "
        f"the lab. At most {TOGETHER} bindings are there at a time, but for one row, in one stack a side; {plugin} "
        "Kubernetes plugin. The brokers begin each next update ahead of time (`prepared`); a bind after a long pause costs, instead of "
        "both sides' updates, the comparison's and the objects."
    )
    return Section("One bind", text, ["what", "p50", "p95", "p99"], rows, "\n".join(said))


def _throughput(many: Sequence[tuple[float, Seconds]], creates: Seconds, callers: int) -> Section:
    calls = [seconds for _, taken in many for seconds in taken]
    rate = statistics.median(callers / whole for whole, _ in many)
    sequential = len(creates) / sum(creates)
    ratio = rate / sequential
    rows = [
        [f"binds, {callers} callers", f"{rate:.1f}", *_row("", calls)[1:]],
        ["objects created one after the other", f"{sequential:.1f}", *_row("", creates)[1:]],
    ]
    said = verdict(
        "Binds against sequential creates", ratio, f"≥ {GOAL_THROUGHPUT}", met=ratio >= GOAL_THROUGHPUT
    )
    text = (
        f"{callers} callers bind at once, {len(many)} times, through the whole chain; against one client that creates the "
        f"same {OBJECTS} objects of as many bindings, one after the other. Seconds are of one binding."
    )
    return Section("Many binds", text, ["what", "bindings a second", "p50", "p95", "p99"], rows, said)


def _row(what: str, values: Seconds) -> list[str]:
    return [what, *(f"{percentile(values, share):.2f}" for share in (50, 95, 99))]
