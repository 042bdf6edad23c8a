"""Which stacks a change touches. Pure but for asking git which files changed."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from cli.errors import CliError
from cli.plan import StackName
from cli.project import stack_of

# What no stack depends on. Everything else is program code as far as we know, and touches all stacks.
IRRELEVANT = frozenset(
    {
        ".ci",
        ".github",
        "bench",
        "broker",
        "cli",
        "docs",
        "lab",
        "pki",
        "tests",
        "tools",
        ".gitignore",
        "Makefile",
    }
)
# The version of the engine is an exception to "tools touch nothing".
ENGINE = ("tools", "modules", "pulumi")


class Touched(BaseModel):
    """The stacks that a change touches: those that it can change, and those whose file it removes. Both sorted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    changed: tuple[StackName, ...]
    removed: tuple[StackName, ...]


def touched(files: Iterable[str], stacks: Collection[str], stack_dir: str) -> Touched:
    """What a change of `files` (paths from the project's root) touches, where it leaves the files of `stacks`."""
    changed, removed = set[str](), set[str]()
    for file in files:
        path = PurePosixPath(file)
        name = stack_of(path.name) if str(path.parent) == stack_dir else None
        if name is not None:
            (changed if name in stacks else removed).add(name)
        elif not _irrelevant(path):
            changed |= set(stacks)
    return Touched(changed=tuple(sorted(changed)), removed=tuple(sorted(removed)))


def _irrelevant(path: PurePosixPath) -> bool:
    if path.parts[:3] == ENGINE:
        return False
    return path.parts[0] in IRRELEVANT or path.suffix == ".md"


def changed_files(root: Path, base: str) -> list[str]:
    """The files below `root`, from there, that differ between HEAD and where it left `base`."""
    command = [
        "git",
        "-C",
        str(root),
        "diff",
        "--name-only",
        "--no-renames",
        "--relative",
        "-z",
        f"{base}...HEAD",
        "--",
    ]
    # A name can be any bytes, whoever wrote the change.
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="surrogateescape", check=False
    )
    if done.returncode != 0:
        raise CliError(
            f"git cannot compare HEAD with {base!r}: {done.stderr.strip()}",
            "Fetch that revision (a shallow clone does not have it).",
        )
    return [file for file in done.stdout.split("\0") if file]
