"""Options and output that the commands share."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pki.authority import CertificateAuthority, Issued
from pki.errors import PkiError
from pki.index import Record

Directory = Annotated[Path, typer.Argument(help="The authority's directory.")]
Json = Annotated[bool, typer.Option("--json", help="Write the result as JSON.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
LONGEST = 365 * 1000
"""Days, so that no date lies beyond the year 9999."""
Days = Annotated[int | None, typer.Option(help="Days until it expires.", min=1, max=LONGEST)]
Trust = Annotated[
    Path | None,
    typer.Option(
        help="PEM of the peers' authorities, where these are not this one.", exists=True, dir_okay=False
    ),
]
TrustCrl = Annotated[
    Path | None,
    typer.Option(help="PEM of the revocation lists of --trust.", exists=True, dir_okay=False),
]

PIPE_WIDTH = 180


def opened(directory: Path) -> CertificateAuthority:
    """The authority in `directory`."""
    return CertificateAuthority.open(directory)


def lifetime(days: int | None, default: datetime.timedelta) -> datetime.timedelta:
    """`days` as a duration."""
    return default if days is None else datetime.timedelta(days=days)


def text_of(file: Path | None) -> str | None:
    """The text of a PEM file."""
    if file is None:
        return None
    try:
        return file.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise PkiError(f"{file} is no PEM file: it is not ASCII text.", "Convert it to PEM.") from error


def described(record: Record) -> dict[str, object]:
    """What may be shown of a certificate."""
    return record.model_dump(mode="json", exclude={"certificate", "trust", "trust_crl"}, exclude_none=True)


def show_issued(issued: Iterable[Issued], *, as_json: bool) -> None:
    """Say what was issued and where it is."""
    if as_json:
        write_json([{**described(one.record), "folder": str(one.folder)} for one in issued])
        return
    for one in issued:
        sys.stdout.write(
            f"{one.record.kind} {one.record.id}: serial {one.record.serial}, until {one.record.not_after:%F %T} UTC, "
            f"in {one.folder}\n"
        )


def write_json(value: Mapping[str, object] | list[dict[str, object]]) -> None:
    """Write a result for scripts."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_table(table: Table) -> None:
    """Write a result for people."""
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)
