"""The provider of an import, spelled out in the configuration or read from its own stack or bundle."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi

from config import (
    Broker,
    ConfigError,
    Consumer,
    ConsumerBundle,
    Finding,
    Import,
    ImportedEndpoint,
    ImportedProvider,
    Provider,
    Stack,
    Upstream,
    names,
    reference,
)

if TYPE_CHECKING:
    from federation import Bundle


@dataclass(frozen=True)
class PublicSide:
    """What a consumer knows of an endpoint: host (SNI), port, and provider id (SAN)."""

    host: pulumi.Input[str]
    port: pulumi.Input[int]
    provider_id: pulumi.Input[str]


@dataclass(frozen=True)
class Bundles:
    """What the federation bundles of a stack supply. providers: what they export, by name; consumers: their CA
    certificates, PEM."""

    providers: Mapping[str, Mapping[str, object]]
    consumers: str


def read_bundles(stack: Stack) -> Bundles:
    """The bundles that the stack imports. Raises pulumi.RunError naming all that is wrong with any of them."""
    providers: dict[str, Mapping[str, object]] = {}
    consumers, errors = "", list[str]()
    for provider in stack.consumer.providers if stack.consumer is not None else ():
        if provider.bundle is not None:
            try:
                providers[provider.name] = _provider_in(provider, provider.bundle)
            except ConfigError as error:
                errors.append(str(error))
    for number, consumer in enumerate(stack.provider.consumer_bundles if stack.provider is not None else ()):
        try:
            consumers += _consumer_in(f"provider.consumerBundles[{number}].bundle", consumer, stack.provider)
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise pulumi.RunError("\n".join(errors))
    return Bundles(providers, consumers)


def _provider_in(provider: ImportedProvider, file: str) -> Mapping[str, object]:
    key = f"consumer.providers[{provider.name}].bundle"
    bundle = _verified(key, file, provider, provider.id, provider.system_domain)
    if bundle.provider is None:
        raise ConfigError([Finding(key, repr(file), "is of a consumer", "ask the provider for its bundle")])
    return bundle.provider.model_dump(mode="json", by_alias=True)


def _consumer_in(key: str, consumer: ConsumerBundle, provider: Provider | None) -> str:
    bundle = _verified(key, consumer.bundle, consumer)
    if bundle.consumer is None:
        raise ConfigError(
            [Finding(key, repr(consumer.bundle), "is of a provider", "ask the consumer for its bundle")]
        )
    admitted = provider.admitted if provider is not None else frozenset[str]()
    if bundle.consumer.id not in admitted:
        rule = "is of a consumer that may use nothing here, yet its CA could vouch for those who may"
        remedy = "admit it in `provider.exports`, or remove the bundle"
        raise ConfigError([Finding(key, bundle.consumer.id, rule, remedy)])
    return bundle.consumer.ca_certificate or ""


def _verified(
    key: str,
    path: str,
    pinned: ImportedProvider | ConsumerBundle,
    identity: str | None = None,
    system_domain: str | None = None,
) -> Bundle:
    # Only a stack that imports bundles pays for the import of `cryptography`.
    from federation import Pins, verify  # noqa: PLC0415

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "correct the path, or put the bundle there"
        raise ConfigError([Finding(key, repr(path), f"cannot be read ({error})", remedy)]) from error
    pins = Pins(pinned.ca_fingerprint, pinned.bundle_digest, identity, system_domain)
    return verify(text, f"{key} {path!r}", datetime.datetime.now(datetime.UTC), pins)


def refer(
    consumer: Consumer,
    bundles: Mapping[str, Mapping[str, object]],
    upstreams: Sequence[Upstream],
    broker: Broker | None = None,
) -> dict[str, ProviderReference]:
    """The providers by name. A stack is read once, however many of them it supplies. What stacks and bundles supply is
    judged as a whole, once it is known: at preview.

    bundles: as `read_bundles` has them. upstreams: the stack's own, whose hosts no import may have. broker: the stack's own,
    which may call a provider's.
    """
    supplying = [provider for provider in consumer.providers if provider.source is not None]
    if not supplying:
        return {provider.name: ProviderReference(provider) for provider in consumer.providers}
    stacks = {provider.stack for provider in supplying if provider.stack is not None}
    outputs = {stack: pulumi.StackReference(stack).get_output("provider") for stack in sorted(stacks)}
    given = {p.name: outputs[p.stack] if p.stack else dict(bundles[p.name]) for p in supplying}
    called = broker.provider if broker is not None and broker.standalone else None
    sources = [_source(provider, consumer.imports, provider.name == called) for provider in supplying]
    taken = _spelled_out(consumer.imports, upstreams)

    def resolved(known: Mapping[str, object]) -> dict[str, reference.Supplied]:
        try:
            return reference.resolve_all(known, sources, consumer.id, taken)
        except ConfigError as error:
            raise pulumi.RunError(str(error)) from error

    supplied = pulumi.Output.all(**given).apply(resolved)
    return {
        provider.name: ProviderReference(provider, supplied if provider.source is not None else None)
        for provider in consumer.providers
    }


def _source(provider: ImportedProvider, imports: Sequence[Import], with_broker: bool) -> reference.Source:
    wanted = (
        _wanted(imported, endpoint)
        for imported in imports
        if imported.provider == provider.name
        for endpoint in imported.endpoints
    )
    return reference.Source(
        provider.name, provider.source or "", tuple(wanted), provider.ca_from_stack, with_broker
    )


def _wanted(imported: Import, endpoint: ImportedEndpoint) -> reference.Wanted:
    return reference.Wanted(imported.name, endpoint.name, imported.service or imported.name)


def _spelled_out(imports: Sequence[Import], upstreams: Sequence[Upstream]) -> dict[str, str]:
    """The key of every host that stands in the configuration."""
    found = {
        endpoint.host: f"consumer.imports[{imported.name}].endpoints[{endpoint.name}]"
        for imported in imports
        for endpoint in imported.endpoints
        if endpoint.host is not None
    }
    return found | {upstream.host: f"upstreams[{upstream.name}]" for upstream in upstreams}


class ProviderReference:
    """One provider. Where a stack or a bundle supplies it, everything is an Output.

    supplied: what is supplied of all such providers, by name.
    """

    def __init__(
        self,
        provider: ImportedProvider,
        supplied: pulumi.Output[dict[str, reference.Supplied]] | None = None,
    ) -> None:
        self._provider = provider
        self._supplied = supplied

    @property
    def port(self) -> pulumi.Input[int]:
        """The provider's public port."""
        name = self._provider.name
        if self._supplied is None:
            return self._provider.public_port
        return self._supplied.apply(lambda supplied: supplied[name].port)

    @property
    def ca_certificate(self) -> pulumi.Input[str] | None:
        """The PEM of the provider's CA, where the consumer's stack is to deploy it."""
        name = self._provider.name
        if self._supplied is None or not self._provider.ca_from_stack:
            return self._provider.ca_certificate
        return self._supplied.apply(lambda supplied: supplied[name].ca_certificate or "")

    @property
    def system_domain(self) -> pulumi.Input[str]:
        """Domain below which the provider's public hosts lie."""
        if self._supplied is None:
            return self._required(self._provider.system_domain)
        return self._supplied.apply(lambda supplied: supplied[self._provider.name].system_domain)

    def control_plane(self, host: str | None) -> PublicSide:
        """The public side of the route of the provider's broker. host: as spelled out, where it is not the usual one."""
        provider = self._provider
        if self._supplied is None:
            usual = names.control_plane_host(self._required(provider.system_domain))
            return PublicSide(host or usual, provider.public_port, self._required(provider.identity))
        return _public(self._supplied, lambda supplied: _called(supplied[provider.name].control_plane))

    def endpoint(self, imported: Import, endpoint: ImportedEndpoint) -> PublicSide:
        """The public side of an imported endpoint."""
        provider = self._provider
        if self._supplied is None:
            host, identity = self._required(endpoint.host), self._required(provider.identity)
            return PublicSide(host, provider.public_port, identity)
        wanted = _wanted(imported, endpoint)
        return _public(self._supplied, lambda supplied: supplied[provider.name].endpoints[wanted])

    def _required(self, value: str | None) -> str:
        if value is None:
            raise ValueError(f"provider {self._provider.name}: the stack was not checked by config.parse")
        return value


def _called(route: reference.ResolvedEndpoint | None) -> reference.ResolvedEndpoint:
    if route is None:
        raise ValueError("no broker calls this provider's")
    return route


def _public(
    supplied: pulumi.Output[dict[str, reference.Supplied]],
    pick: Callable[[dict[str, reference.Supplied]], reference.ResolvedEndpoint],
) -> PublicSide:
    return PublicSide(
        supplied.apply(lambda known: pick(known).host),
        supplied.apply(lambda known: pick(known).port),
        supplied.apply(lambda known: pick(known).provider_id),
    )
