"""The Pulumi CLI: from PATH, else Pulumi's own download, else built from the pinned Go module."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import Literal

from tools import cache, go_build
from tools.errors import DownloadError, GoMissingError, ToolError
from tools.modules import PULUMI, PULUMI_LANGUAGE_PYTHON, Program, programs_of
from tools.progress import Detail, Progress

OLDEST = (3, 200, 0)
"""The oldest CLI that is taken from PATH. The SDK asks the engine which features it has, so an older engine works, but
nothing older than half a year before the pinned version has been looked at."""

LANGUAGE_HOST = PULUMI_LANGUAGE_PYTHON.name
LANGUAGE_EXECUTOR = f"{LANGUAGE_HOST}-exec"

DOWNLOADS = "https://get.pulumi.com/releases/sdk"
CHECKSUMS = "https://github.com/pulumi/pulumi/releases/download"
TIMEOUT = 5.0
"""Seconds without an answer after which a download is given up."""

Source = Literal["PATH", "download", "build"]
Fetch = Callable[[str, Path, Detail], None]
"""Writes what a URL holds to a file; raises DownloadError."""


@dataclass(frozen=True)
class Cli:
    """A Pulumi CLI with its Python language host."""

    executable: Path
    source: Source

    @property
    def directory(self) -> Path:
        """Its folder; the language host is beside it unless the CLI is from PATH."""
        return self.executable.parent


def find(progress: Progress) -> Cli | None:
    """The CLI that is there already, without network or compiler; PATH before the cache.

    Raises:
        ToolError: a folder of the cache is there, but lacks the program.
    """
    on_path, complaint = from_path()
    if on_path is not None:
        return on_path
    if complaint:
        progress.say(complaint)
    downloaded = _cached(_download_name(), "download")
    if downloaded is not None:
        return downloaded
    try:
        name = go_build.directory_name(_programs())
    except GoMissingError:
        return None
    return _cached(name, "build")


def _cached(name: str, source: Source) -> Cli | None:
    directory = cache.cached(name)
    if directory is None:
        return None
    executable = directory / PULUMI.name
    if not executable.is_file():
        raise ToolError(
            f"{directory} lacks {PULUMI.name}; delete that folder, and the next run makes it again"
        )
    return Cli(executable, source)


def ensure(progress: Progress, fetch: Fetch | None = None) -> Cli:
    """The CLI, had in the first way that works.

    Raises:
        ToolError: none does; the message says why each failed.
    """
    present = find(progress)
    if present is not None:
        return present
    try:
        return download(progress, fetch or _fetch)
    except DownloadError as error:
        refusal = str(error)
        progress.say(
            f"Pulumi's own download cannot be used ({refusal}); building the CLI from its Go module."
        )
    try:
        return build(progress)
    except GoMissingError as error:
        raise GoMissingError(
            f"the Pulumi CLI is not on PATH, cannot be downloaded ({refusal}), and cannot be built: no `go` on "
            "PATH. Do one of: install Pulumi 3 and put it on PATH, give this machine access to "
            "get.pulumi.com and github.com, or install Go 1.26 or newer."
        ) from error


def from_path() -> tuple[Cli | None, str]:
    """A usable CLI on PATH, and why the one that is there is not used."""
    found = shutil.which(PULUMI.name)
    if found is None:
        return None, ""
    executable = Path(found)
    try:
        version = _version(executable)
    except ToolError as error:
        return None, f"{executable} is not used: {error}."
    oldest = ".".join(map(str, OLDEST))
    if version[0] != OLDEST[0] or version < OLDEST:
        shown = ".".join(map(str, version))
        return None, f"{executable} is not used: version {shown} is not {oldest} or a later {OLDEST[0]}.x."
    beside = executable.resolve().with_name(LANGUAGE_HOST)
    if not beside.exists() and shutil.which(LANGUAGE_HOST) is None:
        return None, f"{executable} is not used: no {LANGUAGE_HOST} beside it or on PATH."
    return Cli(executable, "PATH"), ""


def download(progress: Progress, fetch: Fetch) -> Cli:
    """Pulumi's own release of the pinned version, its SHA-256 checked against the list of the release.

    The archive and the list come from two hosts, so one host alone cannot pass off another file.

    Raises:
        DownloadError: it cannot be had within the time limit, or its checksum is not the listed one.
    """
    version = PULUMI.version
    archive_name = f"{_download_name()}.tar.gz"

    def make(staging: Path) -> None:
        archive, sums = staging / archive_name, staging / "checksums.txt"
        with progress.step(f"Downloading Pulumi {version}") as detail:
            fetch(f"{CHECKSUMS}/{version}/pulumi-{version.removeprefix('v')}-checksums.txt", sums, detail)
            fetch(f"{DOWNLOADS}/{archive_name}", archive, detail)
        verify(archive, sums.read_text())
        unpack(archive, staging)
        archive.unlink()
        sums.unlink()
        if not (staging / PULUMI.name).is_file():
            raise DownloadError(f"{archive_name} holds no {PULUMI.name}")

    return Cli(cache.fill(_download_name(), make, progress) / PULUMI.name, "download")


def verify(archive: Path, listed: str) -> None:
    """Compare a file's SHA-256 with its line in a `sha256sum` listing.

    Raises:
        DownloadError: it is not listed, or differs.
    """
    sums = {
        words[1].lstrip("*"): words[0] for words in map(str.split, listed.splitlines()) if len(words) == 2
    }
    with archive.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    expected = sums.get(archive.name)
    if expected is None:
        raise DownloadError(f"{archive.name} is not in the release's list of checksums")
    if expected != actual:
        raise DownloadError(f"SHA-256 of {archive.name} is {actual}, the release says {expected}")


def unpack(archive: Path, target: Path) -> None:
    """Put the files of a tar archive into one folder, whatever folders it has them in."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile():
                member.name = PurePosixPath(member.name).name
                tar.extract(member, target, filter="data")


def build(progress: Progress) -> Cli:
    """The CLI and the Python language host built from the pinned modules, in one folder as the release has them.

    The last published language host is older than the CLI; the executor beside it, which runs the program, is the
    CLI's own version.

    Raises:
        BuildError: a module cannot be downloaded or does not compile.
        GoMissingError: Go is not on PATH.
    """

    def add_executor(staging: Path) -> None:
        sdk = go_build.module_source(PULUMI, PULUMI.pinned_by)
        target = staging / LANGUAGE_EXECUTOR
        shutil.copyfile(sdk / "python" / "cmd" / LANGUAGE_EXECUTOR, target)
        target.chmod(0o755)

    return Cli(go_build.build(_programs(), progress, add_executor) / PULUMI.name, "build")


def _programs() -> list[Program]:
    return [*programs_of(PULUMI), *programs_of(PULUMI_LANGUAGE_PYTHON)]


def _version(executable: Path) -> tuple[int, int, int]:
    try:
        answer = subprocess.run(
            [executable, "version"],
            env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"},
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolError(f"`pulumi version` failed: {error}") from error
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", answer.strip())
    if numbers is None:
        raise ToolError(f"`pulumi version` answers {answer.strip()!r}")
    return int(numbers[1]), int(numbers[2]), int(numbers[3])


def _download_name() -> str:
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"pulumi-{PULUMI.version}-{platform.system().lower()}-{machine}"


def _fetch(url: str, target: Path, detail: Detail) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, target.open("wb") as file:  # noqa: S310 - https
            while block := answer.read(1 << 20):
                file.write(block)
                detail(f"{file.tell() >> 20} MiB")
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DownloadError(f"{url}: {reason}") from error
