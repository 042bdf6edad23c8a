"""The locks of one process: a second call is refused, a call waits for a step, a step for nobody."""

from __future__ import annotations

import threading
from collections.abc import Iterator
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
