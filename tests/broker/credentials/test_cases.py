"""Every case of the table, and what a mapping or a document is refused for."""

from __future__ import annotations

import copy
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from broker.credentials import (
    REFUSED_BY_DEFAULT,
    AdaptError,
    Code,
    ComplexityError,
    Endpoint,
    Mapping,
    MappingsError,
    RefusedError,
    adapt,
)
from tests.broker.credentials import table
from tests.broker.credentials.cases import CASES, PG, Case, mappings


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_case(case: Case) -> None:
    before = copy.deepcopy(case.credentials)
    adapted = adapt(case.credentials, mappings(case.mappings), refuse=())
    assert adapted.credentials == (case.adapted or before)
    assert [(type(value), key) for key, value in adapted.credentials.items()] == [
        (type(value), key) for key, value in before.items()
    ], "members keep their order and type"
    assert {(finding.code, finding.path) for finding in adapted.findings} == set(case.findings)
    assert adapted.endpoints == tuple(mapping.target for mapping in mappings(case.mappings))
    assert case.credentials == before, "what was passed in is not changed"


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if {code for code, _ in case.findings} & REFUSED_BY_DEFAULT],
    ids=lambda c: c.says,
)
def test_what_no_client_could_use_is_refused_by_default(case: Case) -> None:
    with pytest.raises(RefusedError) as error:
        adapt(case.credentials, mappings(case.mappings))
    assert {finding.code for finding in error.value.refused} <= REFUSED_BY_DEFAULT
    assert {(finding.code, finding.path) for finding in error.value.findings} == set(case.findings)
    for finding in error.value.refused:
        assert finding.path in str(error.value)
        assert finding.remedy in str(error.value)


@pytest.mark.parametrize("code", Code)
def test_policy_refuses_or_passes_each_code(code: Code) -> None:
    case = next(case for case in CASES if code in {found for found, _ in case.findings})
    with pytest.raises(RefusedError, match=code):
        adapt(case.credentials, mappings(case.mappings), refuse={code})
    adapt(case.credentials, mappings(case.mappings), refuse=set(Code) - {found for found, _ in case.findings})


def test_finding_as_json_says_what_and_what_to_do() -> None:
    (finding,) = adapt({"uri": "postgres://db.example?sslmode=verify-full"}, mappings(PG)).findings
    assert finding.as_dict() == {
        "code": "tls-name",
        "path": "credentials.uri",
        "message": finding.message,
        "remedy": finding.remedy,
    }
    assert "hostaddr" in finding.remedy


def test_no_mappings_are_an_error() -> None:
    with pytest.raises(MappingsError, match="endpoint_mappings is empty; give at least one"):
        adapt({"host": "db.example", "port": 5432}, [])


def test_contradicting_mappings_are_an_error() -> None:
    with pytest.raises(
        MappingsError, match=r"endpoint_mappings\[1\] maps DB.example:1 to c:3, but .* to b:2"
    ):
        adapt({}, mappings("db.example:1 b:2\nDB.example:1 c:3"))
    adapt({}, mappings("db.example:1 b:2\nDB.example:1 b:2"))


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("", 1),
        ("a b", 1),
        ("a:1", 1),
        ("http://a", 1),
        ("a/b", 1),
        ("u@a", 1),
        ("a,b", 1),
        ("-a", 1),
        ("[a]:1", 1),
        ("a", 0),
        ("a", 65536),
        ("a", "x"),
        ("a", True),
        ("a", 1.5),
    ],
)
def test_endpoint_is_refused(host: str, port: Any) -> None:
    with pytest.raises(ValidationError):
        Endpoint(host=host, port=port)


def test_endpoint_takes_what_platforms_send() -> None:
    data = {
        "source": {"host": "[2001:db8::1]", "port": "5432", "extra": 1},
        "target": {"host": "a_b.", "port": 1},
    }
    mapping = Mapping.model_validate(data)
    assert (str(mapping.source), str(mapping.target)) == ("[2001:db8::1]:5432", "a_b.:1")


def test_digits_and_lone_surrogates_are_handed_through() -> None:
    rest: dict[str, Any] = {
        "ratio": Decimal("1.10"),
        "text": "\ud800 %41",
        "many": 10**40,
        "port_ratio": Decimal("5432.0"),
    }
    value = {**rest, "host": "db.example", "port": 5432, "uri": "postgres://u:\udfff@db.example/%ED%A0%80"}
    assert adapt(value, mappings(PG)).credentials == {
        **rest,
        "host": "local",
        "port": 5555,
        "uri": "postgres://u:\udfff@local:5555/%ED%A0%80",
    }


def test_too_deep() -> None:
    value: dict[str, Any] = {}
    for _ in range(2000):
        value = {"a": value}
    with pytest.raises(ComplexityError, match="deeper than 100 levels"):
        adapt(value, mappings(PG))


def test_too_many_pairs() -> None:
    value: dict[str, Any] = {
        "hosts": ["db.example"] * 200,
        "ports": {str(number): 5432 for number in range(100)},
    }
    with pytest.raises(ComplexityError, match="more than 10000 hosts and ports"):
        adapt(value, mappings(PG))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("postgres://db.example/x?" + "a" * 300_000, id="a parameter without a value"),
        pytest.param(
            "jdbc:sqlserver://db.example;" + "a={;" * 75_000, id="braces in a URL that are not closed"
        ),
        pytest.param("Host=db.example;" + "a={x;" * 60_000, id="braces that are not closed"),
        pytest.param('a="x;' * 60_000 + "Host=db.example", id="quotes that are closed elsewhere"),
        pytest.param("a" + " " * 300_000 + ";Host=db.example", id="a name without a value"),
    ],
)
def test_time_grows_with_the_text_not_with_its_square(text: str) -> None:
    """The square of these takes minutes."""
    began = time.process_time()
    adapt({"uri": text}, mappings(PG), refuse=())
    assert time.process_time() - began < 15


@pytest.mark.parametrize("error", [MappingsError, ComplexityError, RefusedError])
def test_one_error_to_catch(error: type[Exception]) -> None:
    assert issubclass(error, AdaptError)


def test_documentation_is_what_the_cases_say() -> None:
    assert Path(table.FILE).read_text() == table.text(), "run: python -m tests.broker.credentials.table"
