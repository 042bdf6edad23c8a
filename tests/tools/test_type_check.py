from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.conftest import Machine
from tools.cache import locked
from tools.type_check import check

ROOT = Path(__file__).parents[2]
RIGHT, WRONG = "x: int = 11\n", "x: int = ''\n"
WRITTEN = 1_000_000_000
"""Seconds since 1970 at which every file here was written."""


def clone(folder: Path, text: str) -> Path:
    """A folder with one module."""
    folder.mkdir()
    file = folder / "module.py"
    file.write_text(text)
    os.utime(file, (WRITTEN, WRITTEN))
    return folder


def test_clones_share_a_cache_and_no_verdict(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two files of one name, one size and one time, and only one of them is right."""
    codes = []
    for name, text in (("first", RIGHT), ("second", WRONG)):
        monkeypatch.chdir(clone(tmp_path / name, text))
        codes.append(check(["--config-file=", "module.py"], machine.progress))
        assert not Path(".mypy_cache").exists()

    assert codes == [0, 1]
    assert "module.py:1: error: Incompatible types" in capfd.readouterr().out
    assert any((machine.cache / "mypy").rglob("*.db"))


def test_of_two_checks_one_waits(machine: Machine, tmp_path: Path) -> None:
    program = clone(tmp_path / "clone", RIGHT) / "module.py"
    command = [sys.executable, "-m", "tools.type_check", "--config-file=", str(program)]
    machine.cache.mkdir(parents=True)
    with locked(machine.cache / ".mypy.lock", "", machine.progress):
        second = subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert second.stderr is not None
        assert "another process checks types" in second.stderr.readline()
        assert not any((machine.cache / "mypy").iterdir())
    out, _ = second.communicate(timeout=60)
    assert second.returncode == 0, out
