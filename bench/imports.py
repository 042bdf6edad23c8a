"""Time to import the program, against importing Pulumi and its custom resources alone.

Each import runs in a process of its own; ours and the baseline take turns, so that a busy machine slows both. The verdict
goes by CPU time, which other processes disturb less.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections import defaultdict

from bench.table import Section, summary, verdict

GOAL = 1.2
PROGRAMS = {
    "`pulumi` and `pulumi_kubernetes.apiextensions`": "import pulumi, pulumi_kubernetes.apiextensions",
    "the same and `pydantic`": "import pulumi, pulumi_kubernetes.apiextensions; from pydantic import BaseModel",
    "the program (`components`, `config.settings`)": "import components, config.settings",
    "of which `config`": "import config",
}
CLOCKS = "import time; wall, cpu = time.perf_counter(), time.process_time()"
REPORT = "print(time.perf_counter() - wall, time.process_time() - cpu)"
AWS = ("pulumi_aws", "boto3", "botocore")
COUNT = f"import sys; print(sum(m.partition('.')[0] in {AWS} for m in sys.modules))"


def measure(rounds: int) -> Section:
    """Import each of the programs `rounds` times."""
    wall: defaultdict[str, list[float]] = defaultdict(list)
    cpu: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(rounds + 1):
        for name, program in PROGRAMS.items():
            seconds = _import(program)
            if number:  # the first round only warms the file cache
                wall[name].append(seconds[0])
                cpu[name].append(seconds[1])
    baseline, _, ours, _ = PROGRAMS
    ratio = statistics.median(cpu[ours]) / statistics.median(cpu[baseline])
    rows = [[name, summary(wall[name], "ms", 1000), summary(cpu[name], "ms", 1000)] for name in PROGRAMS]
    return Section(
        "Importing the program",
        f"{rounds} fresh processes each, in turns; interpreter start not counted. The program, with AWS or without, imports "
        f"{_modules_of_aws(PROGRAMS[ours])} modules of AWS's or Pulumi's SDKs for it ({', '.join(AWS)}).",
        ["import", "wall", "CPU"],
        rows,
        verdict("Program against baseline, CPU", ratio, f"at most {GOAL}", met=ratio <= GOAL),
    )


def _modules_of_aws(program: str) -> int:
    """How many modules of an AWS SDK an import brings along."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; {COUNT}"], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


def _import(program: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, "-c", f"{CLOCKS}; {program}; {REPORT}"],
        check=True,
        capture_output=True,
        text=True,
    )
    wall, cpu = map(float, done.stdout.split())
    return wall, cpu
