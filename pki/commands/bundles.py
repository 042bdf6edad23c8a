"""`python -m pki bundle`: federation bundles."""

from __future__ import annotations

import datetime
import json as json_
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from certificates import fingerprints
from cli import engine
from cli.project import Project
from config import ConfigError, ConsumerOutputs, ProviderOutputs, reference
from federation import Bundle, Pins, Signer, create, verify
from pki import store
from pki.commands.output import LONGEST, Json, write_json
from pki.commands.storing import FOUND, ProjectOption
from pki.commands.storing import read as read_folder
from pki.errors import PkiError

app = typer.Typer(rich_markup_mode=None)

File = Annotated[Path, typer.Argument(help="The bundle.", exists=True, dir_okay=False)]
DEFAULT_DAYS = 90

LARGEST = 8 * 2**20
"""Bytes of a bundle that are read; one of 10,000 endpoints has a few of these MiB."""


class RoleOption(StrEnum):
    """Which side of a stack a bundle is of."""

    PROVIDER = "provider"
    CONSUMER = "consumer"


@app.callback()
def start() -> None:
    """Tell another organisation who you are: make, verify and show federation bundles."""


@app.command("create")
def create_(
    outputs: Annotated[
        Path | None,
        typer.Option(
            help="What `pulumi stack output --json` wrote; `-` reads it from stdin.",
            allow_dash=True,
            dir_okay=False,
        ),
    ] = None,
    *,
    stack: Annotated[str | None, typer.Option(help="The stack, in place of --outputs.")] = None,
    role: Annotated[RoleOption, typer.Option(help="Which side of the stack.")] = RoleOption.PROVIDER,
    sign: Annotated[
        Path | None,
        typer.Option(
            help="Directory with the tls.crt and tls.key of that side.", exists=True, file_okay=False
        ),
    ] = None,
    days: Annotated[
        int,
        typer.Option(
            help="Days until it expires; never later than the signing certificate.", min=1, max=LONGEST
        ),
    ] = DEFAULT_DAYS,
    out: Annotated[
        Path | None, typer.Option(help="Where to write it (default: stdout).", dir_okay=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that is there.")] = False,
    project: ProjectOption = Path(__file__).parents[2],
) -> None:
    """Make a bundle out of what a stack exports."""
    if (outputs is None) == (stack is None):
        raise typer.BadParameter("give either --outputs or --stack")
    if out is not None and out.exists() and not force:
        raise PkiError(f"{out} exists.", "Give another name, or --force to replace it.")
    exported = _of_stack(project, stack) if stack is not None else _of_file(outputs or Path("-"))
    source = f"stack {stack!r}" if stack is not None else f"{outputs}"
    side = exported.get(role.value) if isinstance(exported, dict) else None
    party: ProviderOutputs | ConsumerOutputs
    if role is RoleOption.CONSUMER:
        party = reference.read_consumer(side if isinstance(side, dict) else {}, source)
    else:
        party = reference.read_outputs(side, source)
    now = datetime.datetime.now(datetime.UTC)
    text = create(party, source, now, datetime.timedelta(days=days), _signer(sign))
    if out is None:
        sys.stdout.write(text)
    else:
        store.write(out, text.encode())
        sys.stdout.write(f"{out}: digest {json_.loads(text)['digest']}\n")


@app.command("verify")
def verify_(
    file: File,
    *,
    ca_fingerprint: Annotated[str | None, typer.Option(help="SHA-256 of the CA certificate.")] = None,
    digest: Annotated[str | None, typer.Option(help="SHA-256 of the bundle.")] = None,
) -> int:
    """Verify a bundle as a consumer's preview does. Exit code 2 when it is not acceptable."""
    pins = Pins(_digits(ca_fingerprint), _digits(digest))
    pinned = ca_fingerprint is not None or digest is not None
    try:
        bundle = _verified(file, pins if pinned else None)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return FOUND
    sys.stdout.write(f"{file} is intact, of {bundle.party.id}, until {bundle.expires:%F %T} UTC\n")
    if not pinned:
        sys.stdout.write("Nothing was pinned, so this says nothing about who made it.\n")
    return 0


@app.command("show")
def show(file: File, json: Json = False) -> int:
    """Show what a bundle says, and what to compare with its maker by another way."""
    try:
        bundle = _verified(file, None)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return FOUND
    party = bundle.party
    found: dict[str, object] = {
        "role": bundle.role,
        "id": party.id,
        "issued": f"{bundle.issued:%FT%TZ}",
        "expires": f"{bundle.expires:%FT%TZ}",
        "signed": bundle.signature is not None,
        "bundleDigest": bundle.digest.removeprefix("sha256:"),
        "caFingerprints": fingerprints(party.ca_certificate or ""),
    }
    if isinstance(party, ProviderOutputs):
        found |= {
            "systemDomain": party.system_domain,
            "port": party.port,
            "services": {
                name: {
                    endpoint: f"{public.host}:{public.port}" for endpoint, public in service.endpoints.items()
                }
                for name, service in party.services.items()
            },
        }
    if json:
        write_json(found)
        return 0
    for key, value in found.items():
        text = "\n".join(value) if isinstance(value, list) else json_.dumps(value).strip('"')
        sys.stdout.write(f"{key + ':':16}{text}\n")
    return 0


def _of_stack(directory: Path, stack: str) -> object:
    project = Project.load(directory.resolve())
    (name,) = project.chosen((stack,))
    found = engine.prepare(project).find(name)
    if found is None:
        raise PkiError(f"Stack {stack} was never deployed.", f"Deploy it first: python -m cli up {stack}")
    return found.outputs()


def _of_file(file: Path) -> object:
    try:
        return json_.loads(sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PkiError(
            f"{file} is no JSON: {error}", "Give what `pulumi stack output --json` wrote."
        ) from error


def _signer(folder: Path | None) -> Signer | None:
    if folder is None:
        return None
    data = read_folder(folder)
    return Signer(data["tls.crt"], data["tls.key"].encode())


def _verified(file: Path, pins: Pins | None) -> Bundle:
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise PkiError(
                f"{file} has more than {LARGEST} bytes; no bundle has.", "Ask for the bundle again."
            )
        text = content.decode()
    except UnicodeDecodeError as error:
        raise PkiError(f"{file} is no text: {error}", "Ask for the bundle again.") from error
    return verify(text, str(file), datetime.datetime.now(datetime.UTC), pins)


def _digits(text: str | None) -> str | None:
    return text.lower().removeprefix("sha256:").replace(":", "") if text is not None else None
