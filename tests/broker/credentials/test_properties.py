"""What holds of all credentials and mappings."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable

from hypothesis import assume, given
from hypothesis import strategies as st

from broker.credentials import AdaptError, Code, Endpoint, Json, Mapping, RefusedError, adapt
from tests.broker.credentials.strategies import (
    HOSTS,
    PORTS,
    PROVIDER,
    View,
    credentials,
    endpoints,
    fresh,
    lookup,
    some_mappings,
)

Render = Callable[[View], dict[str, Json]]
UNCLEAR = {Code.CONFLICT, Code.SHARED_HOST, Code.NOT_MAPPED, Code.NO_PORT}


def adapted(value: dict[str, Json], mappings: list[Mapping]) -> dict[str, Json]:
    return adapt(value, mappings, refuse=()).credentials


def inverse(mappings: list[Mapping]) -> list[Mapping]:
    return [Mapping(source=mapping.target, target=mapping.source) for mapping in mappings]


def same(left: Json, right: Json) -> bool:
    """Equal in every byte: types and the order of members too."""
    return json.dumps(left) == json.dumps(right)


@given(render=credentials(), mappings=some_mappings(st.one_of(fresh, endpoints), one_to_one=False))
def test_endpoints_become_their_targets_and_nothing_else_changes(
    render: Render, mappings: list[Mapping]
) -> None:
    before = render(PROVIDER)
    kept = copy.deepcopy(before)
    assert same(adapted(before, mappings), render(View(lookup(mappings))))
    assert same(before, kept), "the argument is not changed"


@given(render=credentials(explicit=True), mappings=some_mappings(fresh, one_to_one=True))
def test_the_inverse_gives_the_original_back(render: Render, mappings: list[Mapping]) -> None:
    before = render(PROVIDER)
    assert same(adapted(adapted(before, mappings), inverse(mappings)), before)


@given(render=credentials(), mappings=some_mappings(fresh, one_to_one=True))
def test_the_inverse_gives_the_original_back_with_its_ports_written(
    render: Render, mappings: list[Mapping]
) -> None:
    """A default port that was left out and had to be written stays written."""
    before = render(PROVIDER)
    back = adapted(adapted(before, mappings), inverse(mappings))
    assert same(back, render(View(through=lookup(mappings))))


@given(
    render=credentials(),
    mappings=some_mappings(st.one_of(fresh, endpoints), one_to_one=False),
    order=st.randoms(use_true_random=False),
)
def test_the_order_of_mappings_means_nothing(
    render: Render, mappings: list[Mapping], order: random.Random
) -> None:
    shuffled = order.sample(mappings, len(mappings))
    one, other = (adapt(render(PROVIDER), sorting, refuse=()) for sorting in (mappings, shuffled))
    assert same(one.credentials, other.credentials)
    unused = Code.UNUSED
    assert {f for f in one.findings if f.code != unused} == {f for f in other.findings if f.code != unused}
    assert {f.message for f in one.findings} == {f.message for f in other.findings}


@given(render=credentials(), mappings=some_mappings(fresh, one_to_one=False))
def test_adapting_again_changes_nothing_when_no_target_is_a_source(
    render: Render, mappings: list[Mapping]
) -> None:
    once = adapted(render(PROVIDER), mappings)
    assert same(adapted(once, mappings), once)


FRAGMENTS = [
    *HOSTS,
    *map(str, PORTS),
    *":/@?#,;=[]()%'\"\\ \n\0&",
    "://",
    "postgres://",
    "redis://",
    "jdbc:mysql://",
]
FRAGMENTS += [
    "mongodb+srv://",
    "jdbc:sqlserver://",
    "u:p@",
    "host=",
    "port=",
    "&port=",
    ";port=",
    "address=(",
    "u@tcp(",
]
FRAGMENTS += ["hostaddr=", "http://", ",ssl=true", ",http://", "tcp:", "Server="]
KEYS = [
    "host",
    "port",
    "ports",
    "hosts",
    "uri",
    "read_host",
    "read_port",
    "nodes",
    "password",
    "note",
    "tls_port",
    "type",
]
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)
scalars = st.one_of(
    texts,
    texts,
    st.sampled_from(HOSTS),
    st.sampled_from(PORTS),
    st.sampled_from(PORTS).map(str),
    st.booleans(),
    st.none(),
)
documents: st.SearchStrategy[dict[str, Json]] = st.dictionaries(
    st.sampled_from(KEYS),
    st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(KEYS), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


def shape(value: Json) -> object:
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


@given(value=documents, mappings=some_mappings(st.one_of(fresh, endpoints), one_to_one=False))
def test_whatever_comes_keeps_its_shape(value: dict[str, Json], mappings: list[Mapping]) -> None:
    assert shape(adapted(value, mappings)) == shape(value)


@st.composite
def renamings(draw: st.DrawFn) -> list[Mapping]:
    """Each source host, whatever its port, has one new host of its own, and the port stays: nothing is written that was
    left out."""
    sources = draw(st.lists(endpoints, min_size=1, max_size=6, unique=True))
    hosts = sorted({source.host for source in sources})
    return [
        Mapping(source=source, target=Endpoint(host=f"local-{hosts.index(source.host)}", port=source.port))
        for source in sources
    ]


@given(value=documents, mappings=renamings())
def test_the_inverse_restores_whatever_was_understood(
    value: dict[str, Json], mappings: list[Mapping]
) -> None:
    result = adapt(value, mappings, refuse=())
    assume(not UNCLEAR & {finding.code for finding in result.findings})
    assert same(adapted(result.credentials, inverse(mappings)), value)


@given(value=documents, mappings=renamings())
def test_a_source_that_stays_is_never_passed_over_in_silence(
    value: dict[str, Json], mappings: list[Mapping]
) -> None:
    """Where host:port of a mapping stands in a string that is neither secret nor a name, it is replaced or reported."""
    result = adapt(value, mappings, refuse=())
    reported = {finding.path for finding in result.findings}
    for path, text in strings(result.credentials, "credentials"):
        tokens = text.replace("@", " ").split()
        for mapping in mappings:
            if f"{mapping.source.host}:{mapping.source.port}" in tokens and ":" not in mapping.source.host:
                assert any(path.startswith(place) or place.startswith(path) for place in reported), (
                    path,
                    text,
                )


def strings(value: Json, path: str) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            found
            for key, item in value.items()
            if key != "password"
            for found in strings(item, f"{path}.{key}")
        ]
    if isinstance(value, list):
        return [found for number, item in enumerate(value) for found in strings(item, f"{path}[{number}]")]
    return [(path, value)] if isinstance(value, str) else []


SECRET = "sUp3r-s3cr3t"


@given(
    render=st.sampled_from(
        [
            "postgres://u:{0}@{1}/x?sslmode=verify-full&password={0}",
            "postgres://u:{0}/@{1}:5432,{1}/x",
            "jdbc:sqlserver://{1};password={{{0};}}",
            "host={1} password='{0}' sslmode=verify-full",
            "Server={1};Pwd={0}",
            "u:{0}@tcp({1}:5432)/x?tls=true",
            "{1}:5432,password={0},ssl=true",
            "mongodb+srv://u:{0}@{1}/x",
            "weird {1}:5432 {0}",
            "weird://{0}@{1}",
            "https://{0}:{0}@{1}:99999/",
            "{0}:{1}:5432@{1}:5432/{0}",
        ]
    ),
    key=st.sampled_from(["uri", "password", "note", "hosts", "port"]),
    mappings=some_mappings(fresh, one_to_one=False),
    refuse=st.sets(st.sampled_from(Code)),
)
def test_no_finding_and_no_error_holds_a_secret(
    render: str, key: str, mappings: list[Mapping], refuse: set[Code]
) -> None:
    value: dict[str, Json] = {
        key: render.format(SECRET, "a.example"),
        "token": SECRET,
        "nested": {"password": SECRET},
    }
    try:
        said = [
            str(finding) + str(finding.as_dict())
            for finding in adapt(value, mappings, refuse=refuse).findings
        ]
    except RefusedError as error:
        said = [str(error), *map(str, error.findings)]
    except AdaptError as error:
        said = [str(error)]
    assert SECRET not in "".join(said)
