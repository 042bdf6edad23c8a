"""Which stacks there are, and in which order they are deployed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.errors import CliError
from cli.plan import failed_plan
from cli.project import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "Pulumi.yaml").write_text("name: meshbridge\nruntime: python\nstackConfigDir: stacks\n")
    (tmp_path / "stacks").mkdir()
    return Project.load(tmp_path)


def write(project: Project, stack: str, *references: str) -> None:
    lines = "".join(f"      - {{name: x, stack: {reference}}}\n" for reference in references)
    imports = f"    imports:\n{lines}" if references else ""
    project.stack_file(stack).write_text(f"config:\n  meshbridge:consumer:\n    id: x\n{imports}")


def test_stacks_come_behind_those_they_refer_to(project: Project) -> None:
    write(project, "example-a", "organization/meshbridge/example-b", "organization/meshbridge/example-c")
    write(project, "example-b", "organization/meshbridge/example-c")
    write(project, "example-c", "organization/other/example-a", "example-a", "elsewhere/meshbridge/unknown")
    write(project, "prod")
    assert project.stacks() == ("example-a", "example-b", "example-c", "prod")
    assert project.in_order(project.chosen(())) == ("example-c", "example-b", "example-a")
    assert project.in_order(["example-a", "example-c"]) == ("example-c", "example-a")


def test_references_are_followed_as_far_as_there_are_files(project: Project) -> None:
    write(project, "a", "organization/meshbridge/b")
    write(project, "b", "organization/meshbridge/c", "organization/meshbridge/not-here")
    write(project, "c")
    assert project.with_references(["a"]) == {"a", "b", "c"}


def test_a_ring_is_refused(project: Project) -> None:
    write(project, "a", "organization/meshbridge/b")
    write(project, "b", "organization/meshbridge/a")
    with pytest.raises(CliError, match=r"in a ring: (a → b → a|b → a → b)"):
        project.in_order(["a", "b"])
    assert project.with_references(["a"]) == {"a", "b"}


def test_an_unknown_stack_is_refused_with_the_known_ones(project: Project) -> None:
    write(project, "a")
    with pytest.raises(CliError, match=r"no stack 'b'[\s\S]*Choose one of: a"):
        project.chosen(["b"])


def test_a_file_whose_name_is_no_stacks_is_none_of_a_stack(project: Project) -> None:
    (project.stack_dir / "Pulumi.a copy.yaml").write_text("config: {}\n")
    (project.stack_dir / "Pulumi._own.yaml").write_text("config: {}\n")

    assert "_own" in project.stacks()
    assert "a copy" not in project.stacks()
    assert failed_plan("_own", "why").stack == "_own"


@pytest.mark.parametrize("name", ["a copy", "-prod", "..", "a/b", "x" * 101])
def test_a_name_that_no_stack_can_have_is_refused(project: Project, name: str) -> None:
    with pytest.raises(CliError, match="is no name of a stack"):
        project.chosen([name])


def test_no_examples_are_said(project: Project) -> None:
    with pytest.raises(CliError, match="holds no example stacks"):
        project.chosen(())


@pytest.mark.parametrize("content", ["a: [", "- a list", "a: 2026-02-30", "just text", b"\xff\xfe\x00"])
def test_a_broken_stack_file_is_named(project: Project, content: str | bytes) -> None:
    file = project.stack_file("a")
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(CliError, match=r"Pulumi\.a\.yaml"):
        project.references("a")


def test_a_key_that_stands_twice_is_named(project: Project) -> None:
    project.stack_file("a").write_text(
        "config:\n  x: [{exports: 1}, {exports: 2}]\n  y:\n    z: 1\n    z: 2\n"
    )
    with pytest.raises(CliError, match=r"Pulumi\.a\.yaml, line 5: the key 'z'"):
        project.references("a")


def test_a_stack_file_may_hold_what_json_cannot(project: Project) -> None:
    project.stack_file("a").write_text("config: {x: {1: 2024-01-01, stack: organization/meshbridge/b}}\n")
    assert project.references("a") == {"b"}


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 30))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a:\n  2024-01-01: x\n", "line 2: the key '2024-01-01' is a date"),
        ("? !!binary YQ==\n: x\n", "line 1: the key 'YQ==' is bytes"),
        ("a: &a\n  b: *a\n", "line 1: the anchor there stands for a value that holds itself"),
        (LAUGHS, "more than 1000000 values"),
        ("a: " + "[" * 5000 + "]" * 5000, "nested too deep"),
        ("a: " + "x" * 2**23, "8388611 bytes, and 8388608 are read at most"),
    ],
    ids=["date", "bytes", "recursion", "aliases", "depth", "size"],
)
def test_what_cannot_be_handed_to_pulumi_is_refused(project: Project, content: str, says: str) -> None:
    project.stack_file("a").write_text(content)
    with pytest.raises(CliError) as refused:
        project.references("a")
    assert says in str(refused.value)


def test_what_is_no_regular_file_is_not_read(project: Project) -> None:
    os.mkfifo(project.stack_file("a"))
    with pytest.raises(CliError, match="is no regular file"):
        project.references("a")
    project.stack_file("b").mkdir()
    with pytest.raises(CliError, match=r"Is a directory\.\n? *Make it a file"):
        project.references("b")


def test_an_empty_stack_file_refers_to_nothing(project: Project) -> None:
    project.stack_file("a").write_text("# nothing yet\n")
    assert project.references("a") == frozenset()


def test_no_project_is_said(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"Pulumi\.yaml cannot be read"):
        Project.load(tmp_path)
    (tmp_path / "Pulumi.yaml").write_text("runtime: python\n")
    with pytest.raises(CliError, match="not a Pulumi project file"):
        Project.load(tmp_path)


def test_the_examples_of_this_repository_have_an_order() -> None:
    project = Project.load(ROOT)
    ordered = project.in_order(project.chosen(()))
    for number, stack in enumerate(ordered):
        assert project.references(stack) <= set(ordered[:number])
