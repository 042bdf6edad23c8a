"""Where hosts and ports stand in the credentials, and how mapped ones are written there.

A `Field` is one scalar of the credentials; a `Host` or a `Port` is a span of it. A `Pair` says that a host and a port
make one endpoint. Fields may be shared (two hosts, one port), so the pairs that share one are settled together.
"""

from __future__ import annotations

import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, MutableMapping, MutableSequence, Sequence
from dataclasses import dataclass, field

from broker.credentials.endpoints import Endpoint, Routes, is_address, is_host, normal
from broker.credentials.findings import Code


class Field:
    """A string or an integer at `key` of `container`. Edits are gathered, and `write` makes them at once, so that all
    spans speak of the text as it was."""

    def __init__(
        self,
        container: MutableMapping[str, object] | MutableSequence[object],
        key: str | int,
        path: str,
    ) -> None:
        value = container[key]  # type: ignore[index]
        self._container, self._key, self.path = container, key, path
        self.number = isinstance(value, int)
        self.text = str(value)
        self._edits: list[tuple[int, int, str]] = []
        self._known: list[tuple[int, int]] = []

    def edit(self, start: int, end: int, text: str) -> None:
        """Replace a span of the original text. Spans do not overlap; several may start at one place."""
        self._edits.append((start, end, text))

    def know(self, start: int, end: int) -> None:
        """Take note of a span that is an endpoint or a secret: `rest` leaves it out."""
        self._known.append((start, end))

    def rest(self) -> Iterator[str]:
        """What is neither endpoint nor secret, percent-encoding undone."""
        position = 0
        for start, end in sorted(self._known):
            if start > position:
                yield urllib.parse.unquote(self.text[position:start])
            position = max(position, end)
        yield urllib.parse.unquote(self.text[position:])

    def write(self) -> None:
        """Make the edits."""
        if not self._edits:
            return
        parts, position = [], 0
        for start, end, text in sorted(self._edits, key=lambda edit: edit[:2]):
            parts += [self.text[position:start], text]
            position = end
        text = "".join(parts) + self.text[position:]
        self._container[self._key] = int(text) if self.number else text  # type: ignore[index]


@dataclass(eq=False)
class Host:
    """A host in its field. `bracketed`: IPv6 is written in brackets here; `numeric`: only an address may stand here
    (libpq's hostaddr)."""

    field: Field
    start: int
    end: int
    bracketed: bool = False
    numeric: bool = False

    def __post_init__(self) -> None:
        if is_host(self.text):
            self.field.know(self.start, self.end)

    @property
    def text(self) -> str:
        """The host, percent-encoding undone."""
        return urllib.parse.unquote(self.field.text[self.start : self.end])

    def write(self, host: str) -> None:
        """Put `host` in its place, unless it names the same host already."""
        if normal(host) != normal(self.text):
            bracketed = ":" in host and (self.bracketed or self.field.text[self.start] == "[")
            self.field.edit(self.start, self.end, f"[{host}]" if bracketed else host)


@dataclass(eq=False)
class Port:
    """A port in its field. Where it is left out, `start` equals `end`, `number` is the default, and `lead` goes before
    it when another number must be written."""

    field: Field
    start: int
    end: int
    number: int
    lead: str = ""

    def __post_init__(self) -> None:
        self.field.know(self.start, self.end)

    def write(self, number: int) -> None:
        """Put `number` in its place, unless it stands there."""
        if number != self.number:
            self.field.edit(self.start, self.end, f"{self.lead}{number}")


@dataclass(frozen=True, eq=False)
class Pair:
    """A host and its port; `port` is None where it is not stated and no default is known. A host that is `fixed` is
    settled by another pair and only tells what becomes of the port. A `minor` pair follows the others of its host."""

    host: Host
    port: Port | None
    fixed: bool = False
    minor: bool = False


@dataclass
class Outcome:
    """What became of some pairs: `moved` are the hosts of endpoints that changed, `renamed` those that have another
    name now, `used` the sources that were found, `issues` what could not be done (with the path)."""

    moved: set[int] = field(default_factory=set)
    renamed: set[int] = field(default_factory=set)
    used: set[tuple[str, int]] = field(default_factory=set)
    issues: list[tuple[Code, str, str]] = field(default_factory=list)

    def add(self, code: Code, pair: Pair, message: str) -> None:
        """Note an issue at the place of the pair's port, where it is stated, else of its host."""
        place = pair.host.field if pair.port is None else pair.port.field
        self.issues.append((code, place.path, message))


def settle(pairs: Sequence[Pair], routes: Routes) -> Outcome:
    """Write the targets of all `pairs` that are mapped and can be written without breaking another one."""
    outcome = Outcome()
    for group in _groups(pairs):
        _settle(group, routes, outcome)
    return outcome


def _groups(pairs: Sequence[Pair]) -> Iterator[list[Pair]]:
    """The pairs, those together that share a host or a port, directly or over others."""
    of_slot: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        for slot in _slots(pair):
            of_slot[slot].append(pair)
    seen: set[int] = set()
    for first in pairs:
        if id(first) in seen:
            continue
        group, reach = [], [first]
        while reach:
            pair = reach.pop()
            if id(pair) not in seen:
                seen.add(id(pair))
                group.append(pair)
                for slot in _slots(pair):
                    reach += of_slot.pop(slot, ())
        yield group


def _slots(pair: Pair) -> tuple[int, ...]:
    return (id(pair.host),) if pair.port is None else (id(pair.host), id(pair.port))


def _settle(pairs: list[Pair], routes: Routes, outcome: Outcome) -> None:
    targets = _follow([(pair, _target(pair, routes)) for pair in pairs], outcome)
    hosts: dict[int, set[str]] = defaultdict(set)
    ports: dict[int, set[int]] = defaultdict(set)
    for pair, target in targets:
        if target is not None and not pair.fixed:
            hosts[id(pair.host)].add(normal(target.host))
        if pair.port is not None:
            ports[id(pair.port)].add(target.port if target else pair.port.number)
    mapped = [(pair, target) for pair, target in targets if target is not None]
    for pair in pairs:
        if _target(pair, routes) is None:
            _explain(pair, routes, outcome)
    clash = any(len(found) > 1 for found in hosts.values()) or any(
        len(ports[id(pair.port)]) > 1 for pair, _ in mapped if pair.port is not None
    )
    impossible = any(
        pair.host.numeric and not pair.fixed and not is_address(target.host) for pair, target in mapped
    )
    for pair, _ in mapped:
        outcome.used |= _sources(pair, routes)
    if clash or impossible:
        wanted = ", ".join(sorted({str(target) for _, target in mapped}))
        reason = (
            "only an IP address can stand here"
            if impossible
            else "one host or port is stated for several endpoints"
        )
        outcome.add(Code.CONFLICT, mapped[0][0], f"cannot become {wanted}: {reason}; left as it is")
        return
    written: set[int] = set()
    for pair, target in mapped:
        if not pair.fixed and id(pair.host) not in written:
            if normal(target.host) != normal(pair.host.text):
                outcome.renamed.add(id(pair.host))
            pair.host.write(target.host)
            written.add(id(pair.host))
        if pair.port is not None and id(pair.port) not in written:
            pair.port.write(target.port)
            written.add(id(pair.port))
        if id(pair.host) in outcome.renamed or (pair.port and pair.port.number != target.port):
            outcome.moved.add(id(pair.host))


def _follow(
    targets: list[tuple[Pair, Endpoint | None]], outcome: Outcome
) -> list[tuple[Pair, Endpoint | None]]:
    """The targets without those of minor pairs whose host is led elsewhere by its other pairs."""
    leading: dict[int, set[str]] = defaultdict(set)
    for pair, target in targets:
        if target is not None and not pair.minor:
            leading[id(pair.host)].add(normal(target.host))
    followed = []
    for pair, target in targets:
        elsewhere = target and leading[id(pair.host)] and normal(target.host) not in leading[id(pair.host)]
        if pair.minor and elsewhere:
            outcome.used.add((normal(pair.host.text), pair.port.number if pair.port else 0))
            outcome.add(
                Code.SHARED_HOST,
                pair,
                f"its further port belongs to {target}, which is another host than its main port's",
            )
        followed.append((pair, None if pair.minor and elsewhere else target))
    return followed


def _target(pair: Pair, routes: Routes) -> Endpoint | None:
    """Where the pair is mapped to. A host without a port stands for all ports, so it is mapped when all mappings of it
    keep their port and lead to one host."""
    if pair.port is not None:
        return routes.target(pair.host.text, pair.port.number)
    mappings = routes.of_host(pair.host.text)
    same = len({normal(mapping.target.host) for mapping in mappings}) == 1
    if same and all(mapping.source.port == mapping.target.port for mapping in mappings):
        return mappings[0].target
    return None


def _sources(pair: Pair, routes: Routes) -> set[tuple[str, int]]:
    ports = (
        {mapping.source.port for mapping in routes.of_host(pair.host.text)}
        if pair.port is None
        else {pair.port.number}
    )
    return {(normal(pair.host.text), port) for port in ports}


def _explain(pair: Pair, routes: Routes, outcome: Outcome) -> None:
    mappings = routes.of_host(pair.host.text)
    if not mappings or pair.fixed:
        return
    name = mappings[0].source.host
    if pair.port is None:
        outcome.used |= _sources(pair, routes)
        targets = ", ".join(sorted({str(mapping.target) for mapping in mappings}))
        outcome.add(Code.NO_PORT, pair, f"{name} has no port here, so it cannot become {targets}")
    else:
        outcome.add(Code.NOT_MAPPED, pair, f"{name}:{pair.port.number} has no mapping, but its host has")
