"""What the commands share: messages to people go to stderr, results to stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.project import Project

note = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

Stacks = Annotated[
    list[str] | None, typer.Argument(help="Stack names; the example stacks when none is given.")
]
OneStack = Annotated[str, typer.Argument(help="The stack's name (stacks/Pulumi.NAME.yaml).")]
Plans = Annotated[
    list[Path],
    typer.Argument(help="Files written by `preview --json` or `drift --save`.", dir_okay=False, exists=True),
]


def project_of(context: typer.Context) -> Project:
    """The project that the command line chose (`--project`)."""
    root: Path = context.obj
    return Project.load(root)


def heading(text: str) -> None:
    """A line that separates one stack's progress from the next one's."""
    note.rule(text, align="left")
