"""The workflows, the Makefile and .ci/run call commands that exist, with no more permissions than they need."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from cli.app import app

ROOT = Path(__file__).parents[2]
WORKFLOWS = {
    file.name: yaml.safe_load(file.read_text()) for file in sorted((ROOT / ".github/workflows").glob("*.yml"))
}
MAKEFILE = (ROOT / "Makefile").read_text()
COMMANDS = getattr(typer.main.get_command(app), "commands", {})
TARGETS = dict(re.findall(r"^([a-z-]+):.*?## (.*)$", MAKEFILE, re.MULTILINE))
PERMISSIONS = {
    ("preview.yml", "touched"): {"contents": "read"},
    ("preview.yml", "preview"): {"contents": "read"},
    ("preview.yml", "comment"): {"contents": "read", "pull-requests": "write"},
    ("drift.yml", "drift"): {"contents": "read", "issues": "write"},
}
JOBS = [(name, job) for name, workflow in WORKFLOWS.items() for job in workflow["jobs"]]


def steps() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, job in JOBS:
        for step in WORKFLOWS[name]["jobs"][job]["steps"]:
            yield name, job, step


SCRIPTS = [(f"{name}/{job}", step["run"]) for name, job, step in steps() if "run" in step]
README = (ROOT / "README.md").read_text().replace("`", "\n")
TEXTS = [
    *SCRIPTS,
    ("Makefile", MAKEFILE),
    (".ci/run", (ROOT / ".ci/run").read_text()),
    ("README.md", README),
]


def cli_calls(text: str) -> Iterator[tuple[str, list[str]]]:
    for call in re.findall(r"-m cli ([^\n;|>)]+)", text):
        command, *options = shlex.split(call.replace("$(", "").replace('"', ""))
        yield command, [option.split("=")[0] for option in options if option.startswith("--")]


@pytest.mark.parametrize(("where", "text"), TEXTS, ids=[where for where, _ in TEXTS])
def test_every_command_and_option_exists(where: str, text: str) -> None:
    for command, options in cli_calls(text):
        assert command in COMMANDS, f"{where} calls `{command}`"
        known = {option for parameter in COMMANDS[command].params for option in parameter.opts}
        assert set(options) <= known, f"{where} calls `{command}` with {options}"


def test_the_commands_are_found_at_all() -> None:
    called = {command for _, text in TEXTS for command, _ in cli_calls(text)}
    assert called == {"up", "down", "unlock", "preview", "drift", "touched", "post-preview", "post-drift"}


@pytest.mark.parametrize(("where", "text"), TEXTS, ids=[where for where, _ in TEXTS])
def test_every_make_target_exists(where: str, text: str) -> None:
    called = set(re.findall(r"^\s*(?:stage|make) ([a-z-]+)(?: +[A-Z#].*)?$", text, re.MULTILINE))
    assert called <= set(TARGETS), where


@pytest.mark.parametrize(("where", "script"), SCRIPTS, ids=[where for where, _ in SCRIPTS])
def test_every_script_is_bash_and_free_of_what_others_wrote(where: str, script: str) -> None:
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "${{" not in script, "an expression in a script is an injection: pass it in env"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_has_no_permissions_of_its_own(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {}


@pytest.mark.parametrize(("name", "job"), JOBS)
def test_a_job_has_the_least_permissions(name: str, job: str) -> None:
    assert WORKFLOWS[name]["jobs"][job]["permissions"] == PERMISSIONS[name, job]
    assert "timeout-minutes" in WORKFLOWS[name]["jobs"][job]


def test_actions_are_pinned_and_leave_no_credentials() -> None:
    for _, _, step in steps():
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_only_the_bases_code_runs_beside_a_token_that_may_write_to_the_pull_request() -> None:
    comment = WORKFLOWS["preview.yml"]["jobs"]["comment"]
    assert comment["steps"][0]["with"]["ref"] == "${{ github.event.pull_request.base.ref }}"
    assert "secrets" not in yaml.safe_dump(comment)
    triggers = WORKFLOWS["preview.yml"][True]  # YAML 1.1 reads the key `on` as a boolean
    assert set(triggers) == {"pull_request"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_secrets_are_given_to_one_step_that_reads_the_clusters(name: str) -> None:
    """The render of a base deploys, so it may have no cluster; an action of another owner needs no secret at all."""
    for where, _, step in steps():
        if where == name and "secrets." in yaml.safe_dump(step):
            assert re.search(r"-m cli (preview|drift) ", step["run"])
            assert {"PULUMI_BACKEND_URL", "KUBECONFIG_CONTENT", "AWS_SECRET_ACCESS_KEY"} <= set(step["env"])
    for job in WORKFLOWS[name]["jobs"].values():
        given = {key: value for key, value in job.get("env", {}).items() if "secrets." in str(value)}
        assert given in ({}, {"HAS_STATE": "${{ secrets.PULUMI_BACKEND_URL != '' }}"})


def test_what_is_compared_with_the_base_has_no_state_and_the_other_way_round() -> None:
    conditions = {
        step["name"]: step.get("if") for _, job, step in steps() if job == "preview" and "name" in step
    }
    assert conditions == {
        "Render the base, to compare with": "env.HAS_STATE == 'false'",
        "Preview against the base": "env.HAS_STATE == 'false'",
        "Preview": "env.HAS_STATE == 'true'",
    }


def test_what_came_to_the_base_meanwhile_is_none_of_the_pull_request_s(tmp_path: Path) -> None:
    """GitHub merges with the base as it is now, and the event's `base.sha` is that of the last push."""
    repository = tmp_path / "checkout"
    (repository / "stacks").mkdir(parents=True)

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(repository), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(file: str, content: str) -> None:
        (repository / file).write_text(content)
        git("add", "--all")
        git("commit", "--quiet", "--message", file)

    git("init", "--quiet", "--initial-branch", "main")
    commit("Pulumi.yaml", "name: meshbridge\nruntime: python\nstackConfigDir: stacks\n")
    commit("stacks/Pulumi.mine.yaml", "config: {}\n")
    commit("stacks/Pulumi.theirs.yaml", "config: {}\n")
    base_of_the_event = git("rev-parse", "HEAD")
    git("checkout", "--quiet", "-b", "change")
    commit("stacks/Pulumi.mine.yaml", "config: {x: y}\n")
    git("checkout", "--quiet", "main")
    commit("stacks/Pulumi.theirs.yaml", "config: {x: y}\n")
    git("merge", "--quiet", "--no-ff", "--no-edit", "change")
    python = repository / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\nshift 2\ncd "{ROOT}"\nexec "{sys.executable}" -m cli --project "{repository}" "$@"\n'
    )
    python.chmod(0o755)
    (script,) = [step["run"] for _, job, step in steps() if step.get("id") == job == "touched"]
    output = tmp_path / "output"
    environment = {**os.environ, "BASE": base_of_the_event, "GITHUB_OUTPUT": str(output)}

    subprocess.run(["bash", "-e", "-c", script], cwd=repository, env=environment, check=True)

    assert output.read_text() == 'touched={"changed":["mine"],"removed":[]}\n'


def test_help_describes_every_target() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = [line.split()[1] for line in done.stdout.splitlines()]
    phony = re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE)
    assert listed == phony == list(TARGETS)
    assert {
        "help",
        "venv",
        "up",
        "down",
        "preview",
        "drift",
        "test",
        "check",
        "lab-test",
        "lock",
        "schema",
    } <= set(listed)


def test_make_preview_asks_for_a_stack() -> None:
    done = subprocess.run(["make", "-n", "preview"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "make preview STACK=NAME" in done.stderr


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("*version_info*) exit 1", "needs Python 3.11 or newer"),
        ("*ensurepip*) exit 1", "apt install python3-venv"),
    ],
)
def test_an_unfit_python_is_said(tmp_path: Path, answer: str, expected: str) -> None:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\ncase "$*" in {answer};; --version) echo Python 3.9.2;; esac\n')
    python.chmod(0o755)
    (tmp_path / "requirements-dev.txt").touch()
    command = ["make", "-f", str(ROOT / "Makefile"), f"PYTHON={python}", "venv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert expected in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_ci_runs_everything_in_order() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert re.findall(r"^stage (.+)$", script, re.MULTILINE) == ["check", "test", "lab-test"]
    assert subprocess.run(["bash", "-n", ROOT / ".ci/run"], check=False).returncode == 0
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
