"""What the name of a member or a parameter says of its value."""

from __future__ import annotations

import functools
import re
from enum import Enum, auto


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


HOST = _set(
    "host hosts hostname hostnames hostaddr address addresses addr server servers broker brokers bootstrap node nodes "
    "endpoint endpoints point points ip ips fqdn seed seeds sentinel sentinels primary master slave replica replicas "
    "member members contact"
)
ADDRESS = _set("host hosts hostname hostnames hostaddr address addresses addr ip fqdn server")
PORT = _set("port ports")
CONFIDENTIAL = _set(
    "password passwords passwd pwd pass passphrase secret secrets token tokens key keys apikey auth signature salt"
)
NAME = _set("user users username usernames uid login email database databases dbname db vhost schema id sni")
JOINED = {
    "pghost": "pg host",
    "pgport": "pg port",
    "pghostaddr": "pg hostaddr",
    "pgpassword": "pg password",
} | {f"db{word}": f"db {word}" for word in ("host", "hostname", "port", "user", "password", "pass")}
PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


class Kind(Enum):
    """What a member is by its name: a secret, a name of something that is no endpoint, a port, a host, or unsaid."""

    SECRET = auto()
    NAME = auto()
    PORT = auto()
    HOST = auto()
    OTHER = auto()


@functools.lru_cache(maxsize=4096)
def words(name: str) -> tuple[str, ...]:
    """The words of a name, lower case: `readHost`, `read_host` and `READ-HOST` are `("read", "host")`."""
    found = (part.lower() for part in PARTS.findall(name))
    return tuple(word for part in found for word in JOINED.get(part, part).split())


@functools.lru_cache(maxsize=4096)
def kind(name: str) -> Kind:
    """What a member of that name holds. The last word decides about secrets and names (`host_password` is a secret,
    `token_url` is none), any word about ports and hosts (`port_tls`, `kafka_brokers_sasl`). A `server_name` may be the name that TLS checks or
    the server's address, so it is not said to be either."""
    parts = words(name)
    last = parts[-1] if parts else ""
    if last in CONFIDENTIAL:
        return Kind.SECRET
    if parts == ("server", "name"):
        return Kind.OTHER
    if last in NAME or parts[-2:] == ("server", "name"):
        return Kind.NAME
    if PORT.intersection(parts):
        return Kind.PORT
    if HOST.intersection(parts):
        return Kind.HOST
    return Kind.OTHER


@functools.lru_cache(maxsize=4096)
def prefix(name: str) -> tuple[str, ...]:
    """What tells the hosts and ports of one object apart: `read_host` and `read_port` both have `("read",)`."""
    return tuple(word for word in words(name) if word not in HOST | PORT)
