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


class TestOnSqlite(migrations.Migrations):
    pass
