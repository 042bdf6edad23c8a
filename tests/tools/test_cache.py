from __future__ import annotations

import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools.conftest import Machine
from tools import cache, plugins
from tools.errors import ToolError

ROOT = Path(__file__).parents[2]

SLOW_FILL = """
import sys, time
from pathlib import Path
from tools import cache, plugins
from tools.progress import Progress

def make(staging):
    with Path(sys.argv[1]).open("a") as log:
        log.write("made\\n")
    time.sleep(float(sys.argv[2]))
    (staging / "tool").write_text("x")

print(cache.fill("tool-1", make, Progress()))
"""


def fill_in_another_process(log: Path, seconds: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_FILL, str(log), str(seconds)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_fills_once(machine: Machine) -> None:
    made: list[Path] = []

    def make(staging: Path) -> None:
        made.append(staging)
        (staging / "tool").write_text("x")

    first = cache.fill("tool-1", make, machine.progress)
    second = cache.fill("tool-1", make, machine.progress)

    assert first == second == cache.cached("tool-1") == machine.cache / "tool-1"
    assert (first / "tool").read_text() == "x"
    assert len(made) == 1
    assert cache.cached("tool-2") is None


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_fails_leaves_nothing(machine: Machine, error: type[BaseException]) -> None:
    def make(staging: Path) -> None:
        (staging / "half").write_text("x")
        raise error

    with pytest.raises(error):
        cache.fill("tool-1", make, machine.progress)
    assert [path.name for path in machine.cache.iterdir()] == [".tool-1.lock"]


def test_a_cache_that_cannot_be_written_is_said_with_the_remedy(machine: Machine) -> None:
    machine.cache.parent.write_text("a file where the cache would be")

    with pytest.raises(ToolError, match=r"Not a directory.*XDG_CACHE_HOME"):
        cache.fill("tool-1", lambda staging: (staging / "tool").touch(), machine.progress)


def test_a_staging_directory_left_by_kill_9_is_not_taken_over(machine: Machine) -> None:
    leftover = machine.cache / ".tool-1.partial"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("x")

    directory = cache.fill("tool-1", lambda staging: (staging / "tool").touch(), machine.progress)

    assert [path.name for path in directory.iterdir()] == ["tool"]
    assert not leftover.exists()


def test_of_two_processes_one_makes_and_the_other_waits(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    workers = [fill_in_another_process(log, 0.5) for _ in range(2)]
    outputs = [worker.communicate(timeout=30) for worker in workers]

    assert log.read_text() == "made\n"
    assert [out for out, _ in outputs] == [f"{machine.cache / 'tool-1'}\n"] * 2
    assert sum("another process is making tool-1" in err for _, err in outputs) == 1


def test_kill_9_of_the_maker_frees_the_lock(machine: Machine, tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = fill_in_another_process(log, 60)
    while not log.exists():
        time.sleep(0.01)
    killed.kill()
    killed.communicate()

    cache.fill("tool-1", lambda staging: (staging / "tool").touch(), machine.progress)

    assert (machine.cache / "tool-1" / "tool").exists()


def test_a_user_without_a_home_is_told_to_set_one(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    def unknown(user: int) -> object:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    for name in ("HOME", "XDG_CACHE_HOME", "PULUMI_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setattr(pwd, "getpwuid", unknown)

    for place in (cache.cache_root, plugins.plugin_home):
        with pytest.raises(ToolError, match="set HOME"):
            place()
