"""The reconciler against a cluster whose engine dies anywhere: whatever happened, in the end there is what is wanted."""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as HPhase
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import PoolProxiedConnection, create_engine, text
from sqlalchemy.exc import OperationalError

from broker import metrics
from broker.engine import Gone
from broker.errors import BusyError, UnavailableError
from broker.network import Endpoint, slug
from broker.program import Wanted
from broker.reconciler import ATTEMPTS, Reconciler
from broker.store import Audit, Binding, ConsumerRoute, Phase, ProviderRoute, Store, VersionError, open_locks
from broker.store.store import Result, shard_of
from broker.update import EngineError
from tests.broker.chain import wait_until
from tests.broker.cluster import Cluster

NAMES = ("a", "b", "c")


def route(port: int, endpoints: int) -> ProviderRoute:
    return ProviderRoute(
        consumer_id="client.shop.example",
        endpoints=tuple(Endpoint(host="10.0.0.1", port=port + index) for index in range(endpoints)),
    )


@functools.cache
def migrated() -> Path:
    """An empty database, for all examples."""
    path = Path(tempfile.mkdtemp()) / "broker.db"
    store = Store(f"sqlite:///{path}")
    store.migrate()
    store.close()
    return path


def new(name: str) -> Binding:
    return Binding(
        binding_id=name, instance_id="i", base="", service_id="s", plan_id="p", phase=Phase.ROUTING, shard=0
    )


def want_one(store: Store) -> None:
    """The binding `a`, whose route is wanted and was not made yet."""
    store.change(store.add(new("a")), lambda b: b.want(route(1, 1)))


class Crashes(RuleBasedStateMachine):
    """Binds, changes and unbinds of three bindings in one shard, with updates that may die after any object."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        shutil.copy(migrated(), Path(self._folder.name) / "broker.db")
        self.cluster = Cluster()
        self.rows: list[Binding] = []
        self._open()

    def _open(self) -> None:
        self.store = Store(f"sqlite:///{Path(self._folder.name)}/broker.db")
        self._locks = open_locks(self.store, "test")
        self.reconciler = Reconciler(self.store, self._locks, self.cluster)

    def _close(self) -> None:
        self.reconciler.stop()
        self._locks.close()
        self.store.close()

    @rule(name=st.sampled_from(NAMES), port=st.integers(1, 3), endpoints=st.integers(1, 2))
    def want(self, name: str, port: int, endpoints: int) -> None:
        found = self.store.get(name) or self.store.add(new(name))
        if found.phase != Phase.REMOVING:
            self.store.change(found, lambda binding: binding.want(route(port, endpoints)))

    @rule(name=st.sampled_from(NAMES))
    def drop(self, name: str) -> None:
        found = self.store.get(name)

        def change(binding: Binding) -> None:
            binding.drop()
            binding.phase = Phase.REMOVING

        if found is not None:
            self.store.change(found, change)

    @rule(after=st.integers(0, 5))
    def die(self, after: int) -> None:
        """The engine is killed in the middle of an update."""
        self.cluster.die_after = after
        with contextlib.suppress(EngineError):
            self.reconciler.update(0)
        self.cluster.die_after = None

    @rule()
    def restart(self) -> None:
        """The broker is killed and starts again: only the database is left."""
        self._close()
        self._open()

    @precondition(lambda self: self.rows)
    @rule()
    def settle(self) -> None:
        self.reconciler.update(0)
        rows = {b.binding_id: b for b in self.store.of_shard(0)}
        expected = {
            slug(name, index): row.route
            for name, row in rows.items()
            if row.route is not None
            for index in range(len(row.route.endpoints))
        }
        assert all(row.wanted and row.settled for row in rows.values() if row.generation)
        assert self.cluster.objects == expected

    @invariant()
    def a_settled_binding_is_whole(self) -> None:
        self.rows = self.store.of_shard(0)
        for row in self.rows:
            if row.wanted and row.settled and row.route is not None:
                for index in range(len(row.route.endpoints)):
                    assert self.cluster.objects.get(slug(row.binding_id, index)) == row.route

    def teardown(self) -> None:
        if self.store.of_shard(0):
            self.settle()
        self._close()
        self._folder.cleanup()


Crashes.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=25,
    deadline=None,
    phases=(HPhase.generate,),
    suppress_health_check=list(HealthCheck),
)
TestCrashes = Crashes.TestCase


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(f"sqlite:///{tmp_path}/broker.db")
    made.migrate()
    return made


def test_the_migrations_make_what_the_models_say(store: Store) -> None:
    assert store.drift() == []
    store.migrate()
    store.close()


def test_a_result_of_an_older_generation_decides_nothing(store: Store) -> None:
    binding = store.change(store.add(new("a")), lambda b: b.want(route(1, 1)))
    store.change(binding, lambda b: b.want(route(2, 1)))

    store.record([Result("a", 1, None, certain=True)])

    found = store.get("a")
    assert found is not None
    assert (found.generation, found.applied, found.settled) == (2, 0, False)
    store.close()


def test_a_new_route_is_tried_as_often_as_a_first_one(store: Store) -> None:
    """Though the one before failed after the binding was read."""
    binding = store.change(store.add(new("a")), lambda b: b.want(route(1, 1)))
    for _ in range(ATTEMPTS):
        store.record([Result("a", 1, "no", certain=True)])

    store.change(binding, lambda b: b.want(route(2, 1)))

    found = store.get("a")
    assert found is not None
    assert (found.generation, found.attempts, found.error) == (2, 0, None)
    store.close()


def test_a_binding_that_was_changed_meanwhile_is_not_forgotten(store: Store) -> None:
    read = store.add(new("a"))
    changed = store.change(store.add(new("b")), lambda b: b.want(route(1, 1)))
    store.change(read, lambda b: b.want(route(1, 1)))

    with pytest.raises(BusyError):
        store.remove(read)
    store.remove(changed)
    store.remove(changed)

    assert [binding.binding_id for binding in store.all()] == ["a"]
    store.close()


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_update_does_not_touch_the_bindings_that_it_does_not_concern(
    store: Store, *, interrupted: bool
) -> None:
    """How long the upstream has been owing an answer is known from when its row was last changed."""
    asked = store.add(new("asked"))
    want_one(store)
    cluster = Cluster(die_after=0 if interrupted else None)
    reconciler = Reconciler(store, open_locks(store, "test"), cluster)
    if interrupted:
        with pytest.raises(EngineError):
            reconciler.update(0)
        store.change(store.of_shard(0)[0], lambda b: b.drop())

    reconciler.update(0)

    (found,) = (b for b in store.of_shard(0) if b.binding_id == "asked")
    assert found.updated_at == asked.updated_at
    assert cluster.updates
    reconciler.stop()
    store.close()


@pytest.fixture
def late(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Each item of it is one commit of the store that is written before the connection is lost."""
    commits: list[None] = []
    commit = store.engine.dialect.do_commit

    def do_commit(connection: PoolProxiedConnection) -> None:
        commit(connection)
        if commits:
            commits.pop()
            raise sqlite3.OperationalError("the connection was lost")

    monkeypatch.setattr(store.engine.dialect, "do_commit", do_commit)
    return commits


def record() -> Audit:
    return Audit(request_id="", action="bound", instance_id="i", binding_id="a", status=200)


def test_a_change_that_was_written_before_the_connection_was_lost_is_none_of_somebody_else(
    store: Store, late: list[None]
) -> None:
    read = store.add(new("a"))
    late.append(None)

    changed = store.change(read, lambda b: b.want(route(1, 1)), patience=30, audit=record())

    assert (changed.version, changed.wanted, changed.generation) == (read.version + 1, True, 1)
    assert len(store.audited("a")) == 1
    store.change(changed, lambda b: b.drop())
    late.append(None)
    with pytest.raises(BusyError):
        store.change(changed, lambda b: b.want(route(2, 1)), patience=30)
    assert late
    store.close()


def test_a_record_is_written_though_the_connection_was_lost_over_it(store: Store, late: list[None]) -> None:
    read, entry = store.add(new("a")), record()
    late.append(None)
    with pytest.raises(UnavailableError):
        store.audit(entry)
    store.audit(entry)
    late.append(None)
    store.remove(read, patience=30, audit=record())

    assert store.all() == []
    assert len(store.audited("a")) >= 2
    store.close()


def test_bindings_spread_over_the_shards_and_stay_there() -> None:
    shards = [shard_of(f"binding-{number}", 8, {}, 50) for number in range(800)]

    assert all(60 < shards.count(shard) < 140 for shard in range(8))
    assert shard_of("binding-1", 8, {}, 50) == shards[1]


def test_a_full_shard_gets_no_more_bindings_and_full_shards_get_a_neighbour() -> None:
    home = shard_of("a", 4, {}, 50)
    others = [shard for shard in range(4) if shard != home]

    assert shard_of("a", 4, {home: 49}, 50) == home
    assert shard_of("a", 4, {home: 50, others[0]: 9, others[1]: 3, others[2]: 7}, 50) == others[1]
    assert shard_of("a", 4, dict.fromkeys(range(4), 50), 50) == 4
    assert shard_of("a", 4, {**dict.fromkeys(range(4), 50), 4: 12}, 50) == 4
    assert shard_of("a", 4, dict.fromkeys(range(6), 50), 50) == 6


def test_the_store_counts_its_shards(store: Store) -> None:
    store.add(new("a"))
    store.add(new("b"))

    assert store.shard_for("c", 1, 2) == 1
    assert store.shard_for("c", 1, 3) == 0
    store.close()


def test_only_a_database_that_is_away_is_called_so(tmp_path: Path) -> None:
    """A wrong statement would be wrong again: nobody should be told to wait."""
    empty = Store(f"sqlite:///{tmp_path}/empty.db")
    with pytest.raises(OperationalError, match="no such table"):
        empty.all()
    empty.close()
    missing = Store(f"sqlite:///{tmp_path}/no/folder.db")
    with pytest.raises(UnavailableError):
        missing.all()
    missing.close()
    busy = Store(f"sqlite:///{tmp_path}/busy.db")
    busy.migrate()
    busy.engine = create_engine(busy.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with busy.engine.connect(), pytest.raises(UnavailableError):
        busy.ping()
    busy.close()


def test_to_look_at_a_database_does_not_change_it(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    made = Store(f"sqlite:///{path}")
    with pytest.raises(VersionError, match="there is no database"):
        made.check_version()
    assert not path.exists()
    made.migrate()
    made.check_version()
    with made.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(VersionError, match="0000"):
        made.check_version()
    made.close()


@dataclass
class Doubtful:
    """Locks of a replica that loses its shard when it is told to."""

    lost: bool = False

    def call(self, binding_id: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def step(self, binding_id: str) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def own(self, shard: int) -> bool:
        return not self.lost

    def holds(self, shard: int) -> bool:
        return not self.lost

    def close(self) -> None:
        return


def test_an_engine_ends_when_its_shard_may_be_another_replicas(store: Store) -> None:
    cluster, locks = Cluster(gate=threading.Event()), Doubtful()
    reconciler = Reconciler(store, locks, cluster)
    want_one(store)
    thread = threading.Thread(target=lambda: reconciler.update(0))
    thread.start()
    wait_until(lambda: cluster.running, "the update runs")
    assert cluster.killed == []

    locks.lost = True
    thread.join(60)

    assert not thread.is_alive()
    assert cluster.killed == [0]
    reconciler.stop()
    store.close()


def test_an_engine_ends_when_whoever_waits_for_it_is_told_to_stop(store: Store) -> None:
    class Stopped(Cluster):
        def _apply(self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone]) -> list[Result]:
            raise KeyboardInterrupt

    cluster = Stopped()
    reconciler = Reconciler(store, open_locks(store, "test"), cluster)
    want_one(store)

    with pytest.raises(KeyboardInterrupt):
        reconciler.update(0)

    assert cluster.killed == [0]
    reconciler.stop()
    store.close()


def test_after_a_change_the_next_update_is_begun_and_ends_with_the_shard(store: Store) -> None:
    cluster, locks = Cluster(), Doubtful()
    reconciler = Reconciler(store, locks, cluster)
    reconciler.start()
    want_one(store)
    reconciler.wake()
    wait_until(lambda: cluster.prepared == {0}, "the next update is begun", 30)

    locks.lost = True

    wait_until(lambda: not cluster.prepared, "it has ended", 30)
    reconciler.stop()
    store.close()


def test_after_a_failure_no_update_is_begun_ahead_of_time(store: Store) -> None:
    cluster = Cluster(refused={"a": "no"})
    reconciler = Reconciler(store, open_locks(store, "test"), cluster)
    want_one(store)

    reconciler._work(0)

    assert len(cluster.updates) == 1
    assert cluster.prepared == set()
    reconciler.stop()
    store.close()


def test_no_update_begins_in_a_shard_that_was_lost_while_it_waited_its_turn(store: Store) -> None:
    cluster, locks = Cluster(), Doubtful(lost=True)
    reconciler = Reconciler(store, locks, cluster)
    want_one(store)

    reconciler._work(0)

    assert cluster.updates == []
    reconciler.stop()
    store.close()


class Failing(Cluster):
    """A cluster whose updates come to no result."""

    def apply(
        self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone], *, refresh: bool = False
    ) -> list[Result]:
        self.updates.append(([w.binding_id for w in wanted], []))
        raise EngineError("the state cannot be reached")


def test_what_is_away_does_not_count_against_a_binding(store: Store) -> None:
    cluster = Failing()
    reconciler = Reconciler(store, open_locks(store, "test"), cluster)
    want_one(store)
    for _ in range(ATTEMPTS + 2):
        reconciler._work(0)

    found = store.get("a")
    assert found is not None
    assert (found.attempts, found.error, found.uncertain) == (0, "the state cannot be reached", True)
    assert len(cluster.updates) == ATTEMPTS + 2
    reconciler.stop()
    store.close()


def test_a_refused_route_is_given_up(store: Store) -> None:
    cluster = Cluster(refused={"a": "no"})
    reconciler = Reconciler(store, open_locks(store, "test"), cluster)
    want_one(store)
    for _ in range(ATTEMPTS + 1):
        reconciler.update(0)

    found = store.get("a")
    assert found is not None
    assert (found.attempts, found.error) == (ATTEMPTS, "no")
    assert cluster.updates[-1] == ([], [])
    reconciler.stop()
    store.close()


def test_a_fault_that_nobody_expected_ends_neither_the_loop_nor_the_chores(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, chores = threading.Semaphore(0), threading.Semaphore(0)

    def unsettled() -> set[int]:
        looks.release()
        raise RuntimeError("nobody expected this")

    def chore() -> None:
        chores.release()
        raise RuntimeError("nor this")

    monkeypatch.setattr(store, "unsettled_shards", unsettled)
    reconciler = Reconciler(store, open_locks(store, "test"), Cluster(), chore)
    before = metrics.faults._value.get()
    reconciler.start()
    for _ in range(3):
        reconciler.wake()
        assert looks.acquire(timeout=30)
        assert chores.acquire(timeout=30)
    assert reconciler.alive
    assert metrics.faults._value.get() >= before + 4
    reconciler.stop()
    store.close()


def test_what_has_to_be_made_again_gets_the_addresses_that_were_handed_out(store: Store) -> None:
    asked: list[tuple[tuple[str, ...], bool]] = []

    class Asked(Cluster):
        def apply(
            self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone], *, refresh: bool = False
        ) -> list[Result]:
            asked.extend((w.virtual_ips, w.applied) for w in wanted)
            return super().apply(shard, wanted, gone, refresh=refresh)

    reconciler = Reconciler(store, open_locks(store, "test"), Asked())
    there = ConsumerRoute.model_validate(
        {
            "namespace": "shop",
            "provider_id": "p.example",
            "endpoints": [{"host": "a.p.example", "port": 9000}],
        }
    )
    store.change(store.add(new("a")), lambda b: b.want(there))
    reconciler.update(0)
    reconciler.update(0, refresh=True)

    assert asked == [((), False), (("10.96.0.1",), True)]
    reconciler.stop()
    store.close()
