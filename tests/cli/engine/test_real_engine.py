"""The commands on Pulumi's real engine: a life of a stack, interruptions, locks, drift, secrets."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import tools
from cli.errors import ExitCode
from cli.plan import Plan

ROOT = Path(__file__).parents[3]
DYNAMIC_PLUGIN = f"""#!/bin/sh
exec {sys.executable} -u -m pulumi.dynamic "$@"
"""


@dataclass(frozen=True)
class Checkout:
    """A project of its own, with its own state."""

    root: Path
    environment: dict[str, str]

    def write(self, stack: str, **config: object) -> None:
        lines = "".join(f"  meshbridge:{key}: {json.dumps(value)}\n" for key, value in config.items())
        (self.root / f"stacks/Pulumi.{stack}.yaml").write_text(f"# kept\nconfig:\n{lines}")

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cli", "--project", str(self.root), *arguments]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    def files(self) -> dict[str, object]:
        found = sorted(file for file in self.root.glob("*-*") if not file.name.endswith(".creating"))
        return {file.name: json.loads(file.read_text()) for file in found}

    def engines(self) -> list[int]:
        """The processes that run in this checkout."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "cwd").readlink() == self.root and b"\0" in (process / "cmdline").read_bytes():
                    found.append(int(process.name))
            except OSError:
                continue
        return found


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "checkout"
    (root / "stacks").mkdir(parents=True)
    (root / "Pulumi.yaml").write_text("name: meshbridge\nruntime: python\nstackConfigDir: stacks\n")
    shutil.copy(Path(__file__).parent / "world.py", root / "__main__.py")
    plugin = tmp_path / "bin/pulumi-resource-pulumi-python"
    plugin.parent.mkdir()
    plugin.write_text(DYNAMIC_PLUGIN)
    plugin.chmod(0o755)
    tools.ensure("pulumi")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
    return Checkout(root, {**kept, "PATH": f"{plugin.parent}:{kept['PATH']}"})


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_the_life_of_two_stacks(checkout: Checkout) -> None:
    checkout.write("example-b", content="one")
    checkout.write("example-a", content="two", source={"stack": "organization/meshbridge/example-b"})
    before = {file: file.read_text() for file in checkout.root.glob("stacks/*")}
    code, output, errors = checkout.run("up")
    assert code == ExitCode.OK, output + errors
    assert errors.index("up: example-b") < errors.index("up: example-a")
    assert output.count("Applied to context files.") == 2
    assert len(checkout.files()) == 4
    assert {file: file.read_text() for file in checkout.root.glob("stacks/*")} == before
    code, output, _ = checkout.run("preview", "example-a")
    assert code == ExitCode.OK
    assert "Nothing changes." in output
    checkout.write("example-b", content="changed")
    code, output, _ = checkout.run("preview", "example-b")
    assert "| <code>content</code> | <code>one</code> | <code>changed</code> |" in output
    code, output, errors = checkout.run("down")
    assert code == ExitCode.OK, output + errors
    assert errors.index("down: example-a") < errors.index("down: example-b")
    assert checkout.files() == {}


@pytest.mark.parametrize("whole_group", [True, False])
def test_ctrl_c_in_mid_up_leaves_nothing_running_and_no_lock(
    checkout: Checkout, *, whole_group: bool
) -> None:
    checkout.write("slow", content="x", seconds=4)
    process = checkout.start("up", "slow")
    wait_for((checkout.root / "slow-first.creating").exists)
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    with process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, output + errors
    assert "the state holds what was done until then" in errors
    assert checkout.engines() == []
    assert list(checkout.files()) == ["slow-first"]
    code, output, errors = checkout.run("up", "slow")
    assert code == ExitCode.OK, output + errors
    assert list(checkout.files()) == ["slow-first", "slow-second"]


def test_a_second_up_is_told_who_is_at_work_and_a_dead_ones_lock_can_be_removed(checkout: Checkout) -> None:
    checkout.write("slow", content="x", seconds=30)
    process = checkout.start("up", "slow")
    wait_for((checkout.root / "slow-first.creating").exists)
    code, _, errors = checkout.run("up", "slow")
    assert code == ExitCode.LOCKED
    assert "created by" in errors
    assert "python -m cli unlock slow" in errors
    for engine in checkout.engines():
        with contextlib.suppress(ProcessLookupError):  # one of them ends with another
            os.kill(engine, signal.SIGKILL)
    with process:
        process.communicate(timeout=60)
    assert process.returncode == ExitCode.FAILED
    assert checkout.run("up", "slow")[0] == ExitCode.LOCKED
    assert checkout.run("unlock", "slow")[0] == ExitCode.OK
    checkout.write("slow", content="x", seconds=0)
    code, output, errors = checkout.run("up", "slow")
    assert code == ExitCode.OK, output + errors
    assert list(checkout.files()) == ["slow-first", "slow-second"]


def test_drift_is_found_shown_and_repaired(checkout: Checkout) -> None:
    checkout.write("prod", content="as written")
    assert checkout.run("up", "prod")[0] == ExitCode.OK
    assert checkout.run("drift", "prod")[0] == ExitCode.OK
    written = checkout.files()
    (checkout.root / "prod-first").write_text('{"content": "by hand"}')
    (checkout.root / "prod-second").unlink()
    code, output, _ = checkout.run("drift", "prod")
    assert code == ExitCode.DRIFT
    assert "| <code>content</code> | <code>by hand</code> | <code>as written</code> |" in output
    assert "create <code>Resource</code> <code>folder-second</code>" in output
    by_hand = checkout.files()
    assert checkout.run("up", "prod")[0] == ExitCode.OK
    assert checkout.files() == by_hand
    code, output, errors = checkout.run("up", "--refresh", "prod")
    assert code == ExitCode.OK, output + errors
    assert checkout.files() == written
    assert checkout.run("drift", "prod")[0] == ExitCode.OK


def test_a_secret_is_in_no_output(checkout: Checkout, tmp_path: Path) -> None:
    checkout.write("prod", content="x", secret="hunter2")
    checkout.environment["PULUMI_CONFIG_PASSPHRASE"] = "mine"
    assert checkout.run("up", "prod")[0] == ExitCode.OK
    assert checkout.files()["prod-first"] == {"content": "x", "secret": "hunter2"}
    checkout.write("prod", content="y", secret="hunter3")
    code, output, errors = checkout.run("preview", "prod", "--save", str(tmp_path / "saved"))
    saved = (tmp_path / "saved/prod.json").read_text()
    assert code == ExitCode.OK
    assert Plan.model_validate_json(saved).count("update") == 1
    assert "hunter" not in output + errors + saved
    assert not (checkout.root / ".state/passphrase").exists()
    checkout.environment["PULUMI_CONFIG_PASSPHRASE"] = "another"
    code, _, errors = checkout.run("up", "prod")
    assert code == ExitCode.FAILED
    assert "another passphrase than that of PULUMI_CONFIG_PASSPHRASE" in errors


def test_a_program_that_fails_says_why_first(checkout: Checkout) -> None:
    checkout.write("prod", nothing="x")
    code, output, _ = checkout.run("preview", "prod")
    assert code == ExitCode.FAILED
    assert "Missing required configuration variable 'meshbridge:content'" in output
