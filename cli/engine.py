"""The Pulumi engine as these commands use it: which state it keeps, with which passphrase, and one call per operation.

State. `PULUMI_BACKEND_URL` of the user wins; without it everything lies in `.state/` of the checkout, never in the
backend the user is logged in to. With the local state, the stack files are never written to: Pulumi would add the
passphrase's salt to them, so the engine reads a copy with the salt (`.state/settings/`) instead.

Passphrase. `PULUMI_CONFIG_PASSPHRASE[_FILE]` of the user wins; the local state has a generated one otherwise.
"""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml
from pydantic import JsonValue, TypeAdapter, ValidationError

import tools
from cli import process
from cli.errors import CliError, ExitCode
from cli.project import Project, read_yaml

BACKEND = "PULUMI_BACKEND_URL"
PHRASE = "PULUMI_CONFIG_PASSPHRASE"
PHRASE_FILE = "PULUMI_CONFIG_PASSPHRASE_FILE"
SALT = "encryptionsalt"

_json = TypeAdapter[JsonValue](JsonValue)


@dataclass(frozen=True)
class Engine:
    """The Pulumi CLI with its environment. `local` is the directory of our own state, None with the user's backend."""

    project: Project
    binary: Path
    environment: Mapping[str, str]
    local: Path | None
    generated_phrase: bool

    def create(self, stack: str) -> Stack:
        """The stack `stack` in the state, made when it is not there."""
        return self._open(stack, "--create")

    def find(self, stack: str) -> Stack | None:
        """The stack `stack` in the state, None when it is not there."""
        try:
            return self._open(stack)
        except _NoSuchStackError:
            return None

    def store_secret(self, stack: str, key: str, value: str) -> None:
        """Encrypt `value` into the stack file, under `key` (`namespace:name`); it never stands on a command line.

        Raises CliError where the passphrase is one that this checkout generated: nobody else could decrypt the file.
        """
        file = self.project.stack_file(stack)
        if self.generated_phrase:
            raise CliError(
                f"A secret in {file} would be encrypted with a passphrase that only this checkout knows.",
                f"Set {PHRASE} or {PHRASE_FILE} (and {BACKEND}, to use a state of your own), and keep it.",
            )
        self.create(stack)
        command = ["config", "set", "--secret", key, "--stack", stack, "--config-file", str(file)]
        done = self.call(command, self.project.root, quiet=True, given=value)
        if done.code != 0:
            raise failure(f"The secret {key} of stack {stack} cannot be stored", done)

    def check_references(self, stack: str) -> None:
        """Refuse to go on when `stack` refers to a stack of this project that was never deployed."""
        missing = [name for name in sorted(self.project.references(stack)) if not self._deployed(name)]
        if missing:
            raise CliError(
                f"{self.project.stack_file(stack)} refers to {', '.join(missing)}, which was never deployed.",
                f"Deploy it first: python -m cli up {' '.join(missing)}",
            )

    def _deployed(self, stack: str) -> bool:
        """Whether `stack` exports anything; one that was only previewed is there, but empty."""
        if self.local is not None and stack not in self.project.stacks():
            return False
        found = self.find(stack)
        return found is not None and bool(found.outputs())

    def _open(self, stack: str, *flags: str) -> Stack:
        settings, directory = None, self.project.root
        if self.local is not None:
            settings = self._settings(self.local, stack)
            if settings.is_relative_to(self.local):
                directory = settings.parent
        done = self.call(["stack", "select", "--stack", stack, *flags], directory, quiet=True)
        if done.code != 0 or done.interrupted:
            if not done.interrupted and "no stack named" in done.errors:
                raise _NoSuchStackError(f"There is no stack {stack} in the state.", "Deploy it first.")
            raise failure(f"Stack {stack} cannot be opened", done)
        return Stack(self, stack, () if settings is None else ("--config-file", str(settings)))

    def call(
        self,
        arguments: list[str],
        cwd: Path,
        *,
        capture: bool = True,
        quiet: bool = False,
        given: str | None = None,
    ) -> process.Finished:
        """Run `pulumi` with `arguments`, and with `given` as its input."""
        return process.run(
            [self.binary, *arguments, "--non-interactive"],
            self.environment,
            cwd,
            capture=capture,
            quiet=quiet,
            given=given,
        )

    def _settings(self, local: Path, stack: str) -> Path:
        """The settings file that the engine reads with the local state: the stack's own, plus the salt."""
        source = self.project.stack_file(stack)
        settings = dict(read_yaml(source))
        if SALT in settings or "secretsprovider" in settings:
            if SALT in settings and self.generated_phrase:
                raise CliError(
                    f"{source} holds secrets of a passphrase that is not known here ({SALT}).",
                    f"Set {PHRASE} or {PHRASE_FILE} to the one they were made with.",
                )
            return source
        directory = local / "settings"
        directory.mkdir(parents=True, exist_ok=True)
        project = {"name": self.project.name, "runtime": "python"}
        (directory / "Pulumi.yaml").write_text(yaml.safe_dump(project), encoding="utf-8")
        copy = directory / source.name
        salt = read_yaml(copy).get(SALT) if copy.exists() else None
        content = settings if salt is None else {**settings, SALT: salt}
        # JSON, because in YAML's plain style a text such as `012345678989` or `1e3` is a number for Pulumi.
        copy.write_text(json.dumps(content, ensure_ascii=False, default=str), encoding="utf-8")
        return copy


@dataclass(frozen=True)
class Stack:
    """One stack in the state."""

    engine: Engine
    name: str
    _arguments: tuple[str, ...]

    def up(self, *, refresh: bool) -> None:
        """Make the stack as its file says; progress goes to the terminal.

        With `refresh` the state learns what is really there before; else it is believed, so what somebody changed by hand
        stays.
        """
        self._change("up", "--yes", *(["--refresh"] if refresh else []))

    def destroy(self) -> None:
        """Remove everything that the stack made."""
        self._change("destroy", "--yes")

    def unlock(self) -> None:
        """Remove the lock that a killed engine left."""
        done = self.engine.call(
            ["cancel", "--yes", "--stack", self.name], self.engine.project.root, capture=False
        )
        if done.code != 0:
            raise failure(f"The lock of stack {self.name} cannot be removed", done)

    def preview(self, *, refresh: bool) -> tuple[JsonValue, bool]:
        """What `up` would change, as the engine's JSON, and whether the preview succeeded.

        With `refresh` it is compared with what is really there instead of with what the state remembers.
        """
        flags = ["--json", *(["--refresh"] if refresh else [])]
        done = self._run("preview", *flags, capture=True)
        if done.interrupted or not done.output.strip():
            raise failure(f"The preview of stack {self.name} failed", done)
        try:
            return _json.validate_json(done.output), done.code == 0
        except ValidationError as error:
            raise failure(f"The preview of stack {self.name} is not JSON ({error})", done) from error

    def outputs(self) -> JsonValue:
        """The stack's outputs; secrets stay masked."""
        command = ["stack", "output", "--json", "--stack", self.name]
        done = self.engine.call(command, self.engine.project.root, quiet=True)
        if done.code != 0 or done.interrupted:
            raise failure(f"The outputs of stack {self.name} cannot be read", done)
        return _json.validate_json(done.output)

    def _change(self, operation: str, *flags: str) -> None:
        done = self._run(operation, *flags, capture=False)
        if done.code != 0 or done.interrupted:
            raise failure(f"`pulumi {operation}` of stack {self.name} failed", done, stack=self.name)

    def _run(self, operation: str, *flags: str, capture: bool) -> process.Finished:
        command = [operation, *flags, "--stack", self.name, *self._arguments]
        return self.engine.call(command, self.engine.project.root, capture=capture)


def prepare(project: Project) -> Engine:
    """The engine for `project`; finds, downloads or builds the Pulumi CLI when it is not there yet."""
    environment = tools.engine_environment()
    local = None if environment.get(BACKEND) else project.root / ".state"
    generate = local is not None and not environment.get(PHRASE) and not environment.get(PHRASE_FILE)
    if local is not None:
        environment[BACKEND] = tools.state_url(local)
        try:
            local.mkdir(exist_ok=True)
            if generate:
                environment.pop(PHRASE, None)
                environment[PHRASE_FILE] = str(_generated_phrase(local / "passphrase"))
        except OSError as error:
            raise CliError(
                f"The state cannot be kept in {local}: {error}.",
                f"Make it a directory that can be written, or keep the state elsewhere ({BACKEND}).",
            ) from error
    return Engine(project, tools.ensure("pulumi"), environment, local, generate)


def failure(what: str, done: process.Finished, stack: str = "STACK") -> CliError:
    """The error for an engine that did not succeed."""
    if done.interrupted:
        return CliError(
            f"{what}: it was interrupted; the state holds what was done until then.",
            "Run the same command again to finish.",
            ExitCode.INTERRUPTED,
        )
    if "currently locked" in done.errors:
        return CliError(
            f"{what}: another operation holds the stack's lock (who and since when: the lines above).",
            f"Wait for it; if it was killed, remove the lock with: python -m cli unlock {stack}",
            ExitCode.LOCKED,
        )
    if "incorrect passphrase" in done.errors:
        return CliError(
            f"{what}: its secrets were encrypted with another passphrase than that of {PHRASE} or {PHRASE_FILE}.",
            "Set one of them to the passphrase that the stack was made with, or unset both where it was made without.",
        )
    reason = done.errors.strip() or "the engine's messages above say why"
    return CliError(f"{what}: {reason}", "Correct it and run the command again.")


class _NoSuchStackError(CliError):
    """The state does not know the stack."""


def _generated_phrase(file: Path) -> Path:
    """The file with the local state's passphrase, made once, as a whole, and readable by its owner only."""
    if not file.exists():
        with tempfile.NamedTemporaryFile("w", encoding="ascii", dir=file.parent) as made:
            made.write(secrets.token_urlsafe(32))
            made.flush()
            os.fsync(made.fileno())
            with suppress(FileExistsError):
                os.link(made.name, file)
    return file
