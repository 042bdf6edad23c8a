"""One `up` of a stack, whose routes may be named when it has begun.

The program registers the plugin and then waits for what it shall declare. By then the CLI has started, opened the state and
configured the plugin, which is most of what a small update takes; so an update that was begun ahead of time has only the
objects left to do.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pulumi
import structlog
from pulumi import automation as auto
from pulumi.automation import errors as auto_errors
from pulumi.automation import events

from broker import tracing
from broker.command import plain, reason
from broker.program import Declared, Wanted, declare, plugin_of
from broker.settings import Settings
from broker.store.locks import HOLD_TIMEOUT

WATCH = 1.0
"""Seconds between two looks whether the shard of an update that runs is still this replica's."""
FOREIGN_LOCK_SECONDS = WATCH + 2 * HOLD_TIMEOUT + 2.0
"""How long a stack lock of another machine is respected once this replica owns the shard: by then a replica that lost the
shard has noticed and ended its engine."""
LOCK_PATIENCE = 20.0
"""How long the lock of an engine that lives is waited for."""
LOCK_POLL = 0.2
IDLE = 600.0
"""Seconds for which an update that was begun ahead of time waits to be needed."""

_OURS = "::meshbridge:index:"
_LOCKED_BY = re.compile(r"created by \S+@(?P<host>\S+) \(pid (?P<pid>[0-9]+)\)[^\n]*")

log = structlog.get_logger(__name__)


class EngineError(RuntimeError):
    """An update that came to no result for any binding. The message holds no secrets."""


class ReleasedError(RuntimeError):
    """An update that was begun ahead of time and is not needed."""


class Stack(auto.Stack):
    """A stack of which nobody asks the CLI what the program and the events tell already."""

    def outputs(self) -> auto.OutputMap:
        """None."""
        return {}

    def info(self, show_secrets: bool = True) -> auto.UpdateSummary | None:
        """That it succeeded: what did not has raised an error by then."""
        del show_secrets
        return auto.UpdateSummary("update", _NEVER, "", {}, {}, "succeeded")


@dataclass
class Seen:
    """What the event stream said. failures: messages by the resource's name; present: the URNs of what stays, by the slug of
    its component; ended: whether the engine came to the end of the update."""

    failures: dict[str, list[str]] = field(default_factory=dict)
    present: dict[str, set[str]] = field(default_factory=dict)
    ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, event: events.EngineEvent) -> None:
        """One more event."""
        with self._lock:
            if event.summary_event is not None:
                self.ended = True
            elif event.resource_pre_event is not None:
                self._note(event.resource_pre_event.metadata)
            elif event.res_op_failed_event is not None:
                self.failures.setdefault(name_of(event.res_op_failed_event.metadata.urn), [])
            elif event.diagnostic_event is not None and event.diagnostic_event.severity == "error":
                urn = event.diagnostic_event.urn or ""
                self.failures.setdefault(name_of(urn), []).append(plain(event.diagnostic_event.message))

    def _note(self, step: events.StepEventMetadata) -> None:
        owner = owner_of(step.urn, step.new.parent) if step.new is not None else None
        if owner is not None:
            self.present.setdefault(owner, set()).add(step.urn)


class Update:
    """An update that has begun. wanted: the routes that it was told to declare; `declared` and `seen` are whole when it has
    ended."""

    def __init__(
        self,
        settings: Settings,
        stack: Stack,
        kept: Mapping[str, frozenset[str]] | None = None,
        *,
        refresh: bool = False,
    ) -> None:
        """kept: URNs by slug of what stays as it is though it is not declared."""
        self.wanted: Sequence[Wanted] = ()
        self.declared, self.seen = Declared(), Seen()
        self.kept = kept or {}
        self._settings, self._stack, self._refresh = settings, stack, refresh
        self._work: Future[Sequence[Wanted]] = Future()
        self._outcome: Future[str | None] = Future()
        self._received = False
        threading.Thread(target=self._run, name=f"up-{stack.name}", daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it is no more."""
        return self._outcome.done()

    @property
    def unused(self) -> bool:
        """Whether it ended before its program heard what it is for: nothing was changed."""
        return self.ended and not self._received

    def finish(self, wanted: Sequence[Wanted]) -> str | None:
        """Declares the routes, and waits for the end: None where it succeeded, else why not. Raises EngineError where the
        stack stays locked."""
        self.wanted = wanted
        with tracing.span("up", {"meshbridge.stack": self._stack.name, "meshbridge.refresh": self._refresh}):
            with suppress(InvalidStateError):  # it gave up waiting
                self._work.set_result(wanted)
            return self._outcome.result()

    def release(self) -> None:
        """Lets it end without having changed anything, unless it was told what for."""
        with suppress(InvalidStateError):  # it was told, or gave up waiting
            self._work.set_exception(ReleasedError())

    def wait(self, seconds: float) -> bool:
        """Whether it ends within so many seconds."""
        return bool(wait([self._outcome], seconds).done)

    def _run(self) -> None:
        log_debug_nowhere()
        try:
            self._outcome.set_result(self._up())
        except BaseException as error:  # noqa: BLE001 - whoever waits for the end shall see it
            self._outcome.set_exception(error)
        finally:
            self.release()

    async def _program(self) -> None:
        plugin = plugin_of(self._settings)
        wanted = await asyncio.wait_for(asyncio.wrap_future(self._work), IDLE)
        self._received = True
        declare(self._settings, plugin, wanted, self.declared)

    def _up(self) -> str | None:
        """Waits for the lock of an engine that lives, and breaks that of a dead one. Raises EngineError where the lock
        stays."""
        began = time.monotonic()
        found: dict[str, float] = {}
        while True:
            try:
                self._stack.up(
                    program=self._program,
                    on_event=self.seen.take,
                    exclude=[urn for urns in self.kept.values() for urn in sorted(urns)],
                    continue_on_error=True,
                    suppress_outputs=True,
                    suppress_progress=True,
                    refresh=self._refresh or None,
                )
            except auto_errors.ConcurrentUpdateError as error:
                now = time.monotonic()
                owners = {owner[0]: owner for owner in _LOCKED_BY.finditer(str(error))}
                found = {text: found.get(text, now) for text in owners}
                if owners and all(_is_dead(owner, now - found[text]) for text, owner in owners.items()):
                    log.warning(
                        "breaking_the_lock_of_a_dead_engine", stack=self._stack.name, owners=list(owners)
                    )
                    self._stack.cancel()
                elif now - began > LOCK_PATIENCE:
                    raise EngineError(
                        f"the stack {self._stack.name} is locked: {', '.join(owners) or 'nobody knows by whom'}; only "
                        "brokers may update it"
                    ) from None
                else:
                    time.sleep(LOCK_POLL)
            except auto_errors.CommandError as error:
                return reason(str(error))
            else:
                return None


def log_debug_nowhere() -> None:
    """Pulumi's SDK tells the engine of every step of every registration, and waits for its answer each time, though the
    engine drops what nobody asked for (`pulumi up --debug`): a third of the time in which many routes are made."""
    pulumi.log.debug = _nowhere


def _nowhere(
    msg: str,
    resource: pulumi.Resource | None = None,
    stream_id: int | None = None,
    ephemeral: bool | None = None,
) -> None:
    del msg, resource, stream_id, ephemeral


def name_of(urn: str) -> str:
    """A URN's resource name."""
    return urn.rpartition("::")[2]


def owner_of(urn: str, parent: str) -> str | None:
    """The slug of the component that a resource belongs to, or is; None for none of ours. parent: a URN, or empty."""
    if _OURS in parent:
        return name_of(parent)
    return name_of(urn) if _OURS in urn else None


def _is_dead(owner: re.Match[str], seconds: float) -> bool:
    """Whether the engine that holds a stack's lock is known to be no more. seconds: since the lock was first seen."""
    if owner["host"] != socket.gethostname():
        return seconds > FOREIGN_LOCK_SECONDS
    try:
        command = Path(f"/proc/{owner['pid']}/cmdline").read_bytes()
    except OSError:
        return True
    return Path(command.split(b"\0")[0].decode(errors="replace")).name != "pulumi"


_NEVER = datetime.fromtimestamp(0, UTC)
