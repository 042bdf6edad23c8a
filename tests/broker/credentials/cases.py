"""What is understood, case by case: credentials, mappings, what comes out, what is found.

`python -m tests.broker.credentials.table` writes these as docs/credentials.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.credentials import Code, Endpoint, Json, Mapping

Credentials = dict[str, Json]

TLS, HTTP, DISCOVERY, SRV = Code.TLS_NAME, Code.HTTP_HOST, Code.DISCOVERY, Code.DNS_SRV
CONFLICT, SHARED, NOT_MAPPED = Code.CONFLICT, Code.SHARED_HOST, Code.NOT_MAPPED
NO_PORT, NOT_UNDERSTOOD, UNUSED = Code.NO_PORT, Code.NOT_UNDERSTOOD, Code.UNUSED


@dataclass(frozen=True)
class Case:
    """`mappings` are `source target` (host:port each), one a line; `adapted` is None where nothing changes; `findings` are
    the codes with their paths."""

    says: str
    mappings: str
    credentials: Credentials
    adapted: Credentials | None
    findings: tuple[tuple[Code, str], ...] = ()


def endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    return Endpoint(host=host, port=int(port))


def mappings(text: str) -> list[Mapping]:
    pairs = (line.split() for line in text.splitlines())
    return [Mapping(source=endpoint(source), target=endpoint(target)) for source, target in pairs]


PG = "db.example:5432 local:5555"
PG2 = "a.example:5432 local-a:5555\nb.example:5432 local-b:5555"
MYSQL = "db.example:3306 local:5555"
MYSQL2 = "a.example:3306 local-a:5555\nb.example:3306 local-b:5555"
AMQP = "mq.example:5672 local:5555"
AMQPS = "mq.example:5671 local:5555"
REDIS = "r.example:6379 local:5555"
MONGO = "m.example:27017 local:5555"
MONGO2 = "a.example:27017 local-a:5555\nb.example:27017 local-b:5555"
KAFKA2 = "a.example:9092 local-a:5555\nb.example:9092 local-b:5555"
HTTPS = "web.example:443 local:5555"
MSSQL = "db.example:1433 local:5555"
V6 = "2001:db8::1:5432 fd00::1:5555"

SECTIONS: dict[str, tuple[Case, ...]] = {
    "Members: host and port": (
        Case(
            "The four steps of the binding: host, port and URL",
            "my-cf-service:1234 my-k8s-service:6789",
            {"host": "my-cf-service", "port": 1234, "uri": "http://my-cf-service:1234"},
            {"host": "my-k8s-service", "port": 6789, "uri": "http://my-k8s-service:6789"},
            ((HTTP, "credentials.uri"),),
        ),
        Case(
            "A port that is a string stays one",
            PG,
            {"hostname": "db.example", "port": "5432"},
            {"hostname": "local", "port": "5555"},
        ),
        Case(
            "Published ports: those of a mapped endpoint follow",
            "10.11.241.0:47637 local:5555",
            {"hostname": "10.11.241.0", "port": "47637", "ports": {"5432/tcp": "47637"}},
            {"hostname": "local", "port": "5555", "ports": {"5432/tcp": "5555"}},
        ),
        Case(
            "A further port without a mapping is reported",
            AMQP,
            {"hostname": "mq.example", "port": 5672, "ports": {"amqp": 5672, "management": 15672}},
            {"hostname": "local", "port": 5555, "ports": {"amqp": 5555, "management": 15672}},
            ((NOT_MAPPED, "credentials.ports.management"),),
        ),
        Case(
            "A further port with a host of its own: the host goes with the main port",
            "mq.example:5672 local:5555\nmq.example:15672 local-ui:5555",
            {"hostname": "mq.example", "port": 5672, "ports": {"amqp": 5672, "management": 15672}},
            {"hostname": "local", "port": 5555, "ports": {"amqp": 5555, "management": 15672}},
            ((SHARED, "credentials.ports.management"),),
        ),
        Case(
            "Prefixes tell endpoints apart, in any spelling",
            PG2,
            {"read_host": "a.example", "read_port": 5432, "writeHost": "b.example", "writePort": "5432"},
            {"read_host": "local-a", "read_port": 5555, "writeHost": "local-b", "writePort": "5555"},
        ),
        Case(
            "Environment variables",
            PG,
            {"PGHOST": "db.example", "PGPORT": "5432", "DB_HOST": "db.example", "DB_PORT": 5432},
            {"PGHOST": "local", "PGPORT": "5555", "DB_HOST": "local", "DB_PORT": 5555},
        ),
        Case(
            "Several hosts, one port",
            PG2,
            {"hosts": ["a.example", "b.example"], "port": 5432},
            {"hosts": ["local-a", "local-b"], "port": 5555},
        ),
        Case(
            "Two lists of one length",
            "a.example:1 local-a:5555\nb.example:2 local-b:6666",
            {"hosts": ["a.example", "b.example"], "ports": [1, "2"]},
            {"hosts": ["local-a", "local-b"], "ports": [5555, "6666"]},
        ),
        Case(
            "One port for two targets with different ports cannot be stated",
            "a.example:1 local-a:5555\nb.example:1 local-b:6666",
            {"hosts": ["a.example", "b.example"], "port": 1},
            None,
            ((CONFLICT, "credentials.port"),),
        ),
        Case(
            "A shared port stays when one of its hosts is not mapped",
            PG,
            {"hosts": ["db.example", "elsewhere.example"], "port": 5432},
            None,
            ((CONFLICT, "credentials.port"),),
        ),
        Case(
            "One host for two targets with different hosts cannot be stated",
            "h.example:1 local-a:1\nh.example:2 local-b:2",
            {"host": "h.example", "ports": [1, 2]},
            None,
            ((CONFLICT, "credentials.ports[0]"),),
        ),
        Case(
            "A host without its port, which would have to change",
            PG,
            {"host": "db.example"},
            None,
            ((NO_PORT, "credentials.host"),),
        ),
        Case(
            "A host without its port, which stays the same",
            "db.example:5432 local:5432",
            {"host": "db.example"},
            {"host": "local"},
        ),
        Case(
            "The host with another port is another endpoint",
            PG,
            {"host": "db.example", "port": 5433},
            None,
            ((NOT_MAPPED, "credentials.port"), (UNUSED, "endpoint_mappings[0]")),
        ),
        Case(
            "A port beside a URL",
            PG,
            {"uri": "postgres://db.example:5432/x", "port": 5432},
            {"uri": "postgres://local:5555/x", "port": 5555},
        ),
        Case(
            "Letter case and a trailing dot do not make another host",
            PG,
            {"host": "DB.Example.", "port": 5432},
            {"host": "local", "port": 5555},
        ),
        Case(
            "IPv6, however it is written",
            V6,
            {"host": "2001:DB8:0::1", "port": 5432, "address": "[2001:db8::1]:5432"},
            {"host": "fd00::1", "port": 5555, "address": "[fd00::1]:5555"},
        ),
    ),
    "Nested members and lists": (
        Case(
            "Objects in lists",
            PG2,
            {"end_points": [{"host": "a.example", "port": 5432}, {"host": "b.example", "port": "5432"}]},
            {"end_points": [{"host": "local-a", "port": 5555}, {"host": "local-b", "port": "5555"}]},
        ),
        Case(
            "Lists of host:port",
            PG2,
            {"nodes": ["a.example:5432", "b.example:5432", "c.example:5432"]},
            {"nodes": ["local-a:5555", "local-b:5555", "c.example:5432"]},
        ),
        Case(
            "A member for both",
            PG,
            {"host_port": "db.example:5432", "DB_HOST_NAME": "db.example", "DB_PORT": 5432},
            {"host_port": "local:5555", "DB_HOST_NAME": "local", "DB_PORT": 5555},
        ),
        Case(
            "Several in one string",
            PG2,
            {"endpoints": "a.example:5432, b.example:5432;c.example:1"},
            {"endpoints": "local-a:5555, local-b:5555;c.example:1"},
        ),
        Case(
            "An object of hosts",
            PG2,
            {"hosts": {"primary": "a.example", "replica": "b.example"}, "port": 5432},
            {"hosts": {"primary": "local-a", "replica": "local-b"}, "port": 5555},
        ),
        Case(
            "Options of an object hold for what lies in it",
            PG,
            {"sslmode": "verify-full", "connection": {"nodes": [{"host": "db.example", "port": 5432}]}},
            {"sslmode": "verify-full", "connection": {"nodes": [{"host": "local", "port": 5555}]}},
            ((TLS, "credentials.connection.nodes[0].host"),),
        ),
    ),
    "PostgreSQL": (
        Case(
            "The default port, left out, is written where the target has another",
            PG,
            {"uri": "postgres://u:p@db.example/x"},
            {"uri": "postgres://u:p@local:5555/x"},
        ),
        Case(
            "… and stays left out where it has not",
            "db.example:5432 local:5432",
            {"uri": "postgresql://u:p@db.example/x"},
            {"uri": "postgresql://u:p@local/x"},
        ),
        Case(
            "Several hosts, JDBC",
            PG2,
            {
                "read_url": "jdbc:postgresql://a.example,b.example:5432/x?targetServerType=preferSlave&loadBalanceHosts=true"
            },
            {
                "read_url": "jdbc:postgresql://local-a:5555,local-b:5555/x?targetServerType=preferSlave&loadBalanceHosts=true"
            },
        ),
        Case(
            "The older JDBC scheme, a driver's name in the scheme",
            PG,
            {"uri": "jdbc:postgres://db.example:5432/x", "async": "postgresql+asyncpg://u:p@db.example/x"},
            {"uri": "jdbc:postgres://local:5555/x", "async": "postgresql+asyncpg://u:p@local:5555/x"},
        ),
        Case(
            "The endpoint in the query",
            PG,
            {
                "uri": "postgresql:///x?host=db.example&port=5432",
                "other": "postgresql://u@/x?host=db.example&a=b",
            },
            {
                "uri": "postgresql:///x?host=local&port=5555",
                "other": "postgresql://u@/x?host=local&port=5555&a=b",
            },
        ),
        Case(
            "A port in the query is that of the authority's host",
            "db.example:6000 local:5555",
            {"uri": "postgresql://db.example/x?port=6000"},
            {"uri": "postgresql://local/x?port=5555"},
        ),
        Case(
            "Several hosts in the query",
            PG2,
            {"uri": "postgresql://u:p@/x?host=a.example:5432&host=b.example:5432"},
            {"uri": "postgresql://u:p@/x?host=local-a:5555&host=local-b:5555"},
        ),
        Case(
            "Ports item by item, an empty one being the default, in the query above the authority's",
            PG2,
            {
                "uri": "postgresql://a.example,b.example:6000/x?port=,5432",
                "dsn": "host=elsewhere.example,b.example port=6000,",
                "one": "postgres://a.example:6000/x?port=",
            },
            {
                "uri": "postgresql://local-a,local-b:6000/x?port=5555,5555",
                "dsn": "host=elsewhere.example,local-b port=6000,5555",
                "one": "postgres://local-a:6000/x?port=5555",
            },
        ),
        Case(
            "A port in the query that is none, or that contradicts itself, is not known",
            PG,
            {
                "a": "postgres://db.example/x?port=05432",
                "b": "postgres://db.example/x?port=%35432",
                "c": "postgres://db.example/x?port=5432&port=6000",
            },
            None,
            ((NO_PORT, "credentials.a"), (NO_PORT, "credentials.b"), (NO_PORT, "credentials.c")),
        ),
        Case(
            "Percent-encoded separators, and whatever else makes a host none: left, and said",
            PG,
            {
                "a": "postgresql+psycopg2://u:p@/x?host=db.example%3A5432",
                "b": "postgresql:///x?host=db.example%2Cb.example&port=5432",
                "c": "postgres://db.example|b.example/x",
            },
            None,
            (
                (NOT_UNDERSTOOD, "credentials.a"),
                (NOT_UNDERSTOOD, "credentials.b"),
                (NOT_UNDERSTOOD, "credentials.c"),
                (UNUSED, "endpoint_mappings[0]"),
            ),
        ),
        Case(
            "PHP, with semicolons and with blanks",
            PG,
            {
                "a": "pgsql:host=db.example;port=5432;dbname=x",
                "b": "pgsql:host=db.example port=5432 dbname=x",
                "c": "pgsql:host=db.example port=6000",
            },
            {
                "a": "pgsql:host=local;port=5555;dbname=x",
                "b": "pgsql:host=local port=5555 dbname=x",
                "c": "pgsql:host=db.example port=6000",
            },
            ((NOT_MAPPED, "credentials.c"),),
        ),
        Case(
            "Passwords in quotes or braces that hold them doubled, and one that only begins so",
            PG,
            {
                "a": 'Host=db.example;Password="a"";Host=db.example;Port=5432;";Port=5432',
                "b": "Driver={PostgreSQL};Server=db.example;Pwd={a}};Server=db.example;Port=1};Port=5432",
                "c": "Host=db.example;Password={a;Port=5432",
            },
            {
                "a": 'Host=local;Password="a"";Host=db.example;Port=5432;";Port=5555',
                "b": "Driver={PostgreSQL};Server=local;Pwd={a}};Server=db.example;Port=1};Port=5555",
                "c": "Host=local;Password={a;Port=5555",
            },
        ),
        Case(
            "A keyword string",
            PG,
            {"dsn": "host=db.example port=5432 dbname=x password='a b \\' host=db.example'"},
            {"dsn": "host=local port=5555 dbname=x password='a b \\' host=db.example'"},
        ),
        Case(
            "A keyword string without a port",
            PG2,
            {"dsn": "dbname=x host='a.example,b.example' user=u"},
            {"dsn": "dbname=x host='local-a,local-b' port=5555 user=u"},
        ),
        Case(
            "hostaddr is where the client connects, host the name that it checks: this keeps verify-full working",
            "192.0.2.1:5432 10.96.0.1:5555",
            {"dsn": "host=db.example hostaddr=192.0.2.1 port=5432 sslmode=verify-full"},
            {"dsn": "host=db.example hostaddr=10.96.0.1 port=5555 sslmode=verify-full"},
        ),
        Case(
            "hostaddr takes nothing but an address",
            "192.0.2.1:5432 local:5555",
            {"dsn": "hostaddr=192.0.2.1 port=5432"},
            None,
            ((CONFLICT, "credentials.dsn"),),
        ),
        Case(
            "verify-full compares the certificate with the target",
            PG,
            {
                "uri": "postgres://db.example/x?sslmode=verify-full",
                "jdbc": "jdbc:postgresql://db.example/x?ssl=true",
            },
            {
                "uri": "postgres://local:5555/x?sslmode=verify-full",
                "jdbc": "jdbc:postgresql://local:5555/x?ssl=true",
            },
            ((TLS, "credentials.uri"), (TLS, "credentials.jdbc")),
        ),
        Case(
            "verify-ca and require do not",
            PG,
            {
                "a": "postgres://db.example/x?sslmode=verify-ca",
                "b": "postgres://db.example/x?sslmode=require",
            },
            {
                "a": "postgres://local:5555/x?sslmode=verify-ca",
                "b": "postgres://local:5555/x?sslmode=require",
            },
        ),
        Case(
            "IPv6",
            V6,
            {"uri": "postgres://u:p@[2001:db8::1]/x", "dsn": "host=2001:db8::1 port=5432"},
            {"uri": "postgres://u:p@[fd00::1]:5555/x", "dsn": "host=fd00::1 port=5555"},
        ),
        Case(
            "IPv6 in place of a name",
            "db.example:5432 fd00::1:5555",
            {
                "uri": "postgres://db.example/x",
                "host": "db.example",
                "port": 5432,
                "server": "db.example:5432",
            },
            {
                "uri": "postgres://[fd00::1]:5555/x",
                "host": "fd00::1",
                "port": 5555,
                "server": "[fd00::1]:5555",
            },
        ),
    ),
    "MySQL and MariaDB": (
        Case(
            "URLs",
            MYSQL,
            {
                "uri": "mysql://u:p@db.example/x?reconnect=true",
                "b": "mariadb://db.example:3306",
                "c": "mysql2://db.example/x",
            },
            {
                "uri": "mysql://u:p@local:5555/x?reconnect=true",
                "b": "mariadb://local:5555",
                "c": "mysql2://local:5555/x",
            },
        ),
        Case(
            "JDBC with several hosts",
            MYSQL2,
            {
                "a": "jdbc:mysql:replication://a.example,b.example:3306/x",
                "b": "jdbc:mariadb:sequential://a.example/x",
            },
            {
                "a": "jdbc:mysql:replication://local-a:5555,local-b:5555/x",
                "b": "jdbc:mariadb:sequential://local-a:5555/x",
            },
        ),
        Case(
            "JDBC with hosts in parentheses",
            MYSQL2,
            {
                "a": "jdbc:mysql://address=(host=a.example)(port=3306)(user=u),address=(host=b.example)(user=u)/x",
                "b": "jdbc:mysql://(host=a.example,port=3306),(host=b.example)/x",
            },
            {
                "a": "jdbc:mysql://address=(host=local-a)(port=5555)(user=u),address=(host=local-b)(port=5555)(user=u)/x",
                "b": "jdbc:mysql://(host=local-a,port=5555),(host=local-b,port=5555)/x",
            },
        ),
        Case(
            "Go's driver, ADO.NET, PHP",
            MYSQL,
            {
                "go": "u:p@ss@tcp(db.example:3306)/x?parseTime=true",
                "net": "Server=db.example;Port=3306;Database=x;Uid=u;Pwd=p",
                "php": "mysql:host=db.example;dbname=x",
            },
            {
                "go": "u:p@ss@tcp(local:5555)/x?parseTime=true",
                "net": "Server=local;Port=5555;Database=x;Uid=u;Pwd=p",
                "php": "mysql:host=local;port=5555;dbname=x",
            },
        ),
        Case(
            "The certificate's name is checked",
            MYSQL,
            {
                "a": "jdbc:mysql://db.example/x?sslMode=VERIFY_IDENTITY",
                "b": "mysql://db.example/x?ssl-mode=REQUIRED",
                "c": "u:p@tcp(db.example)/x?tls=true",
                "d": "u:p@tcp(db.example)/x?tls=skip-verify",
            },
            {
                "a": "jdbc:mysql://local:5555/x?sslMode=VERIFY_IDENTITY",
                "b": "mysql://local:5555/x?ssl-mode=REQUIRED",
                "c": "u:p@tcp(local:5555)/x?tls=true",
                "d": "u:p@tcp(local:5555)/x?tls=skip-verify",
            },
            ((TLS, "credentials.a"), (TLS, "credentials.c")),
        ),
    ),
    "AMQP": (
        Case("No path, no port", AMQP, {"uri": "amqp://u:p@mq.example"}, {"uri": "amqp://u:p@local:5555"}),
        Case(
            "TLS has another default port, and checks the name",
            AMQPS,
            {"uri": "amqps://u:p@mq.example/%2Fvhost"},
            {"uri": "amqps://u:p@local:5555/%2Fvhost"},
            ((TLS, "credentials.uri"),),
        ),
        Case(
            "… unless the URL says otherwise",
            AMQPS,
            {
                "a": "amqps://mq.example?verify=verify_none",
                "b": "amqps://mq.example?server_name_indication=mq.internal",
            },
            {
                "a": "amqps://local:5555?verify=verify_none",
                "b": "amqps://local:5555?server_name_indication=mq.internal",
            },
        ),
        Case(
            "Lists of URLs",
            "a.example:5672 local-a:5555\nb.example:5672 local-b:5555",
            {
                "a": "amqp://u:p@a.example;amqp://u:p@b.example:5672/v",
                "uris": ["amqp://a.example", "amqp://b.example"],
            },
            {
                "a": "amqp://u:p@local-a:5555;amqp://u:p@local-b:5555/v",
                "uris": ["amqp://local-a:5555", "amqp://local-b:5555"],
            },
        ),
    ),
    "Redis": (
        Case(
            "URLs",
            REDIS,
            {"uri": "redis://:p@r.example:6379/0", "b": "valkey://r.example"},
            {"uri": "redis://:p@local:5555/0", "b": "valkey://local:5555"},
        ),
        Case(
            "TLS",
            REDIS,
            {"a": "rediss://:p@r.example/0", "b": "rediss://:p@r.example/0?ssl_cert_reqs=none"},
            {"a": "rediss://:p@local:5555/0", "b": "rediss://:p@local:5555/0?ssl_cert_reqs=none"},
            ((TLS, "credentials.a"),),
        ),
        Case(
            "Sentinel",
            "a.example:26379 local-a:5555\nb.example:26379 local-b:5555",
            {"uri": "redis-sentinel://p@a.example,b.example:26379/0#mymaster"},
            {"uri": "redis-sentinel://p@local-a:5555,local-b:5555/0#mymaster"},
            ((DISCOVERY, "credentials.uri"),),
        ),
        Case(
            "Sentinel as members",
            "a.example:26379 local-a:5555",
            {"master_name": "mymaster", "sentinels": [{"host": "a.example", "port": 26379}], "type": "redis"},
            {"master_name": "mymaster", "sentinels": [{"host": "local-a", "port": 5555}], "type": "redis"},
            ((DISCOVERY, "credentials.sentinels[0].host"),),
        ),
        Case(
            "Sentinel as members beside the master's URL",
            "a.example:26379 local-a:5555\nr.example:6379 local:5555",
            {"redis": {"uri": "redis://r.example", "sentinels": [{"host": "a.example", "port": 26379}]}},
            {"redis": {"uri": "redis://local:5555", "sentinels": [{"host": "local-a", "port": 5555}]}},
            ((DISCOVERY, "credentials.redis.sentinels[0].host"),),
        ),
        Case(
            "Cluster",
            REDIS,
            {"uri": "redis://r.example:6379", "cluster_enabled": True},
            {"uri": "redis://local:5555", "cluster_enabled": True},
            ((DISCOVERY, "credentials.uri"),),
        ),
        Case(
            "StackExchange.Redis",
            REDIS,
            {"connection": "r.example:6379,r.example,password=r.example:6379,ssl=True,abortConnect=False"},
            {"connection": "local:5555,local:5555,password=r.example:6379,ssl=True,abortConnect=False"},
            ((TLS, "credentials.connection"),),
        ),
    ),
    "MongoDB": (
        Case(
            "Several hosts: the driver asks for the members",
            MONGO2,
            {"uri": "mongodb://u:p@a.example,b.example:27017/x?replicaSet=rs0&authSource=admin"},
            {"uri": "mongodb://u:p@local-a:5555,local-b:5555/x?replicaSet=rs0&authSource=admin"},
            ((DISCOVERY, "credentials.uri"),),
        ),
        Case(
            "One member, addressed directly",
            MONGO,
            {"uri": "mongodb://m.example/x?directConnection=true"},
            {"uri": "mongodb://local:5555/x?directConnection=true"},
        ),
        Case(
            "TLS",
            MONGO,
            {
                "a": "mongodb://m.example/?directConnection=true&tls=true",
                "b": "mongodb://m.example/?directConnection=true&tls=true&tlsAllowInvalidHostnames=true",
            },
            {
                "a": "mongodb://local:5555/?directConnection=true&tls=true",
                "b": "mongodb://local:5555/?directConnection=true&tls=true&tlsAllowInvalidHostnames=true",
            },
            ((TLS, "credentials.a"),),
        ),
        Case(
            "Hosts that only DNS knows",
            "shard-0.cluster.example:27017 local:5555",
            {"uri": "mongodb+srv://u:p@cluster.example/x"},
            None,
            ((SRV, "credentials.uri"), (UNUSED, "endpoint_mappings[0]")),
        ),
    ),
    "Kafka": (
        Case(
            "Bootstrap servers, as a string and as a list",
            KAFKA2,
            {"bootstrap.servers": "a.example:9092,b.example:9092", "kafka": {"brokers": ["a.example:9092"]}},
            {"bootstrap.servers": "local-a:5555,local-b:5555", "kafka": {"brokers": ["local-a:5555"]}},
            ((DISCOVERY, "credentials.kafka.brokers[0]"), (DISCOVERY, "credentials['bootstrap.servers']")),
        ),
        Case(
            "Brokers of which nobody says what they are",
            KAFKA2,
            {"brokers": "a.example:9092,b.example:9092"},
            {"brokers": "local-a:5555,local-b:5555"},
            ((DISCOVERY, "credentials.brokers"),),
        ),
        Case(
            "Bootstrap servers without a port",
            KAFKA2,
            {"bootstrap_servers": "a.example,b.example:9092"},
            {"bootstrap_servers": "local-a:5555,local-b:5555"},
            ((DISCOVERY, "credentials.bootstrap_servers"),),
        ),
        Case(
            "Listeners as URLs",
            KAFKA2,
            {"url": "SASL_SSL://a.example:9092,SASL_SSL://b.example:9092"},
            {"url": "SASL_SSL://local-a:5555,SASL_SSL://local-b:5555"},
            ((TLS, "credentials.url"), (DISCOVERY, "credentials.url")),
        ),
        Case(
            "TLS by an option beside the list",
            KAFKA2,
            {"bootstrap_servers": "a.example:9092,b.example:9092", "security.protocol": "SASL_SSL"},
            {"bootstrap_servers": "local-a:5555,local-b:5555", "security.protocol": "SASL_SSL"},
            ((TLS, "credentials.bootstrap_servers"), (DISCOVERY, "credentials.bootstrap_servers")),
        ),
    ),
    "HTTP": (
        Case(
            "Default ports, paths and queries",
            HTTPS,
            {"url": "https://web.example/api?x=%20#top"},
            {"url": "https://local:5555/api?x=%20#top"},
            ((TLS, "credentials.url"), (HTTP, "credentials.url")),
        ),
        Case(
            "An empty port",
            "web.example:80 local:5555",
            {"url": "http://web.example:/api"},
            {"url": "http://local:5555/api"},
            ((HTTP, "credentials.url"),),
        ),
        Case(
            "An sslmode beside it is not about it",
            "db.example:5432 local:5555\ndb.example:443 local-2:5555",
            {"uri": "postgres://db.example/x", "dashboard": "https://db.example", "sslmode": "require"},
            {"uri": "postgres://local:5555/x", "dashboard": "https://local-2:5555", "sslmode": "require"},
            ((TLS, "credentials.dashboard"), (HTTP, "credentials.dashboard")),
        ),
        Case(
            "Another scheme is another port",
            HTTPS,
            {"url": "http://web.example/api"},
            None,
            ((NOT_MAPPED, "credentials.url"), (UNUSED, "endpoint_mappings[0]")),
        ),
    ),
    "SQL Server": (
        Case(
            "JDBC",
            MSSQL,
            {
                "a": "jdbc:sqlserver://db.example:1433;databaseName=x;encrypt=false",
                "b": "jdbc:sqlserver://;serverName=db.example;encrypt=false",
            },
            {
                "a": "jdbc:sqlserver://local:5555;databaseName=x;encrypt=false",
                "b": "jdbc:sqlserver://;serverName=local;port=5555;encrypt=false",
            },
        ),
        Case(
            "JDBC encrypts and checks the name by default",
            MSSQL,
            {
                "a": "jdbc:sqlserver://db.example;user=u",
                "b": "jdbc:sqlserver://db.example;hostNameInCertificate=db.example",
            },
            {
                "a": "jdbc:sqlserver://local:5555;user=u",
                "b": "jdbc:sqlserver://local:5555;hostNameInCertificate=db.example",
            },
            ((TLS, "credentials.a"), (NOT_UNDERSTOOD, "credentials.b")),
        ),
        Case(
            "ADO.NET",
            MSSQL,
            {
                "a": "Server=tcp:db.example,1433;Password=p;Encrypt=False",
                "b": "Server=db.example,1433;Encrypt=True",
            },
            {"a": "Server=tcp:local,5555;Password=p;Encrypt=False", "b": "Server=local,5555;Encrypt=True"},
            ((TLS, "credentials.b"),),
        ),
    ),
    "Other protocols": (
        Case(
            "Any URL that states its port",
            "n.example:4222 local:5555",
            {"uri": "nats://u:p@n.example:4222"},
            {"uri": "nats://u:p@local:5555"},
        ),
        Case(
            "A default port that is not known",
            "n.example:4222 local:5555",
            {"uri": "nats://u:p@n.example"},
            None,
            ((NO_PORT, "credentials.uri"),),
        ),
    ),
    "Left alone": (
        Case(
            "A host that contains the source, and one that the source contains",
            "1.0.0.1:5432 local:5555",
            {
                "uri": "postgres://11.0.0.1,1.0.0.11,1.0.0.1/x",
                "host": "a.1.0.0.1",
                "port": 5432,
                "note": "11.0.0.1:5432",
            },
            {
                "uri": "postgres://11.0.0.1,1.0.0.11,local:5555/x",
                "host": "a.1.0.0.1",
                "port": 5432,
                "note": "11.0.0.1:5432",
            },
        ),
        Case(
            "Secrets and names, whatever they look like",
            PG,
            {
                "uri": "postgres://db.example:db.example%3A5432@db.example:5432/x?password=db.example:5432",
                "password": "postgres://db.example:5432",
                "apiKey": "db.example:5432",
                "secret": {"current": "http://db.example:5432"},
                "username": "admin@db.example",
                "dbname": "db.example:5432",
            },
            {
                "uri": "postgres://db.example:db.example%3A5432@local:5555/x?password=db.example:5432",
                "password": "postgres://db.example:5432",
                "apiKey": "db.example:5432",
                "secret": {"current": "http://db.example:5432"},
                "username": "admin@db.example",
                "dbname": "db.example:5432",
            },
        ),
        Case(
            "Reserved characters and percent-encoding in user info",
            PG,
            {
                "a": "postgres://us%65r:p%40ss,w;o&r=d!@db.example/x",
                "b": "postgres://u:p@ss@db.example/x",
                "c": "postgres://u:p/?#@db.example/x",
            },
            {
                "a": "postgres://us%65r:p%40ss,w;o&r=d!@local:5555/x",
                "b": "postgres://u:p@ss@local:5555/x",
                "c": "postgres://u:p/?#@local:5555/x",
            },
        ),
        Case(
            "A query parameter that is no endpoint, a path, a text: left, and said",
            PG,
            {"uri": "postgres://db.example/x?application_name=db.example", "note": "runs on db.example:5432"},
            {"uri": "postgres://local:5555/x?application_name=db.example", "note": "runs on db.example:5432"},
            ((NOT_UNDERSTOOD, "credentials.uri"), (NOT_UNDERSTOOD, "credentials.note")),
        ),
        Case(
            "Only the port changes: the host keeps its spelling, and TLS its name",
            "db.example:5432 db.example:5555",
            {"uri": "postgres://DB.example/x?sslmode=verify-full"},
            {"uri": "postgres://DB.example:5555/x?sslmode=verify-full"},
        ),
        Case(
            "A server's name may be the one that TLS checks: left, and said",
            PG,
            {"host": "db.example", "port": 5432, "server_name": "db.example"},
            {"host": "local", "port": 5555, "server_name": "db.example"},
            ((NOT_UNDERSTOOD, "credentials.server_name"),),
        ),
        Case(
            "Options of TLS in an object of their own",
            PG,
            {
                "a": {"host": "db.example", "port": 5432, "ssl": {"mode": "verify-full"}},
                "b": {"host": "db.example", "port": 5432, "tls": {"enabled": True}},
                "c": {"host": "db.example", "port": 5432, "tls": {"enabled": False}},
                "d": {"host": "db.example", "port": 5432, "ssl": {"rejectUnauthorized": False}},
                "e": {"host": "db.example", "port": 5432, "tls": {"serverName": "db.internal"}},
            },
            {
                "a": {"host": "local", "port": 5555, "ssl": {"mode": "verify-full"}},
                "b": {"host": "local", "port": 5555, "tls": {"enabled": True}},
                "c": {"host": "local", "port": 5555, "tls": {"enabled": False}},
                "d": {"host": "local", "port": 5555, "ssl": {"rejectUnauthorized": False}},
                "e": {"host": "local", "port": 5555, "tls": {"serverName": "db.internal"}},
            },
            ((TLS, "credentials.a.host"), (TLS, "credentials.b.host")),
        ),
        Case(
            "The name for TLS, where it is stated apart",
            PG,
            {"host": "db.example", "port": 5432, "ssl": True, "tls_server_name": "db.example"},
            {"host": "local", "port": 5555, "ssl": True, "tls_server_name": "db.example"},
        ),
        Case(
            "Numbers, booleans and nulls",
            PG,
            {
                "count": 5432,
                "port_open": True,
                "ports": None,
                "ratio": 1.5,
                "host": "db.example",
                "port": 5432,
            },
            {"count": 5432, "port_open": True, "ports": None, "ratio": 1.5, "host": "local", "port": 5555},
        ),
        Case(
            "Ports that are none",
            PG,
            {"a": "postgres://db.example:05432/x", "b": "postgres://db.example:99999/x"},
            None,
            (
                (NOT_UNDERSTOOD, "credentials.a"),
                (NOT_UNDERSTOOD, "credentials.b"),
                (UNUSED, "endpoint_mappings[0]"),
            ),
        ),
    ),
    "Several mappings": (
        Case(
            "All at once: a to b and b to c make no c of a",
            "a.example:1 b.example:2\nb.example:2 c.example:3",
            {"first": "amqp://a.example:1", "second": "amqp://b.example:2"},
            {"first": "amqp://b.example:2", "second": "amqp://c.example:3"},
        ),
        Case(
            "Two change places",
            "a.example:1 b.example:1\nb.example:1 a.example:1",
            {"hosts": ["a.example", "b.example"], "port": 1},
            {"hosts": ["b.example", "a.example"], "port": 1},
        ),
        Case(
            "A mapping whose source does not occur",
            "db.example:5432 local:5555\nother.example:5432 local-2:5555",
            {"uri": "postgres://db.example/x"},
            {"uri": "postgres://local:5555/x"},
            ((UNUSED, "endpoint_mappings[1]"),),
        ),
    ),
}

CASES = [case for section in SECTIONS.values() for case in section]
