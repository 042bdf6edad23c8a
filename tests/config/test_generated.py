"""Whatever people could write is accepted; whatever they could get wrong is refused, and refused by name."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from config import ConfigError, Stack, parse
from config.types import LABEL, is_below
from tests.config.test_parse import places, replace
from tests.strategies import Data, hosts, labels, stacks

WILD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 70_000),
    st.sampled_from(
        ["", " ", "*", "*.example", "A.EXAMPLE", "10.0.0.300", "a..b", "x" * 300, "\x00", "ünï.example"]
    ),
    st.text(max_size=6),
    st.lists(st.text(max_size=3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)


def keys(value: Any) -> list[tuple[str | int, ...]]:
    return [path for path in places(value) if isinstance(path[-1], str)]


def owner(data: Any, path: tuple[str | int, ...]) -> Any:
    for part in path[:-1]:
        data = data[part]
    return data


def outcome(data: Data) -> Stack | ConfigError:
    """What the vocabulary makes of data; anything but these two would be an error of its own."""
    before = copy.deepcopy(data)
    try:
        return parse(data)
    except ConfigError as error:
        assert error.findings
        for finding in error.findings:
            assert finding.key
            assert finding.rule
            assert finding.remedy
        return error
    finally:
        assert data == before


@settings(max_examples=40)
@given(stacks())
def test_what_is_valid_is_accepted(data: Data) -> None:
    assert isinstance(parse(data), Stack)


@settings(max_examples=40)
@given(st.data())
def test_wild_values_are_accepted_or_refused(data: st.DataObject) -> None:
    drawn = data.draw(stacks())
    for path in data.draw(st.lists(st.sampled_from(places(drawn)), min_size=1, max_size=4)):
        replace(drawn, path, data.draw(WILD))
    outcome(drawn)


@settings(max_examples=40)
@given(st.data())
def test_a_renamed_key_is_refused(data: st.DataObject) -> None:
    drawn = data.draw(stacks())
    free = ("labels", "podAnnotations", "nodeSelector", "annotations", "planMetadata")
    path = data.draw(st.sampled_from([p for p in keys(drawn) if not set(free) & set(p[:-1])]))
    section = owner(drawn, path)
    section[f"{path[-1]}_"] = section.pop(path[-1])
    refused = outcome(drawn)
    assert isinstance(refused, ConfigError)
    assert any("is not a known key" in finding.rule for finding in refused.findings)


@settings(max_examples=40)
@given(st.data())
def test_a_key_that_is_left_out_is_accepted_or_refused(data: st.DataObject) -> None:
    drawn = data.draw(stacks())
    path = data.draw(st.sampled_from(keys(drawn)))
    del owner(drawn, path)[path[-1]]
    outcome(drawn)


@given(labels(63))
def test_drawn_labels_are_labels(label: str) -> None:
    assert LABEL.fullmatch(label)


@given(hosts("istio.data.example"), st.sampled_from(["stio.data.example", "data.istio", "o.data.example"]))
def test_a_host_is_below_its_domain_by_whole_labels(host: str, other: str) -> None:
    assert is_below(host, "istio.data.example")
    assert not is_below(host, other)


@given(hosts("istio.data.example", longest=8), st.integers(0, 30))
def test_the_case_of_one_letter_makes_a_host_invalid(host: str, place: int) -> None:
    letters = [index for index, letter in enumerate(host) if letter.isalpha()]
    at = letters[place % len(letters)]
    spoilt = host[:at] + host[at].upper() + host[at + 1 :]
    assume(spoilt != host)
    data = {
        "cluster": {"render": True},
        "provider": {
            "systemDomain": "istio.data.example",
            "exports": [
                {
                    "name": "a",
                    "consumers": ["c.example"],
                    "endpoints": [{"name": "b", "host": spoilt, "address": "10.0.0.1", "port": 1}],
                }
            ],
        },
    }
    refused = outcome(data)
    assert isinstance(refused, ConfigError)
    assert [f.key for f in refused.findings] == ["provider.exports[a].endpoints[b].host"]
