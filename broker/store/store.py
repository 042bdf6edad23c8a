"""Reads and writes the bindings."""

from __future__ import annotations

import sqlite3
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg.abc import RV, PQGen
from sqlalchemy import Engine, and_, create_engine, delete, event, func, or_, select, text, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.orm.attributes import instance_dict
from sqlalchemy.orm.exc import StaleDataError
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from broker.errors import BusyError, UnavailableError
from broker.store.models import Audit, Base, Binding, Phase

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 7_316_001
"""Key of PostgreSQL's advisory lock under which one replica migrates."""
BUSY_TIMEOUT = 10
"""Seconds that SQLite waits for another writer, and PostgreSQL for a connection."""
QUERY_TIMEOUT = 10.0
"""Seconds within which PostgreSQL must answer: one that hangs is one that is away."""
KEEPALIVE = {"idle": 5, "interval": 2, "count": 3}
"""TCP keepalive of PostgreSQL's connections, in both directions: 11 s after a node is lost, the server frees what it held."""

T = TypeVar("T")


class VersionError(RuntimeError):
    """The database's tables are of another version of this program."""


@dataclass(frozen=True)
class Result:
    """What an update did for one binding. generation: the one that was applied; error: None where it succeeded;
    certain: the stack's state knows all that there is; temporary: the failure says nothing about this binding."""

    binding_id: str
    generation: int
    error: str | None
    certain: bool
    virtual_ips: Sequence[str] | None = None
    temporary: bool = False


class Store:
    """The database."""

    def __init__(self, url: str) -> None:
        self.url = make_url(url)
        self.engine = open_engine(self.url)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @property
    def shared(self) -> bool:
        """Whether several replicas may use it."""
        return self.engine.dialect.name == "postgresql"

    def migrate(self) -> None:
        """Brings the tables to this program's version; replicas do it one after the other. Raises VersionError where they
        are of a later one."""
        with self._available(), self.engine.begin() as connection:
            if self.shared:
                connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
            try:
                command.upgrade(_alembic(connection=connection), "head")
            except CommandError as error:
                raise VersionError(
                    f"the database's tables are of a version that this program does not know ({error}); run the program "
                    "that served last, or a later one"
                ) from None

    def check_version(self) -> None:
        """Raises VersionError where the tables are not those of this program, which only `migrate` changes."""
        path = self.url.database
        if not self.shared and path and not Path(path).exists():
            raise VersionError(f"there is no database {path}: no broker has served with these settings yet")
        with self._available(), self.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        wanted = ScriptDirectory.from_config(_alembic()).get_current_head()
        if found != wanted:
            raise VersionError(
                f"the database's tables are of version {found or 'none'}, this program needs {wanted}; "
                "`serve` and `reconcile` bring them there"
            )

    def drift(self) -> list[object]:
        """What the migrations lack of the models; for tests."""
        from alembic.autogenerate import compare_metadata  # noqa: PLC0415 - not needed to serve

        with self.engine.connect() as connection:
            return list(compare_metadata(MigrationContext.configure(connection), Base.metadata))

    def ping(self) -> None:
        """Raises UnavailableError when the database is away."""
        with self._available(), self.engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def get(self, binding_id: str) -> Binding | None:
        """One binding."""
        with self._available(), self._sessions() as session:
            return session.get(Binding, binding_id)

    def all(self) -> list[Binding]:
        """Every binding."""
        return self._select()

    def of_shard(self, shard: int) -> list[Binding]:
        """The bindings of a shard."""
        return self._select(Binding.shard == shard)

    def shard_for(self, binding_id: str, shards: int, largest: int) -> int:
        """The shard of a new binding; see `shard_of`."""
        counted = select(Binding.shard, func.count()).group_by(Binding.shard)
        with self._available(), self._sessions() as session:
            sizes = {row[0]: row[1] for row in session.execute(counted)}
        return shard_of(binding_id, shards, sizes, largest)

    def unsettled_shards(self) -> set[int]:
        """Shards whose cluster is not as wanted."""
        unsettled = or_(Binding.applied != Binding.generation, Binding.uncertain)
        with self._available(), self._sessions() as session:
            return set(session.scalars(select(Binding.shard).where(unsettled).distinct()))

    def in_phase(self, *phases: str) -> list[Binding]:
        """The bindings of these phases."""
        return self._select(Binding.phase.in_(phases))

    def of_instance(self, base: str, instance_id: str) -> list[Binding]:
        """The bindings of a service instance."""
        return self._select(Binding.instance_id == instance_id, Binding.base == base)

    def add(self, binding: Binding) -> Binding:
        """A new binding. Raises BusyError where another call added it meanwhile."""
        try:
            with self._available(), self._sessions.begin() as session:
                session.add(binding)
                session.flush()
                session.refresh(binding)
        except IntegrityError:
            raise BusyError("another request made this binding at the same time") from None
        return binding

    def change(
        self,
        binding: Binding,
        change: Callable[[Binding], None],
        patience: float = 0,
        *,
        audit: Audit | None = None,
    ) -> Binding:
        """Changes a binding as it was read, and writes it, with its audit record in the same transaction.

        patience: seconds for which an unreachable database is tried again; for changes that follow something
        which cannot be taken back. Raises BusyError where somebody else changed it meanwhile.
        """

        flushed: list[dict[str, object]] = []

        def once() -> Binding:
            with self._available(), self._sessions.begin() as session:
                found = session.merge(binding, load=False)
                change(found)
                session.flush()
                flushed.append(_said(found))
                _record(session, audit)
            return found

        try:
            return self._patient(once, patience)
        except StaleDataError:
            stored = self.get(binding.binding_id)
            if stored is not None and _said(stored) in flushed:  # the connection was lost after the commit
                return stored
            raise _changed_meanwhile() from None

    def remove(self, binding: Binding, patience: float = 0, *, audit: Audit | None = None) -> None:
        """Forgets a binding of which nothing is left, with its audit record in the same transaction.

        Raises BusyError where somebody else changed it meanwhile.
        """

        def once() -> None:
            with self._available(), self._sessions.begin() as session:
                as_read = (Binding.binding_id == binding.binding_id, Binding.version == binding.version)
                session.execute(delete(Binding).where(*as_read))
                if session.get(Binding, binding.binding_id) is not None:
                    raise _changed_meanwhile()
                _record(session, audit)

        self._patient(once, patience)

    def mark_uncertain(self, bindings: Collection[str]) -> None:
        """Before an update: these may get objects that the state does not know."""
        with self._available(), self._sessions.begin() as session:
            these = update(Binding).where(Binding.binding_id.in_(bindings))
            session.execute(these.values(uncertain=True, attempted_json=Binding.route_json))

    def record(self, results: Collection[Result], patience: float = 0) -> None:
        """Writes what an update did, and forgets the bindings that are gone."""
        self._patient(lambda: self._record(results), patience)

    def _record(self, results: Collection[Result]) -> None:
        with self._available(), self._sessions.begin() as session:
            for result in results:
                same = and_(Binding.binding_id == result.binding_id, Binding.generation == result.generation)
                if result.error is not None:
                    values: Mapping[str, object] = {
                        "attempts": Binding.attempts + (0 if result.temporary else 1),
                        "error": result.error[:4000],
                    }
                else:
                    values = {"applied": result.generation, "attempts": 0, "error": None}
                    if result.virtual_ips is not None:
                        values = {**values, "virtual_ips": list(result.virtual_ips)}
                session.execute(update(Binding).where(same).values(**values))
                if result.certain:
                    session.execute(
                        update(Binding).where(Binding.binding_id == result.binding_id).values(uncertain=False)
                    )
            gone = (
                Binding.wanted.is_(False),
                Binding.applied == Binding.generation,
                Binding.uncertain.is_(False),
                Binding.phase == Phase.REMOVING,
            )
            session.execute(delete(Binding).where(*gone))

    def audit(self, entry: Audit, patience: float = 0) -> None:
        """Writes an audit record."""

        def once() -> None:
            with self._available(), self._sessions.begin() as session:
                _record(session, entry)

        self._patient(once, patience)

    def audited(self, binding_id: str) -> list[Audit]:
        """The audit records of a binding, oldest first."""
        with self._available(), self._sessions() as session:
            return list(
                session.scalars(select(Audit).where(Audit.binding_id == binding_id).order_by(Audit.id))
            )

    def last_audited(self, instance_id: str, binding_id: str) -> Audit | None:
        """The newest audit record of a binding, or of an instance where `binding_id` is empty."""
        same = (Audit.instance_id == instance_id, Audit.binding_id == binding_id)
        with self._available(), self._sessions() as session:
            return session.scalars(select(Audit).where(*same).order_by(Audit.id.desc()).limit(1)).first()

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    def _select(self, *where: object) -> list[Binding]:
        with self._available(), self._sessions() as session:
            return list(session.scalars(select(Binding).where(*where).order_by(Binding.binding_id)))  # type: ignore[arg-type]

    @contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, PoolTimeoutError) as error:
            if not is_away(error):
                raise
            cause = error.orig if isinstance(error, DBAPIError) else error
            raise UnavailableError(f"the database is away ({type(cause).__name__}); try again") from error

    def _patient(self, work: Callable[[], T], patience: float) -> T:
        if not patience:
            return work()
        attempts = Retrying(
            retry=retry_if_exception_type(UnavailableError),
            stop=stop_after_delay(patience),
            wait=wait_exponential(multiplier=0.1, max=2),
            sleep=time.sleep,
            reraise=True,
        )
        return attempts(work)


def _changed_meanwhile() -> BusyError:
    return BusyError("another request changed this binding at the same time")


def _record(session: Session, entry: Audit | None) -> None:
    """Adds an audit record. One of a transaction that failed still has its number, which is taken where that was written
    all the same, or by another record."""
    if entry is not None:
        instance_dict(entry).pop("id", None)
        session.add(entry)


def _said(binding: Binding) -> dict[str, object]:
    """What changes are made of."""
    names = (
        "version",
        "phase",
        "operation",
        "with_instance",
        "unanswered_at",
        "wanted",
        "route_json",
        "generation",
    )
    return {name: getattr(binding, name) for name in names}


def is_away(error: SQLAlchemyError) -> bool:
    """Whether the database cannot be used now, so that the same may work later: not where a statement is wrong."""
    if isinstance(error, PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    code = getattr(error.orig, "sqlite_errorcode", None)
    return isinstance(error, OperationalError | InterfaceError) and code != sqlite3.SQLITE_ERROR


def shard_of(binding_id: str, shards: int, sizes: Mapping[int, int], largest: int) -> int:
    """The shard of a new binding: one of the first `shards`, by its id; where that is full, the smallest, and where all
    are, a further one, so that an update stays short however many bindings there are.

    sizes: bindings by shard; largest: bindings that a shard gets.
    """
    home: int = zlib.crc32(binding_id.encode("utf-8", "surrogatepass")) % shards
    if sizes.get(home, 0) < largest:
        return home
    known: set[int] = {*range(shards), *sizes}
    smallest: int = min(known, key=lambda shard: (sizes.get(shard, 0), shard))
    return smallest if sizes.get(smallest, 0) < largest else max(known) + 1


def open_engine(url: URL, query_timeout: float = QUERY_TIMEOUT, **options: Any) -> Engine:
    """Connections to a database. query_timeout: seconds after which a PostgreSQL that does not answer is away."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT}, hide_parameters=True, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    pool = options or {
        "pool_size": 20,
        "max_overflow": 20,
        "pool_timeout": BUSY_TIMEOUT,
        "pool_pre_ping": True,
    }
    engine = create_engine(url, connect_args=_connection(url, query_timeout), hide_parameters=True, **pool)

    def connect(_dialect: object, _record: object, arguments: Any, named: Any) -> psycopg.Connection[Any]:
        return _Impatient.within(query_timeout).connect(*arguments, **named)

    event.listen(engine, "do_connect", connect)
    return engine


class _Impatient(psycopg.Connection[Any]):
    """A connection that gives a server up which does not answer: without it, a call would wait as long as the server
    hangs."""

    query_timeout = QUERY_TIMEOUT

    @classmethod
    def within(cls, seconds: float) -> type[_Impatient]:
        return type(cls.__name__, (cls,), {"query_timeout": seconds})

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        try:
            return super().wait(gen, interval, self.query_timeout if timeout is None else timeout)
        except psycopg.OperationalError:
            self.pgconn.finish()
            raise


def _connection(url: URL, query_timeout: float) -> dict[str, object]:
    """Parameters with which both ends notice that the other is gone; what the URL says itself stays."""
    idle, interval, count = KEEPALIVE["idle"], KEEPALIVE["interval"], KEEPALIVE["count"]
    own: dict[str, object] = {
        "connect_timeout": BUSY_TIMEOUT,
        "keepalives_idle": idle,
        "keepalives_interval": interval,
        "keepalives_count": count,
        "tcp_user_timeout": int(query_timeout * 1000),
        "options": f"-c tcp_keepalives_idle={idle} -c tcp_keepalives_interval={interval} -c tcp_keepalives_count={count}",
    }
    return {name: value for name, value in own.items() if name not in url.query}


def _prepare_sqlite(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _alembic(**attributes: object) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes.update(attributes)
    return config
