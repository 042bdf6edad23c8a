from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.tools.conftest import Machine
from tools import go_build, modules
from tools.errors import BuildError, GoMissingError
from tools.modules import Module, Program

MODULE = Module("thing", "example.org/thing", stamps=(("example.org/thing.version", "{version}"),))
PROGRAM = Program("thing", MODULE, "example.org/thing/cmd/thing")

FAKE_GO = """
echo "$@" >> "$GO_CALLS"
case "$1" in
env) echo go1.26.1 ;;
list) echo "go: downloading example.org/thing v1.2.3" >&2; echo a; echo b; echo example.org/thing/cmd/thing ;;
build)
  echo a >&2; echo b >&2
  while [ "$1" != -o ]; do shift; done
  echo program > "$2" ;;
esac
"""


@pytest.fixture(autouse=True)
def pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(modules, "MODULES_DIRECTORY", tmp_path / "modules")
    directory = tmp_path / "modules" / "thing"
    directory.mkdir(parents=True)
    (directory / "go.mod").write_text(f"tool {PROGRAM.package}\nrequire example.org/thing v1.2.3\n")
    (directory / "go.sum").write_text("sum\n")
    return directory


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GO_CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def with_fake_go(machine: Machine, script: str = FAKE_GO) -> None:
    machine.program("go", script)
    for needed in ("sleep",):
        found = shutil.which(needed, path=os.defpath)
        assert found is not None
        (machine.path / needed).symlink_to(found)


def test_the_key_depends_on_everything_that_decides_the_result(pinned: Path) -> None:
    before = go_build.cache_key([MODULE], "go1.26.1")

    assert before == go_build.cache_key([MODULE], "go1.26.1")
    keys = {before, go_build.cache_key([MODULE], "go1.26.2")}
    (pinned / "go.sum").write_text("other\n")
    keys.add(go_build.cache_key([MODULE], "go1.26.1"))
    (pinned / "go.mod").write_text((pinned / "go.mod").read_text() + "// other\n")
    keys.add(go_build.cache_key([MODULE], "go1.26.1"))
    keys.add(go_build.cache_key([Module("thing", "example.org/thing")], "go1.26.1"))
    assert len(keys) == 5


def test_builds_with_the_flags_and_only_once(machine: Machine, calls: Path) -> None:
    with_fake_go(machine)

    directory = go_build.build([PROGRAM], machine.progress)
    again = go_build.build([PROGRAM], machine.progress)

    assert directory == again
    assert directory.name.startswith("thing-")
    assert (directory / "thing").read_text() == "program\n"
    builds = [line for line in calls.read_text().splitlines() if line.startswith("build")]
    assert len(builds) == 1
    assert "-trimpath" in builds[0]
    assert "-ldflags -s -w -X example.org/thing.version=v1.2.3" in builds[0]
    assert builds[0].endswith(PROGRAM.package)
    assert "Building thing v1.2.3 with Go: done in" in machine.said.getvalue()


def test_extra_files_are_part_of_the_same_atomic_directory(machine: Machine, calls: Path) -> None:
    with_fake_go(machine)

    def fail(staging: Path) -> None:
        assert (staging / "thing").exists()
        raise BuildError("no such file")

    with pytest.raises(BuildError):
        go_build.build([PROGRAM], machine.progress, fail)
    assert not [path for path in machine.cache.iterdir() if path.is_dir()]


def test_a_failing_compiler_is_quoted(machine: Machine) -> None:
    with_fake_go(
        machine, "[ $1 = env ] && echo go1.26.1 && exit\n[ $1 = list ] && exit\necho broken.go:1 >&2; exit 2"
    )

    with pytest.raises(BuildError, match=r"`go build` failed in .*/thing \(exit code 2\):\n  broken\.go:1\n"):
        go_build.build([PROGRAM], machine.progress)


def test_without_go_it_says_what_to_do(machine: Machine) -> None:
    with pytest.raises(GoMissingError, match=r"no `go` on PATH.*thing v1\.2\.3.*install Go"):
        go_build.build([PROGRAM], machine.progress)


def test_go_gets_the_home_that_it_needs_for_its_cache(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_fake_go(machine, 'echo "$HOME"')

    assert go_build.go_version(MODULE) == str(tmp_path / "home")
    monkeypatch.delenv("HOME")
    assert go_build.go_version(MODULE) == str(Path.home())


def test_an_interrupt_ends_the_compiler(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "compiler"
    with_fake_go(
        machine,
        f"[ $1 = env ] && echo go1.26.1 && exit\n[ $1 = list ] && exit\n"
        f"sleep 60 & echo $! > {pid_file}; echo a >&2; wait",
    )

    def interrupt(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(go_build, "_counter", lambda *_: interrupt)
    with pytest.raises(KeyboardInterrupt):
        go_build.build([PROGRAM], machine.progress)

    compiler = Path("/proc") / pid_file.read_text().strip()
    deadline = time.monotonic() + 5
    while (
        compiler.exists() and "\nState:\tZ" not in (compiler / "status").read_text()
    ) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.monotonic() < deadline
    assert not [path for path in machine.cache.iterdir() if path.is_dir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_that_comes_while_go_is_being_started_ends_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    with_fake_go(machine, "exec sleep 60")
    started: list[int] = []

    class Stopped(subprocess.Popen[str]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self.pid)
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Stopped)
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            go_build.go_version(MODULE)
        assert not (Path("/proc") / str(started[0])).exists()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def test_a_second_ctrl_c_ends_at_once_what_does_not_heed_the_first(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_fake_go(machine, "trap '' INT; echo $$ >&2; exec sleep 60")
    said: list[int] = []

    class Impatient(subprocess.Popen[str]):
        def wait(self, timeout: float | None = None) -> int:
            if timeout == go_build.INTERRUPT_GRACE:
                raise KeyboardInterrupt
            return super().wait(timeout)

    def interrupt(line: str) -> None:
        said.append(int(line))
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Impatient)
    try:
        with pytest.raises(KeyboardInterrupt):
            go_build._go(["env"], MODULE, interrupt)
        assert not (Path("/proc") / str(said[0])).exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(said[0], signal.SIGKILL)
