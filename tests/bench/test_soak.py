"""What the soak calls wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from bench.soak import _compared, _section


@pytest.mark.parametrize(
    ("there", "expected", "wrong"),
    [
        (["a", "b"], {"a", "b"}, []),
        (["a", "b"], {"a"}, ["orphan: b of rows"]),
        (["a"], {"a", "b"}, ["lost: b of rows"]),
        ({"a": {"plan_id": "p"}}, {"a"}, []),
        (["a", "a"], {"a"}, ["duplicate: a of rows"]),
        (["b"], {"a"}, ["orphan: b of rows", "lost: a of rows"]),
    ],
)
def test_things_are_compared_by_name_not_by_number(
    there: Collection[str], expected: set[str], wrong: list[str]
) -> None:
    assert list(_compared("rows", there, expected)) == wrong


def test_the_result_says_what_was_killed_and_what_was_wrong() -> None:
    hit = Counter({("consumer's broker", "bind"): 2, ("provider's engine", "unbind"): 1})

    good = _section(hit, 4, [], (7, 120.0))
    bad = _section(hit, 4, ["after the crashes: orphan: x of y"], (7, 120.0))

    assert good.rows == [["consumer's broker", "2", "0"], ["provider's engine", "0", "1"]]
    assert "3 crashes" in good.text
    assert "seed 7" in good.text
    assert "orphan: **0**, lost: **0**, duplicate: **0**" in good.verdict
    assert good.verdict.endswith("met.")
    assert "orphan: **1**" in bad.verdict
    assert bad.verdict.endswith("missed.")
