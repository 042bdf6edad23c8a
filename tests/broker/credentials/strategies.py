"""Credentials that are rendered from known endpoints: the same template with other endpoints is what adapting must give.

A template is a function from a view (where each endpoint is) to a value. Rendered with the provider's view it is the
provider's credentials; rendered with the mappings' view it is what the client must get.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

from broker.credentials import Endpoint, Json, Mapping


def same(endpoint: Endpoint) -> Endpoint:
    return endpoint


@dataclass(frozen=True)
class View:
    """Where each endpoint is (`at`), and where it was before it came there (`through`)."""

    at: Callable[[Endpoint], Endpoint] = same
    through: Callable[[Endpoint], Endpoint] = same


PROVIDER = View()
Template = Callable[[View], Json]

# Hosts that contain each other, so that anything but a whole comparison goes wrong.
HOSTS = [
    "a.example",
    "aa.example",
    "a.example.org",
    "b.a.example",
    "a-example",
    "1.0.0.1",
    "11.0.0.1",
    "1.0.0.11",
    "2001:db8::1",
    "2001:db8::11",
]
FRESH = ["local-a", "local-b", "10.96.0.1", "fd00::1", "a.example.svc.cluster.local"]
DEFAULT_PORTS = {
    "postgres": 5432,
    "postgresql": 5432,
    "jdbc:postgresql": 5432,
    "postgresql+asyncpg": 5432,
    "mysql": 3306,
    "mariadb": 3306,
    "jdbc:mysql": 3306,
    "jdbc:mysql:replication": 3306,
    "jdbc:mariadb": 3306,
    "amqp": 5672,
    "redis": 6379,
    "rediss": 6379,
    "redis-sentinel": 26379,
    "mongodb": 27017,
    "https": 443,
}
SEVERAL = [scheme for scheme in DEFAULT_PORTS if not scheme.startswith("http")]
PORTS = [1, 443, 5672, 5432, 3306, 6379, 65535]

endpoints = st.builds(Endpoint, host=st.sampled_from(HOSTS), port=st.sampled_from(PORTS))
secrets = st.one_of(
    st.text("abz059-._~!$&'()*+,;=:%", max_size=12),
    st.sampled_from(
        ["a.example", "a.example%3A5432", "1.0.0.1:5432", "x,a.example:5432", "a.example,1.0.0.1"]
    ),
)
plain = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        [f"x{host}" for host in HOSTS] + [f"{host}0" for host in HOSTS] + HOSTS[:6] + ["a.example:5432"]
    ),
)


def bracketed(endpoint: Endpoint) -> str:
    return f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host


def authority(source: Endpoint, view: View, default: int, explicit: bool) -> str:
    """How a URL states where `source` is: a default port that was left out is left out as long as it is the default."""
    ports = {source.port, view.through(source).port, view.at(source).port}
    host = bracketed(view.at(source))
    return host if ports == {default} and not explicit else f"{host}:{view.at(source).port}"


@st.composite
def urls(draw: st.DrawFn, chosen: st.SearchStrategy[Endpoint], *, explicit: bool = False) -> Template:
    scheme = draw(st.sampled_from(sorted(DEFAULT_PORTS)))
    default = DEFAULT_PORTS[scheme]
    sources = draw(st.lists(chosen, min_size=1, max_size=3 if scheme in SEVERAL else 1))
    with_port = [explicit or draw(st.booleans()) for _ in sources]
    sources = [
        source if stated else source.model_copy(update={"port": default})
        for source, stated in zip(sources, with_port, strict=True)
    ]
    user = draw(st.sampled_from(["", "u", "us%40er"]))
    user_info = f"{user}:{draw(secrets)}@" if user else ""
    tail = draw(st.sampled_from(["", "/", "/db", "/d%62/x%20y?a=b%26&host_x=%41#f", "?a=1&b=,;"]))

    def render(view: View) -> Json:
        shown = (
            authority(source, view, default, stated)
            for source, stated in zip(sources, with_port, strict=True)
        )
        return f"{scheme}://{user_info}{','.join(shown)}{tail}"

    return render


@st.composite
def members(draw: st.DrawFn, chosen: st.SearchStrategy[Endpoint]) -> Template:
    """An object with a host and a port."""
    source = draw(chosen)
    prefix = draw(st.sampled_from(["", "read_", "db_"]))
    host, port = draw(st.sampled_from([("host", "port"), ("hostname", "port"), ("HOST", "PORT")]))
    text = draw(st.booleans())
    password = draw(secrets)

    def render(view: View) -> Json:
        target = view.at(source)
        return {
            f"{prefix}{host}": target.host,
            "password": password,
            f"{prefix}{port}": str(target.port) if text else target.port,
        }

    return render


@st.composite
def host_lists(draw: st.DrawFn, chosen: st.SearchStrategy[Endpoint]) -> Template:
    sources = draw(st.lists(chosen, min_size=1, max_size=3))
    separator = draw(st.sampled_from([None, ",", ", ", ";"]))

    def render(view: View) -> Json:
        shown: list[Json] = [f"{bracketed(view.at(source))}:{view.at(source).port}" for source in sources]
        return {"nodes": shown if separator is None else separator.join(map(str, shown))}

    return render


@st.composite
def keyword_strings(draw: st.DrawFn, chosen: st.SearchStrategy[Endpoint]) -> Template:
    source = draw(chosen)
    password = draw(st.text("abz059-._~!$&()*+,:%/@", min_size=1, max_size=12))
    form = draw(
        st.sampled_from(
            [
                "host={host} port={port} password='{password}' dbname=x",
                "dbname = x  host = '{host}' password='{password}' port = {port}",
                "Server={host};Port={port};Password={password}",
                "pgsql:host={host};port={port};password={password}",
                "u:{password}@tcp({bracketed}:{port})/x?a=b",
            ]
        )
    )

    def render(view: View) -> Json:
        target = view.at(source)
        return form.format(host=target.host, bracketed=bracketed(target), port=target.port, password=password)

    return render


@st.composite
def noise(draw: st.DrawFn) -> Template:
    """What is no endpoint, however much it looks like one."""
    key = draw(st.sampled_from(["password", "note", "label", "username", "api_key", "count", "enabled"]))
    value: Json = draw(st.one_of(plain, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False)))
    return lambda _: {key: value}


@st.composite
def credentials(
    draw: st.DrawFn, chosen: st.SearchStrategy[Endpoint] = endpoints, *, explicit: bool = False
) -> Callable[[View], dict[str, Json]]:
    """Objects and lists of everything above."""
    parts = st.one_of(
        urls(chosen, explicit=explicit), members(chosen), host_lists(chosen), keyword_strings(chosen), noise()
    )
    drawn: Sequence[Template] = draw(st.lists(parts, min_size=1, max_size=4))
    listed = draw(st.booleans())

    def render(view: View) -> dict[str, Json]:
        values = [part(view) for part in drawn]
        return (
            {"items": values} if listed else {f"item{number}": value for number, value in enumerate(values)}
        )

    return render


def lookup(mappings: Sequence[Mapping]) -> Callable[[Endpoint], Endpoint]:
    """The obvious look-up: an endpoint's target, or itself."""
    table = {(key(mapping.source)): mapping.target for mapping in mappings}
    return lambda endpoint: table.get(key(endpoint), endpoint)


def key(endpoint: Endpoint) -> tuple[str, int]:
    host = str(ipaddress.ip_address(endpoint.host)) if ":" in endpoint.host else endpoint.host
    return host, endpoint.port


def some_mappings(
    targets: st.SearchStrategy[Endpoint], *, one_to_one: bool
) -> st.SearchStrategy[list[Mapping]]:
    """Mappings with distinct sources, and distinct targets where they are to be `one_to_one`."""
    unique = (lambda mapping: key(mapping.source), lambda mapping: key(mapping.target))
    return st.lists(
        st.builds(Mapping, source=endpoints, target=targets),
        min_size=1,
        max_size=40,
        unique_by=unique if one_to_one else unique[:1],
    )


fresh = st.builds(
    Endpoint, host=st.sampled_from(FRESH), port=st.one_of(st.sampled_from(PORTS), st.integers(1, 65535))
)
