"""The migrations on SQLite; `tests/engine/test_broker_migrations.py` has them on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.store import Store
from tests.broker import migrations


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store(f"sqlite:///{tmp_path}/broker.db")
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
