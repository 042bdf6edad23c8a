"""One update of one shard's stack with Pulumi's Automation API, and what it did for each binding.

An update is two processes at most: `stack init` once, then `up`. What the Automation API would ask the CLI for afterwards
(outputs, history) comes from the program itself and the event stream. The state is saved once, at the end
(`PULUMI_SKIP_CHECKPOINTS`); what a killed engine made is known to the store as uncertain, and taken up by the next run.

The engine's own lock of a stack is broken where its owner is known to be dead: a process of this machine that is no more, or
one of another machine, once this replica has owned the shard for longer than a replica that lost it lets its engine live
(FOREIGN_LOCK_SECONDS). Nobody but brokers may hence update a broker's stacks.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

import structlog
from pulumi import automation as auto
from pulumi.automation import _stack as auto_stack
from pulumi.automation import errors as auto_errors
from pulumi.automation import events

from broker import network, tracing
from broker.program import Declared, Wanted, declare, undeclarable
from broker.settings import PASSWORD_PARAMETERS, Settings
from broker.store.locks import HOLD_TIMEOUT
from broker.store.store import Result

PROJECT = "meshbridge"
ORGANIZATION = "organization"
WATCH = 1.0
"""Seconds between two looks whether the shard of an update that runs is still this replica's."""
FOREIGN_LOCK_SECONDS = WATCH + 2 * HOLD_TIMEOUT + 2.0
"""How long a stack lock of another machine is respected once this replica owns the shard: by then a replica that lost the
shard has noticed and ended its engine."""
LOCK_PATIENCE = 20.0
"""How long the lock of an engine that lives is waited for."""
LOCK_POLL = 0.2

_LOCKED_BY = re.compile(r"created by \S+@(?P<host>\S+) \(pid (?P<pid>[0-9]+)\)[^\n]*")
_UNREACHABLE = re.compile(
    r"unreachable|connection refused|connection reset|no answer|timed? ?out|EOF", re.IGNORECASE
)

log = structlog.get_logger(__name__)


class EngineError(RuntimeError):
    """An update that came to no result for any binding. The message holds no secrets."""


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
        self._directory = Path(tempfile.mkdtemp(prefix=f"meshbridge-{settings.stack}-"))
        self._command = _Command(binary, self._directory)
        self._stacks: dict[int, _Stack] = {}

    def close(self) -> None:
        """See Deployer."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def kill(self, shard: int) -> None:
        """See Deployer."""
        self._command.kill(str(self._folder(shard)))

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
        stack = self._stack(shard)
        declared, seen = Declared(), _Seen()

        def program() -> None:
            declare(self._settings, wanted, declared)

        failure = self._up(stack, program, seen, refresh=refresh)
        if failure is None:
            certain = [_done(item, declared) for item in wanted]
            return [*refused.values(), *certain, *(_gone(item) for item in gone)]
        failure = redacted(failure, self._settings.state)
        if not seen.ended:
            raise EngineError(failure)
        log.warning("update_failed", shard=shard, error=failure, failed=sorted(seen.failures))
        present = _resources(stack)
        return [
            *refused.values(),
            *(_judged(item, declared, seen, present, failure) for item in wanted),
            *(_judged_gone(item, seen, present, failure) for item in gone),
        ]

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
                program=lambda: declare(self._settings, wanted, Declared()),
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
        self._command.allow(str(self._folder(shard)))
        try:
            yield
        except auto_errors.StackNotFoundError:
            self._stacks.pop(shard, None)
            raise
        except auto_errors.CommandError as error:
            raise EngineError(redacted(_reason(str(error)), self._settings.state)) from None

    def _folder(self, shard: int) -> Path:
        return self._directory / f"{self._settings.stack}-{shard}"

    def _stack(
        self, shard: int, mode: auto_stack.StackInitMode = auto_stack.StackInitMode.CREATE_OR_SELECT
    ) -> _Stack:
        if shard not in self._stacks:
            directory = self._folder(shard)
            directory.mkdir(exist_ok=True)
            workspace = auto.LocalWorkspace(
                work_dir=str(directory),
                env_vars=_environment(self._settings.state),
                project_settings=auto.ProjectSettings(name=PROJECT, runtime="python"),
                pulumi_command=self._command,
            )
            self._stacks[shard] = _Stack(f"{ORGANIZATION}/{PROJECT}/{directory.name}", workspace, mode)
        return self._stacks[shard]

    def _up(self, stack: _Stack, program: auto.PulumiFn, seen: _Seen, *, refresh: bool) -> str | None:
        """Runs the update; None where it succeeded, else why not. Waits for the lock of an engine that lives, and breaks
        that of a dead one. Raises EngineError where the lock stays."""
        began = time.monotonic()
        found: dict[str, float] = {}
        while True:
            try:
                with tracing.span("up", {"meshbridge.stack": stack.name, "meshbridge.refresh": refresh}):
                    stack.up(
                        program=program,
                        on_event=seen.take,
                        continue_on_error=True,
                        suppress_outputs=True,
                        suppress_progress=True,
                        refresh=refresh or None,
                    )
            except auto_errors.ConcurrentUpdateError as error:
                now = time.monotonic()
                owners = {owner[0]: owner for owner in _LOCKED_BY.finditer(str(error))}
                found = {text: found.get(text, now) for text in owners}
                if owners and all(_is_dead(owner, now - found[text]) for text, owner in owners.items()):
                    log.warning("breaking_the_lock_of_a_dead_engine", stack=stack.name, owners=list(owners))
                    stack.cancel()
                elif now - began > LOCK_PATIENCE:
                    raise EngineError(
                        f"the stack {stack.name} is locked: {', '.join(owners) or 'nobody knows by whom'}; only "
                        "brokers may update it"
                    ) from None
                else:
                    time.sleep(LOCK_POLL)
            except auto_errors.CommandError as error:
                return _reason(str(error))
            else:
                return None


class _Stack(auto.Stack):
    """A stack of which nobody asks the CLI what the program and the events tell already."""

    def outputs(self) -> auto.OutputMap:
        return {}

    def info(self, show_secrets: bool = True) -> auto.UpdateSummary | None:
        del show_secrets
        return auto.UpdateSummary("update", _NEVER, "", {}, {}, "succeeded")


@dataclass
class _Seen:
    """What the event stream said. failures: messages by the resource's name; ended: whether the engine came to the end
    of the update."""

    failures: dict[str, list[str]] = field(default_factory=dict)
    ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, event: events.EngineEvent) -> None:
        with self._lock:
            if event.summary_event is not None:
                self.ended = True
            elif event.res_op_failed_event is not None:
                self.failures.setdefault(_name(event.res_op_failed_event.metadata.urn), [])
            elif event.diagnostic_event is not None and event.diagnostic_event.severity == "error":
                urn = event.diagnostic_event.urn or ""
                self.failures.setdefault(_name(urn), []).append(_plain(event.diagnostic_event.message))


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
                owner = _owner(step.urn, state.parent)
                if owner is not None:
                    self.changes.setdefault(owner, set()).add(f"{operation} {_name(step.urn)}")


_OURS = "::meshbridge:index:"
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


def _gone(item: Gone) -> Result:
    return Result(item.binding_id, item.generation, None, certain=True)


def _done(item: Wanted, declared: Declared) -> Result:
    return Result(item.binding_id, item.generation, None, True, _virtual_ips(item, declared))


def _judged(
    item: Wanted, declared: Declared, seen: _Seen, present: Mapping[str, set[str]], failure: str
) -> Result:
    """What an update that failed as a whole did for a binding that is wanted: done is only what the state knows whole
    and nothing complained about."""
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


def _judged_gone(item: Gone, seen: _Seen, present: Mapping[str, set[str]], failure: str) -> Result:
    left = {name for slug in present if network.is_slug_of(slug, item.binding_id) for name in present[slug]}
    if not left:
        return _gone(item)
    messages = [message for name in sorted(left) for message in seen.failures.get(name, [])]
    return Result(item.binding_id, item.generation, "; ".join(messages) or failure, True)


def _virtual_ips(item: Wanted, declared: Declared) -> list[str]:
    return [declared.virtual_ips[slug] for slug in item.slugs if slug in declared.virtual_ips]


def _resources(stack: _Stack) -> dict[str, set[str]]:
    """The names of the resources that the state knows, by the slug of their component."""
    deployment = stack.export_stack().deployment or {}
    found: dict[str, set[str]] = {}
    for resource in deployment.get("resources", ()):
        owner = _owner(resource["urn"], resource.get("parent", ""))
        if owner is not None:
            found.setdefault(owner, set()).add(_name(resource["urn"]))
    return found


def _owner(urn: str, parent: str) -> str | None:
    """The slug of the component that a resource belongs to, or is; None for none of ours."""
    if _OURS in parent:
        return _name(parent)
    return _name(urn) if _OURS in urn else None


def _name(urn: str) -> str:
    return urn.rpartition("::")[2]


def _plain(message: str) -> str:
    """A diagnostic without colour codes."""
    return re.sub(r"<\{%[^%]*%\}>|\x1b\[[0-9;]*m", "", message).strip()


def _reason(text: str) -> str:
    """The engine's errors out of all that it wrote."""
    lines = [line.strip() for line in text.splitlines() if "error:" in line]
    return _plain("; ".join(dict.fromkeys(lines)))[:2000] or "the engine ended without a result"


def _is_dead(owner: re.Match[str], seconds: float) -> bool:
    """Whether the engine that holds a stack's lock is known to be no more. seconds: since the lock was first seen."""
    if owner["host"] != socket.gethostname():
        return seconds > FOREIGN_LOCK_SECONDS
    try:
        command = Path(f"/proc/{owner['pid']}/cmdline").read_bytes()
    except OSError:
        return True
    return Path(os.fsdecode(command.split(b"\0")[0])).name != "pulumi"


def redacted(text: str, url: str) -> str:
    """The text without the password of a URL, however it is written."""
    parts = urlsplit(url)
    secrets = {value for key, value in parse_qsl(parts.query) if key.lower() in PASSWORD_PARAMETERS}
    secrets |= {parts.password or "", unquote(parts.password or "")}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _environment(state: str) -> dict[str, str]:
    """What the engine is told beside its arguments. The state holds no secrets, so its passphrase is empty."""
    return {
        "PULUMI_BACKEND_URL": _backend(state),
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_EXPERIMENTAL": "true",
        "PULUMI_SKIP_CHECKPOINTS": "true",
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
    }


def _backend(state: str) -> str:
    """The backend's URL. A file backend's folder is made and spelled absolutely, because each stack works in a folder of
    its own, and keeps no second file beside each: those are not replaced atomically, so that an engine killed between two
    writes would leave a state that no command can read."""
    parts = urlsplit(state)
    if parts.scheme != "file":
        return state
    folder = Path(unquote(parts.netloc + parts.path)).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    query = [parts.query] if parts.query else []
    if "metadata" not in parse_qs(parts.query):
        query.append("metadata=skip")
    return f"{folder.as_uri()}?{'&'.join(query)}"


class _Command(auto.PulumiCommand):
    """The CLI, which ends when this process does, however that happens, and when it is told to: two engines must never
    write one state. A session of its own keeps Ctrl-C from an update that runs."""

    def __init__(self, binary: str, directory: Path) -> None:
        super().__init__()
        leash = directory / "pulumi"
        leash.write_text(_LEASH.format(python=sys.executable, parent=os.getpid(), binary=binary))
        leash.chmod(0o700)
        self.command = str(leash)
        self._mutex = threading.Lock()
        self._running: dict[str, subprocess.Popen[str]] = {}
        self._killed: set[str] = set()

    def allow(self, folder: str) -> None:
        """Commands in this folder may run from now on."""
        with self._mutex:
            self._killed.discard(folder)

    def kill(self, folder: str) -> None:
        """Ends the command that runs in the folder, and lets no other begin."""
        with self._mutex:
            self._killed.add(folder)
            process = self._running.get(folder)
            if process is not None and process.poll() is None:
                for pid in (process.pid, *_descendants(process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], object] | None = None,
        on_error: Callable[[str], object] | None = None,
    ) -> auto.CommandResult:
        """See PulumiCommand; the output comes whole, at the end. Raises CommandError."""
        del on_output, on_error
        with self._mutex:
            if cwd in self._killed:
                raise auto_errors.CommandError(auto.CommandResult("", f"error: {_LOST}", -signal.SIGKILL))
            process = subprocess.Popen(
                [self.command, "--non-interactive", *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env={**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"},
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._running[cwd] = process
        with process:
            stdout, stderr = process.communicate()
        with self._mutex:
            self._running.pop(cwd, None)
            if cwd in self._killed:
                stderr = f"error: {_LOST}"
        result = auto.CommandResult(stdout, stderr, process.returncode)
        if process.returncode != 0:
            raise auto_errors.create_command_error(result)
        return result


def _descendants(pid: int) -> list[int]:
    """The processes below a process: plugins have process groups of their own."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [child, *_descendants(child)]
    return found


_LOST = "this replica lost the shard, so its engine was ended"

_LEASH = """#!{python} -IS
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != {parent}:
    sys.exit("the broker is gone")
os.execv({binary!r}, [{binary!r}, *sys.argv[1:]])
"""
"""PR_SET_PDEATHSIG, and the parent looked at afterwards: it may have died before."""

_NEVER = datetime.fromtimestamp(0, UTC)
