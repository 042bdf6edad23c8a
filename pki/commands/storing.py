"""The commands that judge a certificate and hand it to a stack."""

from __future__ import annotations

import datetime
import json as json_
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

import certificates
from certificates import Expectation, Material, Problem, Severity, Usage
from cli import engine
from cli.errors import ExitCode
from cli.project import Project
from pki import kubernetes
from pki import store as files
from pki.commands.output import LONGEST, Json, text_of, write_json, write_table
from pki.errors import PkiError

Source = Annotated[
    Path,
    typer.Argument(
        help="Directory with tls.crt, tls.key, ca.crt, ca.crl; or a Secret as `kubectl get secret -o json` (or yaml) "
        "prints it: a file, or - for stdin."
    ),
]
AnyFolder = Annotated[
    Path,
    typer.Argument(
        help="Directory that one of `server`, `client`, `mesh-ca` wrote.", exists=True, file_okay=False
    ),
]
ProjectOption = Annotated[
    Path, typer.Option(help="The directory with Pulumi.yaml.", file_okay=False, exists=True)
]

NAMES = ("tls.crt", "tls.key", "ca.crt", "ca.crl")
STDIN = Path("-")
LARGEST = 64 * 1024
"""Characters. The engine hands all of a stack's configuration to the program in one environment variable, which Linux
limits to 128 KiB."""


class UsageOption(StrEnum):
    """Which side of the handshake a certificate is for."""

    SERVER = "server"
    CLIENT = "client"


def store(
    folder: AnyFolder,
    *,
    stack: Annotated[str, typer.Option(help="The stack's name (stacks/Pulumi.NAME.yaml).")],
    secret: Annotated[str, typer.Option(help="Name that `stackSecret` refers to.")],
    project: ProjectOption = Path(__file__).parents[2],
) -> None:
    """Encrypt a certificate, or the authority of a mesh, with its key into a stack's file, through Pulumi's standard
    input."""
    # The vocabulary is not what the rest of the authority needs.
    from config.certificate import SECRET_PREFIX  # noqa: PLC0415

    data = _mesh(folder) if (folder / certificates.MESH_CA_KEY).exists() else read(folder)
    text = json_.dumps(data)
    if len(text) > LARGEST:
        raise PkiError(
            f"{folder} holds {len(text)} characters, more than a stack's configuration can carry ({LARGEST}).",
            "Use `directory` in place of `stackSecret`, or a shorter revocation list.",
        )
    opened = Project.load(project.resolve())
    (name,) = opened.chosen((stack,))
    engine.prepare(opened).store_secret(name, f"meshbridge:{SECRET_PREFIX}{secret}", text)
    sys.stdout.write(
        f"{', '.join(data)} are in {opened.stack_file(name)}, encrypted; refer to them with `stackSecret: {secret}`\n"
    )


def check(
    source: Source,
    *,
    identity: Annotated[str, typer.Option("--id", help="The id that the other side looks for.")],
    usage: Annotated[UsageOption, typer.Option(help="Which side it is for.")],
    issuer: Annotated[
        Path | None,
        typer.Option(help="PEM of the authority that signed it, where it is not in ca.crt.", exists=True),
    ] = None,
    trust_elsewhere: Annotated[
        bool,
        typer.Option(
            "--trust-elsewhere",
            help="ca.crt is not read: a Secret <name>-cacert brings the other side's authorities.",
        ),
    ] = False,
    warning_days: Annotated[
        int, typer.Option(help="Days before its end from which on to warn.", min=1, max=LONGEST)
    ] = 30,
    json: Json = False,
) -> int:
    """Judge a certificate, in files or in a Secret, as a preview does. Exit code 2 when something is wrong with it."""
    expected = Expectation(
        identity,
        Usage(usage.value),
        datetime.datetime.now(datetime.UTC),
        issuer=text_of(issuer),
        trust_elsewhere=trust_elsewhere,
        warning=datetime.timedelta(days=warning_days),
    )
    data = read(source) if source.is_dir() else _secret(source)
    problems = certificates.check(Material.of(data), expected)
    if json:
        write_json([_described(problem) for problem in problems])
    elif problems:
        table = Table("", "Key", "Found", "Rule", "Remedy")
        for problem in problems:
            table.add_row(problem.severity, problem.key, problem.value, problem.rule, problem.remedy)
        write_table(table)
    else:
        sys.stdout.write(f"{_said(source)} is fit to be the {usage.value} certificate of {identity}\n")
    return FOUND if any(problem.severity is Severity.ERROR for problem in problems) else ExitCode.OK


FOUND = 2
"""Exit code: something is wrong with what was checked."""


def read(folder: Path) -> dict[str, str]:
    """The data of the Secret. Raises PkiError when others may read the key, or a file is missing."""
    return _read(folder, NAMES, NAMES[:2], "tls.key")


def _secret(source: Path) -> dict[str, str]:
    """The data of a Secret in a file, or on stdin. Raises PkiError when the file does not exist, others may read it, or
    it holds none."""
    if source == STDIN:
        return kubernetes.secret(sys.stdin.buffer.read(), _said(source), NAMES)
    if not source.exists():
        raise PkiError(
            f"{source} does not exist.", "Name a directory with tls.crt, a Secret's file, or - for stdin."
        )
    files.require_private(source)
    return kubernetes.secret(source.read_bytes(), _said(source), NAMES)


def _said(source: Path) -> str:
    return "stdin" if source == STDIN else str(source)


def _mesh(folder: Path) -> dict[str, str]:
    """The data of the Secret `cacerts`."""
    return _read(folder, certificates.MESH_KEYS, certificates.MESH_KEYS, certificates.MESH_CA_KEY)


def _read(folder: Path, names: Sequence[str], required: Sequence[str], private: str) -> dict[str, str]:
    present = [folder / name for name in names if (folder / name).exists()]
    for name in required:
        if folder / name not in present:
            raise PkiError(f"{folder / name} does not exist.", "Name a directory that `python -m pki` wrote.")
    files.require_private(folder / private)
    return {file.name: text_of(file) or "" for file in present}


def _described(problem: Problem) -> dict[str, object]:
    return {
        "severity": problem.severity,
        "check": problem.check,
        "key": problem.key,
        "value": problem.value,
        "rule": problem.rule,
        "remedy": problem.remedy,
    }
