"""Configurations of the stacks that the engine tests deploy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SYSTEM_DOMAIN = "istio.data.example"
CONSUMER_ID = "client.shop.example"


def cluster(kubeconfig: Path, **more: object) -> dict[str, Any]:
    """A cluster without nodes: nothing ever becomes ready there, so nothing is waited for. The lab's clusters, which have
    some, are deployed to with the default: `up` waits until the gateways are ready."""
    return {"kubeconfig": str(kubeconfig), "awaitReadiness": False, **more}


def imported(index: int, **more: object) -> dict[str, Any]:
    """An import with one endpoint, the provider spelled out."""
    return {
        "name": f"db{index}",
        "provider": "data",
        "namespace": "shop",
        "endpoints": [{"name": "main", "host": f"db{index}.{SYSTEM_DOMAIN}", "port": 5432, **more}],
    }


def consumer(kubeconfig: Path, namespace: str, imports: list[dict[str, Any]]) -> dict[str, Any]:
    """A consumer whose gateway and applications live in namespaces that begin with `namespace`."""
    return {
        "cluster": cluster(kubeconfig),
        "consumer": {
            "id": CONSUMER_ID,
            "egressGateway": {"namespace": f"{namespace}-egress", "createNamespace": True},
            "providers": [{"name": "data", "systemDomain": SYSTEM_DOMAIN}],
            "imports": [{**i, "namespace": namespace} for i in imports],
        },
    }


def provider(kubeconfig: Path, namespace: str, **more: object) -> dict[str, Any]:
    """A provider with one service of two endpoints."""
    return {
        "cluster": cluster(kubeconfig),
        "provider": {
            "systemDomain": SYSTEM_DOMAIN,
            "ingressGateway": {"namespace": f"{namespace}-ingress", "createNamespace": True},
            "exports": [
                {
                    "name": "orders",
                    "consumers": [CONSUMER_ID],
                    "endpoints": [
                        {
                            "name": "main",
                            "host": f"orders.{SYSTEM_DOMAIN}",
                            "address": "10.0.0.1",
                            "port": 5432,
                        },
                        {
                            "name": "replica",
                            "host": f"replica.{SYSTEM_DOMAIN}",
                            "address": "10.0.0.2",
                            "port": 5432,
                        },
                    ],
                }
            ],
            **more,
        },
    }


def upstreams(kubeconfig: Path, namespace: str) -> dict[str, Any]:
    """An HTTPS upstream with everything optional, and a plain-TCP one."""
    return {
        "cluster": cluster(kubeconfig),
        "upstreams": [
            {
                "name": "api",
                "namespace": f"{namespace}-api",
                "createNamespace": True,
                "protocol": "HTTPS",
                "host": "api.upstream.example",
                "address": "api.example.org",
                "port": 8443,
                "clients": [{"namespace": namespace, "serviceAccounts": ["default"]}],
                "ingress": {
                    "namespace": namespace,
                    "labels": {"istio": "ingressgateway"},
                    "serviceAccount": "ingress",
                    "serverSecret": "api-server",
                },
                "opa": {"image": "openpolicyagent/opa:1.0.0-envoy", "configMap": "policy"},
                "readiness": {
                    "image": "curlimages/curl:8.9.1",
                    "command": ["curl", "--fail", "https://api.example.org"],
                },
                "outlierDetection": {},
                "confineClients": ["10.0.0.0/8"],
            },
            {
                "name": "ledger",
                "namespace": f"{namespace}-ledger",
                "createNamespace": True,
                "protocol": "TCP",
                "host": "ledger.upstream.example",
                "address": "192.0.2.7",
                "port": 5433,
                "clients": [{"namespace": namespace}],
            },
        ],
    }
