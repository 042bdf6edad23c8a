"""The invariants notice what they are there for: each mutation of a builder is noticed by exactly those it names."""

from __future__ import annotations

import pytest

from tests.routing import table
from tests.routing.deployed import deploy
from tests.routing.invariants import INVARIANTS, violated
from tests.routing.mutations import ASKED, CONTROLLED, FOREIGN, MUTATIONS, SAMPLES, Mutation, after
from tests.strategies import Data


@pytest.mark.parametrize("data", [*SAMPLES.values(), CONTROLLED, FOREIGN, ASKED])
def test_intact_builders_violate_nothing(data: Data) -> None:
    assert violated(deploy(data)) == {}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.target}: {mutation.says}")
def test_a_mutation_is_noticed_by_exactly_its_invariants(mutation: Mutation) -> None:
    found = violated(after(mutation))
    assert set(found) == mutation.noticed_by, found


def test_every_invariant_notices_a_mutation() -> None:
    assert frozenset().union(*(mutation.noticed_by for mutation in MUTATIONS)) == set(INVARIANTS)


def test_mutations_are_told_apart() -> None:
    described = [(mutation.target, mutation.says) for mutation in MUTATIONS]
    assert len(set(described)) == len(described)


def test_the_table_in_the_documentation_is_fresh() -> None:
    assert table.FILE.read_text() == table.text(), "run `python -m tests.routing.table` and commit the file"
