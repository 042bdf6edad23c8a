"""The wildcard record, and what stands in its way.

Source: RFC 4592, "The Role of Wildcards in the Domain Name System": a wildcard answers for a name only where neither the
name nor any name between it and the wildcard's domain exists, be it as an empty parent of a record further below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from config import names
from config.types import is_below, is_ip

Records = Iterable[tuple[str, str]]
"""Name and type of each record of a zone, as Route 53 spells them: `\\\\052.istio.example.com.`, `A`."""


def record_type(address: str) -> str:
    """Type of the record that leads to `address`."""
    if not is_ip(address):
        return "CNAME"
    return "AAAA" if ":" in address else "A"


def by_type(addresses: Iterable[str]) -> dict[str, list[str]]:
    """The addresses by the type of the record that leads to them, in the order of the first of each. A CNAME stands
    alone and has one target (RFC 1034), so with a host name first there is nothing else."""
    found: dict[str, list[str]] = {}
    for address in addresses:
        if "CNAME" in found:
            break
        if record_type(address) != "CNAME" or not found:
            found.setdefault(record_type(address), []).append(address)
    return found


def obstacles(domain: str, zone: str, hosts: Sequence[str], records: Records) -> Iterator[str]:
    """What keeps the wildcard record of `domain` from being found, a sentence each.

    zone: name of the zone that holds the record. hosts: public hosts that must be found by it.
    """
    existing = {name: kind for name, kind in _plain(records) if name != names.wildcard(domain)}
    for parent in _between(domain, zone):
        if existing.get(parent) == "NS":
            yield (
                f"{parent} is delegated to another zone by its NS record, so records of {zone} below it are never asked "
                "for"
            )
    yield from _shadows(domain, hosts, existing)


def _shadows(domain: str, hosts: Sequence[str], existing: Mapping[str, str]) -> Iterator[str]:
    taken: dict[str, str] = {}
    for name in sorted(existing):
        for node in (name, *_ancestors(name, domain)) if is_below(name, domain) else ():
            taken.setdefault(node, name)
    for node in sorted(taken):
        shadowed = [host for host in hosts if host == node or is_below(host, node)]
        top = not any(parent in taken for parent in _ancestors(node, domain))
        if shadowed and top:
            yield (
                f"the record {taken[node]} ({existing[taken[node]]}) hides the wildcard from {', '.join(shadowed)}; "
                "remove it, or choose other hosts"
            )
        elif top and not node.startswith("_"):
            yield (
                f"the record {taken[node]} ({existing[taken[node]]}) hides the wildcard from every host at or below "
                f"{node}"
            )


def _ancestors(name: str, domain: str) -> Iterator[str]:
    """The names between `name` and `domain`."""
    parent = name.partition(".")[2]
    while is_below(parent, domain):
        yield parent
        parent = parent.partition(".")[2]


def _between(domain: str, zone: str) -> Iterator[str]:
    """`domain` and the names between it and `zone`."""
    if is_below(domain, zone):
        yield domain
        yield from _ancestors(domain, zone)


def _plain(records: Records) -> Iterator[tuple[str, str]]:
    """The records, an NS one last where a name has several, since that decides."""
    spelled = [(name.rstrip(".").replace("\\052", "*").lower(), kind) for name, kind in records]
    return iter(sorted(spelled, key=lambda record: record[1] == "NS"))
