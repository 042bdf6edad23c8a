"""Finds or builds the Pulumi CLI and the lab's binaries, once per machine.

`python -m tools --help` is the same for people. Nothing here imports the product.
"""

from __future__ import annotations

from pathlib import Path

from tools import cache, go_build, modules, plugins, pulumi_cli
from tools.environment import engine_environment, engine_programs, state_url
from tools.errors import BuildError, DownloadError, GoMissingError, ToolError, UnknownToolError
from tools.modules import expand
from tools.plugins import KubernetesPlugin
from tools.program import link_program
from tools.progress import Progress
from tools.pulumi_cli import Cli

__all__ = [
    "BuildError",
    "Cli",
    "DownloadError",
    "GoMissingError",
    "KubernetesPlugin",
    "Progress",
    "ToolError",
    "UnknownToolError",
    "engine_environment",
    "engine_programs",
    "ensure",
    "expand",
    "find",
    "istio_source",
    "kubernetes_plugin",
    "link_program",
    "pulumi",
    "state_url",
    "version",
]


def ensure(name: str, progress: Progress | None = None) -> Path:
    """The executable of one tool (see `expand` for groups), found, downloaded or built.

    Raises:
        UnknownToolError: there is no such tool.
        ToolError: it cannot be had; the message says what to do.
    """
    shown = progress or Progress()
    if name == modules.PULUMI.name:
        return pulumi_cli.ensure(shown).executable
    program = _lab_program(name)
    return go_build.build([program], shown) / program.name


def find(name: str, progress: Progress | None = None) -> Path | None:
    """The executable of one tool if it is there already.

    Raises:
        UnknownToolError: there is no such tool.
        GoMissingError: the cache cannot be searched, because its keys contain Go's version.
        ToolError: a folder of the cache is there, but lacks the Pulumi CLI.
    """
    if name == modules.PULUMI.name:
        cli = pulumi_cli.find(progress or Progress())
        return cli.executable if cli is not None else None
    program = _lab_program(name)
    directory = cache.cached(go_build.directory_name([program]))
    return directory / program.name if directory is not None else None


def version(name: str) -> str:
    """The version to which a tool is pinned, with its `v`.

    Raises:
        UnknownToolError: there is no such tool.
    """
    return modules.PULUMI.version if name == modules.PULUMI.name else _lab_program(name).module.version


def pulumi(progress: Progress | None = None) -> Cli:
    """The Pulumi CLI, and where it is from.

    Raises:
        ToolError: it cannot be had; the message says what to do.
    """
    return pulumi_cli.ensure(progress or Progress())


def kubernetes_plugin(progress: Progress | None = None) -> KubernetesPlugin:
    """The Kubernetes plugin that the engine will use; the stand-in only where the official one cannot be had.

    Raises:
        ToolError: the Pulumi CLI cannot be had.
    """
    shown = progress or Progress()
    return plugins.kubernetes_plugin(pulumi_cli.ensure(shown), shown)


def istio_source() -> Path:
    """The source tree of the pinned Istio, for its charts and bootstrap template.

    Raises:
        GoMissingError: Go is not on PATH.
        BuildError: it cannot be downloaded.
    """
    return go_build.module_source(modules.ISTIO, modules.ISTIO.pinned_by)


def _lab_program(name: str) -> modules.Program:
    try:
        return modules.lab_programs()[name]
    except KeyError:
        known = ", ".join([modules.PULUMI.name, *modules.lab_programs()])
        raise UnknownToolError(f"no tool is called {name!r}; there are: {known}") from None
