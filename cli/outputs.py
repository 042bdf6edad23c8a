"""The outputs of a stack, as `components` exports them, and what they mean to a person."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic.alias_generators import to_camel

from cli.errors import CliError


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class ConsumedEndpoint(_Model):
    """An endpoint that applications of this cluster can use."""

    name: str
    namespace: str
    service_accounts: tuple[str, ...] = ()
    address: str
    vip: str | None = None
    host: str
    port: int
    provider_id: str


class Consumer(_Model):
    """The consumer side of a stack."""

    id: str
    egress_gateway: str
    endpoints: tuple[ConsumedEndpoint, ...] = ()


class ProvidedEndpoint(_Model):
    """An endpoint under its public host."""

    host: str
    port: int


class ProvidedService(_Model):
    """A service that other clusters may use."""

    consumers: tuple[str, ...] = ()
    endpoints: dict[str, ProvidedEndpoint] = Field(default_factory=dict)


class Provider(_Model):
    """The provider side of a stack."""

    id: str
    system_domain: str
    port: int
    ingress_gateway: str
    address: str | None = None
    services: dict[str, ProvidedService] = Field(default_factory=dict)


class WildcardRecord(_Model):
    """The record under which a provider's public hosts are found; `made_by` is None where nobody makes it."""

    name: str
    type: str | None = None
    value: str | None = None
    made_by: str | None = None


class Upstream(_Model):
    """An upstream behind a gateway of its own."""

    name: str
    namespace: str
    gateway: str
    host: str
    protocol: str
    upstream: str
    clients: tuple[str, ...] = ()
    sources: tuple[str, ...] = Field(alias="from", default=())


class Broker(_Model):
    """The broker proxy."""

    role: str
    address: str
    upstream: str
    binds_in: tuple[str, ...] = ()


class Outputs(_Model):
    """Everything that a stack exports."""

    consumer: Consumer | None = None
    provider: Provider | None = None
    wildcard_record: WildcardRecord | None = None
    upstreams: tuple[Upstream, ...] = ()
    broker: Broker | None = None
    target: str | None = None
    missing: tuple[str, ...] = ()
    unchecked: tuple[str, ...] = ()

    @classmethod
    def read(cls, stack: str, value: JsonValue) -> Outputs:
        """The outputs in `pulumi stack output --json`."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise CliError(
                f"The outputs of stack {stack} are not what this version of the program exports: {error}",
                f"Run `python -m cli up {stack}` with this checkout first.",
            ) from error
