"""The engine's Kubernetes plugin: the official one wherever it can be had, else the lab's stand-in."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from tools import cache
from tools.errors import DownloadError, ToolError
from tools.progress import Progress
from tools.pulumi_cli import DOWNLOADS, TIMEOUT, Cli

EXECUTABLE = "pulumi-resource-kubernetes"
STAND_IN = Path(__file__).parent.parent / "lab" / "providers" / "bin"
"""Folder of the stand-in plugins' executables."""

AWS_EXECUTABLE = "pulumi-resource-aws"
AWS_STAND_IN = Path(__file__).parent.parent / "lab" / "providers" / "aws" / "bin"
"""Folder of the AWS stand-in, which is never on PATH beside the Kubernetes one: tests alone use it."""

INSTALL_TIMEOUT = 180.0
"""Seconds that `pulumi plugin install` gets once Pulumi's host has answered."""
RETRY_AFTER = 24 * 3600.0
"""Seconds for which a failed installation is not tried again."""


@dataclass(frozen=True)
class KubernetesPlugin:
    """Which plugin the engine will use for `kubernetes:*` resources."""

    official: bool
    version: str
    """The version of the `pulumi-kubernetes` package, which is the plugin's that the engine asks for."""
    path_entry: Path | None
    """A folder to put first on PATH; None where the engine finds the plugin by itself."""
    reason: str
    """One sentence for a person."""


def kubernetes_plugin(cli: Cli, progress: Progress) -> KubernetesPlugin:
    """Find the official plugin, else install it, else fall back to the stand-in."""
    version = importlib.metadata.version("pulumi-kubernetes")
    present = installed(version)
    if present is not None:
        return present
    refusal = _remembered(version)
    if refusal is None:
        try:
            _install(cli, version, progress)
        except DownloadError as error:
            refusal = str(error)
            _remember(version, refusal)
        else:
            return KubernetesPlugin(True, version, None, f"official plugin {version}, installed just now")
    reason = (
        f"the stand-in of lab/providers, because the official Kubernetes plugin {version} is not installed and "
        f"cannot be: {refusal}"
    )
    progress.say(f"Kubernetes plugin: {reason}.")
    return KubernetesPlugin(False, version, STAND_IN, reason)


def installed(version: str) -> KubernetesPlugin | None:
    """The official plugin, if the engine will find it: in Pulumi's plugin folder or on PATH."""
    folder = plugin_home() / "plugins" / f"resource-kubernetes-v{version}"
    if (folder / EXECUTABLE).is_file() and not folder.with_name(f"{folder.name}.partial").exists():
        return KubernetesPlugin(True, version, None, f"official plugin {version} in {folder}")
    on_path = shutil.which(EXECUTABLE)
    if on_path is not None and Path(on_path).parent.resolve() != STAND_IN.resolve():
        return KubernetesPlugin(True, version, None, f"the plugin on PATH, {on_path}")
    return None


def official_executable(version: str) -> Path:
    """The official plugin's file.

    Raises:
        ToolError: it is not installed.
    """
    place = plugin_home() / "plugins" / f"resource-kubernetes-v{version}" / EXECUTABLE
    on_path = shutil.which(EXECUTABLE)
    if place.is_file():
        return place
    if on_path is None:
        raise ToolError(f"the official Kubernetes plugin {version} is not installed")
    return Path(on_path)


def aws_stand_in() -> Path | None:
    """The folder of the stand-in for Pulumi's AWS plugin, which speaks to a moto server on this machine; None where an
    official plugin is installed, of whatever version."""
    folders = (plugin_home() / "plugins").glob("resource-aws-v*")
    on_path = shutil.which(AWS_EXECUTABLE)
    official = any((folder / AWS_EXECUTABLE).is_file() for folder in folders)
    if official or (on_path is not None and Path(on_path).parent.resolve() != AWS_STAND_IN.resolve()):
        return None
    return AWS_STAND_IN


def plugin_home() -> Path:
    """Pulumi's own folder: `$PULUMI_HOME`, by default `~/.pulumi`."""
    own = os.environ.get("PULUMI_HOME")
    return Path(own) if own else cache.home() / ".pulumi"


def _install(cli: Cli, version: str, progress: Progress) -> None:
    """Let the CLI install the plugin, unless its host is out of reach: the CLI itself would retry for long."""
    try:
        urllib.request.urlopen(DOWNLOADS, timeout=TIMEOUT).close()  # noqa: S310 - https
    except urllib.error.HTTPError as answered:
        answered.close()
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DownloadError(f"Pulumi's downloads are out of reach ({reason})") from error
    with progress.step(f"Installing the Kubernetes plugin {version}"):
        try:
            subprocess.run(
                [cli.executable, "plugin", "install", "resource", "kubernetes", f"v{version}"],
                env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
                capture_output=True,
                text=True,
                timeout=INSTALL_TIMEOUT,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            last = (error.stderr.strip().splitlines() or ["no message"])[-1].strip()
            raise DownloadError(f"`pulumi plugin install` failed: {last}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DownloadError(f"`pulumi plugin install` failed: {error}") from error


def _memory(version: str) -> Path:
    return cache.cache_root() / f"plugin-kubernetes-{version}.failed"


def _remembered(version: str) -> str | None:
    memory = _memory(version)
    try:
        age = time.time() - memory.stat().st_mtime
        refusal = memory.read_text()
    except OSError:
        return None
    if age > RETRY_AFTER:
        return None
    return f"{refusal}, {age / 3600:.0f} h ago; delete {memory} to try again"


def _remember(version: str, refusal: str) -> None:
    """Spares the next runs the attempt, where the cache can be written."""
    memory = _memory(version)
    with contextlib.suppress(OSError):
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(refusal)
