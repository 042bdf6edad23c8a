"""Takes away each guard in one lab, runs every probe without it, and writes docs/guards.md: which probes fell, and how.

Usage: `python -m tests.lab.packets.refusals` (needs root; about 15 minutes on 2 cores). Exits with 1 if other probes fell than
the guard's own, or one of those stood.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab.errors import LabError
from tests.lab.packets.conftest import started
from tests.lab.packets.refusals.guards import (
    ALONE,
    GUARDS,
    PROBES,
    SLOW,
    TOGETHER,
    UNTRIED,
    Guard,
    fell,
    holds,
    outcome,
    said_without,
)
from tests.lab.packets.refusals.outcome import Probe
from tests.lab.packets.refusals.world import World, prepared

INTRODUCTION = """\
What must not get through is tried by *probes* in the lab, through real API servers, istiod and Envoy
(`tests/lab/packets/refusals`). Here each *guard* was taken away from the deployed objects, one at a time, and all probes were
run again. Made by `python -m tests.lab.packets.refusals`; do not edit."""
LEGEND = """\
✗: the probe said something else without the guard. ?: not tried, because it lasts so long or could not be without the guard.
All others said the same as above."""
PAGE = Path(__file__).parents[4] / "docs" / "guards.md"
FELL = "✗"
Said = dict[str, str]
"""What became of each probe, by its name."""


def without(world: World, guard: Guard) -> Said:
    """What every probe says without a guard."""
    with guard.gone(world):
        said = {probe.name: said_without(world, probe) for probe in guard.falls}
        return said | everything(world, [probe for probe in PROBES if probe not in (*guard.falls, *SLOW)])


def everything(world: World, wanted: Iterable[Probe]) -> Said:
    """What probes say, as many at a time as do not disturb each other."""
    chosen = set(wanted)

    def one_by_one(probes: Iterable[Probe]) -> Said:
        return {probe.name: outcome(world, probe) for probe in probes if probe in chosen}

    said: Said = {}
    with ThreadPoolExecutor(len(TOGETHER)) as pool:
        for part in pool.map(one_by_one, TOGETHER):
            said |= part
    return said | one_by_one(ALONE)


def page(table: dict[str, Said]) -> str:
    """The page: probes with numbers, guards by probes, and what each fallen probe said."""
    numbers = {probe.name: number for number, probe in enumerate(PROBES, 1)}
    lines = [
        "# Guards",
        "",
        INTRODUCTION,
        "",
        "## Probes, and what becomes of them while every guard stands",
        "",
        "| | Probe | Outcome |",
        "|---|---|---|",
        *(f"| {numbers[probe.name]} | {probe.name} | {_cell(probe.expected)} |" for probe in PROBES),
        "",
        "## Guard by probe",
        "",
        LEGEND,
        "",
        f"| Guard | {' | '.join(str(number) for number in numbers.values())} |",
        "|---|" + "---|" * len(numbers),
    ]
    for guard, said in table.items():
        marks = (_mark(said.get(probe.name), probe) for probe in PROBES)
        lines.append(f"| {guard} | {' | '.join(marks)} |")
    lines += ["", "## What the probes said without the guard", "", "| Guard | | Outcome |", "|---|---|---|"]
    for guard, said in table.items():
        lines += [
            f"| {guard} | {numbers[probe.name]} | {_cell(said[probe.name])} |"
            for probe in PROBES
            if probe.name in said and fell(probe, said[probe.name])
        ]
    return "\n".join(lines) + "\n"


def _mark(said: str | None, probe: Probe) -> str:
    if said is None or said.startswith(UNTRIED):
        return "?"
    return FELL if fell(probe, said) else ""


def _cell(text: str) -> str:
    return f"`{text.replace('|', '/').replace('`', '')}`"


def wrong(table: dict[str, Said]) -> list[str]:
    """Where other probes fell than the guard's."""
    found = []
    for guard in GUARDS:
        fallen = _fallen(table[guard.name])
        foreseen = {probe.name for probe in guard.falls}
        found += [f"{guard.name}: {name}: fell" for name in sorted(fallen - foreseen)]
        found += [f"{guard.name}: {name}: stood" for name in sorted(foreseen - fallen)]
    return found


def _fallen(said: Said) -> set[str]:
    return {probe.name for probe in PROBES if probe.name in said and fell(probe, said[probe.name])}


def run(world: World) -> dict[str, Said]:
    """The table. The page is written, and a line to stderr, after each guard. Raises LabError where a probe does not hold
    with all guards."""
    for probe in PROBES:
        if probe not in SLOW and not holds(world, probe):
            raise LabError(f"{probe.name}: says something else while every guard stands")
    table = {}
    for number, guard in enumerate(GUARDS, 1):
        begin = time.monotonic()
        table[guard.name] = said = without(world, guard)
        PAGE.write_text(page(table))
        fallen = len(_fallen(said))
        print(
            f"{number}/{len(GUARDS)} {guard.name}: {fallen} fell, {time.monotonic() - begin:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return table


def main() -> int:
    """Start a lab, take the guards away, and write the page."""
    argparse.ArgumentParser(prog="python -m tests.lab.packets.refusals", description=__doc__).parse_args()
    with started("guards") as lab, prepared(lab) as world:
        found = wrong(run(world))
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
