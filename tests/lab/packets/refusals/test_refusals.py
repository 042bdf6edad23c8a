"""What must not get through does not, and what keeps it out is what we think it is.

Who ends a connection, and for which reason, stands in the probes; which guard a probe falls without, in the guards.
`python -m tests.lab.packets.refusals` makes the whole table of guards and probes.
"""

from __future__ import annotations

import pytest

from tests.lab.packets.refusals.guards import GUARDS, PROBES, SLOW, Guard, fell, said_without
from tests.lab.packets.refusals.outcome import Probe
from tests.lab.packets.refusals.world import World

QUICK = [guard for guard in GUARDS if not set(guard.falls) & set(SLOW)]


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_a_probe_ends_where_it_must(world: World, probe: Probe) -> None:
    assert probe.run(world) == probe.expected


@pytest.mark.parametrize("guard", QUICK, ids=lambda guard: guard.name)
def test_without_a_guard_its_probes_fall(world: World, guard: Guard) -> None:
    with guard.gone(world):
        said = {probe.name: said_without(world, probe) for probe in guard.falls}

    assert [probe.name for probe in guard.falls if not fell(probe, said[probe.name])] == []
