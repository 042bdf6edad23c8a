from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tools.conftest import Machine
from tools import cache, go_build, pulumi_cli
from tools.errors import DownloadError, GoMissingError, ToolError
from tools.modules import PULUMI
from tools.progress import Detail, Progress
from tools.pulumi_cli import Cli

OLDEST = "v" + ".".join(map(str, pulumi_cli.OLDEST))


def refuse(url: str, _target: Path, _detail: Detail) -> None:
    raise DownloadError(f"{url}: no network in this test")


def no_download(_url: str, _target: Path, _detail: Detail) -> None:
    raise AssertionError("nothing was to be downloaded")


def release(listed: str | None = None, members: tuple[str, ...] = ("pulumi/pulumi",)) -> pulumi_cli.Fetch:
    """A fetch that serves a release archive, and a list of checksums that is right unless given."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for member in members:
            tar.addfile(tarfile.TarInfo(member), io.BytesIO())
    archive = buffer.getvalue()

    def fetch(url: str, target: Path, detail: Detail) -> None:
        if url.endswith("-checksums.txt"):
            name = f"{pulumi_cli._download_name()}.tar.gz"
            target.write_text(listed or f"{hashlib.sha256(archive).hexdigest()}  {name}\n")
        else:
            assert url.startswith(f"{pulumi_cli.DOWNLOADS}/pulumi-{PULUMI.version}-")
            target.write_bytes(archive)
        detail("done")

    return fetch


def pulumi_on_path(machine: Machine, version: str) -> Path:
    machine.program("pulumi-language-python", "exit 0")
    return machine.program("pulumi", f"echo {version}")


def built_in_cache(machine: Machine) -> Path:
    machine.program("go", "echo go1.26.1")
    directory = machine.cache / go_build.directory_name(pulumi_cli._programs())
    machine.program("pulumi", "", directory)
    return directory / "pulumi"


def downloaded_in_cache(machine: Machine) -> Path:
    return machine.program("pulumi", "", machine.cache / pulumi_cli._download_name())


@pytest.mark.parametrize("version", [OLDEST, PULUMI.version, "v3.999.0", "v3.251.0-alpha.1"])
def test_a_recent_cli_on_path_comes_first(machine: Machine, version: str) -> None:
    executable = pulumi_on_path(machine, version)
    downloaded_in_cache(machine)
    built_in_cache(machine)

    assert pulumi_cli.ensure(machine.progress, no_download) == Cli(executable, "PATH")


@pytest.mark.parametrize(
    ("version", "complaint"),
    [
        ("v3.199.9", "version 3.199.9 is not 3.200.0 or a later 3.x"),
        ("v4.0.0", "version 4.0.0 is not"),
        ("v2.9.0", "version 2.9.0 is not"),
        ("nonsense", "answers 'nonsense'"),
        ("; exit 3", "`pulumi version` failed"),
    ],
)
def test_another_cli_on_path_is_passed_over_and_why(machine: Machine, version: str, complaint: str) -> None:
    pulumi_on_path(machine, version)
    executable = downloaded_in_cache(machine)

    assert pulumi_cli.ensure(machine.progress, no_download) == Cli(executable, "download")
    assert complaint in machine.said.getvalue()


def test_a_cli_without_language_host_is_passed_over(machine: Machine) -> None:
    machine.program("pulumi", f"echo {PULUMI.version}")
    executable = downloaded_in_cache(machine)

    assert pulumi_cli.ensure(machine.progress, no_download).executable == executable
    assert "no pulumi-language-python beside it" in machine.said.getvalue()


def test_a_link_to_a_cli_with_its_language_host_beside_it_is_used(machine: Machine, tmp_path: Path) -> None:
    installed = machine.program("pulumi", f"echo {PULUMI.version}", tmp_path / "opt")
    machine.program("pulumi-language-python", "", tmp_path / "opt")
    (machine.path / "pulumi").symlink_to(installed)

    assert pulumi_cli.ensure(machine.progress, no_download).source == "PATH"


def test_what_is_cached_is_not_fetched_again(machine: Machine) -> None:
    built = built_in_cache(machine)
    assert pulumi_cli.ensure(machine.progress, no_download) == Cli(built, "build")

    downloaded = downloaded_in_cache(machine)
    assert pulumi_cli.ensure(machine.progress, no_download) == Cli(downloaded, "download")


@pytest.mark.parametrize("in_cache", [downloaded_in_cache, built_in_cache])
def test_a_cached_folder_that_lost_its_program_is_named(
    machine: Machine, in_cache: Callable[[Machine], Path]
) -> None:
    executable = in_cache(machine)
    executable.unlink()
    with pytest.raises(ToolError, match=rf"{executable.parent} lacks pulumi; delete that folder"):
        pulumi_cli.ensure(machine.progress, no_download)


@pytest.mark.parametrize("folder", ["pulumi", "pulumi/bin"])
def test_downloads_and_unpacks_the_release(machine: Machine, folder: str) -> None:
    fetch = release(members=(f"{folder}/pulumi", f"{folder}/pulumi-language-python"))

    cli = pulumi_cli.ensure(machine.progress, fetch)

    assert cli.source == "download"
    assert sorted(path.name for path in cli.directory.iterdir()) == ["pulumi", "pulumi-language-python"]
    assert cache.cached(cli.directory.name) == cli.directory


@pytest.mark.parametrize(
    ("fetch", "reason"),
    [
        (refuse, "no network in this test"),
        (release(listed="00  some-other.tar.gz\n"), "is not in the release's list of checksums"),
        (
            release(listed=f"{'0' * 64}  {pulumi_cli._download_name()}.tar.gz\n"),
            f"the release says {'0' * 64}",
        ),
        (release(members=("README",)), "holds no pulumi"),
    ],
)
def test_a_download_that_fails_is_explained_in_one_line_and_the_cli_is_built(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, fetch: pulumi_cli.Fetch, reason: str
) -> None:
    def build(_progress: Progress) -> Cli:
        return Cli(Path("/built/pulumi"), "build")

    monkeypatch.setattr(pulumi_cli, "build", build)

    assert pulumi_cli.ensure(machine.progress, fetch).source == "build"
    explained = [line for line in machine.said.getvalue().splitlines() if "cannot be used" in line]
    assert len(explained) == 1
    assert reason in explained[0]
    assert "building the CLI from its Go module" in explained[0]
    assert not [path for path in machine.cache.iterdir() if path.is_dir()]


def test_without_path_network_and_go_it_says_what_to_do(machine: Machine) -> None:
    with pytest.raises(GoMissingError, match=r"no network in this test.*install Pulumi 3.*install Go"):
        pulumi_cli.ensure(machine.progress, refuse)


def test_a_file_url_stands_for_the_network_and_errors_name_the_url(machine: Machine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    target = tmp_path / "target"
    details: list[str] = []

    pulumi_cli._fetch(source.as_uri(), target, details.append)

    assert target.read_bytes() == source.read_bytes()
    assert details[-1] == "2 MiB"
    with pytest.raises(DownloadError, match=r"file://.*/missing: .*No such file"):
        pulumi_cli._fetch((tmp_path / "missing").as_uri(), target, details.append)


def test_an_answer_that_is_no_http_is_a_download_that_fails(tmp_path: Path, broken_proxy: str) -> None:
    with pytest.raises(DownloadError, match="go away"):
        pulumi_cli._fetch(broken_proxy, tmp_path / "target", lambda _text: None)
