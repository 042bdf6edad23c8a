"""The callers of the probes, for as long as the tests of a module run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lab.lab import Lab
from tests.lab.packets.refusals.world import World, prepared


@pytest.fixture(scope="module")
def world(lab: Lab) -> Iterator[World]:
    """The lab with all callers, good and bad."""
    with prepared(lab) as made:
        yield made
