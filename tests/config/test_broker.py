"""The broker's section: what is refused, and what other sections then leave out."""

from __future__ import annotations

from typing import Any

import pytest

from config import parse
from tests.config.test_refusals import Change, both, drop, findings, put, stack

Data = dict[str, Any]

STANDALONE: Data = {
    "role": "consumer",
    "image": "registry.example/meshbridge/broker:1.4.2",
    "networkProfile": "urn:local.example:public",
    "provider": "data",
    "namespaces": ["shop"],
    "callers": {"secret": "platform", "namespaces": ["catalog"]},
}
PROVIDING: Data = {
    "role": "provider",
    "image": "registry.example/meshbridge/broker@sha256:" + "0" * 64,
    "networkProfile": "urn:local.example:public",
    "callers": {"secret": "consumers"},
    "upstream": {"url": "https://fabrik.example"},
}
ROUTE = {"consumers": ["client.data.example"]}


def consuming(**more: object) -> Change:
    return put("broker", value={**STANDALONE, **more})


def providing(**more: object) -> Change:
    return both(
        put("broker", value={**PROVIDING, **more}), put("provider", "controlPlane", value=dict(ROUTE))
    )


def without(section: Data, *keys: str) -> Change:
    return put("broker", value={key: value for key, value in section.items() if key not in keys})


def forwarding(**more: object) -> Data:
    return {
        "role": "forward",
        "image": "broker:1",
        "callers": STANDALONE["callers"],
        "upstream": PROVIDING["upstream"],
        **more,
    }


ROWS: dict[str, tuple[Change, str, str]] = {
    "no section of its role": (
        both(consuming(), drop("consumer")),
        "broker.role",
        "from the section `consumer`, which is missing",
    ),
    "no profile": (without(STANDALONE, "networkProfile"), "broker.networkProfile", "add the URN"),
    "no image": (without(STANDALONE, "image"), "broker.image", "is missing"),
    "an image that changes by itself": (consuming(image="broker"), "broker.image", "add a tag"),
    "the latest image": (consuming(image="registry:5000/broker:latest"), "broker.image", "add a tag"),
    "no image reference": (consuming(image="broker 1"), "broker.image", "is no image"),
    "no provider": (without(STANDALONE, "provider"), "broker.provider", "is no provider of this stack"),
    "an unknown provider": (consuming(provider="dada"), "broker.provider", "declared: data, mail"),
    "no namespaces": (without(STANDALONE, "namespaces"), "broker.namespaces", "list the application"),
    "a namespace twice": (consuming(namespaces=["shop", "shop"]), "broker.namespaces", "name each once"),
    "bindings beside a gateway": (
        consuming(namespaces=["mesh-egress"]),
        "broker.namespaces",
        "could go past the gateway",
    ),
    "beside a gateway": (
        consuming(namespace="mesh-egress"),
        "broker.namespace",
        "give the gateway a namespace of its own",
    ),
    "a key of another role": (
        providing(namespaces=["shop"]),
        "broker.namespaces",
        "has no effect in the role provider",
    ),
    "plans of a consumer": (consuming(planMetadata={"a": 1}), "broker.planMetadata", "has no effect"),
    "a profile to forward": (
        put("broker", value=forwarding(networkProfile="urn:a")),
        "broker.networkProfile",
        "has no effect in the role forward",
    ),
    "what to refuse of credentials that nobody adapts": (
        put("broker", value=forwarding(refuse=["conflict"])),
        "broker.refuse",
        "has no effect in the role forward",
    ),
    "an unknown finding": (providing(refuse=["tls"]), "broker.refuse[0]", "'tls-name', 'http-host'"),
    "a collector that is no URL": (
        providing(traces={"url": "collector:4317"}),
        "broker.traces.url",
        "is no http(s) URL",
    ),
    "no next broker": (providing(upstream={}), "broker.upstream.url", "is missing"),
    "no URL": (providing(upstream={"url": "fabrik"}), "broker.upstream.url", "is no http(s) URL"),
    "credentials in the URL": (
        providing(upstream={"url": "https://me:secret@fabrik.example"}),
        "broker.upstream.url",
        "put them into a Secret",
    ),
    "a query in the URL": (
        providing(upstream={"url": "https://fabrik.example/?a=b"}),
        "broker.upstream.url",
        "remove it",
    ),
    "a port that is none": (
        providing(upstream={"url": "https://fabrik.example:port"}),
        "broker.upstream.url",
        "is no URL",
    ),
    "less time for the provider than it needs": (
        consuming(upstream={"timeoutSeconds": 30}, deployTimeoutSeconds=30),
        "broker.upstream.timeoutSeconds",
        "the provider's `timeoutSeconds`",
    ),
    "two next brokers": (
        consuming(upstream={"url": "https://a.example", "host": "broker.istio.data.example"}),
        "broker.upstream.host",
        "contradicts `url`",
    ),
    "a host outside the domain": (
        consuming(upstream={"host": "broker.istio.mail.example"}),
        "broker.upstream.host",
        "is not below the provider's system domain",
    ),
    "a host that the provider's stack supplies": (
        consuming(provider="mail", upstream={"host": "broker.istio.mail.example"}),
        "broker.upstream.host",
        "is supplied by the stack",
    ),
    "a Pod's port without a URL": (
        consuming(upstream={"podPort": 80}),
        "broker.upstream.podPort",
        "belongs to `url`",
    ),
    "a CA for plain HTTP": (
        providing(upstream={"url": "http://fabrik.example", "caSecret": "ca"}),
        "broker.upstream.caSecret",
        "https",
    ),
    "a client certificate of nowhere": (
        providing(upstream={"url": "https://fabrik.example", "clientCertificate": True}),
        "broker.upstream.clientCertificate",
        "add `caSecret`",
    ),
    "nobody is asked who he is": (
        consuming(callers={"namespaces": ["catalog"]}),
        "broker.callers",
        "neither or both",
    ),
    "asked and not asked": (
        consuming(callers={"namespaces": ["catalog"], "secret": "a", "anonymous": True}),
        "broker.callers",
        "neither or both",
    ),
    "nobody may call": (consuming(callers={"secret": "a"}), "broker.callers", "names nobody"),
    "TLS in the route's TLS": (
        providing(callers={"secret": "a", "tlsSecret": "b"}),
        "broker.callers.tlsSecret",
        "whose consumers speak HTTP inside",
    ),
    "replicas without a store": (consuming(replicas=2), "broker.replicas", "add `store`"),
    "a volume beside a store": (
        consuming(store={"secret": "store"}, volume={"size": "2Gi"}),
        "broker.volume",
        "has no effect",
    ),
    "a store for nothing": (
        put("broker", value=forwarding(store={"secret": "store"})),
        "broker.store",
        "keeps nothing",
    ),
    "a long name": (consuming(name="b" * 41), "broker.name", "at most 40"),
    "a port of the proxy's": (consuming(port=15021), "broker.port", "proxy itself listens"),
    "the name of another Service": (
        consuming(namespace="shop", name="svc-orders-primary"),
        "broker.name",
        "is the Service of consumer.imports[orders]",
    ),
    "the slug of an import": (
        both(
            consuming(),
            put("consumer", "imports", 0, "name", value="broker"),
            put("consumer", "imports", 0, "endpoints", 0, "name", value="upstream"),
        ),
        "broker.upstream",
        "is also the slug of",
    ),
    "the route is imported besides": (
        both(
            consuming(),
            put("consumer", "imports", 0, "endpoints", 0, "host", value="istio-broker.istio.data.example"),
        ),
        "broker.upstream.host",
        "is imported by",
    ),
    "the broker's address said twice": (
        both(
            providing(),
            put("provider", "controlPlane", value={**ROUTE, "address": "10.0.0.1"}),
        ),
        "provider.controlPlane.address",
        "said twice",
    ),
    "a route to no broker": (
        put("provider", "controlPlane", value={**ROUTE, "port": 8080}),
        "provider.controlPlane.address",
        "add it, or a section `broker`",
    ),
    "a route to another role's broker": (
        both(consuming(), put("provider", "controlPlane", value={**ROUTE, "address": "10.0.0.1"})),
        "provider.controlPlane.port",
        "is missing",
    ),
}


@pytest.mark.parametrize(("change", "key", "words"), ROWS.values(), ids=ROWS.keys())
def test_it_is_refused(change: Change, key: str, words: str) -> None:
    data = stack()
    change(data)

    found = findings(data)

    assert [finding.key for finding in found] == [key], found
    assert words in str(found[0])


ACCEPTED: dict[str, Change] = {
    "standalone": consuming(),
    "standalone, by stack": consuming(provider="mail"),
    "standalone, a host of its own": consuming(upstream={"host": "broker.istio.data.example"}),
    "plugin, consumer": consuming(
        upstream={"url": "http://manager.platform.svc.cluster.local/v1/osb/7", "podPort": 8080}
    ),
    "provider behind its route": providing(),
    "plugin, provider": put(
        "broker", value={**PROVIDING, "callers": {"anonymous": True, "networks": ["10.0.0.0/8"]}}
    ),
    "replicas": consuming(replicas=3, store={"secret": "store"}),
    "forward": put("broker", value=forwarding(replicas=2, traces={"url": "https://collector.example"})),
    "what is refused": consuming(refuse=["conflict", "dns-srv", "tls-name"]),
}


@pytest.mark.parametrize("change", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_it_is_accepted(change: Change) -> None:
    data = stack()
    change(data)

    assert findings(data) == []


def test_the_control_plane_route_leads_to_the_broker_that_the_stack_deploys() -> None:
    data = stack()
    providing(name="proxy", namespace="brokers", port=8443)(data)
    data["cluster"]["domain"] = "k8s.example"
    assert parse(data).control_plane == ("proxy.brokers.svc.k8s.example", 8443)

    data = stack()
    assert parse(data).control_plane is None
    data["provider"]["controlPlane"] = {**ROUTE, "address": "10.0.0.1", "port": 80}
    assert parse(data).control_plane == ("10.0.0.1", 80)
