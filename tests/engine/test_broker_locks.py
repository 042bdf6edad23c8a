"""The locks of replicas on a real PostgreSQL: lost when the connection is, doubted when nobody answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg
import pytest

from broker.errors import BusyError, UnavailableError
from broker.store import Locks, Store, open_locks
from tests.broker.chain import wait_until
from tests.engine.postgres import Postgres


@pytest.fixture
def replicas(postgres: Postgres) -> Iterator[tuple[Locks, Locks]]:
    stores = [Store(postgres.url) for _ in range(2)]
    stores[0].migrate()
    first, second = (open_locks(store, "test") for store in stores)
    yield first, second
    first.close()
    second.close()
    for store in stores:
        store.close()


def test_a_shard_has_one_owner_until_its_connection_ends(
    postgres: Postgres, replicas: tuple[Locks, Locks]
) -> None:
    first, second = replicas
    assert first.own(0)
    assert first.holds(0)
    assert not second.own(0)
    assert not second.holds(0)

    with psycopg.connect(postgres.plain_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        )
    wait_until(lambda: _owns(second, 0), "the other replica has the shard")

    assert not first.holds(0)
    assert second.holds(0)
    wait_until(lambda: _owns(first, 0) is False, "the first one asks again, in vain")


def test_a_call_is_alone_among_the_replicas_and_waits_for_a_step_of_another(
    replicas: tuple[Locks, Locks],
) -> None:
    first, second = replicas
    with first.call("a"):
        with pytest.raises(BusyError, match="another replica"), second.call("a"):
            pass
        with pytest.raises(BusyError, match="another replica"), second.step("a"):
            pass

    def call() -> None:
        with second.call("a"):
            assert ended.is_set()

    ended = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with first.step("a"):
            waiting = pool.submit(call)
            assert not wait([waiting], 0.5).done
            ended.set()
        waiting.result()


def test_a_server_that_hangs_is_one_that_is_away(postgres: Postgres, replicas: tuple[Locks, Locks]) -> None:
    """Nobody waits for it for ever, and nobody believes to own what it may have given away."""
    first, _ = replicas
    assert first.own(1)
    store = Store(postgres.url)
    store.ping()
    postgres.hang()
    try:
        assert not first.holds(1)
        with pytest.raises(UnavailableError), first.call("a"):
            pass
        with pytest.raises(UnavailableError):
            store.ping()
    finally:
        postgres.go_on()
    wait_until(lambda: _owns(first, 1), "it is owned again", 60)
    wait_until(lambda: _answers(store), "the database answers", 60)
    store.close()


def test_each_end_of_a_connection_notices_when_the_other_is_gone(postgres: Postgres) -> None:
    store = Store(postgres.url)
    with store.engine.connect() as connection:
        raw = connection.connection.dbapi_connection
        assert raw is not None
        cursor = raw.cursor()
        cursor.execute(
            "SELECT current_setting('tcp_keepalives_idle'), current_setting('tcp_keepalives_count')"
        )
        assert cursor.fetchone() == ("5", "3")
        options = raw.info.get_parameters()
        assert (options["keepalives_idle"], options["tcp_user_timeout"]) == ("5", "10000")
    store.close()


def _owns(locks: Locks, shard: int) -> bool:
    try:
        return locks.own(shard)
    except UnavailableError:
        return False


def _answers(store: Store) -> bool:
    try:
        store.ping()
    except UnavailableError:
        return False
    return True
