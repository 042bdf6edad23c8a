"""Builds the pinned Go programs, each once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tools import cache, stops
from tools.errors import BuildError, GoMissingError
from tools.modules import Module, Program
from tools.progress import Detail, Progress

BUILD_FLAGS = ("-trimpath", "-buildvcs=false")
ERROR_LINES = 30
"""How many of the compiler's last lines an error shows."""
INTERRUPT_GRACE = 3.0
"""Seconds that an interrupted `go` gets to clean up."""

_ENVIRONMENT = {"GOFLAGS": "", "GOWORK": "off"}
"""A user's own flags or workspace must not change what is built."""


def go_version(module: Module) -> str:
    """The version of Go that builds the module, such as `go1.26.1`.

    Raises:
        GoMissingError: Go is not on PATH.
        BuildError: Go is older than go.mod asks for and may not fetch a newer one.
    """
    return _go(["env", "GOVERSION"], module).strip()


def cache_key(modules: Sequence[Module], go: str) -> str:
    """A digest that changes whenever what is built from these modules could change."""
    digest = hashlib.sha256(go.encode())
    for module in modules:
        for part in (
            (module.directory / "go.mod").read_bytes(),
            (module.directory / "go.sum").read_bytes(),
            " ".join((*BUILD_FLAGS, module.linker_flags)).encode(),
        ):
            digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]


def directory_name(programs: Sequence[Program]) -> str:
    """The name in the cache for these programs built together; it is that of the first, and a digest."""
    modules = list(dict.fromkeys(program.module for program in programs))
    return f"{programs[0].name}-{cache_key(modules, go_version(modules[0]))}"


def build(
    programs: Sequence[Program], progress: Progress, add_files: Callable[[Path], None] | None = None
) -> Path:
    """The directory with these programs, built now unless that was done before.

    `add_files` may put more files beside them. Interrupting it leaves neither files nor a running compiler.

    Raises:
        GoMissingError: Go is not on PATH.
        BuildError: a module cannot be downloaded or does not compile.
    """

    def make(staging: Path) -> None:
        for program in programs:
            _compile(program, staging / program.name, progress)
        if add_files is not None:
            add_files(staging)

    return cache.fill(directory_name(programs), make, progress)


def module_source(module: Module, path: str) -> Path:
    """The unpacked source of a module that `module` requires, fetched if need be.

    Raises:
        GoMissingError: Go is not on PATH.
        BuildError: it cannot be downloaded.
    """
    version = module.go_mod().requires[path]
    answer = json.loads(_go(["mod", "download", "-json", f"{path}@{version}"], module))
    return Path(answer["Dir"])


def _compile(program: Program, target: Path, progress: Progress) -> None:
    module = program.module
    with progress.step(f"Building {program.name} {module.version} with Go") as detail:
        fetched = 0

        def count_fetched(_line: str) -> None:
            nonlocal fetched
            fetched += 1
            detail(f"{fetched} modules fetched")

        packages = _go(["list", "-deps", program.package], module, count_fetched).split()
        compile_command = [
            "build", "-v", *BUILD_FLAGS, "-ldflags", module.linker_flags, "-o", str(target), program.package,
        ]  # fmt: skip
        _go(compile_command, module, _counter(detail, len(packages)))


def _counter(detail: Detail, total: int) -> Callable[[str], None]:
    """Counts the packages that `go build -v` names; those in Go's own cache are not named."""
    compiled = 0

    def count(_line: str) -> None:
        nonlocal compiled
        compiled += 1
        detail(f"{compiled} of {total} packages compiled")

    return count


def _go(arguments: Sequence[str], module: Module, on_line: Callable[[str], None] = lambda _line: None) -> str:
    """Run `go` in the module's folder, give its stderr line by line to `on_line`, return its stdout."""
    go = shutil.which("go")
    if go is None:
        raise GoMissingError(
            f"no `go` on PATH, and {module.name} {module.version} has to be built or looked up with it: "
            "install Go 1.26 or newer, then run this again"
        )
    said: list[str] = []
    process: subprocess.Popen[str] | None = None
    with tempfile.TemporaryFile("w+") as out:
        try:
            with stops.held_back():  # inside of Popen, the exception of one would lose the new process
                process = subprocess.Popen(
                    [go, *arguments],
                    cwd=module.directory,
                    env={"HOME": str(cache.home()), **os.environ, **_ENVIRONMENT},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            assert process.stderr is not None  # noqa: S101 - asked for above
            with process.stderr:
                for line in process.stderr:
                    said.append(line.rstrip())
                    on_line(said[-1])
            process.wait()
        except BaseException:
            if process is not None:
                _interrupt(process)
            raise
        if process.returncode != 0:
            tail = "\n".join(f"  {line}" for line in said[-ERROR_LINES:])
            raise BuildError(
                f"`go {arguments[0]}` failed in {module.directory} (exit code {process.returncode}):\n{tail}\n"
                "If a module could not be downloaded, check the network and GOPROXY, then run this again."
            )
        out.seek(0)
        return out.read()


def _interrupt(process: subprocess.Popen[str]) -> None:
    """End `go` and its compilers, leaving it a moment to remove its temporary files, unless a second Ctrl-C cuts that short."""
    with process:
        try:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, signal.SIGINT)
                process.wait(INTERRUPT_GRACE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
