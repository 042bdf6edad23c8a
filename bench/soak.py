"""`python -m bench.soak`: kills parts of the chain at random moments of binds and unbinds, then looks at what is there.

After each crash the platform does what the OSB API asks of it: it repeats the call, or undoes a bind that it gave up. In the
end everything is compared, name by name, with what the platform believes to be bound: the objects in both clusters, the rows
of both brokers, the bindings of the service broker, and the credentials, which must name their Service's address. Only a
crash that hit a process while the call was under way counts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import httpx

import tools
from bench import table
from bench.bindings import of_binding
from bench.table import Section
from broker import settings
from broker.errors import UnavailableError
from broker.store import Phase, Store
from lab.control_plane import ControlPlane
from lab.errors import ApiError
from tests.engine.brokers import APPLICATIONS, BrokerChain, Child

SIDES = ("consumer", "provider")
PARTS = ("broker", "engine", "api-server")
LATEST = 1.25
"""When a crash comes at the latest, as a share of what such a call took undisturbed: some calls end before, which shows how long
they take now."""
OF_AN_ENGINE = 0.5
"""The same of an engine, from its beginning: a call has two, one a side."""
ENGINE_BEGINS = 20.0
"""Seconds within which an engine that is to be killed must have begun."""
GIVE_UP = 0.3
"""Share of interrupted binds that the platform undoes instead of repeating them."""
SHARDS = 2
"""Stacks a side: bindings have neighbours, which an update leaves alone."""
PATIENCE = 300.0
"""Seconds within which everything must be well again."""


class Soak:
    """One run. `bound`: what the platform believes to be bound; `hit`: crashes by what was killed and what was called."""

    def __init__(self, chain: BrokerChain, chance: random.Random) -> None:
        self._chain, self._chance = chain, chance
        self.bound: set[str] = set()
        self.hit: Counter[tuple[str, str]] = Counter()
        self._usual: dict[str, float] = {}
        """Seconds that the last undisturbed call took, bind and unbind."""
        self._read = {side: settings.read({}, chain.folder / side / "settings.yaml") for side in SIDES}

    def warm_up(self) -> None:
        """One bind and one unbind without a crash."""
        for what, call in (("bind", self._chain.platform.bind), ("unbind", self._chain.platform.unbind)):
            began = time.monotonic()
            call("warm-up").raise_for_status()
            self._usual[what] = time.monotonic() - began

    def crash(self, number: int) -> str:
        """One call with one crash in it; what was done."""
        unbind = bool(self.bound) and self._chance.random() < 0.5
        name = self._chance.choice(sorted(self.bound)) if unbind else f"soak-{number}"
        side, part = self._chance.choice(SIDES), self._chance.choice(PARTS)
        platform = self._chain.platform
        what = "unbind" if unbind else "bind"
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(platform.unbind if unbind else platform.bind, name)
            struck = self._strike(side, part, call, LATEST * self._usual[what])
            status = _status(call)
        if not struck:
            self._usual[what] = time.monotonic() - began
        if unbind:
            self._until(lambda: platform.unbind(name).status_code in {200, 410}, f"unbind {name}")
            self.bound.discard(name)
        elif status not in {200, 201} and self._chance.random() < GIVE_UP:
            self._until(lambda: platform.unbind(name).status_code in {200, 410}, f"undo {name}")
        else:
            self._until(lambda: platform.bind(name).status_code in {200, 201}, f"bind {name}")
            self.bound.add(name)
        if struck:
            self.hit[f"{side}'s {part}", what] += 1
        done = "killed" if struck else "not killed in time"
        return f"{what} {name}, {side}'s {part} {done}, first answer {status}"

    def wrong(self) -> list[str]:
        """What is there and should not be, and the other way round, once nothing is under way any more."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                found = list(self._differences())
            except (ApiError, httpx.HTTPError, UnavailableError) as error:
                found = [f"it cannot be looked at: {error}"]
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(1)

    def _differences(self) -> Iterator[str]:
        for side in SIDES:
            with contextlib.closing(Store(self._read[side].database)) as store:
                rows = {row.binding_id: row for row in store.all()}
            yield from _compared(f"{side}'s rows", rows.keys(), self.bound)
            for name, row in rows.items():
                if row.phase != Phase.BOUND or not row.settled or not row.wanted:
                    yield f"{side}'s row {name} is {row.phase}, settled: {row.settled}, wanted: {row.wanted}"
            expected = {
                (manifest.kind, f"{manifest.namespace}/{manifest.name}")
                for row in rows.values()
                if row.route is not None and row.binding_id in self.bound
                for manifest in of_binding(self._read[side], row.binding_id, row.route)
            }
            there = [(kind, name) for kind, names in self._chain.objects(side).items() for name in names]
            yield from _compared(f"{side}'s objects", there, expected)
        state = json.loads((self._chain.folder / "service-broker.json").read_text())
        yield from _compared("the service broker's bindings", state["bindings"], self.bound)
        yield from self._wrong_credentials()

    def _wrong_credentials(self) -> Iterator[str]:
        api = self._chain.clusters["consumer"].api
        seen: list[str] = []
        for name in sorted(self.bound):
            answer = self._chain.platform.fetch(name)
            if answer.status_code != 200:
                yield f"binding {name} cannot be read: {answer.status_code}"
                continue
            host = answer.json()["credentials"]["hostname"]
            seen.append(host)
            service = api.get("v1", "Service", f"svc-0-{name}", APPLICATIONS)
            if service is None or service["spec"]["clusterIP"] != host:
                yield f"the credentials of {name} name {host}, which is not its Service's address"
        yield from (f"duplicate: address {host}" for host, count in Counter(seen).items() if count > 1)

    def _strike(self, side: str, part: str, call: Future[httpx.Response], latest: float) -> bool:
        """Kills it at a random moment of the call, which comes within `latest` seconds. Whether it was killed while the call
        was under way."""
        broker = self._chain.consumer if side == "consumer" else self._chain.provider
        if part == "engine":
            return self._strike_engine(broker, call, latest * OF_AN_ENGINE)
        if wait([call], self._chance.uniform(0.0, latest)).done:
            return False
        if part == "broker":
            broker.kill()
            broker.start()
        else:
            self._chain.clusters[side].stop_api_server()
            self._chain.clusters[side].start_api_server()
        return True

    def _strike_engine(self, broker: Child, call: Future[httpx.Response], latest: float) -> bool:
        deadline = time.monotonic() + ENGINE_BEGINS
        while not broker.engines():
            if call.done() or time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        if wait([call], self._chance.uniform(0.0, latest)).done:
            return False
        return broker.kill_engines() > 0

    def _until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if done():
                    return
            if time.monotonic() > deadline:
                raise SystemExit(f"{what}: not within {PATIENCE:.0f} s")
            time.sleep(0.2)


def _compared(what: str, there: Collection[object], expected: Collection[object]) -> Iterator[str]:
    found, wanted = Counter(list(there)), set(expected)
    yield from (f"orphan: {item} of {what}" for item in sorted(map(str, found.keys() - wanted)))
    yield from (f"lost: {item} of {what}" for item in sorted(map(str, wanted - found.keys())))
    yield from (f"duplicate: {item} of {what}" for item, count in found.items() if count > 1)


def _status(call: Future[httpx.Response]) -> int | None:
    try:
        return call.result().status_code
    except httpx.HTTPError:
        return None


@contextmanager
def _chain(folder: Path) -> Iterator[BrokerChain]:
    with (
        ControlPlane("soak-south", folder / "south") as consumer,
        ControlPlane("soak-north", folder / "north") as provider,
    ):
        chain = BrokerChain(folder / "chain", consumer, provider, shards=SHARDS)
        try:
            chain.start()
            chain.platform.provision().raise_for_status()
            yield chain
        finally:
            chain.close()


def run(crashes: int, seed: int) -> tuple[Section, list[str]]:
    """So many crashes, and what is wrong after them and after everything was unbound."""
    os.environ.update(tools.engine_environment())
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="meshbridge-soak-") as name, _chain(Path(name)) as chain:
        soak = Soak(chain, random.Random(seed))  # noqa: S311 - no secret
        soak.warm_up()
        number = 0
        while soak.hit.total() < crashes:
            said = soak.crash(number)
            number += 1
            print(f"{soak.hit.total()}/{crashes}: {said}", flush=True)
        wrong = [f"after the crashes: {text}" for text in soak.wrong()]
        left = len(soak.bound)
        for binding in sorted(soak.bound):
            chain.platform.unbind(binding).raise_for_status()
        soak.bound.clear()
        wrong += [f"after all was unbound: {text}" for text in soak.wrong()]
    return _section(soak.hit, left, wrong, (seed, time.monotonic() - began)), wrong


def _section(hit: Counter[tuple[str, str]], left: int, wrong: list[str], how: tuple[int, float]) -> Section:
    victims = sorted({victim for victim, _ in hit})
    rows = [[victim, str(hit[victim, "bind"]), str(hit[victim, "unbind"])] for victim in victims]
    counted = [
        f"{word}: **{sum(f': {word}: ' in text for text in wrong)}**"
        for word in ("orphan", "lost", "duplicate")
    ]
    text = (
        f"{hit.total()} crashes (kill -9) at random moments of binds and unbinds in {how[1] / 60:.0f} minutes, seed {how[0]}; "
        f"{left} bindings were there in the end, and then unbound. Compared by name: objects of both clusters, rows of "
        "both brokers, the service broker's bindings, addresses in the credentials."
    )
    said = f"{', '.join(counted)}, anything wrong: **{len(wrong)}**, goal 0: {'missed' if wrong else 'met'}."
    return Section("Crashes", text, ["killed", "in a bind", "in an unbind"], rows, said)


def main() -> None:
    """Runs the crashes, says what is left, and writes it down."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--crashes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="repeat the choices of a run")
    parser.add_argument("--print", action="store_true", help="print the result instead of writing it")
    chosen = parser.parse_args()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(2**32)
    print(f"seed {seed}", flush=True)
    before = os.getloadavg()[0]
    section, wrong = run(chosen.crashes, seed)
    print("\n".join([section.markdown(), *wrong]))
    if not chosen.print:
        table.write([section], (before, os.getloadavg()[0]))
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
