"""The command line: serve, reconcile, list, doctor.

Exit codes: 0 done, 1 something is wrong, 64 wrong usage or settings, 75 the database is in use or away: try again.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from contextlib import closing
from math import ceil
from pathlib import Path
from typing import Annotated, NoReturn

import typer
import uvicorn
from rich.console import Console
from rich.table import Table

from broker import doctor as doctor_module
from broker import logs, settings, tracing
from broker.app import create_app
from broker.engine import Engine
from broker.errors import UnavailableError
from broker.probe import probe_of
from broker.progress import Progress
from broker.proxy import Proxy
from broker.reconciler import Reconciler
from broker.sides import side_of
from broker.store import DatabaseInUseError, Store, VersionError, open_locks
from broker.store.locks import STEP_PATIENCE
from broker.update import EngineError
from broker.upstream import Upstream

USAGE, AGAIN = 64, 75

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True
)

File = Annotated[
    Path | None,
    typer.Option("--settings", envvar="MESHBRIDGE_BROKER_SETTINGS", help="The settings file (YAML)."),
]
SecretsFolder = Annotated[
    Path | None,
    typer.Option(
        "--secrets",
        envvar="MESHBRIDGE_BROKER_SECRETS",
        help="Folder of secret files: password, upstream_password, database, state.",
    ),
]
Role = Annotated[str | None, typer.Option(help="consumer, provider or forward.")]
UpstreamUrl = Annotated[str | None, typer.Option(help="URL of the next broker.")]
Listen = Annotated[str | None, typer.Option(help="HOST:PORT to listen on.")]
Database = Annotated[str | None, typer.Option(help="SQLAlchemy URL of the bindings, without a password.")]
State = Annotated[str | None, typer.Option(help="Pulumi backend of the stacks, without a password.")]
Stack = Annotated[str | None, typer.Option(help="Name of the stacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON, for scripts.")]


def _read(file: Path | None, secrets: Path | None, **flags: str | None) -> settings.Settings:
    given: Mapping[str, object] = {name: value for name, value in flags.items() if value is not None}
    return settings.read(given, file, secrets)


def longest_call(read: settings.Settings) -> int:
    """Seconds that a call may take, which a stop waits for: for a step of its binding, the upstream, and its route."""
    return ceil(STEP_PATIENCE) + read.upstream_timeout + read.deploy_timeout


@app.command()
def serve(
    *,
    file: File = None,
    secrets: SecretsFolder = None,
    role: Role = None,
    upstream: UpstreamUrl = None,
    listen: Listen = None,
    database: Database = None,
    state: State = None,
    stack: Stack = None,
) -> None:
    """Answer OSB calls and keep the routes as they are wanted, until SIGTERM or Ctrl-C."""
    read = _read(
        file,
        secrets,
        role=role,
        upstream=upstream,
        listen=listen,
        database=database,
        state=state,
        stack=stack,
    )
    logs.configure()
    tracing.configure()
    host, port = read.address
    config = uvicorn.Config(
        create_app(read, Proxy(read)),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=longest_call(read),
        ssl_certfile=read.tls_certificate,
        ssl_keyfile=read.tls_key,
        ssl_ca_certs=str(read.tls_client_ca) if read.tls_client_ca else None,
        ssl_cert_reqs=2 if read.tls_client_ca else 0,
    )
    with settings.reading(read, "tls_certificate", "tls_key", "tls_client_ca"):
        config.load()
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises them once more when it has stopped gracefully, which would look like a crash.
        signal.signal(number, stop)
    try:
        server.run()
    finally:
        tracing.shut_down()
    if not server.started:
        raise typer.Exit(1)


@app.command()
def reconcile(
    *,
    file: File = None,
    secrets: SecretsFolder = None,
    database: Database = None,
    state: State = None,
    stack: Stack = None,
) -> None:
    """Go on with what the upstream has to do, compare every stack with its cluster, and repair what differs from the
    database."""
    read = _read(file, secrets, database=database, state=state, stack=stack)
    logs.configure()
    store = Store(read.database)
    locks = open_locks(store, read.stack)
    upstream = Upstream(read)
    engine = Engine(read)
    reconciler = Reconciler(store, locks, engine, probe=probe_of(read))
    try:
        store.migrate()
        side = side_of(read, upstream)
        if side is None:
            return
        progress = Progress(read, side, upstream, store=store, locks=locks, reconciler=reconciler)
        with closing(progress):
            failed = doctor_module.repair(read, store, locks, reconciler, progress.resume)
    finally:
        reconciler.stop()
        engine.close()
        locks.close()
        upstream.close()
    for name, reason in sorted(failed.items()):
        typer.echo(f"{name}: {reason}", err=True)
    raise typer.Exit(1 if failed else 0)


@app.command(name="list")
def list_(
    *,
    file: File = None,
    secrets: SecretsFolder = None,
    database: Database = None,
    as_json: AsJson = False,
) -> None:
    """List the stored bindings: what is wanted, and what is known to be there."""
    read = _read(file, secrets, database=database)
    rows = [doctor_module.row(binding) for binding in _store(read).all()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    _table(rows, ["binding_id", "instance_id", "phase", "shard", "route", "endpoints", "error"])


@app.command()
def doctor(
    *,
    file: File = None,
    secrets: SecretsFolder = None,
    database: Database = None,
    state: State = None,
    stack: Stack = None,
    as_json: AsJson = False,
) -> None:
    """Compare what is stored, what the stacks know, what is in the cluster and what the upstream says; exit code 1 where
    they differ. Changes nothing."""
    read = _read(file, secrets, database=database, state=state, stack=stack)
    logs.configure()
    store = _store(read)
    upstream = Upstream(read)
    engine = Engine(read)
    try:
        findings = doctor_module.examine(read, store, engine, upstream)
    finally:
        engine.close()
        upstream.close()
    if as_json:
        typer.echo(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(str(finding))
        typer.echo(f"{len(findings)} findings" if findings else "all is well", err=True)
    raise typer.Exit(1 if findings else 0)


def _store(read: settings.Settings) -> Store:
    """The database, to look at. Raises VersionError."""
    store = Store(read.database)
    store.check_version()
    return store


def _table(rows: list[dict[str, object]], columns: list[str]) -> None:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        cells = (row[column] for column in columns)
        table.add_row(*("\n".join(map(str, c)) if isinstance(c, list) else str(c or "") for c in cells))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def main() -> NoReturn:
    """Runs the command line; every expected error is a message, not a traceback."""
    try:
        code = app(standalone_mode=False)
    except settings.SettingsError as error:
        _fail(str(error), USAGE)
    except DatabaseInUseError as error:
        _fail(str(error), AGAIN)
    except UnavailableError as error:
        _fail(error.description, AGAIN)
    except (EngineError, VersionError, OSError) as error:  # OSError: what is shown cannot be written
        _fail(str(error), 1)
    except typer.TyperException as error:
        _fail(f"{error.format_message()}\n  See: python -m broker --help", USAGE)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    sys.exit(code)
