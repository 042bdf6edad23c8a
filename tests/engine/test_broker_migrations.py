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
    replicas = [
        subprocess.Popen([sys.executable, "-c", MIGRATE, url], stderr=subprocess.PIPE, cwd=REPOSITORY)
        for _ in range(4)
    ]

    ended = [(*replica.communicate(timeout=120), replica.returncode) for replica in replicas]
    assert [code for _, _, code in ended] == [0] * 4, ended
    migrations.hold(store, "0001")
