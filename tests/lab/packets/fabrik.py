"""A service broker in the provider's cluster whose bindings are users of a real PostgreSQL.

`python -m tests.lab.packets.fabrik PORT HOST PASSWORD` serves for the database on HOST, whose superuser has that password.
"""

from __future__ import annotations

import sys
from typing import Any

import psycopg
from psycopg import sql

from tests.broker.service_broker import ServiceBroker

DATABASE_PORT = 5432


def password_of(user: str) -> str:
    """The password of a binding's user; it needs percent-encoding in a URL."""
    return f"p/w:{user}@x"


class Fabrik(ServiceBroker):
    """Makes a user for each binding, and drops it at the unbind."""

    def __init__(self, port: int, database: str, password: str) -> None:
        super().__init__(port, host="0.0.0.0")  # noqa: S104 - a Pod
        self.endpoints = [{"host": database, "port": DATABASE_PORT}]
        self._address = (
            f"host={database} port={DATABASE_PORT} user=postgres password={password} dbname=postgres"
        )

    def credentials(self, binding: str) -> dict[str, Any]:
        user = f"user-{binding}"
        self._execute(
            "DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {name}) THEN CREATE ROLE {user} LOGIN "
            "PASSWORD {password}; END IF; END $$",
            user,
        )
        host = self.endpoints[0]["host"]
        quoted = password_of(user).replace("/", "%2F").replace(":", "%3A").replace("@", "%40")
        return {
            "hostname": host,
            "port": DATABASE_PORT,
            "username": user,
            "password": password_of(user),
            "uri": f"postgresql://{user}:{quoted}@{host}:{DATABASE_PORT}/postgres?sslmode=disable",
        }

    def _unbind(self, instance: str, binding: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        answer = super()._unbind(instance, binding, query)
        self._execute("DROP ROLE IF EXISTS {user}", f"user-{binding}")
        return answer

    def _execute(self, statement: str, user: str) -> None:
        text = sql.SQL(statement).format(
            name=sql.Literal(user), user=sql.Identifier(user), password=sql.Literal(password_of(user))
        )
        with psycopg.connect(self._address) as connection:
            connection.execute(text)


if __name__ == "__main__":
    broker = Fabrik(int(sys.argv[1]), sys.argv[2], sys.argv[3])
    broker.server.serve_forever()
