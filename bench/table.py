"""The results as a person reads them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import tools

RESULTS = Path(__file__).with_name("RESULTS.md")


@dataclass(frozen=True)
class Section:
    """One table with what it measures, and the verdict on its goal where it has one."""

    title: str
    text: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    verdict: str = ""

    def markdown(self) -> str:
        """The section in Markdown."""
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return "\n\n".join(part for part in (f"## {self.title}", self.text, table, self.verdict) if part)


def summary(values: Sequence[float], unit: str, scale: float = 1.0, digits: int = 0) -> str:
    """Median and, in parentheses, smallest and largest value."""
    scaled = [value * scale for value in values]
    low, high = min(scaled), max(scaled)
    return f"{statistics.median(scaled):.{digits}f} {unit} ({low:.{digits}f} to {high:.{digits}f})"


def verdict(what: str, reached: float, goal: str, *, met: bool) -> str:
    """A sentence on a goal."""
    return f"{what}: **{reached:.2f}**, goal {goal}: {'met' if met else 'missed'}."


def percentile(values: Sequence[float], percent: int) -> float:
    """The value below which so many percent (1 to 99) of at least two values lie."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def write(sections: Iterable[Section], load: tuple[float, float]) -> None:
    """Write the sections into the results, in the place of those of the same title; others stay.

    load: the machine's one-minute load when the measurements began and ended.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = (
        f"{os.cpu_count()} CPUs ({_processor()}), {memory:.0f} GiB, {platform.system()} {platform.release()}; Python "
        f"{platform.python_version()}, pulumi {version('pulumi')}, pulumi_kubernetes {version('pulumi_kubernetes')}, pydantic "
        f"{version('pydantic')}, CLI {tools.version('pulumi')}."
    )
    head = f"# What the program costs\n\nWritten by `python -m bench`; medians, and in parentheses the extremes.\n\n{machine}"
    busy = f"Load of the machine while measuring: {load[0]:.1f} to {load[1]:.1f}."
    written = RESULTS.read_text() if RESULTS.exists() else ""
    measured = {section.title: f"{section.markdown()}\n\n{busy}" for section in sections}
    RESULTS.write_text("\n\n".join([head, *merged(written, measured).values()]) + "\n")


def merged(written: str, measured: Mapping[str, str]) -> dict[str, str]:
    """The sections by title, in Markdown: of a text that was written before, with those that were measured now."""
    before = (f"## {part.strip()}" for part in written.split("\n## ")[1:])
    return {part.partition("\n")[0].removeprefix("## "): part for part in before} | dict(measured)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
