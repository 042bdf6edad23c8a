"""A PostgreSQL server of the tests, from Debian's package, which can be taken away and brought back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from lab.ports import free_ports
from tests.broker.chain import wait_until

ACCOUNT = "postgres"
"""The account of Debian's package; PostgreSQL does not run as root."""


class Postgres:
    """One server with one database, `brokers`, to which everybody on this machine is admitted."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="meshbridge-postgres-"))
        (self.port,) = free_ports(1)
        if os.geteuid() == 0:
            shutil.chown(self._folder, ACCOUNT)
        self._run(
            "initdb", "--pgdata", str(self._data), "--username", "broker", "--auth", "trust", "--no-sync"
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped: list[int] = []

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    @property
    def url(self) -> str:
        """For SQLAlchemy."""
        return f"postgresql+psycopg://broker@127.0.0.1:{self.port}/postgres"

    @property
    def plain_url(self) -> str:
        """For psycopg."""
        return f"postgresql://broker@127.0.0.1:{self.port}/postgres"

    @property
    def backend(self) -> str:
        """For Pulumi's state."""
        return f"postgres://broker@127.0.0.1:{self.port}/postgres?sslmode=disable"

    def database(self, name: str) -> str:
        """A further database, for SQLAlchemy."""
        with psycopg.connect(self.plain_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return make_url(self.url).set(database=name).render_as_string(hide_password=False)

    def start(self) -> None:
        options = [
            "-D", str(self._data), "-p", str(self.port), "-h", "127.0.0.1", "-k", str(self._folder), "-c", "fsync=off",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [_binary("postgres"), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=_account(),
            cwd="/",
        )
        wait_until(self._answers, "PostgreSQL answers", 30)

    def kill(self) -> None:
        """The server is gone, and every connection with it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)  # at once, without a checkpoint
        self._process.wait(30)

    def hang(self) -> None:
        """The server and every process of it stand still: connections stay open, and nobody answers."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._stopped = [self._process.pid, *map(int, children)]
        for pid in self._stopped:
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """What `hang` stopped goes on."""
        for pid in self._stopped:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped = []

    def close(self) -> None:
        self.go_on()
        if self._process is not None and self._process.poll() is None:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        try:
            psycopg.connect(
                f"host=127.0.0.1 port={self.port} user=broker dbname=postgres", connect_timeout=2
            ).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, *command: str) -> None:
        subprocess.run(
            [_binary(command[0]), *command[1:]], check=True, capture_output=True, user=_account(), cwd="/"
        )


def _account() -> str | None:
    return ACCOUNT if os.geteuid() == 0 else None


def _binary(name: str) -> str:
    found: Sequence[Path] = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    path = str(found[0]) if found else shutil.which(name)
    if path is None:
        raise RuntimeError(f"there is no {name}; install it: apt-get install postgresql")
    return path
