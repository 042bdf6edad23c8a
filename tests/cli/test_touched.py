"""Which stacks a change touches: too many rather than too few."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cli.app import main
from cli.errors import CliError, ExitCode
from cli.touched import Touched, changed_files, touched

STACKS = ("a", "b", "c-1")
NONE: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([], NONE),
        (["stacks/Pulumi.a.yaml"], ("a",)),
        (["stacks/Pulumi.c-1.yaml", "stacks/Pulumi.a.yaml", "README.md"], ("a", "c-1")),
        (
            [
                "tests/cli/test_x.py",
                "docs/picture.svg",
                "cli/app.py",
                "pki/app.py",
                "lab/x.py",
                "Makefile",
                ".ci/run",
            ],
            NONE,
        ),
        (["README.md", "config/README.md"], NONE),
        (["__main__.py"], STACKS),
        (["Pulumi.yaml"], STACKS),
        (["routing/gateway.py"], STACKS),
        (["components/program.py"], STACKS),
        (["requirements.txt"], STACKS),
        (["requirements-dev.txt"], STACKS),
        (["tools/cache.py"], NONE),
        (["tools/modules/pulumi/go.mod"], STACKS),
        (["stacks/Pulumi.a.yaml", "config/types.py"], STACKS),
        (["something-new/x.py"], STACKS),
        (["stacks/nested/Pulumi.a.yaml"], STACKS),
        (["stacks/Pulumi.a copy.yaml"], STACKS),
    ],
)
def test_touched(files: list[str], expected: tuple[str, ...]) -> None:
    assert touched(files, STACKS, "stacks") == Touched(changed=expected, removed=())


def test_the_project_file_beside_the_stacks_is_none_of_a_stack() -> None:
    assert touched(["Pulumi.yaml"], STACKS, ".") == Touched(changed=STACKS, removed=())


@pytest.mark.parametrize("others", [[], ["README.md"], ["config/types.py"]])
def test_a_stack_whose_file_is_removed_is_said_apart(others: list[str]) -> None:
    found = touched([*others, "stacks/Pulumi.removed.yaml"], STACKS, "stacks")

    assert found.removed == ("removed",)
    assert "removed" not in found.changed


def git(repository: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", repository, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "old name.txt").write_text("some content that git could see as renamed\n")
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.gone.yaml").write_text("config: {}\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    git(tmp_path, "checkout", "--quiet", "-b", "change")
    git(tmp_path, "mv", "docs/old name.txt", "docs/née.txt")
    git(tmp_path, "rm", "stacks/Pulumi.gone.yaml")
    git(tmp_path, "commit", "--quiet", "-m", "two")
    git(tmp_path, "checkout", "--quiet", "main")
    (tmp_path / "of-main.txt").write_text("x")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "meanwhile on main")
    git(tmp_path, "checkout", "--quiet", "change")
    return tmp_path


def test_a_rename_touches_both_names_and_the_bases_own_commits_do_not_count(repository: Path) -> None:
    touches = ["docs/née.txt", "docs/old name.txt", "stacks/Pulumi.gone.yaml"]
    assert sorted(changed_files(repository, "main")) == touches


def test_the_command_prints_what_post_preview_reads(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "Pulumi.yaml").write_text("name: meshbridge\nruntime: python\nstackConfigDir: stacks\n")
    assert main(["--project", str(repository), "touched", "--base", "main", "--json"]) == ExitCode.OK
    assert Touched.model_validate_json(capsys.readouterr().out) == Touched(changed=(), removed=("gone",))
    assert main(["--project", str(repository), "touched", "--base", "main"]) == ExitCode.OK
    assert capsys.readouterr().out == "gone (removed)\n"


def test_a_project_in_a_folder_of_its_repository_sees_its_own_files(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = repository / "infra"
    (project / "stacks").mkdir(parents=True)
    (project / "Pulumi.yaml").write_text("name: meshbridge\nruntime: python\nstackConfigDir: stacks\n")
    (project / "stacks" / "Pulumi.a.yaml").write_text("config: {}\n")
    (project / "stacks" / "Pulumi.b.yaml").write_text("config: {}\n")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "three")
    (project / "stacks" / "Pulumi.a.yaml").write_text("config: {x: y}\n")
    (repository / "elsewhere.py").write_text("")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "four")

    assert main(["--project", str(project), "touched", "--base", "HEAD~1"]) == ExitCode.OK
    assert capsys.readouterr().out == "a\n"


def test_an_unknown_revision_is_an_error_with_a_remedy(repository: Path) -> None:
    with pytest.raises(CliError, match="Fetch that revision"):
        changed_files(repository, "no-such-revision")


def test_a_file_s_name_may_be_any_bytes(repository: Path) -> None:
    name = os.fsdecode(b"caf\xe9.txt")
    (repository / name).touch()
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "three")

    assert changed_files(repository, "HEAD~1") == [name]
