"""Against the behaviour of the reference implementation: where its textual replacement is right, ours gives the same.

The reference knows `postgres:`, `jdbc:postgres:` and `amqp:` credentials with `hostname`, `port`, `uri`, `read_url` and `write_url`;
it applies mappings one after the other, puts host:port in place of host:port (of the host alone where the port is the
default), and writes every port as a number.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.credentials import Code, Json, Mapping, adapt
from tests.broker.credentials.cases import mappings

URLS = ("uri", "read_url", "write_url")


def reference(credentials: dict[str, Json], given_mappings: list[Mapping], default: int) -> dict[str, Json]:
    """What the reference makes of credentials that it knows."""
    result = dict(credentials)
    for mapping in given_mappings:
        source, target = mapping.source, mapping.target
        if (result["hostname"], int(str(result["port"]))) == (source.host, source.port):
            result |= {"hostname": target.host, "port": target.port}
        port = f"(?::{source.port})?" if source.port == default else f":{source.port}"
        whole = re.compile(rf"(?<!\w){re.escape(source.host)}{port}(?!\w)")
        for key in URLS:
            result[key] = whole.sub(str(target), str(result[key]))
    return result


# Hosts of which none is part of another, each with one port, and no target is a source: there, replacing text is right.
SOURCES = [("10.11.19.240", 5432), ("10.11.19.241", 5432), ("db.example", 47637), ("mq.internal", 5672)]
endpoints = st.sampled_from(SOURCES)


@st.composite
def known(draw: st.DrawFn) -> tuple[dict[str, Json], int]:
    scheme, default = draw(
        st.sampled_from(
            [("postgres", 5432), ("jdbc:postgresql", 5432), ("amqp", 5672), ("jdbc:postgres", 5432)]
        )
    )
    host, port = draw(endpoints)

    def url() -> str:
        several = draw(st.lists(endpoints, min_size=1, max_size=2))
        leave_out = draw(st.booleans())
        hosts = ",".join(name if leave_out and at == default else f"{name}:{at}" for name, at in several)
        return f"{scheme}://{draw(st.sampled_from(['', 'user:passw0rd@']))}{hosts}/name?a=b"

    return {"hostname": host, "port": port, "password": "passw0rd", **{key: url() for key in URLS}}, default


@given(
    known=known(),
    chosen=st.dictionaries(
        endpoints, st.tuples(st.sampled_from(["x", "y.svc"]), st.integers(1, 65535)), min_size=1
    ),
)
def test_same_as_the_reference_where_replacing_text_is_right(
    known: tuple[dict[str, Json], int], chosen: dict[tuple[str, int], tuple[str, int]]
) -> None:
    credentials, default = known
    ours = mappings("\n".join(f"{a}:{b} {c}:{d}" for (a, b), (c, d) in chosen.items()))
    result = adapt(credentials, ours, refuse=())
    assert result.credentials == reference(credentials, ours, default)
    assert [(one.host, one.port) for one in result.endpoints] == list(chosen.values())


DIFFERENT: dict[str, tuple[str, dict[str, Json], dict[str, Json], dict[str, Json]]] = {
    "two mappings in a row map twice": (
        "a:1 b:2\nb:2 c:3",
        {"hostname": "a", "port": 1, "uri": "amqp://u:p@a:1/"},
        {"hostname": "c", "port": 3, "uri": "amqp://u:p@c:3/"},
        {"hostname": "b", "port": 2, "uri": "amqp://u:p@b:2/"},
    ),
    "a port that is a string becomes a number": (
        "a:1 b:2",
        {"hostname": "a", "port": "1", "uri": "amqp://u:p@a:1/"},
        {"hostname": "b", "port": 2, "uri": "amqp://u:p@b:2/"},
        {"hostname": "b", "port": "2", "uri": "amqp://u:p@b:2/"},
    ),
    "a password that looks like the endpoint is replaced": (
        "a:1 b:2",
        {"hostname": "a", "port": 1, "uri": "amqp://u:a:1@a:1/"},
        {"hostname": "b", "port": 2, "uri": "amqp://u:b:2@b:2/"},
        {"hostname": "b", "port": 2, "uri": "amqp://u:a:1@b:2/"},
    ),
    "another port behind the host of a default port is taken for a part of the text": (
        "a.example:5672 b:2",
        {"hostname": "a.example", "port": 5672, "uri": "amqp://u:p@a.example:15672/"},
        {"hostname": "b", "port": 2, "uri": "amqp://u:p@b:2:15672/"},
        {"hostname": "b", "port": 2, "uri": "amqp://u:p@a.example:15672/"},
    ),
    "a host that ends with the source is replaced": (
        "db.example:1 b:2",
        {"hostname": "x", "port": 1, "uri": "amqp://u:p@my-db.example:1/"},
        {"hostname": "x", "port": 1, "uri": "amqp://u:p@my-b:2/"},
        {"hostname": "x", "port": 1, "uri": "amqp://u:p@my-db.example:1/"},
    ),
}


@pytest.mark.parametrize("fault", DIFFERENT)
def test_faults_of_the_reference(fault: str) -> None:
    text, credentials, theirs, ours = DIFFERENT[fault]
    filled = {**dict.fromkeys(URLS, ""), **credentials}
    assert reference(filled, mappings(text), 5672) == {**filled, **theirs}
    assert adapt(credentials, mappings(text)).credentials == ours


@pytest.mark.parametrize(
    ("mapping", "credentials", "adapted"),
    [
        (
            "10.11.241.0:47637 appnethost:9876",
            {
                "dbname": "yLO2WoE0-mCcEppn",
                "hostname": "10.11.241.0",
                "password": "redacted",
                "port": "47637",
                "ports": {"5432/tcp": "47637"},
                "uri": "postgres://mma4G8N0isoxe17v:redacted@10.11.241.0:47637/yLO2WoE0-mCcEppn",
                "username": "mma4G8N0isoxe17v",
            },
            {
                "dbname": "yLO2WoE0-mCcEppn",
                "hostname": "appnethost",
                "password": "redacted",
                "port": "9876",
                "ports": {"5432/tcp": "9876"},
                "uri": "postgres://mma4G8N0isoxe17v:redacted@appnethost:9876/yLO2WoE0-mCcEppn",
                "username": "mma4G8N0isoxe17v",
            },
        ),
        (
            "10.11.19.240:5432 hosta:123\n10.11.19.241:5432 hostb:456",
            {"write_url": "jdbc:postgresql://10.11.19.240,10.11.19.241/e2b9?targetServerType=master"},
            {"write_url": "jdbc:postgresql://hosta:123,hostb:456/e2b9?targetServerType=master"},
        ),
    ],
)
def test_credentials_that_brokers_hand_out(
    mapping: str, credentials: dict[str, Json], adapted: dict[str, Json]
) -> None:
    result = adapt(credentials, mappings(mapping))
    assert result.credentials == adapted
    assert not result.findings


def test_rabbitmq_with_its_published_ports() -> None:
    ports: dict[str, Json] = {"15672/tcp": "43795", "1883/tcp": "35982", "5672/tcp": "51011"}
    uri = "amqp://gXoS1dkYUt9lyvZc:ypAT7hlpCrvsvzI2@{}"
    result = adapt(
        {"hostname": "10.11.241.0", "port": "51011", "ports": ports, "uri": uri.format("10.11.241.0:51011")},
        mappings("10.11.241.0:51011 appnethost:9876"),
    )
    assert result.credentials == {
        "hostname": "appnethost",
        "port": "9876",
        "ports": {**ports, "5672/tcp": "9876"},
        "uri": uri.format("appnethost:9876"),
    }
    assert {(finding.code, finding.path) for finding in result.findings} == {
        (Code.NOT_MAPPED, "credentials.ports['15672/tcp']"),
        (Code.NOT_MAPPED, "credentials.ports['1883/tcp']"),
    }
