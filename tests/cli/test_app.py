"""How the commands end when the machine does not let them go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MORE_THAN_A_PIPE_HOLDS = 10_000
"""Lines of a compiler: when it has written them all, somebody has begun to read them."""


@pytest.mark.parametrize("program", ["cli", "broker", "pki"])
def test_a_full_disk_is_said(program: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", program, "--help"],
            cwd=ROOT,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: [Errno 28] No space left on device")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["cli", "preview", "example-upstream"],
        ["pki", "bundle", "create", "--stack", "example-provider"],
    ],
)
def test_a_compiler_does_not_outlive_a_command_that_is_told_to_stop(
    command: list[str], tmp_path: Path
) -> None:
    running = tmp_path / "running"
    go = tmp_path / "go"
    go.write_text(
        "#!/bin/sh\n"
        'case "$1" in env|version) echo go1.26.1; exit;; esac\n'
        f"for line in $(/usr/bin/seq {MORE_THAN_A_PIPE_HOLDS}); do echo go: downloading $line >&2; done\n"
        f"echo $$ > {running}; exec /bin/sleep 60\n"
    )
    go.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "https_proxy": "http://127.0.0.1:1",
    }
    process = subprocess.Popen([sys.executable, "-m", *command], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 60
        while not (running.exists() and running.read_text().strip()):
            assert process.poll() is None, "it ended before it built anything"
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        with pytest.raises(ProcessLookupError):
            os.kill(int(running.read_text()), 0)
        assert not list((tmp_path / "cache").glob("**/.*.partial"))
    finally:
        process.kill()
