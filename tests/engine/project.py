"""The program, run by Pulumi's real engine in a project folder of a test's own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import tools
from cli.plan import Resource, read_plan

REPOSITORY = Path(__file__).parents[2]
SAVED_AT_THE_END = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
ORGANIZATION = "organization/meshbridge"


@dataclass(frozen=True)
class Result:
    """One run of the engine: its exit code, its events, and what it printed beside them."""

    code: int
    events: list[dict[str, Any]]
    stderr: str

    @property
    def operations(self) -> dict[str, str]:
        """Operation by resource name, without those that leave a resource as it is."""
        return {name: op for name, op in self.all_operations.items() if op not in {"same", "read", "refresh"}}

    @property
    def all_operations(self) -> dict[str, str]:
        """Operation by resource name. A replacement is three steps, shown as `replace`."""
        found: dict[str, str] = {}
        for event in self.events:
            metadata = event.get("resourcePreEvent", {}).get("metadata")
            if metadata is not None:
                op = metadata["op"]
                found[name_of(metadata["urn"])] = "replace" if "replace" in op else op
        return found

    @property
    def inputs(self) -> dict[str, Any]:
        """Inputs by resource name, of those that change."""
        found = {}
        for event in self.events:
            metadata = event.get("resourcePreEvent", {}).get("metadata")
            if metadata is not None and metadata.get("new") is not None:
                found[name_of(metadata["urn"])] = metadata["new"].get("inputs")
        return {name: inputs for name, inputs in found.items() if name in self.operations}

    @property
    def counts(self) -> Counter[str]:
        """How many resources had each operation that changes something."""
        return Counter(self.operations.values())

    @property
    def errors(self) -> str:
        """The engine's error messages, and what it printed outside its events."""
        diagnostics = [event["diagnosticEvent"] for event in self.events if "diagnosticEvent" in event]
        return "".join(d["message"] for d in diagnostics if d["severity"] == "error") + self.stderr

    def expect_success(self) -> Result:
        """The result itself. Raises AssertionError with the engine's errors when it failed."""
        assert self.code == 0, self.errors
        return self


def name_of(urn: str) -> str:
    """A URN's resource name."""
    return urn.rpartition("::")[2]


class Stack:
    """One stack of a project."""

    def __init__(self, project: Project, name: str, config: Mapping[str, object]) -> None:
        self._project = project
        self.name = name
        self.configure(config)
        project.pulumi("stack", "init", f"{ORGANIZATION}/{name}").expect_success()

    @property
    def reference(self) -> str:
        """The fully qualified name, by which other stacks refer to this one."""
        return f"{ORGANIZATION}/{self.name}"

    def configure(self, config: Mapping[str, object]) -> None:
        """Replaces the stack's configuration, the encryption salt excepted."""
        file = self._project.directory / "stacks" / f"Pulumi.{self.name}.yaml"
        before = yaml.safe_load(file.read_text()) if file.exists() else {}
        keys = {f"meshbridge:{key}": value for key, value in config.items()}
        file.write_text(yaml.safe_dump({**before, "config": keys}))

    def up(self, *options: str) -> Result:
        """`pulumi up`, without its preview."""
        return self._run("up", "--yes", "--skip-preview", *options)

    def preview(self, *options: str) -> Result:
        """`pulumi preview`."""
        return self._run("preview", *options)

    def refresh(self) -> Result:
        """`pulumi refresh`: the state learns what the cluster holds."""
        return self._run("refresh", "--yes", "--skip-preview")

    def destroy(self) -> Result:
        """`pulumi destroy`."""
        return self._run("destroy", "--yes", "--skip-preview")

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts the engine in a process group of its own, for a test that kills it."""
        return self._project.start(*arguments, "--stack", self.reference, "--non-interactive")

    def unlock(self) -> None:
        """`pulumi cancel`: takes away the lock that a killed engine left."""
        self._project.pulumi("cancel", "--yes", self.reference).expect_success()

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        text = self._project.text("stack", "output", "--json", "--stack", self.reference)
        outputs: dict[str, Any] = json.loads(text)
        return outputs

    def resources(self) -> list[dict[str, Any]]:
        """The resources in the stack's state."""
        deployment = json.loads(self._project.text("stack", "export", "--stack", self.reference))[
            "deployment"
        ]
        return deployment.get("resources") or []

    def _run(self, *arguments: str) -> Result:
        return self._project.pulumi(*arguments, "--stack", self.reference, "--json", "--non-interactive")


class Project:
    """A project folder with the repository's program, stacks of its own, and a `file://` backend."""

    def __init__(self, directory: Path, environment: Mapping[str, str], *, checkpoints: bool = False) -> None:
        """checkpoints: save the state twice a changed resource, as Pulumi does by itself, instead of once a run."""
        directory.mkdir(exist_ok=True)
        self.directory = directory
        tools.link_program(directory)
        (directory / "stacks").mkdir()
        (directory / "state").mkdir()
        self.environment = {
            **environment,
            **({} if checkpoints else SAVED_AT_THE_END),
            "PULUMI_BACKEND_URL": tools.state_url(directory / "state"),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true",
        }

    def stack(self, name: str, config: Mapping[str, object]) -> Stack:
        """A new stack with this configuration (keys without the prefix `meshbridge:`)."""
        return Stack(self, name, config)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Starts the CLI in a process group of its own."""
        return subprocess.Popen(
            ["pulumi", "-C", str(self.directory), *arguments],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def pulumi(self, *arguments: str) -> Result:
        """Runs the CLI to its end."""
        ran = subprocess.run(
            ["pulumi", "-C", str(self.directory), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        events = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        return Result(ran.returncode, events, ran.stderr)

    def text(self, *arguments: str, streamed: bool = True) -> str:
        """What the CLI prints; a JSON preview as one document unless it is `streamed`.

        Raises subprocess.CalledProcessError when it fails.
        """
        return subprocess.run(
            ["pulumi", "-C", str(self.directory), *arguments],
            env={**self.environment, "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": str(streamed).lower()},
            capture_output=True,
            text=True,
            check=True,
        ).stdout


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9 for the engine with its language host and plugins."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60) -> None:
    """Waits for a condition. Raises TimeoutError that says for what."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def planned(project: Project, stack: Stack) -> dict[str, Resource]:
    """What the preview that people get says of the objects, by their kind."""
    text = project.text("preview", "--json", "--stack", stack.reference, streamed=False)
    plan = read_plan(stack.name, json.loads(text), succeeded=True)
    return {resource.kind: resource for resource in plan.resources if not resource.is_component}
