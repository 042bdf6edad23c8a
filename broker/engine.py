"""Brings one shard's stack to what is wanted with Pulumi's Automation API, and says what that did for each binding.

An update is two processes at most: `stack init` once, then `up`. What the Automation API would ask the CLI for afterwards
(outputs, history) comes from the program itself and the event stream. The state is saved once, at the end
(`PULUMI_SKIP_CHECKPOINTS`); what a killed engine made is known to the store as uncertain, and taken up by the next run.
Settled bindings that this process has declared are excluded from an update, which hence takes as long as its changes.

The engine's own lock of a stack is broken where its owner is known to be dead: a process of this machine that is no more, or
one of another machine, once this replica has owned the shard for longer than a replica that lost it lets its engine live
(FOREIGN_LOCK_SECONDS). Nobody but brokers may hence update a broker's stacks.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
from pulumi import automation as auto
from pulumi.automation import _stack as auto_stack
from pulumi.automation import errors as auto_errors
from pulumi.automation import events

from broker import network
from broker.command import Command, OwnFolder, environment, quiet_home, reason, redacted
from broker.program import Declared, Wanted, declare, plugin_of, undeclarable
from broker.settings import Settings
from broker.store.store import Result
from broker.update import EngineError, Seen, Stack, Update, name_of, owner_of

PROJECT = "meshbridge"
ORGANIZATION = "organization"
COMMAND_LINE, EXCLUDE = 1_000_000, len("--exclude") + 2
"""Bytes that the URNs of what is kept may take of the CLI's command line, of which Linux allows 2 MiB, the environment included;
and those that each URN takes besides its own."""
RELEASE = 1.0
"""Seconds that an update which was begun ahead of time gets to end by itself."""

_UNREACHABLE = re.compile(
    r"unreachable|connection refused|connection reset|no answer|timed? ?out|EOF", re.IGNORECASE
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Gone:
    """A binding whose route shall not be there."""

    binding_id: str
    generation: int


class Deployer(Protocol):
    """What brings a shard's stack to what is wanted."""

    def apply(
        self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone], *, refresh: bool = False
    ) -> list[Result]:
        """Applies the wanted routes and removes all others of the shard; one result for each binding.

        refresh: compare with the cluster instead of with the state. Raises EngineError when nothing can be said.
        """

    def prepare(self, shard: int) -> None:
        """Begins the next update of a shard ahead of time, where that is wanted: `apply` then takes less long."""

    def retain(self, kept: Callable[[int], bool]) -> None:
        """Ends what was begun ahead of time for shards that are not to be kept."""

    def kill(self, shard: int) -> None:
        """Ends the update of the shard that runs, at once; `apply` then raises EngineError."""

    def close(self) -> None:
        """Leaves nothing behind on this machine."""


class Engine:
    """The deployer that runs Pulumi. One update a stack at a time; that is the caller's part."""

    def __init__(self, settings: Settings) -> None:
        """Raises EngineError where there is no CLI."""
        self._settings = settings
        binary = shutil.which("pulumi")
        if binary is None:
            raise EngineError("there is no `pulumi` on PATH; install the Pulumi CLI")
        self._own_folder = OwnFolder(f"meshbridge-broker-{settings.stack}-")
        self._directory = self._own_folder.path
        self._home = quiet_home(self._directory)
        self._command = Command(binary, self._directory)
        self._stacks: dict[int, Stack] = {}
        self._prepared: dict[int, Update] = {}
        self._standing: dict[int, dict[str, frozenset[str]]] = {}
        """By shard, what the last update left there as this process declares it: URNs by slug."""
        self._mutex = threading.Lock()

    def close(self) -> None:
        """See Deployer."""
        self.retain(lambda _: False)
        self._own_folder.remove()

    def kill(self, shard: int) -> None:
        """See Deployer."""
        self._command.kill(self._folder(shard))

    def prepare(self, shard: int) -> None:
        """See Deployer. At most `prepared` updates wait; the one that has waited longest makes room."""
        if not self._settings.prepared:
            return
        with self._running(shard):
            stack = self._stack(shard)
        with self._mutex:
            waits = self._prepared.pop(shard, None)
            if waits is None or waits.ended:
                waits = Update(self._settings, stack, self._standing.get(shard))
            self._prepared[shard] = waits
            waiting = [number for number, update in self._prepared.items() if not update.ended]
        self._release(waiting[: -self._settings.prepared])

    def retain(self, kept: Callable[[int], bool]) -> None:
        """See Deployer. What is known of the shards is forgotten with it."""
        with self._mutex:
            known = {*self._prepared, *self._standing}
        leaving = [shard for shard in known if not kept(shard)]
        with self._mutex:
            for shard in leaving:
                self._standing.pop(shard, None)
        self._release(leaving)

    def _release(self, shards: Iterable[int]) -> None:
        """Ends what was begun ahead of time for these. One that does not end within RELEASE is killed."""
        leaving = {shard: update for shard in shards if (update := self._taken(shard))}
        for update in leaving.values():
            update.release()
        deadline = time.monotonic() + RELEASE
        for shard, update in leaving.items():
            if not update.wait(max(0.0, deadline - time.monotonic())):
                self.kill(shard)
                update.wait(RELEASE)

    def apply(
        self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone], *, refresh: bool = False
    ) -> list[Result]:
        """See Deployer."""
        with self._running(shard):
            return self._apply(shard, wanted, gone, refresh=refresh)

    def _apply(
        self, shard: int, wanted: Sequence[Wanted], gone: Sequence[Gone], *, refresh: bool
    ) -> list[Result]:
        refused = _refused(self._settings, wanted)
        wanted = [item for item in wanted if item.binding_id not in refused]
        with self._mutex:
            standing = self._standing.pop(shard, {})
        update, failure = self._finished(shard, wanted, {} if refresh else standing, refresh=refresh)
        if failure is None:
            with self._mutex:
                self._standing[shard] = {**update.kept, **_present(update)}
            certain = [_done(item, update.declared) for item in update.wanted]
            return [*refused.values(), *certain, *(_gone(item) for item in gone)]
        failure = redacted(failure, self._settings.state)
        if not update.seen.ended:
            raise EngineError(failure)
        log.warning("update_failed", shard=shard, error=failure, failed=sorted(update.seen.failures))
        present = _resources(self._stack(shard))
        return [
            *refused.values(),
            *(_judged(item, update, present, failure) for item in update.wanted),
            *(_judged_gone(item, update.seen, present, failure) for item in gone),
        ]

    def _finished(
        self, shard: int, wanted: Sequence[Wanted], standing: Mapping[str, frozenset[str]], *, refresh: bool
    ) -> tuple[Update, str | None]:
        """The update that was begun ahead of time, else a new one, and why it failed. Settled bindings that stand are not
        declared again: they would take as long as new ones."""
        kept = _kept(wanted, standing)
        prepared = self._taken(shard)
        if prepared is not None:
            if not refresh and prepared.kept.items() <= kept.items():
                failure = prepared.finish(_changed(wanted, prepared.kept))
                if not prepared.unused:
                    return prepared, failure
            prepared.release()
            prepared.wait(RELEASE)
        update = Update(self._settings, self._stack(shard), kept, refresh=refresh)
        return update, update.finish(_changed(wanted, kept))

    def _taken(self, shard: int) -> Update | None:
        with self._mutex:
            return self._prepared.pop(shard, None)

    def resources(self, shard: int) -> set[str]:
        """Slugs of which the shard's state knows resources. Raises EngineError."""
        with self._running(shard):
            try:
                return set(_resources(self._stack(shard, auto_stack.StackInitMode.SELECT)))
            except auto_errors.StackNotFoundError:
                return set()

    def drift(self, shard: int, wanted: Sequence[Wanted]) -> dict[str, set[str]]:
        """What an update that compares with the cluster would change, by the slug: each object with what would be done to
        it. Changes nothing. Raises EngineError."""
        refused = _refused(self._settings, wanted)
        wanted = [item for item in wanted if item.binding_id not in refused]
        seen = _Planned()
        with self._running(shard):
            self._stack(shard, auto_stack.StackInitMode.SELECT).preview(
                program=lambda: declare(self._settings, plugin_of(self._settings), wanted, Declared()),
                on_event=seen.take,
                refresh=True,
                suppress_progress=True,
            )
        return seen.changes

    @contextlib.contextmanager
    def _running(self, shard: int) -> Iterator[None]:
        """Commands for a shard, until they end or are killed; their failures are EngineErrors without secrets.

        StackNotFoundError passes.
        """
        self._command.allow(self._folder(shard))
        try:
            yield
        except auto_errors.StackNotFoundError:
            self._stacks.pop(shard, None)
            raise
        except auto_errors.CommandError as error:
            raise EngineError(redacted(reason(str(error)), self._settings.state)) from None

    def _folder(self, shard: int) -> Path:
        return self._directory / f"{self._settings.stack}-{shard}"

    def _stack(
        self, shard: int, mode: auto_stack.StackInitMode = auto_stack.StackInitMode.CREATE_OR_SELECT
    ) -> Stack:
        if shard not in self._stacks:
            directory = self._folder(shard)
            directory.mkdir(exist_ok=True)
            workspace = auto.LocalWorkspace(
                work_dir=str(directory),
                env_vars=environment(self._settings.state, self._home),
                project_settings=auto.ProjectSettings(name=PROJECT, runtime="python"),
                pulumi_command=self._command,
            )
            self._stacks[shard] = Stack(f"{ORGANIZATION}/{PROJECT}/{directory.name}", workspace, mode)
        return self._stacks[shard]


@dataclass
class _Planned:
    """What a preview would change, by slug."""

    changes: dict[str, set[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, event: events.EngineEvent) -> None:
        if event.resource_pre_event is None:
            return
        step = event.resource_pre_event.metadata
        state = step.new or step.old
        operation = str(getattr(step.op, "value", step.op))
        if operation not in _CHANGES_NOTHING and state is not None:
            with self._lock:
                owner = owner_of(step.urn, state.parent)
                if owner is not None:
                    self.changes.setdefault(owner, set()).add(f"{operation} {name_of(step.urn)}")


_CHANGES_NOTHING = {"same", "refresh", "read"}


def _refused(settings: Settings, wanted: Sequence[Wanted]) -> dict[str, Result]:
    """The bindings that cannot be declared, each failed alone. One that has a route would lose it if it were left out:
    then nothing is done. Raises EngineError."""
    refused: dict[str, Result] = {}
    for item in wanted:
        reason = undeclarable(settings, item)
        if reason is None:
            continue
        if item.applied:
            raise EngineError(
                f"binding {item.binding_id} has a route that can no longer be declared ({reason}); without it, the "
                "route would be removed, so the shard stays as it is; correct the settings"
            )
        refused[item.binding_id] = Result(item.binding_id, item.generation, reason, certain=True)
    return refused


def _kept(wanted: Sequence[Wanted], standing: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
    """What need not be declared again, by slug: that of settled bindings which stand whole, as far as COMMAND_LINE goes."""
    kept: dict[str, frozenset[str]] = {}
    room = COMMAND_LINE
    for item in wanted:
        if item.settled and standing.keys() >= set(item.slugs):
            found = {slug: standing[slug] for slug in item.slugs}
            room -= sum(len(urn) + EXCLUDE for urns in found.values() for urn in urns)
            if room < 0:
                break
            kept |= found
    return kept


def _changed(wanted: Sequence[Wanted], kept: Mapping[str, frozenset[str]]) -> list[Wanted]:
    """The bindings to declare."""
    return [item for item in wanted if not item.settled or not kept.keys() >= set(item.slugs)]


def _present(update: Update) -> dict[str, frozenset[str]]:
    """What an update that succeeded left there of bindings that it declared: URNs by slug, where it told of all."""
    found = {slug: update.seen.present.get(slug, set()) for item in update.wanted for slug in item.slugs}
    return {
        slug: frozenset(urns)
        for slug, urns in found.items()
        if {name_of(urn) for urn in urns} == {slug, *update.declared.resources[slug]}
    }


def _gone(item: Gone) -> Result:
    return Result(item.binding_id, item.generation, None, certain=True)


def _done(item: Wanted, declared: Declared) -> Result:
    return Result(item.binding_id, item.generation, None, True, _virtual_ips(item, declared))


def _judged(item: Wanted, update: Update, present: Mapping[str, set[str]], failure: str) -> Result:
    """What an update that failed as a whole did for a binding that is wanted: done is only what the state knows whole
    and nothing complained about."""
    declared, seen = update.declared, update.seen
    missing: set[str] = set()
    messages: list[str] = []
    failed = False
    for slug in item.slugs:
        expected = declared.resources.get(slug) or {slug}
        missing |= expected - present.get(slug, set())
        for name in expected & seen.failures.keys():
            failed = True
            messages += seen.failures[name]
    if not failed and not missing:
        return _done(item, declared)
    reason = "; ".join(messages) or (failure if not failed else f"not made: {', '.join(sorted(missing))}")
    away = _UNREACHABLE.search(reason) is not None
    return Result(item.binding_id, item.generation, reason, certain=not away, temporary=away)


def _judged_gone(item: Gone, seen: Seen, present: Mapping[str, set[str]], failure: str) -> Result:
    left = {name for slug in present if network.is_slug_of(slug, item.binding_id) for name in present[slug]}
    if not left:
        return _gone(item)
    messages = [message for name in sorted(left) for message in seen.failures.get(name, [])]
    return Result(item.binding_id, item.generation, "; ".join(messages) or failure, True)


def _virtual_ips(item: Wanted, declared: Declared) -> list[str]:
    return [declared.virtual_ips[slug] for slug in item.slugs if slug in declared.virtual_ips]


def _resources(stack: Stack) -> dict[str, set[str]]:
    """The names of the resources that the state knows, by the slug of their component."""
    deployment = stack.export_stack().deployment or {}
    found: dict[str, set[str]] = {}
    for resource in deployment.get("resources", ()):
        owner = owner_of(resource["urn"], resource.get("parent", ""))
        if owner is not None:
            found.setdefault(owner, set()).add(name_of(resource["urn"]))
    return found
