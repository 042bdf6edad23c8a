"""The command line.

Exit codes: 0 done, 1 failed, 2 drift found, 64 wrong usage, 75 the stack is locked, 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli import deploy, review
from cli.console import note
from cli.errors import CliError, ExitCode
from tools import ToolError

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)

COMMANDS = (
    deploy.up,
    deploy.down,
    deploy.unlock,
    review.preview,
    review.drift,
    review.comment,
    review.touched,
    review.post_preview,
    review.post_drift,
)
for command in COMMANDS:
    app.command()(command)


@app.callback(epilog=__doc__.partition("\n\n")[2] if __doc__ else None)
def start(
    context: typer.Context,
    project: Annotated[
        Path, typer.Option(help="The directory with Pulumi.yaml.", file_okay=False, exists=True)
    ] = Path(__file__).parent.parent,
) -> None:
    """Preview, deploy, check and remove the stacks of this project."""
    context.obj = project.resolve()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code; every expected error is a message, not a traceback."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        code = app(given or ["--help"], standalone_mode=False)
    except CliError as error:
        note.print(f"error: {error}", style="red")
        return error.code
    except (ToolError, OSError) as error:  # OSError: what is shown cannot be written, as on a full disk
        note.print(f"error: {error}", style="red")
        return ExitCode.FAILED
    except typer.TyperException as error:
        note.print(f"error: {error.format_message()}\n  See: python -m cli --help", style="red")
        return ExitCode.USAGE
    except (typer.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.OK
