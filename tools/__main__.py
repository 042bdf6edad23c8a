"""`python -m tools`: find or build the Pulumi CLI and the lab's binaries."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import tools
from tools import stops

app = typer.Typer(
    help="Finds, downloads or builds what the project runs: the Pulumi CLI and the lab's binaries. "
    "Results go to stdout, progress to stderr. Exit codes: 0 done, 1 cannot be had, 2 wrong use, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def ensure(
    names: Annotated[list[str], typer.Argument(help="Tools or groups; `list` shows them.")],
    as_json: Json = False,
) -> None:
    """Make the tools available and print their paths."""
    paths = {tool: str(tools.ensure(tool)) for name in names for tool in tools.expand(name)}
    if as_json:
        typer.echo(json.dumps(paths, indent=2))
        return
    for path in paths.values():
        typer.echo(path)


@app.command()
def path(name: Annotated[str, typer.Argument(help="A tool.")]) -> None:
    """Print a tool's path if it is there; makes nothing."""
    found = tools.find(name)
    if found is None:
        raise tools.ToolError(f"{name} is not there yet; `python -m tools ensure {name}` makes it")
    typer.echo(found)


@app.command("list")
def list_tools(as_json: Json = False) -> None:
    """List the tools, their pinned versions, and those that are there."""
    rows = [
        {"name": name, "version": tools.version(name), "path": str(found) if found is not None else None}
        for name in tools.expand("all")
        for found in [_present(name)]
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("tool", "pinned version", "path", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["version"], row["path"] or "not there yet")
    Console(soft_wrap=True).print(table)


def _present(name: str) -> Path | None:
    try:
        return tools.find(name)
    except tools.GoMissingError:  # which made what there may be
        return None


@app.command()
def plugin(as_json: Json = False) -> None:
    """Say which Kubernetes plugin the engine will use, and why."""
    chosen = tools.kubernetes_plugin()
    if as_json:
        entry = str(chosen.path_entry) if chosen.path_entry is not None else None
        answer = {
            "official": chosen.official,
            "version": chosen.version,
            "path_entry": entry,
            "reason": chosen.reason,
        }
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(chosen.reason)


def main() -> NoReturn:
    """Run the command line and turn what goes wrong into a message and an exit code."""
    stops.heed()
    try:
        app(standalone_mode=True)
    except tools.ToolError as error:
        Console(stderr=True, soft_wrap=True).print(f"[red]error:[/red] {escape(str(error))}", highlight=False)
        sys.exit(2 if isinstance(error, tools.UnknownToolError) else 1)
    sys.exit(0)


if __name__ == "__main__":
    main()
