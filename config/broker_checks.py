"""What must fit together about the broker: its role, the sections that it takes its facts from, and what it is run with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from config import names
from config.errors import Finding, show
from config.types import is_below

if TYPE_CHECKING:
    from config.broker import Broker
    from config.consumer import Provider as ImportedProvider
    from config.stack import Stack

MAX_NAME = 40
"""Longest name of a broker: it names the stacks of the bindings too, to which `-<shard>` is added."""


def findings(stack: Stack, data: Mapping[str, object]) -> Iterator[Finding]:
    """Every finding about the broker. data: what was given, before invalid parts were left out."""
    yield from _control_plane(stack, data)
    broker = stack.broker
    if broker is None:
        return
    yield from _role(broker, data)
    yield from _side(stack, broker)
    yield from _upstream(
        stack, broker, names_url=_given(_given(data, "broker"), "upstream").get("url") is not None
    )
    yield from _callers(stack, broker)
    yield from _size(broker)


def upstream_provider(stack: Stack) -> ImportedProvider | None:
    """The provider whose control-plane route is the upstream of the stack's broker; None where it is none of these."""
    broker, consumer = stack.broker, stack.consumer
    if broker is None or not broker.standalone or consumer is None:
        return None
    return next((p for p in consumer.providers if p.name == broker.provider), None)


def upstream_host(stack: Stack) -> str | None:
    """The public host of that route, where the configuration knows it."""
    provider = upstream_provider(stack)
    if stack.broker is None or provider is None or provider.system_domain is None or provider.source:
        return None
    return stack.broker.upstream.host or names.control_plane_host(provider.system_domain)


def _given(data: Mapping[str, object], section: str) -> Mapping[str, object]:
    """A section as it was given, also where it is invalid."""
    found = data.get(section)
    return found if isinstance(found, Mapping) else {}


def _control_plane(stack: Stack, data: Mapping[str, object]) -> Iterator[Finding]:
    route = stack.provider.control_plane if stack.provider is not None else None
    if route is None:
        return
    deployed = _given(data, "broker").get("role") == "provider"
    for field, value in (("address", route.address), ("port", route.port)):
        key = f"provider.controlPlane.{field}"
        if deployed and value is not None:
            rule = "is that of the broker which this stack deploys; said twice, the two could differ"
            yield Finding(key, show(value), rule, "remove it, or the section `broker`")
        if not deployed and value is None:
            rule = "is missing: the stack deploys no broker of the role provider"
            yield Finding(key, "null", rule, "add it, or a section `broker` with `role: provider`")


def _role(broker: Broker, data: Mapping[str, object]) -> Iterator[Finding]:
    if broker.role != "forward" and data.get(broker.role) is None:
        yield Finding(
            "broker.role",
            show(broker.role),
            f"takes who the cluster is from the section `{broker.role}`, which is missing",
            "add that section, or choose another role",
        )
    if broker.role != "forward" and not broker.network_profile:
        yield Finding(
            "broker.networkProfile",
            show(broker.network_profile),
            "is missing: both proxies check that they serve the same network",
            "add the URN on which both agree, for example 'urn:local.example:public'",
        )
    fields = type(broker).model_fields
    for role, given in _OF_ONE_ROLE.items():
        for field in given if broker.role not in role else ():
            if field in broker.model_fields_set:
                yield Finding(
                    f"broker.{fields[field].alias or field}",
                    show(broker.model_dump(mode="json")[field]),
                    f"has no effect in the role {broker.role}",
                    "remove it",
                )


_OF_ONE_ROLE: Mapping[tuple[str, ...], tuple[str, ...]] = {
    ("consumer",): ("provider", "namespaces", "service_port"),
    ("provider",): ("plan_metadata",),
    ("consumer", "provider"): ("network_profile", "limits", "service_name_prefix", "refuse", "shards"),
}
"""The keys that only some roles read."""


def _side(stack: Stack, broker: Broker) -> Iterator[Finding]:
    if broker.role != "consumer":
        return
    declared = {p.name for p in stack.consumer.providers} if stack.consumer is not None else set()
    if broker.provider is None or (stack.consumer is not None and broker.provider not in declared):
        known = ", ".join(sorted(declared)) or "none"
        yield Finding(
            "broker.provider",
            show(broker.provider),
            f"is no provider of this stack (declared: {known})",
            "name the one out of `consumer.providers` whose services are bound",
        )
    if not broker.namespaces:
        yield Finding(
            "broker.namespaces",
            "[]",
            "is empty, so no binding could be made",
            "list the application namespaces",
        )
    if len(set(broker.namespaces)) != len(broker.namespaces):
        yield Finding(
            "broker.namespaces", show(broker.namespaces), "names a namespace twice", "name each once"
        )


def _upstream(stack: Stack, broker: Broker, *, names_url: bool) -> Iterator[Finding]:
    upstream, key = broker.upstream, "broker.upstream"
    if not names_url and broker.role != "consumer":
        yield Finding(
            f"{key}.url", "null", "is missing", "name the next broker, for example 'https://fabrik.example'"
        )
    if names_url and upstream.host is not None:
        yield Finding(f"{key}.host", show(upstream.host), "contradicts `url`", "keep one")
    if not names_url and upstream.pod_port is not None:
        rule = "belongs to `url`, which is missing"
        yield Finding(f"{key}.podPort", show(upstream.pod_port), rule, "remove it, or add `url`")
    if upstream.ca_secret is not None and (upstream.url or "http:").startswith("http:"):
        rule = "vouches for an https upstream, and this one is none"
        yield Finding(f"{key}.caSecret", show(upstream.ca_secret), rule, "remove it, or write an https `url`")
    if upstream.client_certificate and upstream.ca_secret is None:
        rule = "needs a Secret that holds the certificate"
        yield Finding(f"{key}.clientCertificate", "true", rule, "add `caSecret`")
    if broker.role == "consumer" and broker.upstream_timeout_seconds <= broker.deploy_timeout_seconds:
        yield Finding(
            f"{key}.timeoutSeconds",
            show(upstream.timeout_seconds),
            f"is too short: the provider's broker waits for a route as this one does, up to {broker.deploy_timeout_seconds} s "
            "(`deployTimeoutSeconds`)",
            "remove it, or let it be longer than the provider's `timeoutSeconds` and `deployTimeoutSeconds` together",
        )
    provider = upstream_provider(stack)
    if provider is None or upstream.host is None:
        return
    if provider.source is not None:
        rule = f"is supplied by the {provider.source}; said twice, the two could differ"
        yield Finding(f"{key}.host", show(upstream.host), rule, "remove it")
    elif provider.system_domain is not None and not is_below(upstream.host, provider.system_domain):
        yield Finding(
            f"{key}.host",
            show(upstream.host),
            f"is not below the provider's system domain {provider.system_domain!r}, so its wildcard record does not "
            "resolve it",
            f"write a host that ends with '.{provider.system_domain}' or correct the provider",
        )


def _callers(stack: Stack, broker: Broker) -> Iterator[Finding]:
    callers, key = broker.callers, "broker.callers"
    if callers.anonymous == (callers.secret is not None):
        yield Finding(
            key,
            show(callers.model_dump(mode="json", by_alias=True, exclude_unset=True)),
            "must say who may call: neither or both of `secret` and `anonymous` are set",
            "set `secret`, or `anonymous: true` behind something that authenticates",
        )
    behind_route = (
        broker.role == "provider" and stack.provider is not None and stack.provider.control_plane is not None
    )
    if not callers.namespaces and not callers.networks and not behind_route:
        rule = "names nobody: no network policy would let a call in"
        yield Finding(key, "[]", rule, "list the callers' `namespaces` or `networks`")
    if callers.tls_secret is not None and behind_route:
        yield Finding(
            f"{key}.tlsSecret",
            show(callers.tls_secret),
            "would put TLS into the TLS of the control-plane route, whose consumers speak HTTP inside",
            "remove it: both gateways encrypt and check certificates already",
        )


def _size(broker: Broker) -> Iterator[Finding]:
    if broker.replicas > 1 and broker.store is None and broker.role != "forward":
        yield Finding(
            "broker.replicas",
            show(broker.replicas),
            "share no bindings: SQLite and a state in files serve one process",
            "add `store` with a PostgreSQL, or set 1",
        )
    keeps = broker.role != "forward" and broker.store is None
    for field in ("volume",) if not keeps else ():
        if field in broker.model_fields_set:
            rule = "has no effect: nothing is kept in the Pods"
            yield Finding(f"broker.{field}", show(broker.volume.model_dump(mode="json")), rule, "remove it")
    if broker.role == "forward" and broker.store is not None:
        rule = "has no effect in the role forward, which keeps nothing"
        yield Finding("broker.store", show(broker.store.secret), rule, "remove it")
    if len(broker.name) > MAX_NAME:
        yield Finding(
            "broker.name",
            show(broker.name),
            f"has {len(broker.name)} characters, at most {MAX_NAME} are allowed: it names the bindings' stacks too",
            "shorten it",
        )
