"""The migrations on a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select, text

from broker.store import Store
from broker.store.store import MIGRATION_LOCK
from tests.broker import migrations
from tests.broker.chain import wait_until
from tests.engine.brokers import REPOSITORY
from tests.engine.postgres import Postgres

MIGRATE = "import sys; from broker.store import Store; Store(sys.argv[1]).migrate()"
REPLICAS = 4
WAITING = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")


@pytest.fixture
def store(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty database of its own."""
    made = Store(postgres.database(request.node.name))
    yield made
    made.close()


class TestOnPostgres(migrations.Migrations):
    pass


def test_replicas_that_start_together_migrate_one_after_the_other(store: Store) -> None:
    migrations.leave_as(store, "0001")
    url = store.url.render_as_string(hide_password=False)
    with store.engine.begin() as first, store.engine.connect() as observer:
        first.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        replicas = [
            subprocess.Popen([sys.executable, "-c", MIGRATE, url], stderr=subprocess.PIPE, cwd=REPOSITORY)
            for _ in range(REPLICAS)
        ]
        wait_until(lambda: observer.scalar(WAITING) == REPLICAS, "every replica waits for the first one")

    ended = [(*replica.communicate(timeout=120), replica.returncode) for replica in replicas]
    assert [code for _, _, code in ended] == [0] * REPLICAS, ended
    migrations.hold(store, "0001")
