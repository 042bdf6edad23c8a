"""What a provider's stack exports (or its bundle holds), and how a consumer reads it.

The same models write the output and read it, so the two sides cannot drift apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import ValidationError

from config.errors import ConfigError, Finding, finding, show
from config.types import Certificates, Host, Identity, Label, Model, NonEmpty, Port, is_below

BROKER_KEY = "broker.upstream.host"
"""Where the host of the provider's broker stands in the consumer's configuration."""


class PublicEndpoint(Model):
    """An endpoint as consumers see it."""

    host: Host
    """Public host: the SNI of its traffic."""

    port: Port
    """Public port."""


class PublicService(Model):
    """A service as consumers see it."""

    consumers: NonEmpty[Identity]
    """Consumer ids that are admitted."""

    endpoints: dict[Label, PublicEndpoint]
    """Its endpoints by name."""


class PublicControlPlane(Model):
    """The route of the broker's own calls as consumers see it."""

    host: Host
    """Public host: the SNI of its traffic."""

    consumers: tuple[Identity, ...]
    """Consumer ids that are admitted; none: every client of the CA."""


class ProviderOutputs(Model):
    """The output `provider` of a stack: all that a consumer needs to know of it."""

    id: Identity
    """Provider id: the DNS SAN in its server certificate."""

    system_domain: Host
    """Domain below which its public hosts lie."""

    port: Port
    """Public port."""

    ca_certificate: Certificates | None = None
    """PEM of the CA that signs its server certificate."""

    services: dict[Label, PublicService]
    """Its exported services by name."""

    ingress_gateway: str
    """Its ingress gateway, `namespace/name`."""

    address: str | None = None
    """Address of its load balancer."""

    control_plane: PublicControlPlane | None = None
    """The route of its broker's calls."""


class ConsumerOutputs(Model):
    """What of the output `consumer` of a stack a provider needs to know."""

    id: Identity
    """Consumer id: the DNS SAN in its client certificate."""

    ca_certificate: Certificates | None = None
    """PEM of the CA that signs its client certificate."""


@dataclass(frozen=True)
class ResolvedEndpoint:
    """The public side of an imported endpoint: `host` (SNI), `port`, `provider_id` (SAN) and `system_domain`."""

    host: str
    port: int
    provider_id: str
    system_domain: str


@dataclass(frozen=True)
class Wanted:
    """An endpoint that a consumer imports: its import and its name there, and the service's name at the provider."""

    imported: str
    endpoint: str
    service: str

    @property
    def key(self) -> str:
        """Where it stands in the consumer's configuration."""
        return f"consumer.imports[{self.imported}].endpoints[{self.endpoint}]"


@dataclass(frozen=True)
class Source:
    """What supplies a provider. name: the provider's; source: what it is, for messages (`stack 'x'`); with_ca: whether it
    must supply the CA certificate; with_broker: whether its broker is called."""

    name: str
    source: str
    wanted: tuple[Wanted, ...]
    with_ca: bool
    with_broker: bool = False


@dataclass(frozen=True)
class Supplied:
    """What a stack or bundle supplies of a provider. endpoints: those imported of it; control_plane: the route of its broker's
    calls, where that is called."""

    system_domain: str
    port: int
    ca_certificate: str | None
    endpoints: Mapping[Wanted, ResolvedEndpoint]
    control_plane: ResolvedEndpoint | None = None


def read_outputs(outputs: object, source: str) -> ProviderOutputs:
    """The output `provider` of `source` (`stack 'x'`), None where it has none. Raises ConfigError when it is not one."""
    if outputs is None:
        missing = "is no output of that stack, which was never deployed or is no provider"
        remedy = "deploy the provider's stack first, or correct `stack`"
        raise ConfigError([Finding("provider", "null", missing, remedy)], source)
    try:
        return ProviderOutputs.model_validate_json(json.dumps(_whole(outputs)))
    except ValidationError as error:
        raise ConfigError(
            [finding(e, ProviderOutputs, outputs) for e in error.errors()],
            f"the output `provider` of {source}",
        ) from error


def read_consumer(outputs: Mapping[str, object], source: str) -> ConsumerOutputs:
    """The output `consumer` of `source`. Raises ConfigError when it is not one."""
    keys = [str(field.alias) for field in ConsumerOutputs.model_fields.values()]
    known = {key: outputs[key] for key in keys if key in outputs}
    try:
        return ConsumerOutputs.model_validate_json(json.dumps(known))
    except ValidationError as error:
        raise ConfigError(
            [finding(e, ConsumerOutputs, known) for e in error.errors()], f"the output `consumer` of {source}"
        ) from error


def _whole(value: object) -> object:
    """`value` with whole numbers as integers: the engine hands every number over as a float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {key: _whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return value


def resolve_all(
    outputs: Mapping[str, object], sources: Sequence[Source], consumer_id: str, taken: Mapping[str, str]
) -> dict[str, Supplied]:
    """What the consumer needs of each source, by the provider's name.

    outputs: what each supplies, by the provider's name. taken: keys of the hosts that the consumer's own configuration
    spells out. Raises ConfigError with every finding about any of them.
    """
    found: dict[str, Supplied] = {}
    findings: list[Finding] = []
    hosts = dict(taken)
    for source in sources:
        try:
            provider = read_outputs(outputs[source.name], source.source)
        except ConfigError as error:
            findings += [replace(f, key=f"{source.source}: {f.key}") for f in error.findings]
            continue
        if source.with_ca and provider.ca_certificate is None:
            findings.append(
                Finding(
                    f"consumer.providers[{source.name}].caFromStack",
                    "true",
                    f"takes the CA certificate of {source.source}, which is not exported",
                    "set it in that stack, or `caFromStack: false` for the provider in this one",
                )
            )
        endpoints: dict[Wanted, ResolvedEndpoint] = {}
        for wanted in source.wanted:
            try:
                resolved = resolve(provider, source.source, consumer_id, wanted)
            except ConfigError as error:
                findings += error.findings
                continue
            other = hosts.setdefault(resolved.host, wanted.key)
            if other != wanted.key:
                findings.append(_taken(wanted.key, resolved.host, source.source, other))
            endpoints[wanted] = resolved
        control_plane = None
        if source.with_broker:
            try:
                control_plane = resolve_control_plane(provider, source.source, consumer_id)
            except ConfigError as error:
                findings += error.findings
            else:
                other = hosts.setdefault(control_plane.host, BROKER_KEY)
                if other != BROKER_KEY:
                    findings.append(_taken(BROKER_KEY, control_plane.host, source.source, other))
        found[source.name] = Supplied(
            provider.system_domain, provider.port, provider.ca_certificate, endpoints, control_plane
        )
    if findings:
        raise ConfigError(dict.fromkeys(findings), "what the consumer imports")
    return found


def resolve(provider: ProviderOutputs, source: str, consumer_id: str, wanted: Wanted) -> ResolvedEndpoint:
    """An imported endpoint, as the provider exports it. source: what supplies it, for messages.

    Raises ConfigError when the provider exports no such endpoint, or does not admit `consumer_id`.
    """
    imported = f"consumer.imports[{wanted.imported}]"
    exported = provider.services.get(wanted.service)
    if exported is None:
        raise _mismatch(
            f"{imported}.service",
            wanted.service,
            f"is no service of {source} (exported there: {_listed(provider.services)})",
            "name one of these, or have it exported there",
        )
    public = exported.endpoints.get(wanted.endpoint)
    if public is None:
        raise _mismatch(
            f"{wanted.key}.name",
            wanted.endpoint,
            f"is no endpoint of {wanted.service!r} in {source} (there: {_listed(exported.endpoints)})",
            "name one of these, or have it added there",
        )
    if consumer_id not in exported.consumers:
        raise _mismatch(
            "consumer.id",
            consumer_id,
            f"is not admitted to {wanted.service!r} by {source} (admitted: {_listed(exported.consumers)})",
            "have it added to the `consumers` of that export, or write the id that they were told",
        )
    _check_below(wanted.key, public.host, provider, source)
    return ResolvedEndpoint(public.host, public.port, provider.id, provider.system_domain)


def resolve_control_plane(provider: ProviderOutputs, source: str, consumer_id: str) -> ResolvedEndpoint:
    """The route of the provider's broker. source: what supplies the provider, for messages.

    Raises ConfigError when the provider has none, or does not admit `consumer_id`.
    """
    route = provider.control_plane
    if route is None:
        raise _mismatch(
            "broker.provider",
            source,
            "has no control-plane route, so its broker cannot be called",
            "have it add `provider.controlPlane`, or name the next broker in `broker.upstream.url`",
        )
    if route.consumers and consumer_id not in route.consumers:
        raise _mismatch(
            "consumer.id",
            consumer_id,
            f"is not admitted to the control plane of {source} (admitted: {_listed(route.consumers)})",
            "have it added to `provider.controlPlane.consumers`, or write the id that they were told",
        )
    _check_below(BROKER_KEY, route.host, provider, source)
    return ResolvedEndpoint(route.host, provider.port, provider.id, provider.system_domain)


def _check_below(key: str, host: str, provider: ProviderOutputs, source: str) -> None:
    if not is_below(host, provider.system_domain):
        raise _mismatch(
            key,
            host,
            f"is its host in {source}, and is not below its system domain {provider.system_domain!r}",
            "have the provider correct the host, and deploy its stack",
        )


def _taken(key: str, host: str, source: str, other: str) -> Finding:
    return Finding(
        key,
        show(host),
        f"is its host in {source}, and that of {other}",
        "import it once, or have it exported under a host of its own: the SNI chooses the route",
    )


def _listed(known: Iterable[str]) -> str:
    return ", ".join(sorted(known)) or "none"


def _mismatch(key: str, value: str, rule: str, remedy: str) -> ConfigError:
    return ConfigError([Finding(key, show(value), rule, remedy)])
