from __future__ import annotations

import importlib.metadata
import os
import time
from pathlib import Path

import pytest

from tests.tools.conftest import Machine
from tools import plugins
from tools.errors import DownloadError, ToolError
from tools.progress import Progress
from tools.pulumi_cli import Cli

VERSION = importlib.metadata.version("pulumi-kubernetes")
CLI = Cli(Path("/somewhere/pulumi"), "build")


@pytest.fixture
def refusals(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every installation fail, and record the attempts."""
    attempts: list[str] = []

    def install(_cli: Cli, version: str, _progress: Progress) -> None:
        attempts.append(version)
        raise DownloadError("no network in this test")

    monkeypatch.setattr(plugins, "_install", install)
    return attempts


def test_an_installed_official_plugin_is_used(machine: Machine, refusals: list[str]) -> None:
    machine.program(
        plugins.EXECUTABLE, "", machine.pulumi_home / "plugins" / f"resource-kubernetes-v{VERSION}"
    )

    plugin = plugins.kubernetes_plugin(CLI, machine.progress)

    assert plugin.official
    assert plugin.path_entry is None
    assert not refusals


def test_an_unfinished_installation_or_another_version_does_not_count(
    machine: Machine, refusals: list[str]
) -> None:
    folder = machine.pulumi_home / "plugins" / f"resource-kubernetes-v{VERSION}"
    machine.program(plugins.EXECUTABLE, "", folder)
    folder.with_name(f"{folder.name}.partial").touch()
    machine.program(plugins.EXECUTABLE, "", folder.with_name("resource-kubernetes-v4.0.0"))

    assert not plugins.kubernetes_plugin(CLI, machine.progress).official


def test_a_plugin_on_path_is_used_unless_it_is_the_stand_in(
    machine: Machine, refusals: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = tmp_path / "stand-in"
    machine.program(plugins.EXECUTABLE, "", stand_in)
    monkeypatch.setattr(plugins, "STAND_IN", stand_in)
    monkeypatch.setenv("PATH", f"{stand_in}:{machine.path}")
    assert not plugins.kubernetes_plugin(CLI, machine.progress).official

    on_path = machine.program(plugins.EXECUTABLE, "")
    monkeypatch.setenv("PATH", str(machine.path))
    plugin = plugins.kubernetes_plugin(CLI, machine.progress)
    assert plugin.official
    assert str(on_path) in plugin.reason


def test_without_the_official_plugin_the_stand_in_comes_first_on_path_and_says_so(
    machine: Machine, refusals: list[str]
) -> None:
    plugin = plugins.kubernetes_plugin(CLI, machine.progress)

    assert not plugin.official
    assert plugin.path_entry == plugins.STAND_IN
    said = machine.said.getvalue()
    assert "stand-in" in said
    assert "no network in this test" in said
    assert len(said.splitlines()) == 1


def test_a_failed_installation_is_tried_again_only_after_a_day(machine: Machine, refusals: list[str]) -> None:
    plugins.kubernetes_plugin(CLI, machine.progress)
    again = plugins.kubernetes_plugin(CLI, machine.progress)
    assert refusals == [VERSION]
    assert f"delete {plugins._memory(VERSION)} to try again" in again.reason

    yesterday = time.time() - plugins.RETRY_AFTER - 1
    os.utime(plugins._memory(VERSION), (yesterday, yesterday))
    plugins.kubernetes_plugin(CLI, machine.progress)
    assert refusals == [VERSION, VERSION]


def test_a_cache_that_cannot_be_written_only_forgets(machine: Machine, refusals: list[str]) -> None:
    machine.cache.parent.write_text("a file where the cache would be")

    for _ in range(2):
        assert not plugins.kubernetes_plugin(CLI, machine.progress).official
    assert refusals == [VERSION, VERSION]


def test_a_plugin_installed_just_now_is_used(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_install", lambda *_: None)

    plugin = plugins.kubernetes_plugin(CLI, machine.progress)

    assert plugin.official
    assert plugin.path_entry is None


def test_an_unreachable_host_is_noticed_before_the_cli_tries(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "DOWNLOADS", (tmp_path / "missing").as_uri())

    with pytest.raises(DownloadError, match="out of reach"):
        plugins._install(CLI, VERSION, machine.progress)


def test_a_host_that_speaks_no_http_is_out_of_reach(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, broken_proxy: str
) -> None:
    monkeypatch.setattr(plugins, "DOWNLOADS", broken_proxy)

    with pytest.raises(DownloadError, match="out of reach"):
        plugins._install(CLI, VERSION, machine.progress)


def test_what_the_cli_says_about_a_failure_is_passed_on(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "DOWNLOADS", machine.path.as_uri() + "/pulumi")
    executable = machine.program("pulumi", 'echo trying >&2; echo "error: 403 for $*" >&2; exit 255')

    with pytest.raises(DownloadError, match=f"error: 403 for plugin install resource kubernetes v{VERSION}"):
        plugins._install(Cli(executable, "PATH"), VERSION, machine.progress)


def test_the_aws_stand_in_gives_way_to_any_official_plugin(machine: Machine, tmp_path: Path) -> None:
    assert plugins.aws_stand_in() == plugins.AWS_STAND_IN
    assert plugins.AWS_STAND_IN != plugins.STAND_IN, "it would be on PATH beside the Kubernetes one"
    folder = machine.pulumi_home / "plugins" / "resource-aws-v7.0.0"
    machine.program(plugins.AWS_EXECUTABLE, "", folder)
    assert plugins.aws_stand_in() is None


def test_the_aws_stand_in_gives_way_to_a_plugin_on_path(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.program(plugins.AWS_EXECUTABLE, "", tmp_path / "official")
    monkeypatch.setenv("PATH", f"{tmp_path / 'official'}:{machine.path}")
    assert plugins.aws_stand_in() is None
    monkeypatch.setenv("PATH", f"{plugins.AWS_STAND_IN}:{machine.path}")
    assert plugins.aws_stand_in() == plugins.AWS_STAND_IN


def test_the_official_plugin_s_file_is_found_in_its_folder_or_on_path(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ToolError, match="is not installed"):
        plugins.official_executable(VERSION)
    folder = machine.pulumi_home / "plugins" / f"resource-kubernetes-v{VERSION}"
    machine.program(plugins.EXECUTABLE, "", machine.pulumi_home / "elsewhere")
    monkeypatch.setenv("PATH", str(machine.pulumi_home / "elsewhere"))
    assert plugins.official_executable(VERSION) == machine.pulumi_home / "elsewhere" / plugins.EXECUTABLE
    machine.program(plugins.EXECUTABLE, "", folder)
    assert plugins.official_executable(VERSION) == folder / plugins.EXECUTABLE
