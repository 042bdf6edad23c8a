from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools.conftest import Machine

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tools", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_path_prints_what_is_there(machine: Machine) -> None:
    machine.program("pulumi-language-python", "")
    executable = machine.program("pulumi", "echo v3.250.0")

    result = run("path", "pulumi")

    assert (result.returncode, result.stdout, result.stderr) == (0, f"{executable}\n", "")


def test_json_is_for_scripts(machine: Machine) -> None:
    machine.program("pulumi-language-python", "")
    executable = machine.program("pulumi", "echo v3.250.0")
    machine.program("go", "echo go1.26.1")

    ensured = run("ensure", "--json", "pulumi")
    listed = run("list", "--json")

    assert json.loads(ensured.stdout) == {"pulumi": str(executable)}
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["pulumi"]["path"] == str(executable)
    assert rows["etcd"]["path"] is None
    assert rows["kube-apiserver"]["version"].startswith("v1.")


def test_a_machine_without_go_sees_what_there_is(machine: Machine) -> None:
    listed = run("list", "--json")

    assert listed.returncode == 0, listed.stderr
    rows = {row["name"]: row for row in json.loads(listed.stdout)}
    assert rows["etcd"]["path"] is None
    assert rows["etcd"]["version"].startswith("v3.")


def test_what_cannot_be_had_is_exit_code_1_and_a_message(machine: Machine) -> None:
    result = run("path", "etcd")

    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: no `go` on PATH")
    assert "Traceback" not in result.stderr


def test_what_is_not_there_yet_is_exit_code_1(machine: Machine) -> None:
    machine.program("go", "echo go1.26.1")

    result = run("path", "etcd")

    assert result.returncode == 1
    assert "`python -m tools ensure etcd` makes it" in result.stderr


def test_wrong_use_is_exit_code_2(machine: Machine) -> None:
    assert run("ensure", "envoy").returncode == 2
    assert "no tool is called 'envoy'" in run("ensure", "envoy").stderr
    assert run("nonsense").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_is_exit_code_130_and_leaves_no_go(
    machine: Machine, tmp_path: Path, number: signal.Signals
) -> None:
    pid_file = tmp_path / "pid"
    machine.program("go", f"echo $$ > {pid_file}.new; /bin/mv {pid_file}.new {pid_file}; exec /bin/sleep 60")
    command = [sys.executable, "-m", "tools", "path", "etcd"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 30
        while not pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        running.send_signal(number)
        assert running.wait(30) == 130
    assert not (Path("/proc") / pid_file.read_text().strip()).exists()
