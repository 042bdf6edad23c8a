"""Credentials as a whole: members that hold hosts and ports are paired, strings are read, findings are gathered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TypeAlias

from broker.credentials.endpoints import AdaptError, Routes, normal
from broker.credentials.findings import Code, Finding
from broker.credentials.protocols import HTTP, KAFKA, Protocol, checks_name, discovery, plain, protocol_of
from broker.credentials.slots import Field, Host, Outcome, Pair, Port, settle
from broker.credentials.texts import Reading, hosts, number, readings
from broker.credentials.words import ADDRESS, HOST, PORT, Kind, kind, prefix, words

Json: TypeAlias = "bool | int | float | Decimal | str | list[Json] | dict[str, Json] | None"
"""A JSON value. Decimal where the parser keeps the digits of fractions; it is handed through."""

DEEPEST = 100
"""Levels of nesting that are read; credentials have a handful."""

MOST_PAIRS = 10_000
"""Pairs of a host and a port that one object may state; a list of hosts with one port states as many as it is long."""

DISCRIMINATORS = frozenset({"scheme", "protocol", "type", "engine", "dialect", "driver"})


TLS_OBJECTS = frozenset({"ssl", "tls"})
"""Members whose own members are options of the connection: `"ssl": {"mode": "verify-full"}` says `sslmode`."""


class ComplexityError(AdaptError):
    """The credentials are nested deeper, or one object pairs more hosts and ports, than is read (400 at the API)."""


def copy(value: Json, depth: int = 0) -> Json:
    """A copy whose objects and lists may be changed."""
    if depth > DEEPEST:
        raise ComplexityError(f"the credentials are nested deeper than {DEEPEST} levels; flatten them")
    if isinstance(value, dict):
        return {key: copy(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [copy(item, depth + 1) for item in value]
    return value


def _scalars(value: Mapping[str, Json]) -> dict[str, str]:
    """The options among an object's members, by their plain name, in lower case."""
    return {
        plain(key): str(item).lower()
        for key, item in value.items()
        if isinstance(item, str | bool | int) and kind(key) is not Kind.SECRET
    }


@dataclass(frozen=True)
class Context:
    """What the surroundings of a value say: `key` is the name of the member that holds it, `options` are those of all
    objects around it (by plain name), `protocol` is what their names speak of, `labelled` that it is one of an object
    of hosts or ports."""

    path: str
    key: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    protocol: Protocol | None = None
    labelled: bool = False

    def below(self, key: str) -> Context:
        """The context of a member."""
        path = (
            f"{self.path}.{key}"
            if key.replace("_", "").replace("-", "").isalnum()
            else f"{self.path}[{key!r}]"
        )
        return Context(path, key, self.options, protocol_of(words(key)) or self.protocol)

    def item(self, index: int) -> Context:
        """The context of an item of a list."""
        return Context(f"{self.path}[{index}]", self.key, self.options, self.protocol, self.labelled)


@dataclass
class HostMember:
    """A host of an object's own member. `index` is its place in a list, `prefix` what its name says besides."""

    pair: Pair
    context: Context
    prefix: tuple[str, ...]
    index: int | None


@dataclass
class PortMember:
    """A port of an object's own member; `labelled` when it is one of an object of ports (`{"5672/tcp": 47637}`)."""

    port: Port
    prefix: tuple[str, ...]
    index: int | None
    labelled: bool


@dataclass
class Members:
    """What the members of one object hold."""

    hosts: list[HostMember] = field(default_factory=list)
    ports: list[PortMember] = field(default_factory=list)
    readings: list[tuple[Reading, Context]] = field(default_factory=list)
    fields: list[tuple[Field, Context]] = field(default_factory=list)


class Walk:
    """Adapts a copy in place, object by object."""

    def __init__(self, routes: Routes) -> None:
        self._routes = routes
        self._found: dict[tuple[Code, str], Finding] = {}
        self._used: set[tuple[str, int]] = set()

    def findings(self) -> tuple[Finding, ...]:
        """What was found, one finding per code and place, and the mappings whose source was not."""
        for number_, mapping in enumerate(self._routes.mappings):
            if (normal(mapping.source.host), mapping.source.port) not in self._used:
                self._add(
                    Code.UNUSED,
                    f"endpoint_mappings[{number_}]",
                    f"no endpoint of the credentials is {mapping.source}",
                )
        return tuple(self._found.values())

    def object(self, value: dict[str, Json], context: Context) -> None:
        """Adapt an object and everything below it."""
        options = _scalars(value)
        for key, item in value.items():
            if isinstance(item, dict) and plain(key) in TLS_OBJECTS:
                inside = _scalars(item)
                options[plain(key)] = inside.get("enabled", "true")
                options |= {plain(key) + name: text for name, text in inside.items()}
        said = (options[name] for name in DISCRIMINATORS if name in options)
        own = protocol_of(word for text in said for word in words(text))
        context = replace(context, options={**context.options, **options}, protocol=own or context.protocol)
        members = Members()
        for key, item in value.items():
            inner = context.below(key)
            self._mentions([key], inner)
            self._member(value, key, item, inner, members)
        self._settle(members, context)

    def _member(
        self,
        container: dict[str, Json] | list[Json],
        key: str | int,
        value: Json,
        context: Context,
        members: Members,
    ) -> None:
        """Take one value of an object's member, or an item of its list, into `members`; go down where it is an object."""
        kind_ = kind(context.key)
        index = key if isinstance(key, int) else None
        if isinstance(value, dict):
            self._map(value, context, members, kind_)
        elif isinstance(value, list):
            for number_, item in enumerate(value):
                self._member(value, number_, item, context.item(number_), members)
        elif isinstance(value, str) and kind_ not in (Kind.SECRET, Kind.NAME):
            self._text(Field(container, key, context.path), context, index, members)  # type: ignore[arg-type]
        elif isinstance(value, int) and not isinstance(value, bool) and kind_ is Kind.PORT:
            self._port(Field(container, key, context.path), context, index, members)  # type: ignore[arg-type]

    def _map(self, value: dict[str, Json], context: Context, members: Members, kind_: Kind) -> None:
        """An object below a member. One whose keys are labels (`"ports": {"5432/tcp": 47637}`) belongs to the member."""
        labels = kind_ is Kind.PORT or not any((PORT | ADDRESS) & set(words(key)) for key in value)
        scalars = all(isinstance(item, str | int) for item in value.values())
        if kind_ is Kind.SECRET and labels and scalars:
            return
        if kind_ not in (Kind.PORT, Kind.HOST) or not labels or not scalars:
            self.object(value, context)
            return
        for key, item in value.items():
            inner = replace(context.below(key), key=context.key, labelled=True)
            if kind(key) not in (Kind.SECRET, Kind.NAME):
                self._mentions([key], inner)
                self._member(value, key, item, inner, members)

    def _text(self, text: Field, context: Context, index: int | None, members: Members) -> None:
        members.fields.append((text, context))
        found = readings(text, self._routes)
        if found is not None:
            members.readings += [(reading, context) for reading in found]
        elif (kind(context.key) is Kind.PORT and not HOST.intersection(words(context.key))) or (
            kind(context.key) is Kind.PORT and number(text.text) is not None
        ):
            self._port(text, context, index, members)
        elif kind(context.key) in (Kind.HOST, Kind.PORT):
            bootstrap = "bootstrap" in words(context.key)
            default = KAFKA.schemes["kafka"] if bootstrap else None
            pairs = list(hosts(text, 0, len(text.text), default, bracketed=bootstrap))
            for position, pair in enumerate(pairs):
                place = index if len(pairs) == 1 else position
                members.hosts.append(HostMember(pair, context, prefix(context.key), place))

    def _port(self, text: Field, context: Context, index: int | None, members: Members) -> None:
        if text.number:
            members.fields.append((text, context))
        position, parts = 0, text.text.split(",")
        for place, part in enumerate(parts):
            found = number(part.strip())
            if found is not None:
                start = position + part.index(str(found))
                port = Port(text, start, start + len(str(found)), found)
                there = index if len(parts) == 1 else place
                members.ports.append(PortMember(port, prefix(context.key), there, context.labelled))
            position += len(part) + 1

    def _settle(self, members: Members, context: Context) -> None:
        """Write what is mapped, and say what follows from it."""
        in_urls = [pair for reading, _ in members.readings for pair in reading.pairs]
        if len(members.ports) * (len(members.hosts) or len(in_urls)) > MOST_PAIRS:
            raise ComplexityError(
                f"an object of the credentials pairs more than {MOST_PAIRS} hosts and ports; state each endpoint in an object "
                "of its own"
            )
        beside = [*_pairs(members), *_beside_urls(members, in_urls)]
        outcome = settle([*in_urls, *beside], self._routes)
        self._used |= outcome.used
        for issue in outcome.issues:
            self._add(*issue)
        for reading, inner in members.readings:
            for issue in reading.issues:
                self._add(*issue)
            self._consequences(reading, inner, context, outcome)
        if not any(id(pair.host) in outcome.moved for pair in in_urls):
            for host in members.hosts:
                self._consequences(Reading([host.pair]), host.context, context, outcome)
        for text, inner in members.fields:
            self._mentions(text.rest(), inner)
            text.write()

    def _consequences(self, reading: Reading, inner: Context, context: Context, outcome: Outcome) -> None:
        """What the clients of a changed endpoint will meet."""
        options = {**context.options, **reading.options}
        url, protocol = reading.scheme, reading.scheme.protocol or inner.protocol
        if any(id(pair.host) in outcome.renamed for pair in reading.pairs):
            if not reading.apart and checks_name(url.tls, options):
                self._add(
                    Code.TLS_NAME,
                    inner.path,
                    "the client compares the server's certificate with the host it connects to, which is now the "
                    "target; a certificate for the source's name only is refused",
                )
            if protocol is HTTP and url.text:
                self._add(
                    Code.HTTP_HOST,
                    inner.path,
                    "requests now name the target in their Host header, not the source",
                )
        if any(id(pair.host) in outcome.moved for pair in reading.pairs):
            named = [word for name in (url.text, inner.key, context.key) for word in words(name)]
            said = discovery(protocol, named, options)
            if said is not None:
                self._add(Code.DISCOVERY, inner.path, said)

    def _mentions(self, texts: Iterator[str] | Sequence[str], context: Context) -> None:
        if any(self._routes.mentioned(text) for text in texts):
            self._add(
                Code.NOT_UNDERSTOOD,
                context.path,
                "names a mapped source in a way that is not read; left as it is",
            )

    def _add(self, code: Code, path: str, message: str) -> None:
        self._found.setdefault((code, path), Finding(code, path, message))


def _pairs(members: Members) -> Iterator[Pair]:
    """The hosts of an object with the ports that stand beside them.

    A port belongs to the hosts with the same prefix (`read_host`, `read_port`), else to those without one; a host to the
    ports with its prefix, else to those without one, else to those that belong to no other host. Lists of one length
    belong together item by item.
    """
    paired: set[int] = set()
    links: list[tuple[HostMember, PortMember, bool]] = []
    prefixes = Counter(host.prefix for host in members.hosts)
    port_prefixes = Counter(port.prefix for port in members.ports)
    main = {port.prefix for port in members.ports if not port.labelled}
    for host in members.hosts:
        for port in members.ports:
            same = host.prefix == port.prefix
            lends = (not host.prefix and port.prefix not in prefixes) or (
                not port.prefix and host.prefix not in port_prefixes
            )
            listed = host.index is not None and port.index is not None
            apart = (
                listed and prefixes[host.prefix] == port_prefixes[port.prefix] and host.index != port.index
            )
            if (same or lends) and not apart:
                minor = port.labelled or not same
                links.append((host, port, minor and host.prefix in main))
                paired.add(id(host))
    spare = [port for port in members.ports if port.prefix not in prefixes]
    links += [(host, port, False) for host in members.hosts if id(host) not in paired for port in spare]
    paired |= {id(host) for host, _, _ in links}
    for host, port, minor in links:
        stated = host.pair.port
        if stated is None:
            yield Pair(host.pair.host, port.port, minor=minor)
        elif stated.number == port.port.number:
            yield Pair(_stand_in(host.pair.host), port.port, fixed=True)
    for host in members.hosts:
        if host.pair.port is not None or id(host) not in paired:
            yield host.pair


def _beside_urls(members: Members, in_urls: Sequence[Pair]) -> Iterator[Pair]:
    """The ports of an object without hosts: each speaks of the URLs beside it that state it."""
    for port in [] if members.hosts else members.ports:
        for pair in in_urls:
            if pair.port is not None and pair.port.number == port.port.number:
                yield Pair(_stand_in(pair.host), port.port, fixed=True)


def _stand_in(host: Host) -> Host:
    return Host(host.field, host.start, host.end)
