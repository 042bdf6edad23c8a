"""Time from a start of the lab to its first answer, and the memory of all its processes then."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from bench.table import Section, summary, verdict
from lab.processes import descendants

LONGEST, MOST = 90, 4096
"""Goals: seconds, and MiB."""
STEP = re.compile(r"(?P<title>.+): done in (?P<seconds>\d+) s")
ANSWERED = re.compile(r"The first query was answered (?P<seconds>\d+) s after the start")
COMMAND = [sys.executable, "-m", "lab", "up", "--foreground"]


def measure(rounds: int) -> Section:
    """Start the lab and end it, so many times."""
    seconds: list[float] = []
    memory: list[float] = []
    steps: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as state:
            said = _start(state, memory)
        for line in said:
            if step := STEP.fullmatch(line):
                steps[step["title"]].append(float(step["seconds"]))
            elif answered := ANSWERED.match(line):
                seconds.append(float(answered["seconds"]))
    rows = [[title, summary(each, "s")] for title, each in steps.items()]
    rows.append(["**start to the first answer**", summary(seconds, "s")])
    rows.append(["**memory of all its processes**", summary(memory, "MiB")])
    slowest, largest = max(seconds), max(memory)
    return Section(
        "Starting the lab",
        f"`python -m lab up` with all programs built, {rounds} times: two clusters, a stack on each, and a query from one to the "
        "other. Steps of the two clusters run beside each other. Memory is the sum of the processes' proportional set sizes.",
        ["step", "takes"],
        rows,
        verdict("Slowest start, seconds", slowest, f"at most {LONGEST}", met=slowest <= LONGEST)
        + " "
        + verdict("Most memory, MiB", largest, f"at most {MOST}", met=largest <= MOST),
    )


def _start(state: str, memory: list[float]) -> list[str]:
    """Start a lab, note its memory when it has answered, end it, and return what it said."""
    environment = {**os.environ, "XDG_STATE_HOME": state}
    said = []
    with subprocess.Popen(COMMAND, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line.strip())
            if ANSWERED.match(line):
                memory.append(sum(map(_proportional, [process.pid, *descendants(process.pid)])) / 2**20)
                process.send_signal(signal.SIGINT)
    if not any(map(ANSWERED.match, said)):
        raise SystemExit("the lab did not start:\n" + "\n".join(said))
    return said


def _proportional(pid: int) -> int:
    """A process's proportional set size in bytes; 0 when it has ended. Source: proc_pid_smaps(5)."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss: +(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0
