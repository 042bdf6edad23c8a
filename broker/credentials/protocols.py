"""What is known of each protocol: URL schemes, default ports, who checks a server's name, who finds further members.

Sources: libpq 34.1.2 and 34.19 (PostgreSQL), pgJDBC "Connecting to the Database", Connector/J 6.2 and 6.3.5, MariaDB
Connector/J "Connection String", RabbitMQ "URI Specification" and "URI Query Parameters", IANA redis and rediss, Lettuce
"RedisURI", MongoDB "Connection String URI Format" and its SDAM specification, Kafka "Producer Configs", Microsoft JDBC
Driver "Setting the connection properties", RFC 9110.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

Options = Mapping[str, str]
"""Options of a connection, by their `plain` name, values in lower case."""


@dataclass(frozen=True)
class Protocol:
    """`schemes` are URL schemes with the port that each leaves out; those in `tls` encrypt by themselves. `hosts` and
    `ports` are parameters of a URL that name an endpoint; `addresses` are those that take the place of a host when
    connecting, while the host stays the name to check."""

    name: str
    schemes: Mapping[str, int]
    tls: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    ports: frozenset[str] = frozenset()
    words: frozenset[str] = field(default=frozenset())
    properties: str = "?&"


POSTGRESQL = Protocol(
    "PostgreSQL",
    {"postgres": 5432, "postgresql": 5432, "pgsql": 5432},
    hosts=frozenset({"host", "pghost"}),
    addresses=frozenset({"hostaddr"}),
    ports=frozenset({"port", "pgport"}),
    words=frozenset({"postgres", "postgresql", "pg"}),
)
MYSQL = Protocol(
    "MySQL",
    {"mysql": 3306, "mysql2": 3306, "mariadb": 3306, "mysqlx": 33060},
    words=frozenset({"mysql", "mariadb"}),
)
AMQP = Protocol(
    "AMQP", {"amqp": 5672, "amqps": 5671}, tls=frozenset({"amqps"}), words=frozenset({"amqp", "rabbitmq"})
)
REDIS = Protocol(
    "Redis",
    {
        "redis": 6379,
        "rediss": 6379,
        "valkey": 6379,
        "valkeys": 6379,
        "redis-cluster": 6379,
        "rediss-cluster": 6379,
        "redis+cluster": 6379,
        "rediss+cluster": 6379,
        "redis-sentinel": 26379,
        "rediss-sentinel": 26379,
        "redis+sentinel": 26379,
        "rediss+sentinel": 26379,
    },
    tls=frozenset(
        {"rediss", "valkeys", "rediss-cluster", "rediss+cluster", "rediss-sentinel", "rediss+sentinel"}
    ),
    words=frozenset({"redis", "valkey", "sentinel", "sentinels"}),
)
MONGODB = Protocol("MongoDB", {"mongodb": 27017}, words=frozenset({"mongodb", "mongo"}))
KAFKA = Protocol(
    "Kafka",
    {
        "kafka": 9092,
        "kafka+ssl": 9092,
        "plaintext": 9092,
        "sasl_plaintext": 9092,
        "sasl_ssl": 9092,
    },
    tls=frozenset({"kafka+ssl", "sasl_ssl"}),
    words=frozenset({"kafka", "bootstrap"}),
)
HTTP = Protocol(
    "HTTP",
    {"http": 80, "https": 443, "ws": 80, "wss": 443},
    tls=frozenset({"https", "wss"}),
    words=frozenset({"http", "https"}),
)
SQLSERVER = Protocol(
    "SQL Server",
    {"sqlserver": 1433, "mssql": 1433},
    tls=frozenset({"sqlserver"}),
    hosts=frozenset({"servername", "server"}),
    ports=frozenset({"portnumber", "port"}),
    words=frozenset({"sqlserver", "mssql"}),
    properties=";;",
)
PROTOCOLS = (POSTGRESQL, MYSQL, AMQP, REDIS, MONGODB, KAFKA, HTTP, SQLSERVER)


@dataclass(frozen=True)
class Scheme:
    """A URL's scheme: `text` without the colon, lower case. `protocol` and `port` (the default) where it is known;
    `srv` when the host is the name of DNS SRV records."""

    text: str
    protocol: Protocol | None = None
    port: int | None = None
    tls: bool = False
    srv: bool = False


_SCHEMES = {
    text: Scheme(text, protocol, port, text in protocol.tls)
    for protocol in PROTOCOLS
    for text, port in protocol.schemes.items()
}
_TLS_ELSEWHERE = frozenset({"ssl", "tls", "mqtts", "ldaps", "smtps", "ftps", "imaps"})
_WORDS = {word: protocol for protocol in PROTOCOLS for word in protocol.words}


def scheme(text: str) -> Scheme:
    """The scheme of `text`, such as `jdbc:mysql:replication`, `postgresql+asyncpg` or `mongodb+srv`: the last part
    between colons that is known, with its driver behind `+` left out."""
    for part in reversed(text.lower().split(":")):
        base, *drivers = part.split("+")
        if "srv" in drivers:
            known = _SCHEMES.get(base, Scheme(base))
            return Scheme(part, known.protocol, known.port, tls=base == "mongodb" or known.tls, srv=True)
        found = _SCHEMES.get(part) or _SCHEMES.get(base)
        if found is not None:
            return found
    last = text.lower().rpartition(":")[2]
    return Scheme(last, tls=last in _TLS_ELSEWHERE)


def protocol_of(words: Iterable[str]) -> Protocol | None:
    """The protocol that a member's name, or a value such as `"type": "redis"`, speaks of."""
    return next((_WORDS[word] for word in words if word in _WORDS), None)


@functools.lru_cache(maxsize=4096)
def plain(name: str) -> str:
    """An option's name without the differences in spelling between clients: `ssl-mode` and `sslMode` are one."""
    return re.sub(r"[-_. ]", "", name).lower()


TRUE = frozenset({"true", "1", "yes", "on", "t"})
FALSE = frozenset({"false", "0", "no", "off", "f"})
OTHER_NAME = frozenset(
    {"servernameindication", "tlsservername", "sslservername", "hostnameincertificate", "sslhost", "sni"}
    | {"ssltargetnameoverride"}
)
NOT_CHECKED = {
    "tlsallowinvalidhostnames": TRUE,
    "tlsallowinvalidcertificates": TRUE,
    "sslinvalidhostnameallowed": TRUE,
    "tlsinsecure": TRUE,
    "trustservercertificate": TRUE,
    "sslcheckhostname": FALSE,
    "sslrejectunauthorized": FALSE,
    "tlsrejectunauthorized": FALSE,
    "sslcertreqs": frozenset({"none", "cert_none"}),
    "verifypeer": frozenset({"none", "ca"}) | FALSE,
    "verify": frozenset({"verify_none"}) | FALSE,
    "encrypt": FALSE | frozenset({"optional"}),
    "sslendpointidentificationalgorithm": frozenset({""}),
    "sslfactory": frozenset({"org.postgresql.ssl.nonvalidatingfactory"}),
}
CHECKED = {
    "sslrootcert": frozenset({"system"}),
    "ssl": TRUE,
    "tls": TRUE,
    "encrypt": TRUE | frozenset({"mandatory", "strict"}),
    "sslverifyidentity": TRUE,
    "sslcheckhostname": TRUE,
    "securityprotocol": frozenset({"ssl", "sasl_ssl"}),
}


def checks_name(tls: bool, options: Options) -> bool:
    """Whether a client with these `options` compares the certificate's names with the host it connects to; `tls` says
    that the scheme alone makes it use TLS (an `sslmode` around it is then another client's)."""
    if any(options.get(name, "") not in FALSE | {""} for name in OTHER_NAME):
        return False
    if any(options[name] in values for name, values in NOT_CHECKED.items() if name in options):
        return False
    mode = plain(options.get("sslmode", ""))
    if mode and not tls:
        return mode in {"verifyfull", "verifyidentity"} or options.get("sslrootcert") == "system"
    return tls or any(options.get(name) in values for name, values in CHECKED.items())


def discovery(protocol: Protocol | None, words: Iterable[str], options: Options) -> str | None:
    """How a client of `protocol` comes to addresses that stand in no credentials, or None. `words` are those of the
    scheme, of the member's name and of the name of the object that it is a member of."""
    named = set(words)
    if protocol is KAFKA:
        return "Kafka's brokers answer with their advertised listeners, and the client connects to these"
    if protocol is None and "brokers" in named:
        return "if these are Kafka's, they answer with their advertised listeners, and the client connects to these"
    if protocol is MONGODB and not {options.get("directconnection"), options.get("loadbalanced")} & TRUE:
        return (
            "MongoDB's driver asks for the replica set's members and connects to the names that they announce"
        )
    if protocol is REDIS and (
        named & {"sentinel", "sentinels"}
        or options.keys() & {"sentinelmasterid", "mastername", "sentinelmaster"}
    ):
        return "Redis Sentinel answers with the address of the master, and the client connects to it"
    if protocol is REDIS and (
        "cluster" in named
        or any(options.get(name) in TRUE for name in ("cluster", "clusterenabled", "clustermode"))
    ):
        return "Redis Cluster redirects the client (MOVED, ASK) to the addresses that its nodes announce"
    return None
