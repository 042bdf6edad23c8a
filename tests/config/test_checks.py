"""What only shows when objects meet on a cluster: names, namespaces, ports and hosts that two of them would share."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.test_refusals import ENDPOINT, IMPORT, Change, findings, put, stack

OPA = {"image": "opa:1", "configMap": "policy"}
INGRESS = {
    "namespace": "istio-ingress",
    "labels": {"istio": "ingressgateway"},
    "serviceAccount": "entry",
    "serverSecret": "server",
}
LEDGER, API = ("upstreams", 1), ("upstreams", 0)


def both(*changes: Change) -> Change:
    def change(data: dict[str, Any]) -> None:
        for one in changes:
            one(data)

    return change


def as_http(address: str, **more: object) -> Change:
    """Makes the second upstream one of requests, with the options given."""
    return put(*LEDGER, value={**stack()["upstreams"][1], "protocol": "HTTP", "address": address, **more})


ROWS: dict[str, tuple[Change, str, str]] = {
    "an import beside the egress gateway": (
        put(*IMPORT, "namespace", value="mesh-egress"),
        "consumer.imports[orders].namespace",
        "could go past the gateway",
    ),
    "an import beside the ingress gateway": (
        put(*IMPORT, "namespace", value="mesh-ingress"),
        "consumer.imports[orders].namespace",
        "provider.ingressGateway",
    ),
    "an import beside an upstream's gateway": (
        put(*IMPORT, "namespace", value="egress-api"),
        "consumer.imports[orders].namespace",
        "upstreams[api]",
    ),
    "a client beside another upstream's gateway": (
        put(*LEDGER, "clients", 0, "namespace", value="egress-api"),
        "upstreams[ledger].clients[egress-api]",
        "give the gateway a namespace of its own",
    ),
    "two gateways, one name": (
        both(
            put(
                "provider", "ingressGateway", value={"name": "gw", "namespace": "edge", "labels": {"a": "b"}}
            ),
            put("consumer", "egressGateway", value={"name": "gw", "namespace": "edge"}),
        ),
        "provider.ingressGateway.name",
        "gw.edge",
    ),
    "an upstream's gateway under the name of the shared one": (
        put("consumer", "egressGateway", value={"name": "upstream-api", "namespace": "egress-api"}),
        "upstreams[api]",
        "upstream-api.egress-api",
    ),
    "one endpoint of a provider's stack imported twice": (
        put(
            "consumer",
            "imports",
            0,
            value={
                "name": "again",
                "service": "queue",
                "provider": "mail",
                "namespace": "shop",
                "endpoints": [{"name": "main"}],
            },
        ),
        "consumer.imports[queue].endpoints[main]",
        "is imported by consumer.imports[again]",
    ),
    "two upstreams at one address in one namespace": (
        as_http("api.example.org", namespace="egress-api", port=8080),
        "upstreams[ledger].address",
        "Istio ignores the later",
    ),
    "one OPA provider in two namespaces": (
        both(put(*API, "opa", value=OPA), as_http("192.0.2.7", opa=OPA)),
        "upstreams[ledger].opa.extensionProvider",
        "one namespace only",
    ),
    "two OPA ports in one namespace": (
        both(
            put(*API, "opa", value=OPA),
            as_http("192.0.2.7", namespace="egress-api", opa={**OPA, "port": 9292}),
        ),
        "upstreams[ledger].opa.port",
        "9191",
    ),
    "an ingress gateway beside the upstream's": (
        put(*API, "ingress", value={**INGRESS, "namespace": "egress-api"}),
        "upstreams[api].ingress.namespace",
        "the upstream's own gateway",
    ),
    "one port for HTTP and HTTPS": (
        put(*API, "ingress", value={**INGRESS, "httpPort": 443}),
        "upstreams[api].ingress.httpPort",
        "choose two ports",
    ),
    "one port for HTTP of one upstream and HTTPS of another": (
        both(
            put(*API, "ingress", value=INGRESS),
            as_http("192.0.2.7", ingress={**INGRESS, "httpPort": 8080, "httpsPort": 80}),
        ),
        "upstreams[ledger].ingress.httpsPort",
        "the HTTP port of upstreams[api]",
    ),
    "a listener on a port of the proxy": (put("provider", "port", value=15021), "provider.port", "15090"),
    "an egress listener on a port of the proxy": (
        put("consumer", "egressGateway", value={"port": 15001}),
        "consumer.egressGateway.port",
        "the proxy itself listens",
    ),
    "a label value that is none": (
        put("provider", "ingressGateway", value={"labels": {"istio": "my gateway"}}),
        "provider.ingressGateway.labels",
        "label value",
    ),
    "a label key that is none": (
        put("provider", "ingressGateway", value={"labels": {"a/b/c": "x"}}),
        "provider.ingressGateway.labels",
        "label key",
    ),
    "a trust domain with its scheme": (
        put("cluster", "trustDomain", value="spiffe://shop.example"),
        "cluster.trustDomain",
        "without 'spiffe://'",
    ),
    "a trust domain that admits all": (
        put("cluster", "trustDomain", value="*"),
        "cluster.trustDomain",
        "SPIFFE",
    ),
    "an address of one node": (
        put("provider", "exports", 0, "endpoints", 0, "address", value="fe80::1%eth0"),
        "provider.exports[stock].endpoints[main].address",
        "is no fully qualified host name",
    ),
    "roles that are empty": (
        lambda data: [data.pop("consumer"), data.pop("provider"), data.update(upstreams=[])],
        "consumer, provider, upstreams",
        "no role",
    ),
    "a host that looks like a stand-in": (
        put(*ENDPOINT, "host", value="stand-in-a.elsewhere.example"),
        "consumer.imports[orders].endpoints[primary].host",
        "is not below",
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_it_is_one_finding_that_names_the_key_and_the_reason(name: str) -> None:
    change, key, words = ROWS[name]
    data = stack()
    change(data)
    found = findings(data)
    assert [finding.key for finding in found] == [key]
    assert words in str(found[0])


CONSEQUENCES: dict[str, tuple[Change, list[str]]] = {
    "a misspelt required key is not also missing": (
        lambda data: data["provider"].update(systemDomian=data["provider"].pop("systemDomain")),
        ["provider.systemDomian"],
    ),
    "a misspelt section is not also a missing role": (
        lambda data: [data.update(providr=data.pop("provider")), data.pop("consumer"), data.pop("upstreams")],
        ["providr"],
    ),
    "a misspelt `stack` is not also a provider without one": (
        lambda data: data["consumer"]["providers"][1].update(
            stak=data["consumer"]["providers"][1].pop("stack")
        ),
        ["consumer.providers[mail].stak"],
    ),
    "a domain that is none does not put its hosts outside": (
        put("provider", "systemDomain", value="Istio.Shop"),
        ["provider.systemDomain"],
    ),
    "a provider with a mistake is a provider all the same": (
        put("consumer", "providers", 0, "connectTimeout", value="soon"),
        ["consumer.providers[data].connectTimeout"],
    ),
    "a number that is none breaks no comparison": (
        put("provider", "ingressGateway", value={"workload": {"maxReplicas": "many"}}),
        ["provider.ingressGateway.workload.maxReplicas"],
    ),
    "a family that is none fits every address": (
        both(put("cluster", "ipFamily", value="IPv5"), put(*ENDPOINT, "clusterIp", value="fd00::7")),
        ["cluster.ipFamily"],
    ),
    "a list that is none is not also empty": (
        put(
            "provider", "controlPlane", value={"address": "10.0.0.9", "port": 80, "consumers": "one.example"}
        ),
        ["provider.controlPlane.consumers"],
    ),
    "a duplicate name is not also a duplicate of all its objects": (
        lambda data: data["consumer"]["imports"].append(
            {
                **data["consumer"]["imports"][0],
                "endpoints": [{"name": "primary", "host": "x.istio.data.example"}],
            }
        ),
        ["consumer.imports[orders].name"],
    ),
}


@pytest.mark.parametrize("name", CONSEQUENCES)
def test_a_mistake_hides_its_consequences(name: str) -> None:
    change, keys = CONSEQUENCES[name]
    data = stack()
    change(data)
    assert sorted(finding.key for finding in findings(data)) == keys
