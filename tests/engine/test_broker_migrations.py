"""The migrations on a real PostgreSQL."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from broker.store import Store
from tests.broker import migrations
from tests.engine.brokers import REPOSITORY
from tests.engine.postgres import Postgres

MIGRATE = "import sys; from broker.store import Store; Store(sys.argv[1]).migrate()"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.close()


@pytest.fixture
def store(postgres: Postgres, request: pytest.FixtureRequest) -> Iterator[Store]:
    """An empty database of its own."""
    made = Store(postgres.database(request.node.name))
    yield made
    made.close()


@pytest.mark.parametrize("revision", migrations.revisions())
def test_a_database_of_any_older_version_is_brought_up_to_date(store: Store, revision: str) -> None:
    migrations.leave_as(store, revision)

    store.migrate()
    migrations.hold(store, revision)


def test_the_migrations_can_be_taken_back(store: Store) -> None:
    store.migrate()
    migrations.take_down(store)

    store.migrate()
    assert store.drift() == []


def test_replicas_that_start_together_migrate_one_after_the_other(store: Store) -> None:
    migrations.leave_as(store, "0001")
    url = store.url.render_as_string(hide_password=False)
    replicas = [
        subprocess.Popen([sys.executable, "-c", MIGRATE, url], stderr=subprocess.PIPE, cwd=REPOSITORY)
        for _ in range(4)
    ]

    ended = [(*replica.communicate(timeout=120), replica.returncode) for replica in replicas]
    assert [code for _, _, code in ended] == [0] * 4, ended
    migrations.hold(store, "0001")
