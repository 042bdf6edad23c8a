"""What the broker's CLI is told, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from broker.command import OwnFolder, backend, quiet_home


@pytest.mark.parametrize(
    ("given", "query"),
    [
        ("file://{}/a", "metadata=skip"),
        ("file://{}/a?create_dir=true", "create_dir=true&metadata=skip"),
        ("file://{}/a?metadata=skip", "metadata=skip"),
    ],
)
def test_a_file_state_survives_an_engine_that_is_killed_between_two_writes(
    tmp_path: Path, given: str, query: str
) -> None:
    assert backend(given.format(tmp_path)) == f"{(tmp_path / 'a').as_uri()}?{query}"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_relative_file_state_lies_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert backend("file://./b c") == f"{(tmp_path / 'b c').as_uri()}?metadata=skip"


def test_other_backends_stay_as_they_are() -> None:
    assert backend("s3://bucket/x?region=eu") == "s3://bucket/x?region=eu"


def test_the_cli_has_no_folder_for_debug_logs_and_the_plugins_of_the_usual_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = tmp_path / "usual"
    monkeypatch.setenv("PULUMI_HOME", str(usual))
    (tmp_path / "work").mkdir()

    home = quiet_home(tmp_path / "work")

    (usual / "plugins" / "resource-kubernetes-v4.0.0").mkdir()
    assert (home / "plugins" / "resource-kubernetes-v4.0.0").is_dir()
    assert (home / "logs").is_file()


HOLD = """
import time
from broker.command import OwnFolder
print(OwnFolder("meshbridge-broker-x-").path, flush=True)
time.sleep(60)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "meshbridge-broker-x-file").touch()
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=environment, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        theirs = Path(process.stdout.readline().strip())
        (theirs / "something").touch()
        own = OwnFolder("meshbridge-broker-x-")
        assert (theirs / "something").exists()
        process.send_signal(signal.SIGKILL)
    assert theirs.exists()

    further = OwnFolder("meshbridge-broker-x-")

    assert not theirs.exists()
    assert own.path.is_dir()
    assert further.path.is_dir()
    own.remove()
    with (tmp_path / "meshbridge-broker-x-file").open() as its_handle_s_heir:
        own.remove()
        assert its_handle_s_heir.read() == ""
    further.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["meshbridge-broker-x-file"]
