"""The locks of one process: a second call is refused, a call waits for a step, a step for nobody."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from broker.errors import BusyError
from broker.store import Locks, Store, locks, open_locks


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Locks]:
    store = Store(f"sqlite:///{tmp_path}/broker.db")
    made = open_locks(store, "test")
    yield made
    made.close()
    store.close()


def test_a_second_call_is_refused_at_once_and_another_binding_is_free(held: Locks) -> None:
    with held.call("a"):
        with pytest.raises(BusyError, match="another request"), held.call("a"):
            pass
        with pytest.raises(BusyError), held.step("a"):
            pass
        with held.call("b"), held.step("c"):
            pass
    with held.step("a"), pytest.raises(BusyError), held.step("a"):
        pass
    with held.call("a"):
        pass


def test_a_call_waits_for_a_step_and_keeps_further_calls_off_meanwhile(held: Locks) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def call() -> None:
        with held.call("a"):
            begun.set()
            go_on.wait(30)

    with ThreadPoolExecutor(1) as pool:
        with held.step("a"):
            waiting = pool.submit(call)
            assert not wait([waiting], 0.2).done
            assert not begun.is_set()
            with pytest.raises(BusyError), held.call("a"):
                pass
        assert begun.wait(30)
        with pytest.raises(BusyError), held.step("a"):
            pass
        go_on.set()
        waiting.result()


def test_a_step_that_does_not_end_is_not_waited_for_for_ever(
    held: Locks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "STEP_PATIENCE", 0.1)
    with held.step("a"), pytest.raises(BusyError), held.call("a"):
        pass
    with held.call("a"):
        pass


class Connection:
    """One to a PostgreSQL that grants every lock."""

    def execute(self, _statement: object) -> Connection:
        return self

    def scalar(self) -> bool:
        return True

    def execution_options(self, **_options: object) -> Connection:
        return self

    def invalidate(self) -> None:
        return

    close = invalidate


class LosingMutex:
    """A mutex, and what another thread does that gets it after it was held twice."""

    def __init__(self, lose: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._next: list[Callable[[], None]] = [lose, lambda: None]

    def acquire(self, timeout: float = -1) -> bool:
        return self._lock.acquire(timeout=timeout)

    def release(self) -> None:
        if self._next:
            self._next.pop()()
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()


def test_a_shard_is_not_owned_by_a_connection_that_never_locked_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that did is lost as soon as it has said so, and another one is there before anybody looks."""
    store = Store("postgresql+psycopg://broker@localhost/broker")
    made = open_locks(store, "test")
    assert isinstance(made, locks._PostgresLocks)
    monkeypatch.setattr(made._engine, "connect", Connection)
    assert made.own(1)

    def lose() -> None:
        made._forget()
        made._connection = Connection()  # type: ignore[assignment]

    monkeypatch.setattr(made, "_mutex", LosingMutex(lose))
    made.own(0)

    assert not made.holds(0)
    assert not made.holds(1)
    made.close()
    store.close()
