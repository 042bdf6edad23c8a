"""Brings the stacks to what the store says, shard by shard.

Level-triggered: it looks at the difference between wanted and applied, never at the call that made it. While one update of
a shard runs, further changes gather; the next update takes them all. A shard is worked on by its owner alone: an update
whose shard is lost, or perhaps lost, meanwhile is ended.

A binding is given up when its own route was refused ATTEMPTS times. What fails for another reason, a cluster, state or
database that is away, is tried again for as long as somebody waits for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import structlog

from broker import metrics, tracing
from broker.engine import Deployer, Gone
from broker.errors import UnavailableError
from broker.probe import Probe, all_of
from broker.program import Wanted
from broker.store import Binding, Locks, Store
from broker.store.store import Result
from broker.update import WATCH, EngineError

POLL = 0.5
"""Seconds between two looks for changes of other replicas."""
PARALLEL = 2
"""Updates at a time; each is one engine, one plugin and one Python program."""
ATTEMPTS = 3
"""Refused routes in a row after which a bind is given up."""
LONGEST_PAUSE = 30.0
"""Seconds at most between two attempts at what fails."""
PATIENCE = 120.0
"""Seconds for which a database that went away is waited for, to write what an update did."""

NEVER = -1
"""A generation that no binding has: of a result, nothing but the certainty counts."""

log = structlog.get_logger(__name__)


class Reconciler:
    """The owner's part. `start` it, `wake` it after a change, `wait` for what it does, `stop` it."""

    def __init__(
        self,
        store: Store,
        locks: Locks,
        deployer: Deployer,
        chores: Callable[[], None] | None = None,
        probe: Probe | None = None,
    ) -> None:
        """chores: what else is to be done at each look, for example unbinding upstream what failed here. probe: tries
        the virtual IPs of each binding that was routed, before that counts as done."""
        self._store, self._locks, self._deployer = store, locks, deployer
        self._chores, self._probe = chores, probe
        self._wakened = threading.Event()
        self._stopping = threading.Event()
        self._progress = threading.Condition()
        self._running: dict[int, Future[None]] = {}
        self._pauses: dict[int, _Pause] = {}
        self._pool = ThreadPoolExecutor(PARALLEL, "update")
        self._aside = ThreadPoolExecutor(1, "chores")
        self._chore: Future[bool] | None = None
        self._thread = threading.Thread(target=self._loop, name="reconciler", daemon=True)
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Begins to work in the background."""
        self._thread.start()
        self._watcher.start()

    def stop(self) -> None:
        """Ends the updates that run and begins no others. What is left undone is in the store."""
        self._stopping.set()
        self._wakened.set()
        for thread in (self._thread, self._watcher):
            if thread.is_alive():
                thread.join()
        self._pool.shutdown()
        self._aside.shutdown()

    @property
    def alive(self) -> bool:
        """Whether it works, or was told to stop."""
        return self._thread.is_alive() or self._stopping.is_set()

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    def wake(self) -> None:
        """Something changed."""
        self._wakened.set()

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Waits until `done`, which is asked whenever an update ended and once a POLL; whether it came to be."""
        deadline = time.monotonic() + seconds
        while not done():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._progress:
                self._progress.wait(min(left, POLL))
        return True

    def update(self, shard: int, *, refresh: bool = False) -> bool:
        """One update of a shard, now. Whether there was anything to do. refresh: also where nothing changed.

        Raises EngineError, UnavailableError.
        """
        bindings = self._store.of_shard(shard)
        if not refresh and all(binding.settled for binding in bindings):
            return False
        started = time.monotonic()
        if any(binding.lost for binding in bindings):
            self._take_up(shard, bindings)
            bindings = self._store.of_shard(shard)
            if any(binding.lost for binding in bindings):
                return True
        wanted = [b for b in bindings if b.wanted and not _given_up(b)]
        self._store.mark_uncertain([b.binding_id for b in wanted if not b.settled])
        gone = [Gone(b.binding_id, b.generation) for b in bindings if not b.wanted and not b.settled]
        changed = sum(not b.settled for b in bindings)
        with tracing.span("update", {"meshbridge.shard": shard, "meshbridge.changed": changed}):
            results = self._apply(shard, [wanted_of(b) for b in wanted], gone, refresh=refresh)
            self._record(self._probed(results, {b.binding_id for b in wanted if not b.settled}))
        metrics.update_done(time.monotonic() - started, changed)
        log.info(
            "updated",
            shard=shard,
            changed=changed,
            bindings=len(bindings),
            seconds=round(time.monotonic() - started, 2),
        )
        return True

    def _take_up(self, shard: int, bindings: Sequence[Binding]) -> None:
        """An update was interrupted, and what it may have made is no longer wanted as it was: only a state that knows
        the objects can remove them, so they are applied once more."""
        wanted = [b for b in bindings if b.wanted and not b.lost and not _given_up(b)]
        lost = [
            Wanted(b.binding_id, NEVER, b.attempted) for b in bindings if b.lost and b.attempted is not None
        ]
        gone = [Gone(b.binding_id, b.generation) for b in bindings if not (b.wanted or b.settled or b.lost)]
        self._store.mark_uncertain([b.binding_id for b in wanted if not b.settled])
        results = self._apply(shard, [*(wanted_of(b) for b in wanted), *lost], gone)
        self._record(self._probed(results, {b.binding_id for b in wanted if not b.settled}))

    def _apply(
        self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone], *, refresh: bool = False
    ) -> list[Result]:
        with self._guarded(shard):
            return self._deployer.apply(shard, wanted, gone, refresh=refresh)

    @contextmanager
    def _guarded(self, shard: int) -> Iterator[None]:
        """An update of a shard, which is ended when the shard is no longer surely this replica's."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(WATCH):
                if not self._locks.holds(shard) and not done.is_set():
                    log.error("shard_lost", shard=shard)
                    self._deployer.kill(shard)
                    return

        watcher = threading.Thread(target=watch, name=f"watch-{shard}", daemon=True)
        watcher.start()
        try:
            yield
        except KeyboardInterrupt:  # the engine must not outlive the shard, which is given back next
            self._deployer.kill(shard)
            raise
        finally:
            done.set()
            watcher.join()

    def _probed(self, results: Sequence[Result], new: set[str]) -> list[Result]:
        """The results, those of new routes with what a connection to them came to."""
        if self._probe is None:
            return list(results)
        tried = [r for r in results if r.error is None and r.virtual_ips and r.binding_id in new]
        reasons = all_of(self._probe, [r.virtual_ips or () for r in tried])
        failed = {
            r.binding_id: reason for r, reason in zip(tried, reasons, strict=True) if reason is not None
        }
        return [replace(r, error=failed[r.binding_id]) if r.binding_id in failed else r for r in results]

    def _record(self, results: Sequence[Result]) -> None:
        self._store.record(results, PATIENCE)
        with self._progress:
            self._progress.notify_all()

    def _watch(self) -> None:
        """No update waits that was begun ahead of time for a shard that another replica may own by now."""
        while not self._stopping.wait(WATCH):
            self._tried("watch", lambda: self._deployer.retain(self._locks.holds))

    def _loop(self) -> None:
        while not self._stopping.is_set():
            self._wakened.wait(POLL)
            self._wakened.clear()
            if not self._tried("look", self._look):
                self._stopping.wait(POLL)

    def _look(self) -> None:
        if self._chores is not None and (self._chore is None or self._chore.done()):
            self._chore = self._aside.submit(self._tried, "chores", self._chores)
        for shard in self._store.unsettled_shards():
            running = self._running.get(shard)
            if (running is not None and not running.done()) or self._stopping.is_set():
                continue
            if self._paused(shard) or not self._locks.own(shard):
                continue
            self._running[shard] = self._pool.submit(self._work, shard)

    def _tried(self, name: str, work: Callable[[], None]) -> bool:
        """Does something that is done again and again; whether it went well."""
        try:
            work()
        except UnavailableError as error:
            log.warning("database_away", error=str(error))
        except Exception:  # whatever it is, the next time may work
            log.exception(f"{name}_failed_unexpectedly")
            metrics.faults.inc()
        else:
            return True
        return False

    def _paused(self, shard: int) -> bool:
        """Whether everything that is left in the shard failed a moment ago."""
        pause = self._pauses.get(shard)
        if pause is None or time.monotonic() >= pause.until:
            return False
        return self._unsettled(shard) <= pause.failed

    def _unsettled(self, shard: int) -> set[tuple[str, int]]:
        return {(b.binding_id, b.generation) for b in self._store.of_shard(shard) if not b.settled}

    def _work(self, shard: int) -> None:
        try:
            if not self._locks.holds(shard):
                return
            self.update(shard)
        except EngineError as error:
            log.error("update_without_result", shard=shard, error=str(error))  # noqa: TRY400 - expected, no traceback
            self._failed_as_a_whole(shard, str(error))
        except UnavailableError as error:
            log.warning("database_away", shard=shard, error=str(error))
        except Exception as error:  # the loop must outlive whatever a shard holds
            log.exception("update_failed_unexpectedly", shard=shard)
            metrics.faults.inc()
            self._failed_as_a_whole(shard, f"the broker failed ({type(error).__name__}); its log says why")
        if not self._pause(shard) and not self._stopping.is_set():
            self._deployer.prepare(shard)
        self.wake()

    def _failed_as_a_whole(self, shard: int, reason: str) -> None:
        try:
            left = [b for b in self._store.of_shard(shard) if not b.settled]
            self._record(
                [Result(b.binding_id, b.generation, reason, certain=False, temporary=True) for b in left]
            )
        except UnavailableError as error:
            log.warning("database_away", shard=shard, error=str(error))

    def _pause(self, shard: int) -> bool:
        """Pauses the shard where something failed, or may have."""
        try:
            left = self._unsettled(shard)
        except UnavailableError:
            return True
        if not left:
            self._pauses.pop(shard, None)
            return False
        before = self._pauses.get(shard)
        seconds = (
            min(before.seconds * 2, LONGEST_PAUSE) if before is not None and left <= before.failed else POLL
        )
        self._pauses[shard] = _Pause(time.monotonic() + seconds, seconds, left)
        return True


@dataclass(frozen=True)
class _Pause:
    until: float
    seconds: float
    failed: set[tuple[str, int]] = field(default_factory=set)


def wanted_of(binding: Binding) -> Wanted:
    """A wanted binding, as an update takes it."""
    route = binding.route
    if route is None:
        raise ValueError(f"binding {binding.binding_id} is wanted without a route")
    return Wanted(
        binding.binding_id,
        binding.generation,
        route,
        virtual_ips=tuple(binding.virtual_ips or ()),
        applied=binding.applied > 0,
        settled=binding.settled,
    )


def _given_up(binding: Binding) -> bool:
    """Whether a route was tried in vain and never was: it would only hold up the others of its shard."""
    return binding.applied == 0 and binding.attempts >= ATTEMPTS
