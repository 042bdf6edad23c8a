"""`python -m lab`: clusters on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

import tools
from lab import packages as debian
from lab import running
from lab.control_plane import ControlPlane
from lab.errors import LabError
from lab.lab import Lab
from lab.processes import clean_up_crashed
from lab.registry import NAME, Description, already, described, is_running, state_directory

POLL = 0.5
"""Seconds between two looks at the parts of a control plane."""
END_TIMEOUT = 60.0
"""Seconds within which a lab that is told to must have ended."""

app = typer.Typer(
    help="Real clusters on this machine, without containers. Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted; "
    "`exec` and `proxy-config` exit as the command does that they run.",
    no_args_is_help=True,
    add_completion=False,
)
_console = Console(stderr=True, soft_wrap=True, highlight=False)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PodReference = Annotated[
    str,
    typer.Argument(
        metavar="CLUSTER/NAMESPACE/POD",
        help="A Pod, by its name or the beginning of it, e.g. its Deployment's.",
    ),
]
LabName = Annotated[str, typer.Option("--lab", help="Name of the lab; tests call theirs tests-<process>.")]
Container = Annotated[
    str | None, typer.Option("--container", "-c", help="Its container. Default: the first.")
]


@app.callback()
def lab() -> None:
    """Real clusters on this machine, without containers."""


@app.command()
def up(
    foreground: Annotated[
        bool, typer.Option("--foreground", help="Stay until Ctrl-C, which ends the lab.")
    ] = False,
) -> None:
    """Start two clusters, apply the lab's stacks to them and send a query through. `down` ends it."""
    if foreground:
        _run_lab()
        return
    if is_running():
        raise LabError(already())
    log = state_directory() / "lab.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "lab", "up", "--foreground"],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        code = running.follow(process, log)
    except KeyboardInterrupt:
        _console.print("Interrupted: ending the lab …")
        process.send_signal(signal.SIGTERM)
        process.wait()
        sys.exit(130)
    if code is not None:
        sys.exit(code)


def _run_lab() -> None:
    progress = tools.Progress(_console)
    began = time.monotonic()
    world = Lab(progress=progress)
    try:
        world.start()
        answer = world.connect()
        progress.say(
            f"The first query was answered {time.monotonic() - began:.0f} s after the start: {answer}"
        )
        progress.say(running.READY)
        while True:
            time.sleep(POLL)
    except KeyboardInterrupt:
        progress.say("Stopping …")
        world.stop()
    except BaseException:
        world.stop(keep_logs=True)
        raise


@app.command()
def down() -> None:
    """End the lab, or what a killed one has left. With none there is nothing to do."""
    description = described()
    if description is not None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            os.kill(description.pid, signal.SIGTERM)
        deadline = time.monotonic() + END_TIMEOUT
        while is_running():
            if time.monotonic() > deadline:
                raise LabError(
                    f"the lab (process {description.pid}) does not end; kill it and run this again"
                )
            time.sleep(0.1)
        _console.print("The lab has ended.")
    clean_up_crashed()


@app.command()
def status(as_json: Json = False, name: LabName = NAME) -> None:
    """Show the clusters and their Pods. Exit code 1 if there is no lab."""
    report = running.report(_description(name))
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        running.show(report)


@app.command("exec", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def execute(
    pod: PodReference,
    command: Annotated[list[str], typer.Argument(help="Behind `--`: what to run.")],
    container: Container = None,
    name: LabName = NAME,
) -> None:
    """Run a command in a Pod, e.g. `exec consumer/shop/orders-api -- psql --version`."""
    cluster, reference = running.find(_description(name), pod)
    line = cluster.command(reference, command, container=container)
    sys.exit(subprocess.run(line, check=False).returncode)


@app.command()
def logs(
    pod: PodReference,
    container: Container = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    name: LabName = NAME,
) -> None:
    """Print a container's log."""
    cluster, reference = running.find(_description(name), pod)
    file = cluster.log_file(reference, container)
    line = ["tail", "-n", "+1", *(["-F"] if follow else []), str(file)]
    sys.exit(subprocess.run(line, check=False).returncode)


@app.command()
def kubeconfig(
    cluster: Annotated[str, typer.Argument(help="consumer or provider.")], name: LabName = NAME
) -> None:
    """Print the path of a cluster's kubeconfig."""
    typer.echo(running.cluster(_description(name), cluster).kubeconfig)


@app.command("proxy-config", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def proxy_config(
    what: Annotated[
        str, typer.Argument(help="clusters, listeners, routes, endpoints, bootstrap, log, secret or all.")
    ],
    pod: PodReference,
    context: typer.Context,
    name: LabName = NAME,
) -> None:
    """Show a proxy's configuration as `istioctl proxy-config` does; more options are passed to it."""
    cluster, reference = running.find(_description(name), pod)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(cluster.admin(reference, "/config_dump?include_eds"))
        file.flush()
        command = [str(tools.ensure("istioctl")), "proxy-config", what, "--file", file.name, *context.args]
        sys.exit(subprocess.run(command, check=False).returncode)


@app.command()
def packages() -> None:
    """Install the Debian packages that the lab needs and that are missing."""
    installed = debian.install()
    _console.print(f"Installed: {', '.join(installed)}" if installed else "Nothing is missing.")


@app.command()
def control_plane(
    istiod: Annotated[
        bool, typer.Option("--istiod", help="Also run istiod and its validating webhook.")
    ] = False,
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="For its files; must be empty or not exist. Default: a temporary one."),
    ] = None,
    name: Annotated[str, typer.Option(help="The cluster's name.")] = "lab",
) -> None:
    """Run one control plane in the foreground until Ctrl-C, which leaves nothing behind."""
    root = directory or Path(tempfile.mkdtemp(prefix="meshbridge-lab-"))
    progress = tools.Progress(_console)
    plane = ControlPlane(name, root.absolute(), istiod=istiod, progress=progress)
    try:
        with progress.step(f"Starting the control plane {name}"):
            plane.start()
        typer.echo(plane.kubeconfig)
        progress.say(f"API server {plane.server}, logs in {plane.logs}")
        progress.say(f"Use it with: export KUBECONFIG={plane.kubeconfig}")
        progress.say("Ctrl-C stops it and removes its files.")
        _watch(plane)
    except KeyboardInterrupt:
        progress.say("Stopping …")
    finally:
        plane.stop()


def _watch(plane: ControlPlane) -> NoReturn:
    while True:
        for process in plane.processes:
            if not process.running:
                raise process.error("ended by itself")
        time.sleep(POLL)


def _description(name: str) -> Description:
    description = described(name)
    if description is None:
        raise LabError("no lab runs; start one with `python -m lab up`")
    return description


def main() -> NoReturn:
    """Run the command line and turn what goes wrong into a message and an exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except (LabError, tools.ToolError) as error:
        _console.print(f"[red]error:[/red] {escape(str(error))}")
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
