"""What the engine is called with: whose state, whose passphrase, which settings file; checked with a stand-in `pulumi`."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import tools
from cli import engine
from cli.app import main
from cli.errors import ExitCode
from cli.project import Project

ROOT = Path(__file__).parents[2]
SALT = "v1:abc:v1:def"
# Writes what it was called with; `stack select --create` adds the salt to the settings beside its Pulumi.yaml, as Pulumi does.
PULUMI = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
work = Path(os.environ["WORK"])
arguments = sys.argv[1:]
stack = arguments[arguments.index("--stack") + 1]
wanted = {{name: value for name, value in os.environ.items() if name.startswith("PULUMI_")}}
call = {{"arguments": arguments, "cwd": os.getcwd(), "environment": wanted}}
if "--config-file" in arguments:
    call["settings"] = Path(arguments[arguments.index("--config-file") + 1]).read_text()
with (work / "calls").open("a") as calls:
    calls.write(json.dumps(call) + "\\n")
verb = " ".join(a for a in arguments[:2] if not a.startswith("-"))
known = work / f"known-{{stack}}"
if verb == "stack select":
    if not known.exists():
        if "--create" not in arguments:
            sys.exit(f"error: no stack named '{{stack}}' found")
        known.touch()
        settings = Path(f"Pulumi.{{stack}}.yaml")
        if settings.exists():
            settings.write_text(json.dumps({{**json.loads(settings.read_text()), "encryptionsalt": "{SALT}"}}))
answer = work / f"answer-{{arguments[0]}}"
if answer.exists():
    code, out, err = json.loads(answer.read_text())
    sys.stdout.write(out)
    sys.stderr.write(err)
    sys.exit(code)
if verb == "stack output":
    print(json.dumps({{"target": f"build/{{stack}}"}}))
"""

Answer = Callable[..., None]


@pytest.fixture(autouse=True)
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    binary = tmp_path / "pulumi"
    binary.write_text(PULUMI)
    binary.chmod(0o755)
    for name in [name for name in os.environ if name.startswith("PULUMI_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WORK", str(tmp_path))
    monkeypatch.setattr(tools, "ensure", lambda _name: binary)
    monkeypatch.setattr(tools, "engine_environment", lambda: dict(os.environ))
    return tmp_path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "stacks").mkdir(parents=True)
    (root / "Pulumi.yaml").write_text("name: meshbridge\nruntime: python\nstackConfigDir: stacks\n")
    (root / "stacks/Pulumi.example-b.yaml").write_text("config:\n  meshbridge:x: 1  # a comment\n")
    reference = "config:\n  meshbridge:y: {stack: organization/meshbridge/example-b}\n"
    (root / "stacks/Pulumi.example-a.yaml").write_text(reference)
    return root


@pytest.fixture
def answer(tmp_path: Path) -> Answer:
    def write(verb: str, code: int = 0, out: str = "", err: str = "") -> None:
        (tmp_path / f"answer-{verb}").write_text(json.dumps([code, out, err]))

    return write


def calls(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def verbs(tmp_path: Path) -> list[str]:
    made = [call["arguments"] for call in calls(tmp_path)]
    return [f"{a[0]} {a[a.index('--stack') + 1]}" for a in made if a[0] != "stack"]


def cli(root: Path, *arguments: str) -> int:
    return main(["--project", str(root), *arguments])


def test_the_local_state_its_passphrase_and_untouched_stack_files(root: Path, tmp_path: Path) -> None:
    before = {file: file.read_text() for file in root.glob("stacks/*")}
    assert cli(root, "up") == ExitCode.OK
    assert {file: file.read_text() for file in root.glob("stacks/*")} == before
    phrase = root / ".state/passphrase"
    assert stat.S_IMODE(phrase.stat().st_mode) == 0o600
    secret = phrase.read_text()
    assert len(secret) >= 40
    (up,) = [
        call for call in calls(tmp_path) if call["arguments"][:4] == ["up", "--yes", "--stack", "example-b"]
    ]
    assert up["cwd"] == str(root)
    assert yaml.safe_load(str(up["settings"])) == {"config": {"meshbridge:x": 1}, "encryptionsalt": SALT}
    environment = up["environment"]
    assert environment["PULUMI_BACKEND_URL"] == f"file://{root}/.state?metadata=skip"
    assert environment["PULUMI_CONFIG_PASSPHRASE_FILE"] == str(phrase)
    assert cli(root, "up") == ExitCode.OK
    assert phrase.read_text() == secret
    assert secret not in (tmp_path / "calls").read_text()


def test_up_and_down_go_in_opposite_orders(root: Path, tmp_path: Path) -> None:
    assert cli(root, "up") == cli(root, "down") == ExitCode.OK
    assert verbs(tmp_path) == ["up example-b", "up example-a", "destroy example-a", "destroy example-b"]


def test_up_looks_at_what_is_there_only_when_asked(root: Path, tmp_path: Path) -> None:
    assert cli(root, "up", "example-b") == cli(root, "up", "--refresh", "example-b") == ExitCode.OK
    asked = ["--refresh" in call["arguments"] for call in calls(tmp_path) if call["arguments"][0] == "up"]
    assert asked == [False, True]


def test_a_changed_stack_file_is_seen_and_the_salt_kept(root: Path, tmp_path: Path) -> None:
    cli(root, "up", "example-b")
    (root / "stacks/Pulumi.example-b.yaml").write_text("config:\n  meshbridge:x: 2\n")
    cli(root, "up", "example-b")
    settings = calls(tmp_path)[-2]["settings"]
    assert yaml.safe_load(str(settings)) == {"config": {"meshbridge:x": 2}, "encryptionsalt": SALT}


@pytest.mark.parametrize("text", ["012345678989", "1e3", "0o17", "yes"])
def test_a_text_that_looks_like_another_type_stays_a_text(root: Path, tmp_path: Path, text: str) -> None:
    """Pulumi's YAML is not PyYAML's: what one writes as plain text, the other reads as a number."""
    (root / "stacks/Pulumi.example-b.yaml").write_text(f'config:\n  meshbridge:x: "{text}"\n')
    cli(root, "up", "example-b")
    assert f'"{text}"' in calls(tmp_path)[-2]["settings"]


def test_a_passphrase_that_was_not_written_to_its_end_is_none(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_length: int) -> str:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("secrets.token_urlsafe", interrupted)
        engine.prepare(Project.load(root))
    assert list((root / ".state").iterdir()) == []
    engine.prepare(Project.load(root))
    phrase = root / ".state/passphrase"
    assert len(phrase.read_text()) > 40
    assert stat.S_IMODE(phrase.stat().st_mode) == 0o600
    assert list((root / ".state").iterdir()) == [phrase]


def test_the_users_backend_and_passphrase_win(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "mine")
    assert cli(root, "up", "example-b") == ExitCode.OK
    up = calls(tmp_path)[1]
    assert "--config-file" not in str(up["arguments"])
    environment = up["environment"]
    assert environment["PULUMI_BACKEND_URL"] == "s3://state"
    assert environment["PULUMI_CONFIG_PASSPHRASE"] == "mine"
    assert not (root / ".state").exists()


def test_empty_variables_are_not_set_ones(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE"):
        monkeypatch.setenv(name, "")
    assert cli(root, "up", "example-b") == ExitCode.OK
    environment = calls(tmp_path)[1]["environment"]
    assert "PULUMI_CONFIG_PASSPHRASE" not in environment
    assert (root / ".state/passphrase").exists()


def test_secrets_of_an_unknown_passphrase_are_refused_before_anything_is_done(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = root / "stacks/Pulumi.example-b.yaml"
    file.write_text(f"encryptionsalt: {SALT}\n")
    assert cli(root, "up", "example-b") == ExitCode.FAILED
    assert "passphrase that is not known here" in capsys.readouterr().err
    assert not (tmp_path / "calls").exists()
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "theirs")
    assert cli(root, "up", "example-b") == ExitCode.OK
    assert str(file) in str(calls(tmp_path)[1]["arguments"])


def test_the_first_failure_ends_it_and_the_rest_is_named(
    root: Path, tmp_path: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer("up", 1, err="error: the cluster is away\n")
    assert cli(root, "up") == ExitCode.FAILED
    said = capsys.readouterr().err
    assert "Not attempted: example-a" in said
    assert "the cluster is away" in said
    assert verbs(tmp_path) == ["up example-b"]


@pytest.mark.parametrize(
    ("command", "interrupted"),
    [
        (("up", "example-b"), "stack select"),
        (("down", "example-b"), "stack select"),
        (("preview", "example-b"), "stack select"),
        (("up", "example-a"), "stack output"),
    ],
)
def test_ctrl_c_counts_also_where_the_engine_has_nothing_to_stop(
    root: Path, fake: Path, command: tuple[str, ...], interrupted: str
) -> None:
    cli(root, "up", "example-b")
    (fake / "calls").unlink()
    told = f"if verb == {interrupted!r}: os.kill(os.getppid(), 2); import time; time.sleep(0.2)\n"
    script = (fake / "pulumi").read_text().replace("known =", f"{told}known =")
    (fake / "pulumi").write_text(
        script.replace("import json", "import signal; signal.signal(2, signal.SIG_IGN)\nimport json", 1)
    )

    assert cli(root, *command) == ExitCode.INTERRUPTED
    assert verbs(fake) == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            "error: the stack is currently locked by 1 lock(s).\n  created by me@here (pid 1) at noon\n",
            ExitCode.LOCKED,
            ["pid 1", "python -m cli unlock example-b"],
        ),
        (
            "error: getting stack configuration: get stack secrets manager: incorrect passphrase",
            ExitCode.FAILED,
            ["PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE", "unset both"],
        ),
    ],
    ids=["locked", "another passphrase"],
)
def test_what_the_engine_refuses_is_said_with_its_remedy(
    root: Path,
    answer: Answer,
    capsys: pytest.CaptureFixture[str],
    *,
    error: str,
    code: ExitCode,
    words: list[str],
) -> None:
    answer("up", 255, err=error)
    assert cli(root, "up", "example-b") == code
    said = capsys.readouterr().err
    for word in words:
        assert word in said


def test_unlock(root: Path, tmp_path: Path, answer: Answer) -> None:
    assert cli(root, "unlock", "example-b") == ExitCode.FAILED
    cli(root, "up", "example-b")
    assert cli(root, "unlock", "example-b") == ExitCode.OK
    assert verbs(tmp_path)[-1] == "cancel example-b"
    answer("cancel", 1, err="error: no")
    assert cli(root, "unlock", "example-b") == ExitCode.FAILED


def test_a_reference_to_what_was_never_deployed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(root, "up", "example-a") == ExitCode.FAILED
    assert "Deploy it first: python -m cli up example-b" in capsys.readouterr().err
    assert cli(root, "up", "example-a", "--with-references") == ExitCode.OK


def test_a_reference_to_what_has_no_file_names_both(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = root / "stacks/Pulumi.example-a.yaml"
    file.write_text("config:\n  meshbridge:y: {stack: organization/meshbridge/exmaple-b}\n")
    assert cli(root, "up", "example-a") == ExitCode.FAILED
    assert f"{file} refers to exmaple-b, which was never deployed" in capsys.readouterr().err


def test_down_of_what_was_never_deployed_is_no_error(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(root, "down") == ExitCode.OK
    assert "nothing to destroy" in capsys.readouterr().err


PREVIEW = {"steps": [], "changeSummary": {"same": 3}}
CREATE = {
    "steps": [
        {
            "op": "create",
            "urn": "urn:pulumi:s::meshbridge::kubernetes:core/v1:Service::x",
            "newState": {"type": "kubernetes:core/v1:Service", "custom": True},
        }
    ]
}


def test_preview_prints_the_comment_or_the_summary(
    root: Path, tmp_path: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer("preview", out=json.dumps(CREATE))
    assert cli(root, "preview", "example-b", "--save", str(tmp_path / "saved")) == ExitCode.OK
    shown = capsys.readouterr().out
    assert shown.startswith("<!-- meshbridge-preview:example-b -->")
    assert main(["comment", str(tmp_path / "saved/example-b.json")]) == ExitCode.OK
    assert capsys.readouterr().out == shown
    assert cli(root, "preview", "example-b", "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["resources"][0]["kind"] == "Service"
    (tmp_path / "example-b.json").write_text(json.dumps(CREATE))
    assert main(["comment", str(tmp_path / "example-b.json")]) == ExitCode.OK
    assert capsys.readouterr().out == shown


def test_what_cannot_be_written_is_said(
    root: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    answer("preview", out=json.dumps(CREATE))
    taken = root / "Pulumi.yaml"
    assert cli(root, "preview", "example-b", "--save", str(taken)) == ExitCode.FAILED
    assert f"--save {taken}: " in capsys.readouterr().err
    shutil.rmtree(root / ".state")
    (root / ".state").touch()
    assert cli(root, "preview", "example-b") == ExitCode.FAILED
    assert f"cannot be kept in {root}/.state: " in capsys.readouterr().err


def test_a_terminal_that_knows_no_emoji_gets_the_rest(tmp_path: Path) -> None:
    (tmp_path / "example-b.json").write_text(json.dumps(CREATE))
    command = [sys.executable, "-m", "cli", "comment", str(tmp_path / "example-b.json")]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True).stdout
    assert b"- \\U0001f195 create <code>Service</code>" in shown


@pytest.mark.parametrize("out", ["", "not json"])
def test_a_preview_that_does_not_begin_is_a_comment_that_says_why(
    root: Path, answer: Answer, capsys: pytest.CaptureFixture[str], out: str
) -> None:
    answer("preview", 1, out=out, err="error: no plugin\n")
    assert cli(root, "preview", "example-b") == ExitCode.FAILED
    assert "error: no plugin" in capsys.readouterr().out


def test_preview_makes_no_stack_in_the_users_backend(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://state")
    assert cli(root, "preview", "example-b") == ExitCode.FAILED
    assert "pulumi stack init example-b" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("preview", None),
        ("drift", None),
        ("preview", "error: unable to open bucket {}: no route"),
        ("preview", "{}"),
    ],
)
def test_no_comment_shows_the_password_of_the_state(
    root: Path,
    answer: Answer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    command: str,
    error: str | None,
) -> None:
    backend = "postgres://me:hunter2@db.example/state"
    monkeypatch.setenv("PULUMI_BACKEND_URL", backend)
    if error is not None:
        (root.parent / "known-example-b").touch()
        answer("stack", 1, err=error.format(backend))
    assert cli(root, command, "example-b") == ExitCode.FAILED
    assert "hunter2" not in capsys.readouterr().out


def test_drift_has_its_exit_codes(
    root: Path, tmp_path: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(root, "drift", "example-b") == ExitCode.FAILED
    assert "There is no stack example-b" in capsys.readouterr().out
    cli(root, "up", "example-b")
    answer("preview", out=json.dumps(PREVIEW))
    assert cli(root, "drift", "example-b", "--json") == ExitCode.OK
    assert "--refresh" in str(calls(tmp_path)[-1]["arguments"])
    answer("preview", out=json.dumps(CREATE))
    capsys.readouterr()
    assert cli(root, "drift", "example-b") == ExitCode.DRIFT
    assert capsys.readouterr().out.startswith("<!-- meshbridge-drift:example-b -->")


def test_drift_goes_on_behind_a_stack_that_cannot_be_checked(
    root: Path, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    cli(root, "up", "example-b")
    answer("preview", out=json.dumps(PREVIEW))
    assert cli(root, "drift", "example-a", "example-b") == ExitCode.FAILED
    shown = capsys.readouterr().out
    assert "Drift of <code>example-b</code>: 3 unchanged" in shown
    assert "There is no stack example-a" in shown


@pytest.mark.parametrize("arguments", [["nope"], ["preview"], ["up", "--nope"], ["touched"]])
def test_wrong_usage_has_a_code_of_its_own(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == ExitCode.USAGE
    assert "python -m cli --help" in capsys.readouterr().err


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.OK
    assert "post-preview" in capsys.readouterr().out


def test_a_tool_that_cannot_be_had_is_a_message(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> dict[str, str]:
        raise tools.ToolError("no Go, no network")

    monkeypatch.setattr(tools, "engine_environment", fail)
    assert cli(root, "up") == ExitCode.FAILED
    assert "no Go, no network" in capsys.readouterr().err


def test_outputs_of_another_version_are_refused_with_the_remedy(root: Path, fake: Path) -> None:
    script = (fake / "pulumi").read_text().replace('{"target"', '{"consumer": 1, "target"')
    (fake / "pulumi").write_text(script)
    stack = engine.prepare(Project.load(root)).create("example-b")
    assert stack.outputs() == {"consumer": 1, "target": "build/example-b"}
    assert cli(root, "up", "example-b") == ExitCode.FAILED
