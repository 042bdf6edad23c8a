"""`python -m tests.routing.table` writes docs/invariants.md: what holds of all objects, and what proves the tests."""

from __future__ import annotations

from pathlib import Path

from tests.routing.invariants import INVARIANTS
from tests.routing.mutations import MUTATIONS

FILE = Path(__file__).parents[2] / "docs" / "invariants.md"

HEAD = """# Invariants

What holds of all objects of a cluster, for every stack that the vocabulary accepts. `tests/routing/invariants.py` states each
invariant over plain objects, with Istio's own semantics (`tests/routing/mesh.py`) and nothing of the builders;
`tests/routing/test_invariants.py` runs the real components on generated stacks and checks all of them. Invariants 1 to 19 are
those that both ends of a connection depend on (of 5 this is the consumer's part, of 17 that of the objects: what a `Sidecar` must
import is its owner's to write); the named ones are traps of single objects.

The right column is the proof that the tests can fail: a builder was broken in that way (`tests/routing/mutations.py`), and
the invariant noticed. {mutations} mutations, each noticed by exactly the invariants beside which it stands.

Written by `python -m tests.routing.table`.

| Invariant | Says | Mutations that it noticed |
|---|---|---|
"""


def text() -> str:
    """The file as it should stand."""
    rows = []
    for invariant in INVARIANTS.values():
        noticed = [
            f"`{mutation.target}`: {mutation.says}"
            for mutation in MUTATIONS
            if invariant.id in mutation.noticed_by
        ]
        rows.append(f"| **{invariant.id}** | {invariant.says} | {'<br>'.join(noticed)} |\n")
    return HEAD.format(mutations=len(MUTATIONS)) + "".join(rows)


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(text())
