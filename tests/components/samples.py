"""Configurations that the tests declare, as they stand in a stack file."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import config
from config import Stack
from tests.authorities import authority

Raw = dict[str, Any]

CA = authority("samples")
PROVIDER_STACK = "organization/meshbridge/data"
CONSUMER_ID = "client.shop.example"
APPLIED: Raw = {"context": "north", "trustDomain": "shop.example"}
RENDERED: Raw = {"render": True, "trustDomain": "shop.example"}

T = TypeVar("T")


def endpoint(name: str, service: str = "orders", **more: object) -> Raw:
    return {"name": name, "host": f"{name}.{service}.istio.data.example", "port": 5432, **more}


def an_import(name: str = "orders", endpoints: list[Raw] | None = None, **more: object) -> Raw:
    declared = [endpoint("main", name)] if endpoints is None else endpoints
    return {"name": name, "provider": "data", "namespace": "shop", "endpoints": declared, **more}


def consumer(*imports: Raw, cluster: Raw | None = None, provider: Raw | None = None, **more: object) -> Raw:
    spelled_out: Raw = {"name": "data", "systemDomain": "istio.data.example"}
    return {
        "cluster": cluster or APPLIED,
        "consumer": {
            "id": CONSUMER_ID,
            "providers": [spelled_out if provider is None else provider],
            "imports": list(imports) or [an_import()],
            **more,
        },
    }


def referring_consumer(*imports: Raw, **provider: object) -> Raw:
    """A consumer that takes everything from the provider's stack."""
    declared = imports or (an_import(endpoints=[{"name": "main"}]),)
    return consumer(*declared, provider={"name": "data", "stack": PROVIDER_STACK, **provider})


def export(name: str = "orders", endpoints: list[Raw] | None = None, **more: object) -> Raw:
    declared = [{**endpoint("main", name), "address": "10.20.0.11"}] if endpoints is None else endpoints
    return {"name": name, "consumers": [CONSUMER_ID], "endpoints": declared, **more}


def provider(*exports: Raw, cluster: Raw | None = None, **more: object) -> Raw:
    return {
        "cluster": cluster or APPLIED,
        "provider": {"systemDomain": "istio.data.example", "exports": list(exports) or [export()], **more},
    }


def brokered_consumer(**more: object) -> Raw:
    """A consumer with a broker: in the standalone scenario unless `more` has an `upstream` with a URL."""
    raw = consumer(
        provider={
            "name": "data",
            "systemDomain": "istio.data.example",
            "clientSecret": "data-client",
            "connectTimeout": "9s",
        },
        egressGateway={"name": "egress", "port": 8443},
    )
    volume = {} if "store" in more else {"volume": {"size": "3Gi", "storageClass": "fast"}}
    raw["broker"] = {
        "role": "consumer",
        "image": "broker:1",
        "networkProfile": "urn:a",
        "provider": "data",
        "namespaces": ["shop", "billing"],
        "callers": {"secret": "platform", "namespaces": ["catalog"]},
        **volume,
        **more,
    }
    raw["broker"]["upstream"] = {"secret": "data-broker", **raw["broker"].get("upstream", {})}
    return raw


def brokered_provider(ingressGateway: Raw | None = None, **more: object) -> Raw:  # noqa: N803 - as in the file
    """A provider with a broker behind its control-plane route, or one of the role `forward`."""
    role = more.get("role", "provider")
    route: Raw = {"consumers": [CONSUMER_ID]}
    if role == "forward":
        route |= {"address": "10.20.0.20", "port": 8080}
    broker = {
        "role": role,
        "image": "broker:1",
        "networkProfile": "urn:a",
        "callers": {"secret": "consumers"},
        "upstream": {"url": "https://fabrik.example", "secret": "fabrik"},
        **({"planMetadata": {"bullets": ["a"]}} if role == "provider" else {}),
        **more,
    }
    gateway = {"ingressGateway": ingressGateway} if ingressGateway is not None else {}
    wanted = {key: value for key, value in broker.items() if value is not None}
    return {**provider(controlPlane=route, **gateway), "broker": wanted}


def brokered_forward() -> Raw:
    """A broker that makes no route, beside a provider's."""
    callers = {"anonymous": True, "networks": ["192.0.2.0/24"]}
    return brokered_provider(role="forward", networkProfile=None, callers=callers)


def upstream(name: str = "httpbin", protocol: str = "HTTPS", **more: object) -> Raw:
    return {
        "name": name,
        "namespace": f"egress-{name}",
        "protocol": protocol,
        "host": f"{name}.upstream.example",
        "address": f"{name}.example.org",
        "port": 443,
        "clients": [{"namespace": "shop"}],
        **more,
    }


FULL_HTTP: Raw = upstream(
    ingress={
        "namespace": "istio-ingress",
        "labels": {"istio": "ingressgateway"},
        "serviceAccount": "istio-ingressgateway",
        "serverSecret": "httpbin",
    },
    opa={"image": "openpolicyagent/opa:1.0-envoy", "configMap": "policy"},
    readiness={"image": "probe:1", "command": ["true"]},
    confineClients=["10.0.0.0/8"],
)
FULL_TCP: Raw = upstream("ledger", "TLS", port=5433, servicePort=5432)


def upstreams(*declared: Raw, cluster: Raw | None = None) -> Raw:
    return {"cluster": cluster or APPLIED, "upstreams": list(declared) or [FULL_HTTP, FULL_TCP]}


def everything(cluster: Raw | None = None, **gateway: object) -> Raw:
    """A stack in every role, with every option that adds an object. gateway: said of both shared gateways."""
    spelled_out = {"name": "data", "systemDomain": "istio.data.example", "caCertificate": CA}
    policy = {"namespace": "shop", "limits": {"idleTimeout": "2h"}}
    shared = gateway or {"createNamespace": True}
    own = {"createNamespace": True}
    return {
        **consumer(
            an_import(endpoints=[endpoint("main"), endpoint("replica")]),
            provider=spelled_out,
            cluster=cluster,
            sidecars=[policy],
            egressGateway=shared,
        ),
        **provider(
            export("books", [{**endpoint("main", "books"), "address": "books.internal.example"}]),
            cluster=cluster,
            controlPlane={"address": "10.20.0.20", "port": 8080, "consumers": [CONSUMER_ID]},
            ingressGateway=shared,
        ),
        **upstreams({**FULL_HTTP, **own}, {**FULL_TCP, **own}, cluster=cluster),
    }


def parsed(raw: Raw) -> Stack:
    return config.parse(copy.deepcopy(raw))


def given(value: T | None) -> T:
    """A section of a stack that the sample has."""
    if value is None:
        raise LookupError("the sample lacks this section")
    return value
