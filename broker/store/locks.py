"""Who may work on what: one owner a shard; one call a binding, or one step of its operation.

SQLite serves one process, which holds a lock on a file beside the database. PostgreSQL serves any number of replicas:
theirs are advisory locks of one connection, so that what a dead replica held is free at once. A replica that is cut off
from PostgreSQL must notice before PostgreSQL frees its locks: HOLD_TIMEOUT is shorter than the server's keepalive.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, NullPool, func, select, text
from sqlalchemy.exc import DBAPIError

from broker.errors import BusyError, UnavailableError
from broker.store.store import Store, open_engine

HOLD_TIMEOUT = 4.0
"""Seconds after which an owner that cannot ask PostgreSQL no longer counts as one."""
STEP_PATIENCE = 10.0
"""Seconds for which a call waits for a step; less than a consumer's proxy gives the provider's for its own work."""
STEP_POLL = 0.1
"""Seconds between two looks whether a step of another replica has ended."""

CALL, STEP = "call", "binding"
"""Kinds of locks of a binding. A call holds both, a step the second alone."""


class DatabaseInUseError(RuntimeError):
    """Another process serves this SQLite database."""


class Locks(Protocol):
    """The locks of one replica."""

    def call(self, binding_id: str) -> AbstractContextManager[None]:
        """Holds a binding for a call that changes it, after a step that is under way. Raises BusyError when another call
        has it, or the step takes longer than STEP_PATIENCE; UnavailableError when that cannot be known."""

    def step(self, binding_id: str) -> AbstractContextManager[None]:
        """Holds a binding for a step of its operation. Raises BusyError when a call or another step has it, UnavailableError
        when that cannot be known."""

    def own(self, shard: int) -> bool:
        """Whether this replica owns the shard, or owns it from now on."""

    def holds(self, shard: int) -> bool:
        """Whether it is certain that this replica still owns the shard. Answers within twice HOLD_TIMEOUT."""

    def close(self) -> None:
        """Gives everything back."""


def open_locks(store: Store, stack: str) -> Locks:
    """The locks for this database. stack: name of the stacks, so that brokers with different ones do not meet.

    Raises DatabaseInUseError.
    """
    return _PostgresLocks(store, stack) if store.shared else _FileLocks(store)


class _BindingLocks(ABC):
    """The locks of bindings, as far as this process knows them."""

    def __init__(self) -> None:
        self._held: set[tuple[str, str]] = set()
        self._freed = threading.Condition()

    @contextmanager
    def call(self, binding_id: str) -> Iterator[None]:
        with self._hold(CALL, binding_id), self._hold(STEP, binding_id, STEP_PATIENCE):
            yield

    @contextmanager
    def step(self, binding_id: str) -> Iterator[None]:
        with self._hold(STEP, binding_id):
            yield

    @contextmanager
    def _hold(self, kind: str, binding_id: str, patience: float = 0) -> Iterator[None]:
        """patience: seconds for which whoever has the lock is waited for."""
        deadline = time.monotonic() + patience
        name = (kind, binding_id)
        with self._freed:
            if not self._freed.wait_for(lambda: name not in self._held, patience):
                raise _busy("request")
            self._held.add(name)
        try:
            with self._hold_everywhere(kind, binding_id, deadline):
                yield
        finally:
            with self._freed:
                self._held.discard(name)
                self._freed.notify_all()

    @abstractmethod
    def _hold_everywhere(self, kind: str, binding_id: str, deadline: float) -> AbstractContextManager[None]:
        """What this process holds, against the other replicas too. deadline: until when they are waited for (monotonic).
        Raises BusyError, UnavailableError."""


def _busy(who: str) -> BusyError:
    return BusyError(f"another {who} works on this binding; try again when it has ended")


class _FileLocks(_BindingLocks):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self._handle: int | None = None
        database = store.url.database
        if database and database != ":memory:":
            path = Path(f"{database}.lock")
            self._handle = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._handle)
                raise DatabaseInUseError(
                    f"another broker serves {database} ({path} is locked); stop it, or use PostgreSQL for several"
                ) from None

    def _hold_everywhere(self, kind: str, binding_id: str, deadline: float) -> AbstractContextManager[None]:
        del kind, binding_id, deadline
        return nullcontext()

    def own(self, shard: int) -> bool:
        return shard >= 0

    def holds(self, shard: int) -> bool:
        return self.own(shard)

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class _PostgresLocks(_BindingLocks):
    def __init__(self, store: Store, stack: str) -> None:
        super().__init__()
        self._engine = open_engine(store.url, HOLD_TIMEOUT, poolclass=NullPool)
        self._stack = stack
        self._mutex = threading.Lock()
        self._connection: Connection | None = None
        self._owned: set[int] = set()

    @contextmanager
    def _hold_everywhere(self, kind: str, binding_id: str, deadline: float) -> Iterator[None]:
        key = _key(self._stack, kind, binding_id)
        while not self._query(func.pg_try_advisory_lock(key)):
            if time.monotonic() >= deadline:
                raise _busy("replica")
            time.sleep(STEP_POLL)
        try:
            yield
        finally:
            self._release(key)

    def own(self, shard: int) -> bool:
        with self._mutex:
            owned = self._connection is not None and shard in self._owned
        if owned:
            self._query(text("1"))
            with self._mutex:
                if shard in self._owned:
                    return True
        return self._query(func.pg_try_advisory_lock(_key(self._stack, "shard", str(shard))), shard)

    def holds(self, shard: int) -> bool:
        if not self._mutex.acquire(timeout=HOLD_TIMEOUT):
            return False
        try:
            if self._connection is None or shard not in self._owned:
                return False
            self._connection.execute(select(text("1")))
        except DBAPIError:
            self._forget()
            return False
        else:
            return True
        finally:
            self._mutex.release()

    def close(self) -> None:
        with self._mutex:
            self._forget()

    def _query(self, expression: object, shard: int | None = None) -> bool:
        """What the database says. shard: owned from now on where that is true, for as long as the connection lasts."""
        if not self._mutex.acquire(timeout=HOLD_TIMEOUT):
            raise UnavailableError("the database does not answer; try again")
        try:
            if self._connection is None:
                self._connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            found = bool(self._connection.execute(select(expression)).scalar())  # type: ignore[call-overload]
        except DBAPIError as error:
            self._forget()
            raise UnavailableError("the database is away; try again") from error
        else:
            if found and shard is not None:
                self._owned.add(shard)
            return found
        finally:
            self._mutex.release()

    def _release(self, key: int) -> None:
        try:
            self._query(func.pg_advisory_unlock(key))
        except UnavailableError:
            return

    def _forget(self) -> None:
        """The connection is gone, and with it every lock."""
        connection, self._connection = self._connection, None
        self._owned.clear()
        if connection is not None:
            connection.invalidate()
            connection.close()


def _key(*parts: str) -> int:
    """PostgreSQL's key of an advisory lock: 64 bits, signed."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
