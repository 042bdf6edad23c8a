"""The engine's own programs, found or built by `tools`, run a Python program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import tools

PROJECT = "name: probe\nruntime: python\n"
PROGRAM = "import pulumi\n\npulumi.export('version', pulumi.__name__)\n"


def test_a_program_runs_through_the_engine_with_the_language_host_of_its_cli(tmp_path: Path) -> None:
    (tmp_path / "Pulumi.yaml").write_text(PROJECT)
    (tmp_path / "__main__.py").write_text(PROGRAM)
    state = tmp_path / "state"
    state.mkdir()
    environment = {
        **tools.engine_environment(),
        "PULUMI_BACKEND_URL": tools.state_url(state),
        "PULUMI_CONFIG_PASSPHRASE": "",
    }

    def pulumi(*arguments: str) -> str:
        answer = subprocess.run(
            ["pulumi", *arguments],
            executable=tools.pulumi().executable,
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        return answer.stdout + answer.stderr

    pulumi("stack", "init", "probe")
    said = pulumi("up", "--yes", "--skip-preview")

    assert json.loads(pulumi("stack", "output", "--json")) == {"version": "pulumi"}
    assert "using pulumi-language-python from" not in said


def test_the_built_cli_reports_the_pinned_version() -> None:
    cli = tools.pulumi()
    answer = subprocess.run(
        [cli.executable, "version"], capture_output=True, text=True, timeout=30, check=True
    )

    if cli.source != "PATH":
        assert answer.stdout.strip() == tools.version("pulumi")
        assert {"pulumi-language-python", "pulumi-language-python-exec"} <= {
            path.name for path in cli.directory.iterdir()
        }
