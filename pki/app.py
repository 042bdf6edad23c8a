"""A certificate authority for development and for small federations.

Exit codes: 0 done, 1 failed, 2 something is wrong with what was checked, 64 wrong usage, 75 another process writes to
the authority, 130 interrupted. Results go to stdout (with --json as JSON), messages to stderr. No command ever prints
a private key.
"""

from __future__ import annotations

import sys

import typer

from cli.console import note
from cli.errors import CliError, ExitCode
from config import ConfigError
from pki.commands import bundles, issuing, rotation, storing
from pki.errors import LockedError, PkiError
from tools import ToolError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

for command in (
    issuing.create,
    issuing.server,
    issuing.client,
    issuing.mesh_ca,
    issuing.renew,
    issuing.revoke,
    issuing.crl,
    issuing.list_,
    storing.check,
    storing.store,
):
    app.command(command.__name__.strip("_").replace("_", "-"))(command)
app.add_typer(rotation.app, name="rotate")
app.add_typer(bundles.app, name="bundle")


@app.callback(epilog=__doc__.partition("\n\n")[2])
def start() -> None:
    """Create, issue, renew, revoke and rotate certificates."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected error is a message, not a traceback."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(given or ["--help"], standalone_mode=False)
    except LockedError as error:
        note.print(f"error: {error}", style="red")
        return ExitCode.LOCKED
    except (PkiError, ConfigError, ToolError, OSError) as error:
        note.print(f"error: {error}", style="red")
        return ExitCode.FAILED
    except CliError as error:
        note.print(f"error: {error}", style="red")
        return error.code
    except typer.TyperException as error:
        note.print(f"error: {error.format_message()}\n  See: python -m pki --help", style="red")
        return ExitCode.USAGE
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.OK
