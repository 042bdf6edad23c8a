"""A cluster below the reconciler's boundary: it holds routes, can refuse, stall, and lose the thread of an update."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from broker.engine import Gone
from broker.network import is_slug_of
from broker.program import Wanted
from broker.store import ConsumerRoute
from broker.store.store import Result
from broker.update import EngineError


class KilledError(EngineError):
    """The engine died in the middle of an update."""


@dataclass
class Cluster:
    """`objects`: what is there, by slug; `known`: what the stack's state knows of. An update that dies may leave objects
    that the state does not know; those nobody can remove but by applying them again."""

    objects: dict[str, object] = field(default_factory=dict)
    known: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    die_after: int | None = None
    """Objects after which the next update dies."""
    unreachable: bool = False
    gate: threading.Event | None = None
    """When set, updates wait for it."""
    updates: list[tuple[list[str], list[str]]] = field(default_factory=list)
    running: int = 0
    killed: list[int] = field(default_factory=list)
    prepared: set[int] = field(default_factory=set)
    """Shards whose next update was begun ahead of time."""
    addresses: dict[str, str] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def apply(
        self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone], *, refresh: bool = False
    ) -> list[Result]:
        with self._lock:
            self.running += 1
        del refresh
        try:
            if self.gate is not None:
                self.gate.wait(20)
            with self._lock:
                return self._apply(shard, wanted, gone)
        finally:
            with self._lock:
                self.running -= 1

    def prepare(self, shard: int) -> None:
        self.prepared.add(shard)

    def retain(self, kept: Callable[[int], bool]) -> None:
        self.prepared = {shard for shard in self.prepared if kept(shard)}

    def kill(self, shard: int) -> None:
        self.killed.append(shard)
        if self.gate is not None:
            self.gate.set()

    def close(self) -> None:
        return

    def _apply(self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone]) -> list[Result]:
        self.updates.append(([w.binding_id for w in wanted], [g.binding_id for g in gone]))
        if self.unreachable:
            reason = "configured Kubernetes cluster is unreachable"
            items: list[Wanted | Gone] = [*wanted, *gone]
            return [Result(i.binding_id, i.generation, reason, certain=False, temporary=True) for i in items]
        mine = {slug for slug in self.known if slug.startswith(f"{shard}/")}
        results, kept, new = [], set(), set()
        for item in wanted:
            if item.binding_id in self.refused:
                results.append(
                    Result(item.binding_id, item.generation, self.refused[item.binding_id], certain=True)
                )
                continue
            for slug in item.slugs:
                self._step()
                self.objects[slug] = item.route
                kept.add(f"{shard}/{slug}")
                new.add(f"{shard}/{slug}")
            ips = (
                [self._address(slug) for slug in item.slugs]
                if isinstance(item.route, ConsumerRoute)
                else None
            )
            results.append(Result(item.binding_id, item.generation, None, certain=True, virtual_ips=ips))
        for name in mine - kept:
            self._step()
            self.objects.pop(name.partition("/")[2], None)
        self.known = (self.known - mine) | kept
        for absent in gone:
            left = [
                slug
                for slug in self.objects
                if is_slug_of(slug, absent.binding_id) and f"{shard}/{slug}" in self.known
            ]
            results.append(
                Result(absent.binding_id, absent.generation, "left" if left else None, certain=True)
            )
        return results

    def _step(self) -> None:
        if self.die_after is not None:
            if self.die_after == 0:
                self.die_after = None
                raise KilledError("the engine was killed")
            self.die_after -= 1

    def _address(self, slug: str) -> str:
        return self.addresses.setdefault(slug, f"10.96.0.{len(self.addresses) + 1}")
