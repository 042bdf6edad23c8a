"""The environment in which the engine runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tools import plugins, pulumi_cli
from tools.progress import Progress


def engine_environment(
    base: Mapping[str, str] | None = None, progress: Progress | None = None
) -> dict[str, str]:
    """Variables with which `pulumi` runs: the CLI, its language host, this Python and the plugins on PATH.

    Nothing secret is added: backend and passphrase are the caller's.

    Args:
        base: what to start from; by default this process's environment.
        progress: where steps are shown; by default stderr.

    Raises:
        ToolError: the CLI cannot be had.
    """
    shown = progress or Progress()
    cli = pulumi_cli.ensure(shown)
    plugin = plugins.kubernetes_plugin(cli, shown)
    return compose(os.environ if base is None else base, cli, plugin)


def engine_programs(progress: Progress | None = None) -> dict[str, Path]:
    """The files that an engine in another root needs on PATH, by name: the CLI, and the official Kubernetes plugin where
    this machine has it.

    Raises:
        ToolError: the CLI cannot be had.
    """
    shown = progress or Progress()
    cli = pulumi_cli.ensure(shown)
    plugin = plugins.kubernetes_plugin(cli, shown)
    found = {"pulumi": cli.executable}
    if plugin.official:
        found[plugins.EXECUTABLE] = plugins.official_executable(plugin.version)
    return found


def state_url(directory: Path) -> str:
    """The `PULUMI_BACKEND_URL` of a state kept in `directory`, which an engine killed at any moment leaves readable.

    By default the store behind `file://` keeps a sidecar `<file>.attrs` that it does not replace atomically: a kill
    between its two writes leaves it empty, and then every command fails with "failed to load checkpoint: EOF".
    """
    return f"{directory.absolute().as_uri()}?metadata=skip"


def compose(base: Mapping[str, str], cli: pulumi_cli.Cli, plugin: plugins.KubernetesPlugin) -> dict[str, str]:
    """`base` with what the engine needs. Pure but for the place of the running Python."""
    first = [plugin.path_entry] if plugin.path_entry is not None else []
    # A CLI from PATH finds its language host there as well; adding its folder could only reorder PATH.
    own_cli = [cli.directory] if cli.source != "PATH" else []
    entries = [str(entry) for entry in (*first, Path(sys.executable).parent, *own_cli)]
    environment = {
        **base,
        "PATH": os.pathsep.join([*entries, base.get("PATH", os.defpath)]),
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }
    if not plugin.official:
        # What could not be downloaded a moment ago must not be tried, with retries, by every run.
        environment["PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION"] = "true"
    return environment
