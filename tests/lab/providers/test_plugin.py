"""The process: how it starts, says that it is a stand-in, and ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.providers.plugin import first_in_run

PLUGIN = Path(__file__).parents[3] / "lab" / "providers" / "bin" / "pulumi-resource-kubernetes"
ENGINE = f"""
import subprocess, sys
plugin = subprocess.Popen([{str(PLUGIN)!r}, "127.0.0.1:1"], stdout=subprocess.PIPE)
print(plugin.pid, plugin.stdout.readline().decode().strip(), flush=True)
sys.stdin.read()
"""


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_port_and_ends_when_told(ending: signal.Signals) -> None:
    with running(str(PLUGIN), "127.0.0.1:1") as process:
        assert 0 < int(first_line(process)) < 65536
        process.send_signal(ending)
        assert process.wait(timeout=5) == 0


def test_it_starts_from_any_folder_and_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "pulumi-resource-kubernetes"
    link.symlink_to(PLUGIN)
    process = subprocess.Popen([link], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert int(process.stdout.readline()) > 0
    process.terminate()
    assert process.wait(timeout=5) == 0
    process.stdout.close()


def test_it_ends_with_an_engine_that_is_killed() -> None:
    with running(sys.executable, "-c", ENGINE) as engine:
        plugin = int(first_line(engine).split()[0])
        os.kill(plugin, 0)
        engine.kill()
        engine.wait()
        deadline = time.monotonic() + 5
        while _alive(plugin):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_it_says_once_per_engine_that_it_is_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    me, parent = os.getpid(), os.getppid()
    assert [first_in_run("kubernetes", me), first_in_run("kubernetes", me)] == [True, False]
    assert first_in_run("kubernetes", parent)
    assert first_in_run("aws", me)


def test_engines_that_are_gone_leave_no_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with running(sys.executable, "-c", "input()") as engine:
        assert first_in_run("kubernetes", engine.pid)
        assert len(list(tmp_path.rglob(f"kubernetes-{engine.pid}-*"))) == 1
    first_in_run("kubernetes", os.getpid())
    assert list(tmp_path.rglob(f"kubernetes-{engine.pid}-*")) == []
