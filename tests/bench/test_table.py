"""The results' file: a run replaces what it measured and leaves the rest."""

from __future__ import annotations

from bench.table import Section, merged, percentile

WRITTEN = "# Head\n\nabout\n\n## Old\n\n| a |\n\n## Kept\n\n| b |\n"


def test_a_section_takes_the_place_of_its_former_self() -> None:
    section = Section("Old", "text", ["column"], [["value"]]).markdown()

    assert list(merged(WRITTEN, {"Old": section}).items()) == [("Old", section), ("Kept", "## Kept\n\n| b |")]


def test_a_new_section_comes_last() -> None:
    assert list(merged(WRITTEN, {"New": "## New"})) == ["Old", "Kept", "New"]


def test_the_first_run_has_nothing_to_keep() -> None:
    assert merged("", {"New": "## New"}) == {"New": "## New"}


def test_percentiles_lie_between_the_values() -> None:
    values = [float(number) for number in range(101)]

    assert [percentile(values, p) for p in (50, 95, 99)] == [50.0, 95.0, 99.0]
