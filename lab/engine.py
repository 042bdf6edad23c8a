"""The project's own program on Pulumi's real engine: stacks with a state of their own in a directory."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import tools
from lab.errors import LabError
from lab.processes import Process, Supervisor

ORGANIZATION = "organization/meshbridge"
ERROR_LINES = 40
TIMEOUT = 300.0
"""Seconds within which the engine must be done."""

Configuration = Mapping[str, object]
"""A stack's keys, without the prefix `meshbridge:`."""


class Project:
    """A folder with the program, its stacks' files, and a `file://` backend that holds their state."""

    def __init__(self, directory: Path, supervisor: Supervisor, progress: tools.Progress) -> None:
        directory.mkdir(parents=True)
        tools.link_program(directory)
        for name in ("stacks", "state"):
            (directory / name).mkdir()
        self.directory = directory
        self._supervisor = supervisor
        self._runs = itertools.count(1)
        self._running: list[Process] = []
        self._environment = {
            **tools.engine_environment(progress=progress),
            "PULUMI_BACKEND_URL": f"file://{directory / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE": secrets.token_hex(16),
            # A lab's state is worth nothing without the lab.
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        }

    def stack(self, name: str) -> Stack:
        """The stack of that name, made when it is not there."""
        return Stack(self, name)

    def pulumi(self, *arguments: str) -> str:
        """Run the CLI to its end and return what it printed.

        Raises:
            LabError: it failed; the message shows the end of what it said.
        """
        place = self.directory / "runs" / str(next(self._runs))
        place.mkdir(parents=True)
        log, output = place / "stderr", place / "stdout"
        command = ["pulumi", "--non-interactive", "-C", str(self.directory), *arguments]
        process = self._supervisor.start("pulumi", command, log, self._environment, output=output)
        self._running.append(process)
        try:
            process.wait(TIMEOUT)
        finally:
            self._running.remove(process)
            self._supervisor.stop(process, grace=0)
        printed = output.read_text()
        if process.exit_code != 0:
            said = "\n".join((printed + log.read_text()).strip().splitlines()[-ERROR_LINES:])
            raise LabError(f"`pulumi {' '.join(arguments)}` failed or took over {TIMEOUT:.0f} s:\n{said}")
        return printed

    def cancel(self) -> None:
        """Kill the CLI's running processes, whose callers get an error."""
        for process in list(self._running):
            process.end(grace=0)


class Stack:
    """One stack of a project."""

    def __init__(self, project: Project, name: str) -> None:
        self.name = name
        self.reference = f"{ORGANIZATION}/{name}"
        self._project = project
        self._file = project.directory / "stacks" / f"Pulumi.{name}.yaml"

    @property
    def exists(self) -> bool:
        """Whether it was ever configured; it is made then."""
        return self._file.exists()

    @property
    def configuration(self) -> dict[str, Any]:
        """What it is configured with; a copy."""
        keys = yaml.safe_load(self._file.read_text())["config"]
        return {key.removeprefix("meshbridge:"): value for key, value in keys.items()}

    def configure(self, configuration: Configuration) -> None:
        """Replace its configuration. Raises LabError where it cannot be made."""
        if not self.exists:
            self._project.pulumi("stack", "init", "--no-select", self.reference)
        before = yaml.safe_load(self._file.read_text())
        keys = {f"meshbridge:{key}": value for key, value in configuration.items()}
        self._file.write_text(yaml.safe_dump({**before, "config": keys}, sort_keys=False))

    def up(self, configuration: Configuration | None = None) -> dict[str, Any]:
        """Make what it is, or from now on shall be, configured with, and return its outputs.

        Raises:
            LabError: the engine failed.
        """
        if configuration is not None:
            self.configure(configuration)
        self._run("up", "--yes", "--skip-preview", "--suppress-outputs")
        return self.outputs()

    def destroy(self) -> None:
        """Remove what it made."""
        self._run("destroy", "--yes", "--skip-preview")

    def outputs(self) -> dict[str, Any]:
        """Its outputs."""
        outputs: dict[str, Any] = json.loads(self._run("stack", "output", "--json"))
        return outputs

    def _run(self, *arguments: str) -> str:
        return self._project.pulumi(*arguments, "--stack", self.reference)
