"""The clients themselves read what comes out: libpq, SQLAlchemy, PyMongo, redis-py, pika, kafka-python.

Each `reads` is the client's own parser. Before, it must see the sources; after, the targets; whatever else it sees (user,
password, database, options) must be the same.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pika
import psycopg.conninfo
import pytest
import redis.asyncio.connection
import redis.connection
import sqlalchemy
from pymongo.uri_parser import parse_uri

from broker.credentials import Endpoint, Mapping, adapt

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # kafka-python's own, when it is imported
    from kafka.cluster import collect_hosts

Addresses = list[tuple[str, int]]
Reading = tuple[Addresses, object]

TARGETS = ("local-{}", "10.96.0.{}", "fd00::{}")


def libpq(text: str) -> Reading:
    found: dict[str, Any] = dict(psycopg.conninfo.conninfo_to_dict(text))
    hosts = (found.pop("hostaddr", None) or found.pop("host")).split(",")
    ports = str(found.pop("port", None) or 5432).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    return [(host, int(port or 5432)) for host, port in zip(hosts, ports, strict=True)], found


def over_sqlalchemy(default: int) -> Callable[[str], Reading]:
    def read(text: str) -> Reading:
        url = sqlalchemy.make_url(text)
        rest = (url.drivername, url.username, url.password, url.database, url.query)
        return [(url.host or "", url.port or default)], rest

    return read


def over_redis(parse: Callable[[str], Any]) -> Callable[[str], Reading]:
    def read(text: str) -> Reading:
        found = dict(parse(text))
        return [(found.pop("host"), found.pop("port", 6379))], found

    return read


def over_pymongo(text: str) -> Reading:
    found = dict(parse_uri(text))
    return [(host, port) for host, port in found.pop("nodelist")], found


def over_pika(text: str) -> Reading:
    found = pika.URLParameters(text)
    rest = (found.credentials.username, found.credentials.password, found.virtual_host, found.heartbeat)
    return [(found.host, found.port)], rest


def over_kafka(text: str) -> Reading:
    return [(host, port) for host, port, _ in collect_hosts(text, randomize=False)], None


@dataclass(frozen=True)
class Client:
    """`text` names `sources` (host:port each)."""

    name: str
    text: str
    sources: tuple[str, ...]
    reads: Callable[[str], Reading]
    key: str = "uri"


CLIENTS = (
    Client("libpq", "postgres://u:p%40ss%2F@db.example/x%20y?sslmode=require", ("db.example:5432",), libpq),
    Client(
        "libpq, several",
        "postgresql://u:p@a.example,b.example:5433/x",
        ("a.example:5432", "b.example:5433"),
        libpq,
    ),
    Client("libpq, IPv6", "postgresql://u@[2001:db8::1]:5/x", ("2001:db8::1:5",), libpq),
    Client("libpq, query", "postgresql:///x?host=db.example&user=u", ("db.example:5432",), libpq),
    Client("libpq, query with port", "postgresql://u@/x?port=7&host=db.example", ("db.example:7",), libpq),
    Client("libpq, port in the query", "postgresql://u@db.example/x?port=7", ("db.example:7",), libpq),
    Client("libpq, keywords", "host=db.example dbname=x password='a\\' b'", ("db.example:5432",), libpq),
    Client(
        "libpq, keywords, several",
        "host = 'a.example,b.example' port = 1,2 user=u",
        ("a.example:1", "b.example:2"),
        libpq,
    ),
    Client(
        "SQLAlchemy",
        "postgresql+psycopg://u:p%40@db.example/x?a=b",
        ("db.example:5432",),
        over_sqlalchemy(5432),
    ),
    Client(
        "redis-py, @",
        "redis://u:p@ss@r.example:7/1",
        ("r.example:7",),
        over_redis(redis.connection.parse_url),
    ),
    Client(
        "SQLAlchemy, MySQL",
        "mysql+pymysql://u:p@db.example:3307/x",
        ("db.example:3307",),
        over_sqlalchemy(3306),
    ),
    Client("SQLAlchemy, IPv6", "mariadb://u:p@[2001:db8::1]/x", ("2001:db8::1:3306",), over_sqlalchemy(3306)),
    Client(
        "redis-py",
        "redis://u:p%2F@r.example/1?health_check_interval=3",
        ("r.example:6379",),
        over_redis(redis.connection.parse_url),
    ),
    Client(
        "redis-py, asyncio",
        "rediss://:p@[2001:db8::1]:7/1",
        ("2001:db8::1:7",),
        over_redis(redis.asyncio.connection.parse_url),
    ),
    Client(
        "PyMongo",
        "mongodb://u:p%40@a.example,b.example:7/x?replicaSet=rs&tls=true",
        ("a.example:27017", "b.example:7"),
        over_pymongo,
    ),
    Client(
        "PyMongo, IPv6",
        "mongodb://u:p@[2001:db8::1]/?directConnection=true",
        ("2001:db8::1:27017",),
        over_pymongo,
    ),
    Client("pika", "amqp://u:p%2F@mq.example/%2Fv?heartbeat=5", ("mq.example:5672",), over_pika),
    Client("pika, TLS", "amqps://u:p@mq.example", ("mq.example:5671",), over_pika),
    Client("pika, IPv6", "amqp://u:p@[2001:db8::1]:7/v", ("2001:db8::1:7",), over_pika),
    Client(
        "kafka-python",
        "a.example:9092,b.example:9093",
        ("a.example:9092", "b.example:9093"),
        over_kafka,
        "bootstrap_servers",
    ),
    Client(
        "kafka-python, IPv6", "[2001:db8::1]:9092", ("2001:db8::1:9092",), over_kafka, "bootstrap_servers"
    ),
)


def endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host=host, port=int(port))


@pytest.mark.parametrize("target", TARGETS, ids=("name", "IPv4", "IPv6"))
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_client_connects_to_the_target(client: Client, target: str) -> None:
    sources = [endpoint(text) for text in client.sources]
    before, rest = client.reads(client.text)
    assert before == [(source.host, source.port) for source in sources], "the case itself"

    # Keyword strings and queries without a port state one for all hosts.
    targets = [Endpoint(host=target.format(number), port=5555) for number in range(1, len(sources) + 1)]
    mappings = [Mapping(source=source, target=to) for source, to in zip(sources, targets, strict=True)]
    credentials = adapt({client.key: client.text}, mappings).credentials
    adapted = credentials[client.key]
    assert isinstance(adapted, str)

    after, rest_after = client.reads(adapted)
    assert after == [(to.host, to.port) for to in targets]
    assert rest_after == rest


def test_libpq_keeps_the_name_to_check_where_the_address_is_stated_apart() -> None:
    """The way to keep sslmode=verify-full: libpq connects to hostaddr and checks host."""
    text = "postgresql://db.example/x?hostaddr=192.0.2.1&sslmode=verify-full"
    mapping = Mapping(source=endpoint("192.0.2.1:5432"), target=endpoint("10.96.0.1:5555"))
    adapted = adapt({"uri": text}, [mapping])
    assert not adapted.findings
    found = psycopg.conninfo.conninfo_to_dict(str(adapted.credentials["uri"]))
    assert (found["host"], found["hostaddr"], found["port"]) == ("db.example", "10.96.0.1", "5555")


SCHEMES = {"postgresql": libpq, "redis": over_redis(redis.connection.parse_url), "amqp": over_pika}


@pytest.mark.parametrize(
    ("scheme", "password"), [*itertools.product(SCHEMES, ["p%40", "a+b=", "db.example:1", "%3A%2F"])]
)
def test_passwords_reach_the_client_unchanged(scheme: str, password: str) -> None:
    text = f"{scheme}://us%65r:{password}@db.example:1/1"
    mapping = Mapping(source=endpoint("db.example:1"), target=endpoint("local:2"))
    adapted = str(adapt({"uri": text}, [mapping]).credentials["uri"])
    assert SCHEMES[scheme](adapted) == ([("local", 2)], SCHEMES[scheme](text)[1])
