"""Strings that hold endpoints: URLs and lists of them, lists of hosts, keyword strings of several clients.

Everything is read into spans of the text as it stands, so that what is no endpoint keeps its bytes: nothing is decoded
and encoded again.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from broker.credentials.endpoints import Routes, is_address
from broker.credentials.findings import Code
from broker.credentials.protocols import MYSQL, REDIS, Scheme, plain, scheme
from broker.credentials.slots import Field, Host, Pair, Port
from broker.credentials.words import Kind, kind

URL = re.compile(r"(?:\A|(?<=[,;\s]))((?:[A-Za-z][A-Za-z0-9+._-]*:)+)//")
ITEM = re.compile(
    r"(?P<host>\[[0-9A-Za-z:.%]+\]|[^\[\]:@/\\\s,;()='\"]+)(?P<instance>\\[^:]*)?(?P<colon>:(?P<port>[0-9]*))?"
)
NUMBER = re.compile(r"[1-9][0-9]{0,4}")
OUTSIDE_PARENTHESES = re.compile(r"(?:[^,()]|\([^()]*\))+")
WORD = re.compile(r"\S+")
BETWEEN_COMMAS = re.compile(r"[^,;\s][^,;]*")
ADDRESS = re.compile(r"(?:address\s*=\s*)?(?P<body>\(.*\))", re.IGNORECASE)
ADDRESS_HOST = re.compile(r"[(,]\s*host\s*=\s*(?P<value>[^(),\s]+)", re.IGNORECASE)
ADDRESS_PORT = re.compile(r"[(,]\s*port\s*=\s*(?P<value>[0-9]+)", re.IGNORECASE)
LIBPQ = re.compile(
    r"\s*(?P<name>[A-Za-z_]+)\s*=\s*(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?P<value>(?:[^\s'\\;]|\\.)*))(?=\s|$)"
)
SEMICOLON_NAME = re.compile(r"\s*(?P<name>[A-Za-z][A-Za-z _.-]*+)\s*=\s*")
SEMICOLON_END = re.compile(r"\s*(?:;|\Z)")
CLOSING = {'"': '"', "'": "'", "{": "}"}
PDO = re.compile(r"(?:(?P<driver>[a-z]+):)?(?=\s*[A-Za-z])")
SERVER = re.compile(r"(?:tcp:)?(?P<host>[^,:\\\s]+)(?P<instance>\\[^,]*)?\s*(?:,\s*(?P<port>[0-9]+))?")
GO_MYSQL = re.compile(r"(?:.*@)?tcp[46]?\((?P<hosts>[^()]*)\)(?:/|$)", re.DOTALL)
OPTIONS_LIST = re.compile(r"[^\s,=@/]+(?:,[^\s,=@/]+)*(?:,\s*[A-Za-z]+=[^,]*)+")
LISTED_OPTION = re.compile(r",\s*(?P<name>[A-Za-z]+)=(?P<value>[^,]*)")
SEMICOLON_HOSTS = frozenset(
    {"host", "server", "datasource", "address", "addr", "networkaddress", "hostname", "servername"}
)
SEMICOLON_PORTS = frozenset({"port", "portnumber"})


NO_SCHEME = Scheme("")


@dataclass
class Reading:
    """The endpoints of one string. `options` are its parameters by their plain names, values in lower case; `apart`
    says that the name to check is stated apart from the address."""

    pairs: list[Pair] = field(default_factory=list)
    scheme: Scheme = NO_SCHEME
    options: dict[str, str] = field(default_factory=dict)
    apart: bool = False
    issues: list[tuple[Code, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Parameter:
    """One `name=value` of a text: `name` is plain, `start` and `end` bound the value, `after` is where a further
    parameter can be added."""

    name: str
    start: int
    end: int
    after: int


def readings(text: Field, routes: Routes) -> list[Reading] | None:
    """What `text` says by its own form, whatever its name is; None when it has none of the forms."""
    if "://" in text.text:
        starts = _starts(text.text)
        if starts:
            ends = [match.start() for match in starts[1:]] + [len(text.text)]
            return [_url(text, match, end, routes) for match, end in zip(starts, ends, strict=True)]
    if "=" in text.text:
        for read in (_libpq, _semicolon, _options_list):
            found = read(text)
            if found is not None:
                return [found]
    if "tcp" in text.text:
        found = _go_mysql(text)
        if found is not None:
            return [found]
    return None


def hosts(
    text: Field, start: int, end: int, default: int | None = None, *, bracketed: bool
) -> Iterator[Pair]:
    """The hosts of a list between commas, semicolons or blanks, each with or without a port."""
    for item in BETWEEN_COMMAS.finditer(text.text, start, end):
        for word in WORD.finditer(text.text, *item.span()):
            pair = _item(text, word.start(), word.end(), default, bracketed=bracketed)
            if pair is not None:
                yield pair


def number(text: str) -> int | None:
    """A port as it is written: 1 to 65535, no sign, no leading zero."""
    return int(text) if NUMBER.fullmatch(text) and int(text) <= 65535 else None


def _starts(text: str) -> list[re.Match[str]]:
    """Where the URLs of a list of URLs start; nothing unless the text starts with one. In a query or a fragment starts
    none."""
    starts: list[re.Match[str]] = []
    for match in URL.finditer(text):
        if not starts and text[: match.start()].strip():
            break
        if starts and re.search(r"[?#]", text[starts[-1].end() : match.start()]):
            break
        starts.append(match)
    return starts


def _first(text: str, characters: str, start: int, end: int) -> int:
    found = [text.find(character, start, end) for character in characters]
    return min((position for position in found if position >= 0), default=end)


def _url(text: Field, match: re.Match[str], end: int, routes: Routes) -> Reading:
    whole, start = text.text, match.end()
    while end > start and whole[end - 1] in ",; \t\r\n":
        end -= 1
    known = scheme(match.group(1)[:-1])
    protocol = known.protocol
    has_properties = protocol is not None and protocol.properties[0] == ";"
    stops = "/?#;" if has_properties else "/?#"
    stop = _first(whole, stops, start, end)
    begin = whole.rfind("@", start, stop) + 1 or start
    items = _authority(whole, begin, stop)
    if not all(_valid(whole[slice(*span)]) for span in items):
        begin, stop = _behind_reserved(whole, (begin, stop), end, stops, routes)
        items = _authority(whole, begin, stop)
    raw = whole[start : begin - 1] if begin > start else ""
    if "@" not in raw or not routes.mentioned(raw):
        text.know(start, begin)
    reading = Reading(scheme=known)
    parameters = _query(text, stop, end, ";" if has_properties else "&")
    reading.options = _options(text, parameters)
    if known.srv:
        _srv(text, items, routes, reading)
        return reading
    pairs = [pair for span in items if (pair := _item(text, *span, known.port, bracketed=True)) is not None]
    _place(text, reading, parameters, pairs, lead=";port=" if has_properties else "&port=")
    return reading


def _authority(text: str, start: int, end: int) -> list[tuple[int, int]]:
    return [match.span() for match in OUTSIDE_PARENTHESES.finditer(text, start, end)]


def _valid(item: str) -> bool:
    found = ITEM.fullmatch(item.strip())
    return ADDRESS.fullmatch(item.strip()) is not None or (
        found is not None and (not found["port"] or number(found["port"]) is not None)
    )


def _behind_reserved(
    text: str, strict: tuple[int, int], end: int, stops: str, routes: Routes
) -> tuple[int, int]:
    """Where the hosts stand when a password holds `/`, `?` or `#` as they are: behind the first @ that a mapped
    host follows; `strict` where there is none."""
    position = strict[1]
    while position < end:
        stop = _first(text, stops, position + 1, end)
        begin = text.rfind("@", position, stop) + 1
        items = [
            ITEM.fullmatch(text[slice(*span)].strip()) for span in _authority(text, begin, stop) if begin
        ]
        found = [item for item in items if item]
        if found and len(found) == len(items) and any(routes.of_host(item["host"]) for item in found):
            return begin, stop
        position = stop
    return strict


def _srv(text: Field, items: Sequence[tuple[int, int]], routes: Routes, reading: Reading) -> None:
    for start, end in items:
        host = Host(text, start, end).text
        parent = host.partition(".")[2]
        if routes.of_host(host) or routes.below(host) or ("." in parent and routes.below(parent)):
            reading.issues.append(
                (
                    Code.DNS_SRV,
                    text.path,
                    "the hosts behind this URL stand in DNS SRV records, which no mapping reaches",
                )
            )


def _item(text: Field, start: int, end: int, default: int | None, *, bracketed: bool) -> Pair | None:
    """A host of a list, with its port or the default one."""
    raw = text.text[start:end]
    start, end = start + len(raw) - len(raw.lstrip()), end - len(raw) + len(raw.rstrip())
    raw = text.text[start:end]
    if ":" in raw and is_address(raw):
        return Pair(Host(text, start, end), None)
    if ADDRESS.fullmatch(raw):
        return _address(text, start, end, default)
    found = ITEM.fullmatch(raw)
    if found is None:
        return None
    default = None if found["instance"] else default
    return _endpoint(
        text,
        (start, start + found.end("host")),
        (start + found.start("port"), end) if found["port"] else None,
        None if default is None else Port(text, end, end, default, lead="" if found["colon"] else ":"),
        bracketed=bracketed or bool(found["port"]),
    )


def _address(text: Field, start: int, end: int, default: int | None) -> Pair | None:
    """Connector/J's `address=(host=…)(port=…)` and `(host=…,port=…)`."""
    host = ADDRESS_HOST.search(text.text, start, end)
    port = ADDRESS_PORT.search(text.text, start, end)
    if host is None:
        return None
    after, lead = host.end("value"), ",port=" if text.text[start] == "(" else ")(port="
    return _endpoint(
        text,
        host.span("value"),
        port.span("value") if port else None,
        None if default is None else Port(text, after, after, default, lead),
        bracketed=False,
    )


def _endpoint(
    text: Field,
    host: tuple[int, int],
    port: tuple[int, int] | None,
    otherwise: Port | None,
    *,
    bracketed: bool,
) -> Pair | None:
    """The endpoint at the spans of a host and a port; `otherwise` is the port where none is stated. None when the port
    is no port."""
    if port is None:
        return Pair(Host(text, *host, bracketed=bracketed), otherwise)
    stated = number(text.text[slice(*port)])
    if stated is None:
        return None
    return Pair(Host(text, *host, bracketed=bracketed), Port(text, *port, stated))


def _query(text: Field, start: int, end: int, separator: str) -> list[Parameter]:
    """The parameters behind `?`, or SQL Server's behind `;`, up to a fragment."""
    whole = text.text
    if separator == "&":
        end = _first(whole, "#", start, end)
    position = min(_first(whole, "?" if separator == "&" else ";", start, end) + 1, end)
    last_brace = whole.rfind("}", position, end) if separator == ";" else -1
    found: list[Parameter] = []
    while position < end:
        stop = _first(whole, separator, position, end)
        equals = whole.find("=", position, stop)
        if equals >= 0:
            if equals + 1 < last_brace and whole[equals + 1] == "{":
                stop = whole.find("}", equals, end) + 1
            name = plain(urllib.parse.unquote(whole[position:equals]))
            found.append(Parameter(name, equals + 1, stop, stop))
        position = _first(whole, separator, stop, end) + 1
    return found


def _options(text: Field, parameters: Iterable[Parameter]) -> dict[str, str]:
    """The parameters by their names; what is a secret is taken note of and left out."""
    options: dict[str, str] = {}
    for parameter in parameters:
        if kind(parameter.name) is Kind.SECRET:
            text.know(parameter.start, parameter.end)
        else:
            options[parameter.name] = urllib.parse.unquote(text.text[parameter.start : parameter.end]).lower()
    return options


def _place(
    text: Field,
    reading: Reading,
    parameters: Sequence[Parameter],
    pairs: list[Pair],
    *,
    lead: str,
) -> None:
    """Add to `reading` the `pairs` of an authority and those that parameters state."""
    protocol, default = reading.scheme.protocol, reading.scheme.port
    if protocol is None:
        reading.pairs = pairs
        return
    named = [item for item in parameters if item.name in protocol.hosts]
    addresses = [item for item in parameters if item.name in protocol.addresses and item.end > item.start]
    ports = _ports(text, [item for item in parameters if item.name in protocol.ports], default)
    if addresses:
        reading.apart = True
        for item in named:
            text.know(item.start, item.end)
        for pair in [] if named else pairs:
            ports = ports or ([pair.port] if pair.port else [])
        listed = _listed(text, addresses, numeric=True)
    else:
        listed = _listed(text, named)
        if not listed and ports:
            pairs = _join([Pair(pair.host, None) for pair in pairs], ports)
        reading.pairs += pairs
    if listed and not ports and default is not None:
        last = (addresses or named)[-1].after
        ports = [Port(text, last, last, default, lead)]
    reading.pairs += _join(listed, ports)


def _listed(text: Field, parameters: Iterable[Parameter], *, numeric: bool = False) -> list[Pair]:
    found = [pair for item in parameters for pair in hosts(text, item.start, item.end, bracketed=False)]
    if numeric:
        for pair in found:
            pair.host.numeric = True
    return found


def _ports(text: Field, parameters: Iterable[Parameter], default: int | None) -> list[Port | None]:
    """The ports of a list between commas: an empty one is `default`, None is one that cannot be read."""
    found: list[Port | None] = []
    for item in parameters:
        start = item.start
        for part in text.text[item.start : item.end].split(","):
            digits = part.strip()
            stated = number(digits) if digits else default
            first = start + len(part) - len(part.lstrip())
            found.append(None if stated is None else Port(text, first, first + len(digits), stated))
            start += len(part) + 1
    return found


def _join(listed: Sequence[Pair], ports: Sequence[Port | None]) -> list[Pair]:
    """Hosts with the ports that stand beside them: one for all, or each its own, otherwise none; a host that states its
    own keeps it."""
    if len(ports) == 1:
        ports = list(ports) * len(listed)
    if len(ports) != len(listed):
        ports = [None] * len(listed)
    return [Pair(pair.host, pair.port or port) for pair, port in zip(listed, ports, strict=True)]


def _keywords(text: str, start: int) -> list[Parameter] | None:
    """libpq's keywords, of a text that consists of nothing else."""
    found: list[Parameter] = []
    position = start
    while position < len(text):
        match = LIBPQ.match(text, position)
        if match is None:
            return None if text[position:].strip() else found
        group = "value" if match["quoted"] is None else "quoted"
        found.append(Parameter(plain(match["name"]), *match.span(group), match.end()))
        position = match.end()
    return found


def _properties(text: str, start: int) -> list[Parameter] | None:
    """The `name=value;` of a text that consists of nothing else. A value in quotes or braces may hold semicolons, and its
    closing sign doubled."""
    found: list[Parameter] = []
    unclosed: set[str] = set()
    position = start
    while position < len(text):
        match = SEMICOLON_NAME.match(text, position)
        if match is None:
            return None if text[position:].strip() else found
        begin = match.end()
        closing = CLOSING.get(text[begin : begin + 1], "")
        after = -1 if not closing or closing in unclosed else _closed(text, begin + 1, closing)
        if after >= 0:
            found.append(Parameter(plain(match["name"]), begin + 1, after - 1, after))
            behind = SEMICOLON_END.match(text, after)
            if behind is None:
                return None
            position = behind.end()
            continue
        unclosed.add(closing)
        stop = _first(text, ";", begin, len(text))
        end = begin + len(text[begin:stop].rstrip())
        found.append(Parameter(plain(match["name"]), begin, end, end))
        position = stop + 1
    return found


def _closed(text: str, start: int, closing: str) -> int:
    """Where a value ends behind its `closing` sign; -1 where it is not closed."""
    end = text.find(closing, start)
    while end >= 0 and text.startswith(closing, end + 1):
        end = text.find(closing, end + 2)
    return end + 1 if end >= 0 else -1


def _libpq(text: Field) -> Reading | None:
    """libpq's `host=… port=… dbname=…`, with quotes and backslashes; PHP writes `pgsql:` before it."""
    parameters = _keywords(text.text, len("pgsql:") if text.text.startswith("pgsql:") else 0)
    if not parameters or not {"host", "hostaddr"} & {item.name for item in parameters}:
        return None
    reading = Reading(scheme=scheme("postgresql"), options=_options(text, parameters))
    _place(text, reading, parameters, [], lead=" port=")
    return reading


def _semicolon(text: Field) -> Reading | None:
    """ADO.NET's and ODBC's `Server=…;Port=…;User Id=…`, PHP's `mysql:host=…;port=…`."""
    driver = PDO.match(text.text)
    if driver is None:
        return None
    parameters = _properties(text.text, driver.end())
    if not parameters or not SEMICOLON_HOSTS & {item.name for item in parameters}:
        return None
    known = scheme(driver["driver"] or "")
    reading = Reading(scheme=known, options=_options(text, parameters))
    ports = _ports(text, [item for item in parameters if item.name in SEMICOLON_PORTS], known.port)
    listed: list[Pair] = []
    named = [item for item in parameters if item.name in SEMICOLON_HOSTS]
    for item in named:
        server = SERVER.fullmatch(text.text, item.start, item.end)
        is_microsoft = text.text.startswith("tcp:", item.start) or (server is not None and server["port"])
        if server is not None and is_microsoft:
            reading.scheme = scheme("sqlserver")
            host = Host(text, *server.span("host"))
            port = number(server["port"] or "1433")
            if server["port"] and port:
                listed.append(Pair(host, Port(text, *server.span("port"), port)))
            elif port and not server["instance"]:
                listed.append(Pair(host, Port(text, item.end, item.end, port, ",")))
        else:
            listed += hosts(text, item.start, item.end, bracketed=False)
    if not ports and known.port is not None:
        ports = [Port(text, named[-1].after, named[-1].after, known.port, ";port=")]
    reading.pairs = _join(listed, ports)
    return reading


def _options_list(text: Field) -> Reading | None:
    """StackExchange.Redis's `host:port,host:port,password=…,ssl=true`."""
    if not OPTIONS_LIST.fullmatch(text.text):
        return None
    parameters = [
        Parameter(plain(match["name"]), *match.span("value"), match.end())
        for match in LISTED_OPTION.finditer(text.text)
    ]
    reading = Reading(scheme=scheme("redis"), options=_options(text, parameters))
    end = LISTED_OPTION.search(text.text)
    reading.pairs = list(hosts(text, 0, end.start() if end else 0, REDIS.schemes["redis"], bracketed=True))
    return reading


def _go_mysql(text: Field) -> Reading | None:
    """go-sql-driver's `user:password@tcp(host:port)/database?tls=true`."""
    match = GO_MYSQL.match(text.text)
    if match is None:
        return None
    text.know(0, match.start("hosts"))
    parameters = _query(text, match.end(), len(text.text), "&")
    reading = Reading(scheme=scheme("mysql"), options=_options(text, parameters))
    reading.pairs = list(hosts(text, *match.span("hosts"), MYSQL.schemes["mysql"], bracketed=True))
    return reading
