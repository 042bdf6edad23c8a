"""The commands that change stacks: up, down, unlock."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console

from cli import engine
from cli.console import OneStack, Stacks, heading, note, project_of
from cli.errors import CliError
from cli.outputs import Outputs
from cli.summary import summary

PIPE_WIDTH = 180


def up(
    context: typer.Context,
    stacks: Stacks = None,
    with_references: Annotated[
        bool, typer.Option("--with-references", help="Deploy the stacks that these refer to as well.")
    ] = False,
    refresh: Annotated[
        bool,
        typer.Option("--refresh", help="Look at what is really there first, and take back what drifted."),
    ] = False,
) -> None:
    """Deploy stacks, those that others refer to first, and say what can now reach what."""
    project = project_of(context)
    chosen: Iterable[str] = project.chosen(stacks or ())
    ordered = project.in_order(project.with_references(chosen) if with_references else chosen)
    pulumi = engine.prepare(project)
    done = list[tuple[str, Outputs]]()
    for number, name in enumerate(ordered):
        heading(f"up: {name}")
        try:
            pulumi.check_references(name)
            stack = pulumi.create(name)
            stack.up(refresh=refresh)
            done.append((name, Outputs.read(name, stack.outputs())))
        except CliError:
            _tell_rest(ordered[number + 1 :])
            raise
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    for name, outputs in done:
        console.print(summary(name, outputs, project.root))


def down(context: typer.Context, stacks: Stacks = None) -> None:
    """Destroy stacks, those that refer to others first."""
    project = project_of(context)
    ordered = tuple(reversed(project.in_order(project.chosen(stacks or ()))))
    pulumi = engine.prepare(project)
    for number, name in enumerate(ordered):
        heading(f"down: {name}")
        try:
            stack = pulumi.find(name)
            if stack is None:
                note.print(f"Stack {name} was never deployed: nothing to destroy.")
            else:
                stack.destroy()
        except CliError:
            _tell_rest(ordered[number + 1 :])
            raise


def unlock(context: typer.Context, stack: OneStack) -> None:
    """Remove the lock that a killed engine left on a stack. Make sure that none is at work on it."""
    project = project_of(context)
    (name,) = project.chosen((stack,))
    opened = engine.prepare(project).find(name)
    if opened is None:
        raise CliError(f"Stack {name} was never deployed.", "There is no lock to remove.")
    opened.unlock()


def _tell_rest(stacks: Iterable[str]) -> None:
    rest = ", ".join(stacks)
    if rest:
        note.print(f"Not attempted: {rest}")
