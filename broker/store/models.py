"""The tables, and the routes that they hold as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from sqlalchemy import JSON, Boolean, DateTime, Index, Integer, MetaData, String, Text, false
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.attributes import flag_modified
from sqlalchemy.types import TypeDecorator

from broker.network import Endpoint, PublicEndpoint

MAX_ID = 255
"""Longest binding and instance id that is stored; longer ones are refused."""


def is_storable(text: str) -> bool:
    """Whether every database takes the text: none takes lone surrogates, and PostgreSQL no NUL."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


class _RouteModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ConsumerRoute(_RouteModel):
    """A binding's route through the consumer's cluster: one virtual IP in `namespace` for each public endpoint."""

    side: Literal["consumer"] = "consumer"
    namespace: str
    provider_id: str
    endpoints: tuple[PublicEndpoint, ...]


class ProviderRoute(_RouteModel):
    """A binding's route through the provider's cluster: one public host for each endpoint of the service."""

    side: Literal["provider"] = "provider"
    consumer_id: str
    endpoints: tuple[Endpoint, ...]


Route = Annotated[ConsumerRoute | ProviderRoute, Field(discriminator="side")]
_route = TypeAdapter[ConsumerRoute | ProviderRoute](Route)


class Phase(StrEnum):
    """Where a binding stands. The routes follow from `wanted`; this says what is left to do upstream."""

    REQUESTED = "requested"
    """The upstream was, or is about to be, asked to bind; its answer is not known here."""
    PENDING = "pending"
    """The upstream binds asynchronously."""
    ROUTING = "routing"
    """Bound upstream; the caller has no answer yet."""
    BOUND = "bound"
    """Answered to the caller as succeeded."""
    UNBINDING = "unbinding"
    """The upstream unbinds asynchronously; the route stays until it has."""
    UNDOING = "undoing"
    """The bind failed here after the upstream's success: to be unbound there, then the route goes."""
    WATCHED = "watched"
    """Undone: the upstream, which never answered the bind, denies the binding, but may still be making it. So it is asked
    again for a while. The same bind may take the row up."""
    REMOVING = "removing"
    """Unbound upstream; the route goes, and the row with it."""


class _Time(TypeDecorator[datetime]):
    """A moment in UTC; SQLite forgets the zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Base(DeclarativeBase):
    """All tables."""

    metadata: ClassVar[MetaData] = MetaData()


class Binding(Base):
    """One binding: what is wanted of its route, and what is known to be there."""

    __tablename__ = "bindings"
    __table_args__ = (
        Index("bindings_of_a_shard", "shard"),
        Index("bindings_of_an_instance", "instance_id"),
    )

    binding_id: Mapped[str] = mapped_column(String(MAX_ID), primary_key=True)
    instance_id: Mapped[str] = mapped_column(String(MAX_ID))
    base: Mapped[str] = mapped_column(Text)
    """Path before `/v2`: empty, or `/v1/osb/<broker id>`."""
    service_id: Mapped[str] = mapped_column(Text)
    plan_id: Mapped[str] = mapped_column(Text)
    phase: Mapped[str] = mapped_column(String(16))
    operation: Mapped[str | None] = mapped_column(Text)
    """What the upstream calls the asynchronous operation that it works on, if it named it."""
    with_instance: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())
    """That operation is the deprovisioning of the service instance, with which the binding goes."""
    unanswered_at: Mapped[datetime | None] = mapped_column(_Time)
    """When the upstream was asked to bind and gave no answer: for a while it may still do it."""
    consumer_id: Mapped[str | None] = mapped_column(Text)
    """On the provider's side: whom the binding was made for, which no later call may change."""
    place: Mapped[str] = mapped_column(Text, default="")
    """On the consumer's side: the application's namespace."""
    shard: Mapped[int] = mapped_column(Integer)
    wanted: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether the route shall be there."""
    route_json: Mapped[dict[str, object] | None] = mapped_column("route", JSON)
    generation: Mapped[int] = mapped_column(Integer, default=0)
    """Counts the changes of `wanted` and the route."""
    applied: Mapped[int] = mapped_column(Integer, default=0)
    """The generation to which the cluster was last brought."""
    uncertain: Mapped[bool] = mapped_column(Boolean, default=False)
    """An update began that may have made objects which the stack's state does not know."""
    attempted_json: Mapped[dict[str, object] | None] = mapped_column("attempted", JSON)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """Failed updates in a row."""
    error: Mapped[str | None] = mapped_column(Text)
    """Why the last one failed."""
    virtual_ips: Mapped[list[str] | None] = mapped_column(JSON)
    """On the consumer's side: the virtual IP of each endpoint."""
    version: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = mapped_column(_Time, default=lambda: datetime.now(UTC))
    updated_at: Mapped[datetime] = mapped_column(
        _Time, default=lambda: datetime.now(UTC), onupdate=lambda: datetime.now(UTC)
    )

    __mapper_args__ = {"version_id_col": version}

    @property
    def route(self) -> ConsumerRoute | ProviderRoute | None:
        """The route, wanted or last wanted."""
        return None if self.route_json is None else _route.validate_python(self.route_json)

    @property
    def attempted(self) -> ConsumerRoute | ProviderRoute | None:
        """The route of the last update that began with this binding."""
        return None if self.attempted_json is None else _route.validate_python(self.attempted_json)

    @property
    def lost(self) -> bool:
        """Whether there may be objects that the state does not know and the wanted route does not cover."""
        return (
            self.uncertain
            and self.attempted is not None
            and not (self.wanted and self.attempted == self.route)
        )

    @property
    def settled(self) -> bool:
        """Whether the cluster is as wanted."""
        return self.applied == self.generation and not self.uncertain

    def want(self, route: ConsumerRoute | ProviderRoute) -> None:
        """Wants this route; nothing changes where it is wanted already."""
        if not self.wanted or self.route != route:
            self.wanted, self.route_json = True, route.model_dump(mode="json")
            self._changed()

    def drop(self) -> None:
        """Wants no route."""
        if self.wanted or not self.generation:
            self.wanted = False
            self._changed()

    def _changed(self) -> None:
        self.generation += 1
        self.attempts, self.error = 0, None
        # Updates count them in the table, which may hold others than were read.
        for name in ("attempts", "error"):
            flag_modified(self, name)


class Audit(Base):
    """One call that made, changed or removed a binding, or one thing that the proxy did later on its own, and how it
    ended."""

    __tablename__ = "audit"
    __table_args__ = (
        Index("audit_of_a_binding", "binding_id"),
        Index("audit_of_an_instance", "instance_id"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(_Time, default=lambda: datetime.now(UTC))
    request_id: Mapped[str] = mapped_column(Text)
    """Empty for what the proxy did on its own."""
    user: Mapped[str | None] = mapped_column(Text)
    """The authenticated caller."""
    originating_identity: Mapped[str | None] = mapped_column(Text)
    """The platform's user, as the header says."""
    action: Mapped[str] = mapped_column(String(32))
    instance_id: Mapped[str] = mapped_column(String(MAX_ID))
    binding_id: Mapped[str] = mapped_column(String(MAX_ID))
    """Empty for a service instance."""
    status: Mapped[int] = mapped_column(Integer)
    """What the caller was answered; of what the proxy did on its own, what it would have answered."""
    error: Mapped[str | None] = mapped_column(Text)


def addresses(binding: Binding) -> Sequence[str]:
    """What a person recognises a binding's route by."""
    route = binding.route
    return [] if route is None else [f"{e.host}:{e.port}" for e in route.endpoints]
