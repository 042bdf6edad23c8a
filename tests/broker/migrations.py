"""Databases as older versions of the program left them, and what must hold once this one has brought them up to date."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, insert

from broker.network import Endpoint
from broker.store import Audit, Phase, ProviderRoute, Store
from broker.store.store import MIGRATIONS

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ROUTE = ProviderRoute(consumer_id="client.shop.example", endpoints=(Endpoint(host="10.0.0.1", port=5432),))
ROWS: dict[str, dict[str, Any]] = {
    "bindings": {
        "binding_id": "old",
        "instance_id": "i",
        "base": "/v1/osb/fabrik",
        "service_id": "s",
        "plan_id": "p",
        "phase": "bound",
        "operation": "bind-old",
        "with_instance": True,
        "unanswered_at": MOMENT,
        "consumer_id": "client.shop.example",
        "place": "",
        "shard": 3,
        "wanted": True,
        "route": ROUTE.model_dump(mode="json"),
        "generation": 2,
        "applied": 2,
        "uncertain": False,
        "attempted": ROUTE.model_dump(mode="json"),
        "attempts": 0,
        "error": None,
        "virtual_ips": ["10.96.0.1"],
        "version": 4,
        "created_at": MOMENT,
        "updated_at": MOMENT,
    },
    "audit": {
        "at": MOMENT,
        "request_id": "r",
        "user": "platform",
        "originating_identity": None,
        "action": "bind",
        "instance_id": "i",
        "binding_id": "old",
        "status": 201,
        "error": None,
    },
}
"""A row of each table; an older table gets the columns that it has."""


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def revisions() -> list[str]:
    """All versions of the tables, oldest first."""
    found = ScriptDirectory.from_config(_config()).walk_revisions()
    return [script.revision for script in found][::-1]


def leave_as(store: Store, revision: str) -> None:
    """A database of an older version, with a row in each table."""
    with store.engine.begin() as connection:
        command.upgrade(_config(connection), revision)
    with store.engine.begin() as connection:
        for name, row in ROWS.items():
            table = Table(name, MetaData(), autoload_with=connection)
            known = {key: value for key, value in row.items() if key in table.columns}
            assert set(table.columns.keys()) - known.keys() <= {"id"}, "ROWS lacks a column"
            connection.execute(insert(table).values(known))


def take_down(store: Store) -> None:
    """Every migration, backwards."""
    with store.engine.begin() as connection:
        command.downgrade(_config(connection), "base")


def hold(store: Store, left_as: str) -> None:
    """The tables are what the models say, the row has kept what it had, and can be worked with."""
    assert store.drift() == []
    store.check_version()
    row = store.get("old")
    assert row is not None
    assert (row.route, row.attempted, row.virtual_ips) == (ROUTE, ROUTE, ["10.96.0.1"])
    assert (row.phase, row.shard, row.wanted, row.settled, row.version) == (Phase.BOUND, 3, True, True, 4)
    assert row.created_at == MOMENT
    had_operations = left_as != "0001"
    assert (row.operation, row.with_instance, row.unanswered_at) == (
        ("bind-old", True, MOMENT) if had_operations else (None, False, None)
    )
    record = Audit(
        request_id="", action="undone", instance_id="i", binding_id="old", status=200, at=datetime.now(UTC)
    )
    store.remove(row, audit=record)
    assert [(a.action, a.status) for a in store.audited("old")] == [("bind", 201), ("undone", 200)]
    assert store.all() == []


class Migrations:
    """What holds on every database; a subclass's module has the fixture `store`, an empty one."""

    @pytest.mark.parametrize("revision", revisions())
    def test_a_database_of_any_older_version_is_brought_up_to_date(self, store: Store, revision: str) -> None:
        leave_as(store, revision)

        store.migrate()
        hold(store, revision)

    def test_the_migrations_can_be_taken_back(self, store: Store) -> None:
        store.migrate()
        take_down(store)

        store.migrate()
        assert store.drift() == []
