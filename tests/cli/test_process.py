"""A child is told to stop once for each signal, is waited for, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.process import Finished, run

ROOT = Path(__file__).parents[2]
PARENT = """
import os, sys
from pathlib import Path
from cli.process import run
done = run([sys.executable, "-u", "-c", sys.argv[1]], os.environ, Path.cwd())
print("ended", done.code, done.interrupted, flush=True)
"""
# Stops in an orderly way at the first SIGINT, at once at the second, as the engine does; leaves a child behind.
ENGINE = """
import os, signal, subprocess, sys, time
count = 0
def stop(number, frame):
    global count
    count += 1
    print("told", count, flush=True)
    if count == 2:
        os._exit(3)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
left = subprocess.Popen(["sleep", "600"])
print("ready", left.pid, flush=True)
end = time.monotonic() + WAIT
while time.monotonic() < end and not (count and ORDERLY):
    time.sleep(0.01)
print("saved", flush=True)
sys.exit(7 if count else 0)
"""


def python(code: str, *, capture: bool = True) -> Finished:
    return run([sys.executable, "-c", code], os.environ, ROOT, capture=capture)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def start(
    *, orderly: bool, seconds: float = 30, launcher: Sequence[str] = ()
) -> tuple[subprocess.Popen[str], int]:
    code = ENGINE.replace("WAIT", str(seconds)).replace("ORDERLY", str(orderly))
    parent = subprocess.Popen(
        [*launcher, sys.executable, "-c", PARENT, code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    return parent, int(parent.stdout.readline().split()[1])


def read(parent: subprocess.Popen[str]) -> str:
    with parent:
        output, _ = parent.communicate(timeout=20)
    return output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_passed_on_once_and_the_child_waited_for(number: signal.Signals) -> None:
    parent, left = start(orderly=True)
    parent.send_signal(number)
    assert read(parent).splitlines() == ["told 1", "saved", "ended 7 True"]
    assert not alive(left)


def test_ctrl_c_in_a_terminal_reaches_the_child_once() -> None:
    parent, left = start(orderly=True)
    os.killpg(parent.pid, signal.SIGINT)
    assert read(parent).splitlines() == ["told 1", "saved", "ended 7 True"]
    assert not alive(left)


def test_a_second_signal_is_passed_on_too() -> None:
    parent, left = start(orderly=False)
    parent.send_signal(signal.SIGINT)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "told 1\n"
    parent.send_signal(signal.SIGINT)
    assert read(parent).splitlines() == ["told 2", "ended 3 True"]
    assert not alive(left)


@pytest.mark.parametrize("name", ["HUP", "INT"])
def test_a_signal_that_is_ignored_from_the_start_stops_nothing(name: str) -> None:
    ignoring = ["sh", "-c", f"trap '' {name}; exec \"$@\"", "sh"]
    parent, left = start(orderly=True, seconds=1, launcher=ignoring)
    parent.send_signal(signal.Signals[f"SIG{name}"])
    assert read(parent).splitlines() == ["saved", "ended 0 False"]
    assert not alive(left)


def test_what_a_child_leaves_behind_is_ended_after_a_success_too() -> None:
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid)"
    done = python(code)
    assert (done.code, done.interrupted) == (0, False)
    time.sleep(0.05)
    assert not alive(int(done.output))


def test_output_and_errors_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    done = python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(4)")
    assert done == Finished(4, False, "out\n", "err\n")
    assert capsys.readouterr().err == "err\n"


def test_much_of_both_streams_does_not_block() -> None:
    done = python(
        "import sys; [print('x' * 999, file=f) for f in (sys.stderr, sys.stdout) for _ in range(2000)]"
    )
    assert len(done.output) == len(done.errors) == 2_000_000


def test_a_child_does_not_wait_for_messages_that_nobody_reads() -> None:
    code = "import sys; [print('x' * 999, file=sys.stderr) for _ in range(500)]"
    read_end, write_end = os.pipe()
    os.close(read_end)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, code], cwd=ROOT, stdout=subprocess.PIPE, stderr=write_end, text=True
    )
    os.close(write_end)
    try:
        output, _ = parent.communicate(timeout=20)
    finally:
        parent.kill()
        parent.communicate()
    assert output == "ended 0 False\n"


def test_the_child_gets_no_input() -> None:
    assert python("import sys; print(repr(sys.stdin.read()))").output == "''\n"


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    python("pass")
    assert signal.getsignal(signal.SIGINT) is before
