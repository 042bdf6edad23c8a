from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lab import processes
from lab.errors import ProcessError
from lab.processes import Identity, RunState, Supervisor, runs_directory

ROOT = Path(__file__).parents[2]

OWNER = """
import sys, time
from pathlib import Path
from lab.processes import Supervisor

directory = Path(sys.argv[1])
supervisor = Supervisor("owner")
supervisor.own_directory(directory / "owned")
(directory / "owned").mkdir()
process = supervisor.start("family", ["sh", "-c", "SETSID sleep 300 & echo $!; exec sleep 300"], directory / "log")
process.wait_until(lambda: (directory / "log").read_text() != "", "its child up", 10)
print(process.identity.pid, (directory / "log").read_text().strip(), supervisor._guard.pid, flush=True)
time.sleep(300)
"""


@pytest.fixture(autouse=True)
def own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie that nobody has waited for has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def says_up(log: Path) -> bool:
    return log.read_text() != ""


def start_owner(directory: Path, setsid: str = "") -> tuple[subprocess.Popen[str], list[int]]:
    """A process that supervises a family; returns the ids of parent, child and guard. setsid: puts the child into a group of
    its own."""
    directory.mkdir()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER.replace("SETSID", setsid), str(directory)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    owner.stdout.close()
    return owner, pids


def test_runs_a_process_with_its_environment_and_keeps_its_output(tmp_path: Path) -> None:
    supervisor = Supervisor("test")
    command = ["sh", "-c", 'echo "$WHO in $(pwd)"; echo oops >&2; sleep 300']
    process = supervisor.start("greeter", command, tmp_path / "log", {"WHO": "me"}, tmp_path)

    process.wait_until(lambda: "oops" in (tmp_path / "log").read_text(), "speaking", 10)

    assert (tmp_path / "log").read_text() == f"me in {tmp_path}\noops\n"
    assert process.running
    assert supervisor.running == (process,)
    supervisor.close()
    assert not process.running
    assert not list(runs_directory().iterdir())
    assert is_gone(supervisor._guard.pid)


def test_what_ends_early_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    supervisor = Supervisor("test")
    process = supervisor.start("failing", ["sh", "-c", "seq 100; exit 3"], tmp_path / "log")

    with pytest.raises(ProcessError, match="failing ended with exit code 3 before ready") as caught:
        process.wait_until(lambda: False, "ready", 10)

    assert str(tmp_path / "log") in str(caught.value)
    assert str(caught.value).endswith("  99\n  100")
    assert "  80\n" not in str(caught.value)
    supervisor.close()


def test_what_is_not_ready_in_time_is_reported(tmp_path: Path) -> None:
    supervisor = Supervisor("test")
    process = supervisor.start("slow", ["sleep", "300"], tmp_path / "log")

    with pytest.raises(ProcessError, match=r"slow was started, but not ready within 0 s.*\n  \(empty\)"):
        process.wait_until(lambda: False, "ready", 0.1)
    supervisor.close()


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    supervisor = Supervisor("test")

    with pytest.raises(ProcessError, match="thing: /no/such/program cannot be run: No such file"):
        supervisor.start("thing", ["/no/such/program"], tmp_path / "log")
    supervisor.close()


def test_stopping_asks_first_and_takes_the_children_along(tmp_path: Path) -> None:
    supervisor = Supervisor("test")
    script = "trap 'echo asked; exit' TERM; sleep 300 & echo $!; wait"
    process = supervisor.start("polite", ["sh", "-c", script], tmp_path / "log")
    process.wait_until(lambda: (tmp_path / "log").read_text() != "", "up", 10)
    child = int((tmp_path / "log").read_text())

    supervisor.stop(process)

    assert (tmp_path / "log").read_text().endswith("asked\n")
    assert wait_for(lambda: is_gone(child))
    assert supervisor.running == ()
    supervisor.close()


@pytest.mark.parametrize("grace", [0, 5])
def test_what_leads_a_group_of_its_own_is_taken_along(tmp_path: Path, grace: float) -> None:
    supervisor, log = Supervisor("test"), tmp_path / "log"
    command = ["sh", "-c", "setsid sh -c 'setsid sleep 300 & echo $!; exec sleep 300' & exec sleep 300"]
    process = supervisor.start("family", command, log)
    process.wait_until(partial(says_up, log), "its grandchild up", 10)
    (child,) = Path(f"/proc/{process.identity.pid}/task/{process.identity.pid}/children").read_text().split()

    supervisor.stop(process, grace)

    assert wait_for(lambda: is_gone(int(child)) and is_gone(int(log.read_text())))
    supervisor.close()


def test_what_does_not_listen_is_killed(tmp_path: Path) -> None:
    supervisor = Supervisor("test")
    process = supervisor.start("deaf", ["sh", "-c", "trap '' TERM; echo up; sleep 300"], tmp_path / "log")
    process.wait_until(lambda: (tmp_path / "log").read_text() != "", "up", 10)

    supervisor.stop(process, grace=0.2)

    assert not process.running
    supervisor.close()


def test_the_last_started_ends_first(tmp_path: Path) -> None:
    supervisor = Supervisor("test")
    for name in ("first", "second"):
        script = f"trap 'echo {name} >> ended; exit' TERM; echo up; while :; do sleep 0.01; done"
        log = tmp_path / f"{name}.log"
        process = supervisor.start(name, ["sh", "-c", script], log, directory=tmp_path)
        process.wait_until(partial(says_up, log), "up", 10)

    supervisor.close(grace=5)

    assert (tmp_path / "ended").read_text().split() == ["second", "first"]


def test_a_member_that_outlives_its_leader_is_ended_too(tmp_path: Path) -> None:
    supervisor = Supervisor("test")
    process = supervisor.start("leader", ["sh", "-c", "sleep 300 & echo $!"], tmp_path / "log")
    assert wait_for(lambda: not process.running)
    child = int((tmp_path / "log").read_text())
    assert not is_gone(child)

    supervisor.close()

    assert wait_for(lambda: is_gone(child))


@pytest.mark.parametrize("setsid", ["", "setsid"])
def test_kill_9_of_the_owner_leaves_no_process(tmp_path: Path, setsid: str) -> None:
    owner, pids = start_owner(tmp_path / "run", setsid)
    assert not any(is_gone(pid) for pid in pids)

    owner.kill()
    owner.wait()

    assert wait_for(lambda: all(is_gone(pid) for pid in pids))


def test_after_kill_9_the_next_run_removes_directories_and_state(tmp_path: Path) -> None:
    owner, pids = start_owner(tmp_path / "run")
    owner.kill()
    owner.wait()
    assert wait_for(lambda: all(is_gone(pid) for pid in pids))
    assert (tmp_path / "run" / "owned").exists()

    Supervisor("next").close()

    assert not (tmp_path / "run" / "owned").exists()
    assert not list(runs_directory().iterdir())


def test_kill_9_of_owner_and_guard_is_mended_by_the_next_run(tmp_path: Path) -> None:
    owner, (parent, child, guard) = start_owner(tmp_path / "run")
    os.kill(guard, signal.SIGKILL)
    owner.kill()
    owner.wait()
    assert not is_gone(parent)

    Supervisor("next").close()

    assert wait_for(lambda: is_gone(parent) and is_gone(child))


def test_a_run_in_progress_is_left_alone(tmp_path: Path) -> None:
    owner, pids = start_owner(tmp_path / "run")

    Supervisor("next").close()

    assert not any(is_gone(pid) for pid in pids)
    owner.kill()
    owner.wait()
    assert wait_for(lambda: all(is_gone(pid) for pid in pids))


@pytest.mark.parametrize(
    "changed", [{"started": 1}, {"boot": "another"}], ids=["an id used again", "an id from before a reboot"]
)
def test_a_process_that_only_has_the_same_id_is_not_signalled(
    tmp_path: Path, changed: dict[str, int | str]
) -> None:
    bystander = subprocess.Popen(["sleep", "300"], start_new_session=True)
    identity = Identity.of(bystander.pid)
    assert identity is not None
    stale = {"pid": bystander.pid, "started": identity.started, "boot": identity.boot, **changed}
    runs_directory().mkdir(parents=True)
    state = {"owner": {**stale, "started": 2}, "processes": [stale], "directories": []}
    (runs_directory() / "old.json").write_text(json.dumps(state))

    processes.clean_up_crashed()

    assert bystander.poll() is None
    assert not list(runs_directory().iterdir())
    bystander.kill()
    bystander.wait()


def test_a_state_that_was_not_written_to_its_end_keeps_no_run_from_starting() -> None:
    runs_directory().mkdir(parents=True)
    (runs_directory() / "cut.json").write_text("")

    Supervisor("next").close()

    assert not list(runs_directory().iterdir())


@pytest.fixture
def removed_interfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where an `ip` that removes nothing notes what it was told; the machine has one interface, `link0`, number 7."""
    notes = tmp_path / "notes"
    program = tmp_path / "bin" / "ip"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {notes}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("socket.if_nametoindex", lambda name: {"link0": 7}[name])
    return notes


def test_a_run_removes_its_interfaces_when_it_ends(removed_interfaces: Path) -> None:
    supervisor = Supervisor("test")
    supervisor.own_interface("link0")
    assert not removed_interfaces.exists()

    supervisor.close()

    assert removed_interfaces.read_text() == "link delete link0\n"


@pytest.mark.parametrize(
    ("number", "boot", "removed"),
    [(7, "this", True), (8, "this", False), (7, "another", False)],
    ids=["its own", "another of the same name", "of another boot"],
)
def test_a_crashed_run_s_interfaces_are_removed_unless_the_name_is_another_s(
    removed_interfaces: Path, number: int, boot: str, removed: bool
) -> None:
    own = Identity.of(os.getpid())
    assert own is not None
    owner = Identity(own.pid, 1, own.boot if boot == "this" else boot)
    runs_directory().mkdir(parents=True)
    RunState(owner, interfaces={"link0": number}).write(runs_directory() / "old.json")

    processes.clean_up_crashed()

    assert removed_interfaces.exists() is removed
    assert not list(runs_directory().iterdir())


def test_a_state_survives_being_written_and_read(tmp_path: Path) -> None:
    state = RunState(Identity(1, 2, "b"), [Identity(3, 4, "b")], ["/some/where"], {"link0": 7})

    state.write(tmp_path / "run.json")

    assert RunState.read(tmp_path / "run.json") == state


def test_a_program_with_spaces_and_parentheses_in_its_name_has_an_identity(tmp_path: Path) -> None:
    program = tmp_path / "a) (b"
    program.symlink_to("/bin/sleep")
    supervisor = Supervisor("test")

    process = supervisor.start("odd", [program, "300"], tmp_path / "log")

    assert process.identity.alive()
    supervisor.close()
    assert not process.identity.alive()
