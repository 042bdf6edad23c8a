"""`python -m bench`: measure, and write the table."""

from __future__ import annotations

import argparse
import os

import tools
from bench import binds, clouds, imports, path, registration, scale, start, table, updates
from bench.table import Section
from bench.world import world

PARTS = ("imports", "clouds", "registration", "updates", "binds", "start", "lab")


def main() -> None:
    """Run the parts that are asked for and write their sections of the table."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "part",
        nargs="?",
        choices=PARTS,
        help="measure this alone; `start` and `lab`, which need root, are measured only so",
    )
    parser.add_argument("--print", action="store_true", help="print the sections instead of writing them")
    parser.add_argument(
        "--rounds", type=int, default=15, help="processes for each import; half as many for each registration"
    )
    parser.add_argument(
        "--endpoints", type=int, nargs="+", default=[10, 100, 300], help="sizes of the stacks"
    )
    parser.add_argument(
        "--stepwise",
        type=int,
        nargs="*",
        default=[10, 30],
        help="sizes with the state saved at each step, too",
    )
    parser.add_argument(
        "--binds", type=int, default=100, help="single binds each way; a p99 needs 100 of them"
    )
    parser.add_argument("--callers", type=int, default=binds.CALLERS, help="callers that bind at once")
    parser.add_argument(
        "--bindings", type=int, nargs="*", default=[10, 100, 1000], help="lab: bindings on one gateway"
    )
    parser.add_argument("--starts", type=int, default=5, help="start: starts of the lab")
    parser.add_argument("--turns", type=int, default=10, help="lab: turns of each way to the service")
    parser.add_argument("--cluster", action="store_true", help="also apply to a real API server of the lab")
    chosen = parser.parse_args()
    before = os.getloadavg()[0]
    progress = tools.Progress()
    sections: list[Section] = []
    if chosen.part in (None, "imports"):
        with progress.step("imports"):
            sections.append(imports.measure(chosen.rounds))
    if chosen.part in (None, "clouds"):
        with progress.step("clouds"):
            sections.append(clouds.measure(max(3, chosen.rounds // 2)))
    if chosen.part in (None, "registration"):
        with progress.step("registration"):
            sections.append(registration.measure(max(3, chosen.rounds // 2)))
    if chosen.part in (None, "updates"):
        with progress.step("updates"):
            sections.append(updates.measure(chosen.endpoints, chosen.stepwise))
        if chosen.cluster:
            with progress.step("updates of a real API server"):
                sections.append(updates.measure(chosen.endpoints, chosen.stepwise, cluster=True))
    if chosen.part in (None, "binds"):
        with progress.step("binds") as detail:
            sections += binds.measure(chosen.binds, chosen.callers, detail)
    if chosen.part == "start":
        with progress.step("start"):
            sections.append(start.measure(chosen.starts))
    if chosen.part == "lab":
        with world(chosen.bindings) as lab:
            with progress.step("path"):
                sections.append(path.measure(lab, chosen.turns))
            with progress.step("bindings on one gateway"):
                sections.append(scale.measure(lab, chosen.bindings))
    if chosen.print:
        print("\n\n".join(section.markdown() for section in sections))
    else:
        table.write(sections, (before, os.getloadavg()[0]))


if __name__ == "__main__":
    main()
