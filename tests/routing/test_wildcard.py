"""What stands in a wildcard record's way, by RFC 4592."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing import wildcard

DOMAIN = "istio.data.example"
ZONE = "data.example"
HOSTS = ("primary.orders.istio.data.example", "queue.istio.data.example")


def found(*records: tuple[str, str], zone: str = ZONE) -> list[str]:
    return list(wildcard.obstacles(DOMAIN, zone, HOSTS, records))


def test_what_lies_elsewhere_is_no_obstacle() -> None:
    assert not found(
        ("data.example.", "SOA"),
        ("data.example.", "NS"),
        ("www.data.example.", "A"),
        ("istio.data.example.", "A"),
        ("\\052.istio.data.example.", "A"),
        ("xistio.data.example.", "A"),
    )


@pytest.mark.parametrize(
    ("record", "hidden"),
    [
        ("queue.istio.data.example.", HOSTS[1]),
        ("orders.istio.data.example.", HOSTS[0]),
        ("a.b.orders.istio.data.example.", HOSTS[0]),
        ("ORDERS.istio.data.example.", HOSTS[0]),
        ("\\052.orders.istio.data.example.", HOSTS[0]),
        ("_acme-challenge.queue.istio.data.example.", HOSTS[1]),
    ],
)
def test_a_record_hides_the_wildcard_from_hosts_at_and_below_it_and_its_parents(
    record: str, hidden: str
) -> None:
    (sentence,) = found((record, "TXT"))
    assert f"hides the wildcard from {hidden}; remove it" in sentence


def test_hosts_to_come_would_be_hidden_as_well() -> None:
    (sentence,) = found(("x.other.istio.data.example.", "TXT"))
    assert sentence.endswith("from every host at or below other.istio.data.example")


def test_names_that_no_host_can_have_are_let_be() -> None:
    assert not found(("_acme-challenge.istio.data.example.", "TXT"))


@pytest.mark.parametrize("parent", ["istio.data.example.", "data.example."])
def test_a_delegation_takes_the_record_out_of_the_zone(parent: str) -> None:
    (sentence,) = found((parent, "NS"), zone="example")
    assert sentence.startswith(f"{parent[:-1]} is delegated to another zone by its NS record")
    assert not found(("data.example.", "NS"))


LABELS = st.sampled_from(["a", "b", "orders"])
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(lambda labels: ".".join([*labels, DOMAIN]))


def answered_by_wildcard(host: str, existing: set[str]) -> bool:
    """RFC 4592, section 3.3.1: the wildcard answers when its domain is the closest encloser of the name, which exists
    when it or anything below it does."""
    labels = host.split(".")
    names = [".".join(labels[depth:]) for depth in range(len(labels) - len(DOMAIN.split(".")))]
    return not any(name == other or other.endswith(f".{name}") for name in names for other in existing)


@given(st.lists(NAMES, min_size=1, max_size=3, unique=True), st.sets(NAMES, max_size=3))
def test_exactly_the_hosts_that_the_wildcard_does_not_answer_for_are_named(
    hosts: list[str], existing: set[str]
) -> None:
    records = [(f"{name}.", "A") for name in sorted(existing)]
    sentences = list(wildcard.obstacles(DOMAIN, ZONE, hosts, records))
    named = {
        host
        for sentence in sentences
        if "; remove it" in sentence
        for host in sentence.partition("wildcard from ")[2].partition(";")[0].split(", ")
    }
    assert named == {host for host in hosts if not answered_by_wildcard(host, existing)}


@pytest.mark.parametrize(
    ("address", "kind"), [("192.0.2.1", "A"), ("2001:db8::1", "AAAA"), ("lb.example", "CNAME")]
)
def test_the_type_follows_from_the_address(address: str, kind: str) -> None:
    assert wildcard.record_type(address) == kind
