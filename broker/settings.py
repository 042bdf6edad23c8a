"""How a broker runs: flags, then environment variables, then secret files, then the settings file, then defaults.

Environment variables begin with `MESHBRIDGE_BROKER_`, sections are separated by `__` (`MESHBRIDGE_BROKER_CONSUMER__ID`). A
secret file is named after its setting and lies in the folder `--secrets`, as Kubernetes mounts a Secret. Secrets are
taken from the last three alone: a command line can be read by every process of the machine. A settings file that holds one
must be its owner's alone.

Traces are configured by OpenTelemetry's own variables (`OTEL_*`), see `broker/tracing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

import httpx
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from broker.credentials import REFUSED_BY_DEFAULT, Code
from config import (
    Cluster,
    Consumer,
    EgressGateway,
    ExportedEndpoint,
    ImportedEndpoint,
    ImportedProvider,
    IngressGateway,
    Keepalive,
    Limits,
    Provider,
)
from config.broker import upstream_timeout
from config.errors import refuse
from config.types import Duration, Host, Identity, Label, Listener, NonEmpty, Port, Positive

PREFIX = "MESHBRIDGE_BROKER_"
SECRETS = ("password", "upstream_password")
URLS = ("database", "state")
"""Settings that are secret where they carry a password."""
PASSWORD_PARAMETERS = {"password", "passwd", "pwd", "sslpassword", "secret"}
"""Query parameters of such URLs that are passwords."""
DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql+psycopg")
"""What a database's URL may begin with."""
BACKENDS = ("file", "postgres", "s3", "gs", "azblob")
"""What a state's URL may begin with: the backends that need no service of Pulumi's."""
MAX_STACK = 40

Role = Literal["consumer", "provider", "forward"]


class SettingsError(ValueError):
    """The settings are refused; the message names each key, its rule and the remedy, and shows no secret."""


def _url(value: str) -> str:
    none = refuse(
        "is no http(s) URL of a broker", "write for example 'https://istio-broker.istio.data.example'"
    )
    parts = urlsplit(value)
    try:
        host, _ = httpx.URL(value).host, parts.port
    except (httpx.InvalidURL, ValueError):
        raise none from None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise none
    if parts.username or parts.password:
        raise refuse(
            "carries credentials", "give them as `upstream_username` and the secret `upstream_password`"
        )
    return value.rstrip("/")


def _database(value: str) -> str:
    remedy = "write 'sqlite:////<file>' or 'postgresql+psycopg://<user>@<host>/<database>'"
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):  # the latter quotes a port, which may be the end of a password
        raise refuse("is no SQLAlchemy URL", remedy) from None
    if url.drivername not in DRIVERS:
        raise refuse(f"begins with {url.drivername!r}, which no broker speaks", remedy)
    if not url.database or url.database == ":memory:":
        raise refuse("names no database, so that nothing would outlive the process", remedy)
    return value


def _state(value: str) -> str:
    if not value.startswith(tuple(f"{scheme}://" for scheme in BACKENDS)):
        raise refuse(
            "is no URL of a Pulumi backend that brokers can share",
            f"begin it with one of {', '.join(f'{scheme}://' for scheme in BACKENDS)}",
        )
    return value


def carries_password(url: str) -> bool:
    """Whether a password stands in the URL, before the host or as a parameter."""
    parts = urlsplit(url)
    return bool(parts.password) or any(
        key.lower() in PASSWORD_PARAMETERS for key, _ in parse_qsl(parts.query)
    )


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise refuse("is no HOST:PORT", "write for example '0.0.0.0:8080'")
    return value


def _stack(value: str) -> str:
    if len(value) > MAX_STACK or not value.replace("-", "").replace("_", "").isalnum():
        raise refuse(
            f"is no stack name of at most {MAX_STACK} letters, digits, '-' and '_'", "shorten or rename it"
        )
    return value


def _upstream_timeout(known: Mapping[str, object]) -> int:
    deploy_timeout = known.get("deploy_timeout")
    return upstream_timeout(str(known.get("role")), deploy_timeout if isinstance(deploy_timeout, int) else 0)


def _default(model: type[BaseModel], field: str) -> Any:
    """The default of the stacks' configuration: what a broker makes is as what a stack makes."""
    return model.model_fields[field].default


class _Section(BaseModel):
    """A part of the settings; keys may be written in camelCase, as in the stack files, or in snake_case."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )


class ProbeSettings(_Section):
    """How a new virtual IP is tried before its binding is answered: a connection must be accepted and then stay open, or
    be greeted. All attempts together must be shorter than `deploy_timeout`."""

    attempts: Positive = 5
    """Connections that are tried before the route counts as failed."""

    timeout: Positive = 5
    """Seconds within which a connection must be accepted."""

    hold: Positive = 1
    """Seconds for which it must stay open where the service says nothing first: a proxy on the way accepts at once and
    closes when its next hop refuses."""

    pause: Positive = 1
    """Seconds between two attempts."""

    @property
    def longest(self) -> int:
        """Seconds that it takes at most."""
        return self.attempts * (self.timeout + self.hold) + (self.attempts - 1) * self.pause


class ConsumerSettings(_Section):
    """The cluster as a consumer."""

    id: Identity
    """Consumer id: the DNS SAN of this cluster's client certificate."""

    namespaces: NonEmpty[Label]
    """Application namespaces. A bind whose Kubernetes context names one of them gets its virtual IP there, one without
    a context in the first; any other is refused."""

    system_domains: NonEmpty[Host]
    """Domains below which providers' public hosts must lie: else a provider could have the egress gateway call any host
    with this consumer's certificate."""

    service_name_prefix: str = ""
    """Taken from the beginning of each service's name in the catalog, where the provider puts it."""

    egress_gateway: EgressGateway = _default(Consumer, "egress_gateway")
    """The gateway through which the bindings' traffic leaves; the cluster's stack makes or adopts it."""

    client_secret: Label = _default(Consumer, "client_secret")
    """Secret in the egress gateway's namespace with the client certificate and the providers' CA."""

    service_port: Port = 5555
    """Port of the virtual IPs."""

    limits: Limits = _default(ImportedEndpoint, "limits")
    """Limits of each endpoint on the egress gateway."""

    connect_timeout: Duration = _default(ImportedProvider, "connect_timeout")
    """Time within which a TCP connection to the provider must be made."""

    keepalive: Keepalive = _default(ImportedProvider, "keepalive")
    """TCP keepalive on the public hop."""

    probe: ProbeSettings | None = None
    """Try each new virtual IP from the broker's own Pod before the bind is answered; the Pod must be in the mesh and in the
    namespace of the virtual IPs, which nobody else reaches. None: a route that the cluster accepted is believed."""


class ProviderSettings(_Section):
    """The cluster as a provider."""

    system_domain: Host
    """Domain below which all public hosts lie."""

    id: Identity | None = None
    """Provider id: the DNS SAN of the server certificate. Default: the system domain."""

    port: Listener = _default(Provider, "port")
    """Public port of the load balancer and the ingress gateway."""

    ingress_gateway: IngressGateway = _default(Provider, "ingress_gateway")
    """The gateway through which consumers enter; the cluster's stack makes or adopts it."""

    server_secret: Label = _default(Provider, "server_secret")
    """Secret in the ingress gateway's namespace with the server certificate."""

    min_tls_version: Literal["TLSV1_2", "TLSV1_3"] = _default(Provider, "min_tls_version")
    """Oldest TLS version that the gateway speaks."""

    limits: Limits = _default(ExportedEndpoint, "limits")
    """Limits of each endpoint on the ingress gateway."""

    connect_timeout: Duration = _default(Provider, "connect_timeout")
    """Time within which a connection to the service must be made."""

    service_name_prefix: str = ""
    """Put before each service's name in the catalog; consumers strip theirs."""

    plan_metadata: dict[str, JsonValue] = Field(default_factory=dict)
    """Merged into the metadata of every plan of the catalog."""

    @property
    def identity(self) -> str:
        """The provider id."""
        return self.id or self.system_domain


class Settings(BaseSettings):
    """All settings of one broker."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
    )

    role: Role
    """consumer, provider, or forward: forwards everything and makes no route."""

    upstream: Annotated[str, AfterValidator(_url)]
    """URL of the next broker in the chain."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8080"
    """Address to listen on."""

    database: Annotated[str, AfterValidator(_database)] = Field(default="sqlite:///broker.db", repr=False)
    """SQLAlchemy URL of the bindings: SQLite for one replica, `postgresql+psycopg://…` for any number. A secret where it
    carries a password."""

    state: Annotated[str, AfterValidator(_state)] = Field(default="file://./broker-state", repr=False)
    """Pulumi backend of the stacks (`file://…`, `postgres://…`, `s3://…`), which are updated by brokers alone. A secret
    where it carries a password."""

    stack: Annotated[str, AfterValidator(_stack)] = "broker"
    """Name of the stacks, to which `-<shard>` is added."""

    shards: Positive = 8
    """Stacks over which new bindings are spread. A binding stays in its stack when the number changes."""

    shard_size: Positive = 50
    """Bindings that a stack gets. The first update of a stack after a start, and each after a failure, declares all of them, so
    it takes longer with each; when all stacks are full, new ones are made."""

    prepared: Annotated[int, Field(ge=0)] = 2
    """Updates that are begun ahead of time and wait, each for the next change of a shard that was updated in the last ten
    minutes: such a change takes a third of the time. Each needs about 100 MiB of memory; 0: none."""

    network_profile: str = ""
    """URN of the network that both proxies serve, for example `urn:local.example:public`."""

    username: str | None = None
    """User that callers authenticate as."""

    password: SecretStr | None = None
    """Password of callers. A secret."""

    anonymous: bool = False
    """Admit every caller, where something before the broker authenticates them."""

    upstream_username: str | None = None
    """User at the upstream; none: the caller's Authorization is passed on where the broker did not check it itself."""

    upstream_password: SecretStr | None = None
    """Password at the upstream. A secret."""

    tls_certificate: Path | None = None
    """PEM of the certificate that the broker serves; none: plain HTTP, for use behind a sidecar."""

    tls_key: Path | None = None
    """PEM of its key."""

    tls_client_ca: Path | None = None
    """PEM of the CA whose certificates callers must present; none: none is asked for."""

    upstream_ca: Path | None = None
    """PEM of the CA of the upstream's certificate; none: the system's CAs."""

    upstream_certificate: Path | None = None
    """PEM of the client certificate to present to the upstream."""

    upstream_key: Path | None = None
    """PEM of its key."""

    deploy_timeout: Positive = 45
    """Seconds that a call waits for its route."""

    upstream_timeout: Positive = Field(default_factory=_upstream_timeout)
    """Seconds within which the upstream must answer. Default: 60; of a consumer, whose upstream waits for another broker and
    for a route, 60, `deploy_timeout` and 15 more."""

    refuse: frozenset[Code] = REFUSED_BY_DEFAULT
    """Findings with which credentials are refused instead of handed out with a warning (docs/credentials.md)."""

    max_calls: Positive = 256
    """Calls that are worked on at the same time; a call that waits for its route counts."""

    cluster: Cluster = Cluster()
    """The cluster; with neither `kubeconfig` nor `context` it is the one in which the broker's Pod runs."""

    consumer: ConsumerSettings | None = None
    """The cluster as a consumer, for the role consumer."""

    provider: ProviderSettings | None = None
    """The cluster as a provider, for the role provider."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for role in ("consumer", "provider"):
            if self.role == role and getattr(self, role) is None:
                raise refuse(f"has the role {role!r} but no section `{role}`", "add it to the settings file")
        if self.cluster.render:
            raise refuse("has `cluster.render`, but a broker works on a cluster", "remove it")
        if self.role == "consumer" and self.upstream_timeout <= self.deploy_timeout:
            raise refuse(
                f"gives the provider's proxy {self.upstream_timeout} s (`upstream_timeout`), though that waits for a route "
                f"as this one does, up to {self.deploy_timeout} s (`deploy_timeout`)",
                "let `upstream_timeout` be longer than the provider's `upstream_timeout` and `deploy_timeout` together",
            )
        consumer = self.consumer
        if consumer is not None and consumer.egress_gateway.namespace in consumer.namespaces:
            raise refuse(
                f"gives applications of {consumer.egress_gateway.namespace!r} routes, the egress gateway's own namespace, "
                "from which they could go past it",
                "give the gateway a namespace of its own",
            )
        if consumer is not None and consumer.probe is not None:
            self._check_probe(consumer, consumer.probe)
        apart = not self.database.startswith("sqlite") and self.state.startswith("file:")
        if self.role != "forward" and apart:
            raise refuse(
                "keeps its bindings in a PostgreSQL (`database`) but what it made for them in files of one machine "
                "(`state`): a replica on another one could not remove it",
                "give `state` a URL that all replicas reach, for example 'postgres://…', or use SQLite for one replica",
            )
        if self.role != "forward" and not self.network_profile:
            raise refuse("has no `network_profile`", "add the URN that both proxies agree on")
        if self.anonymous == (self.username is not None):
            raise refuse(
                "must say who may call: neither or both of `username` and `anonymous` are set",
                "set `username` and the secret `password`, or `anonymous: true` behind something that authenticates",
            )
        for pair in (
            ("username", "password"),
            ("upstream_username", "upstream_password"),
            ("tls_certificate", "tls_key"),
            ("upstream_certificate", "upstream_key"),
        ):
            given = [name for name in pair if getattr(self, name)]
            if len(given) == 1:
                raise refuse(f"has {given[0]!r} alone", f"set both of {' and '.join(pair)}, or neither")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise refuse(
                "has `tls_client_ca` without `tls_certificate`", "add the certificate that the broker serves"
            )
        return self

    def _check_probe(self, consumer: ConsumerSettings, probe: ProbeSettings) -> None:
        if len(consumer.namespaces) > 1:
            raise refuse(
                f"tries the routes of {len(consumer.namespaces)} namespaces (`consumer.probe`), though its Pod reaches those "
                "of its own alone",
                "let `consumer.namespaces` hold the Pod's namespace and no other, or remove `consumer.probe`",
            )
        if probe.longest >= self.deploy_timeout:
            raise refuse(
                f"may try a route for {probe.longest} s (`consumer.probe`), longer than a call waits for it "
                f"({self.deploy_timeout} s, `deploy_timeout`)",
                "lower the probe's attempts, time-out, hold or pause, or let calls wait longer",
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port to listen on."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def read(flags: Mapping[str, object], file: Path | None = None, secrets: Path | None = None) -> Settings:
    """The settings from all their sources. flags: those that were given on the command line.

    Raises SettingsError.
    """
    for name in URLS:
        if carries_password(str(flags.get(name, ""))):
            raise SettingsError(
                f"--{name}: carries a password, which every process of the machine could read; "
                f"set {PREFIX}{name.upper()} or a secret file named {name} instead"
            )
    if secrets is not None and not secrets.is_dir():
        raise SettingsError(
            f"--secrets: there is no folder {secrets}; name the one in which the secret files lie"
        )
    below = _read_file(file) if file is not None else {}

    class _Sourced(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            del dotenv_settings, file_secret_settings
            files = SecretsSettingsSource(settings_cls, secrets_dir=secrets, env_prefix="")
            return (init_settings, env_settings, files, InitSettingsSource(settings_cls, below))

    try:
        return _Sourced.model_validate(dict(flags))
    except ValidationError as error:
        raise SettingsError(_explain(error)) from None


@contextmanager
def reading(read: Settings, *names: str) -> Iterator[None]:
    """The files that these settings name are read. Raises SettingsError where one cannot be."""
    try:
        yield
    except OSError as error:  # ssl.SSLError is one
        given = ", ".join(f"{name} ({path})" for name in names if (path := getattr(read, name)) is not None)
        raise SettingsError(
            f"{given}: cannot be read: {error.strerror or error}; name PEM files that belong together and that this account "
            "may read"
        ) from None


def _read_file(path: Path) -> dict[str, object]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "some line"
        raise SettingsError(f"the settings file {path} is no YAML from {where} on") from None
    if not isinstance(data, dict):
        raise SettingsError(f"the settings file {path} holds no mapping of keys to values")
    names = {to_camel(name): name for name in Settings.model_fields}
    found: dict[str, object] = {names.get(str(key), str(key)): value for key, value in data.items()}
    for name in (*SECRETS, *(name for name in URLS if carries_password(str(found.get(name, ""))))):
        if name in found and path.stat().st_mode & 0o077:
            raise SettingsError(
                f"{path}: {name} is in a file that others may read; `chmod 600` it, or use a secret file or the "
                f"variable {PREFIX}{name.upper()}"
            )
    return found


def _explain(error: ValidationError) -> str:
    lines = []
    for found in error.errors(include_input=False, include_url=False):
        if found["type"] == "default_factory_not_called":  # it follows from another finding
            continue
        where = ".".join(str(part) for part in found["loc"]) or "the whole"
        remedy = found.get("ctx", {}).get("remedy")
        lines.append(f"  {where}: {found['msg']}" + (f"; {remedy}" if remedy else ""))
    return f"the settings are refused, {len(lines)} finding{'s' if len(lines) != 1 else ''}:\n" + "\n".join(
        lines
    )
