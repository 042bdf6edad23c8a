"""The three steps by which an authority gets a new root without cutting a connection."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from pki.commands.output import Directory, Json, opened, show_issued, write_json
from pki.index import Root

app = typer.Typer(rich_markup_mode=None)


@app.callback()
def start() -> None:
    """Rotate the root: add, deploy; leaves, deploy; remove, deploy."""


@app.command()
def add(directory: Directory, json: Json = False) -> None:
    """Make a new root, which peers are to trust beside the old one. It signs nothing yet."""
    root = opened(directory).rotate_add()
    _show(root, "deploy ca.crt to every peer, then: rotate leaves", as_json=json)


@app.command()
def leaves(directory: Directory, json: Json = False) -> None:
    """Sign every certificate in use anew, by the new root."""
    show_issued(opened(directory).rotate_leaves(), as_json=json)


@app.command()
def remove(
    directory: Directory,
    force: Annotated[bool, typer.Option("--force", help="Though certificates in use need it.")] = False,
    json: Json = False,
) -> None:
    """Withdraw trust in the old root and delete its key. First deploy every certificate that `leaves` wrote."""
    root = opened(directory).rotate_remove(force=force)
    _show(root, "deploy ca.crt to every peer", as_json=json)


def _show(root: Root, following: str, *, as_json: bool) -> None:
    if as_json:
        write_json({"root": root.number, "state": root.state})
    else:
        sys.stdout.write(f"Root {root.number} is {root.state}; {following}\n")
