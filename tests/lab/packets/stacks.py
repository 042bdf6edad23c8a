"""The stacks of the packet tests.

Stack      Cluster    What
provider   provider   the lab's own, with a service for each protocol, and one for another consumer
mail       provider   a second provider, with a domain and a gateway of its own
fronted    provider   one behind a load balancer that sends PROXY protocol, as long as the test of it needs it
consumer   consumer   the lab's own: imports from both providers
desk       consumer   a second consumer, with an identity and a gateway of its own
upstreams  consumer   an HTTPS upstream, also reached through an ingress gateway, and a plain-TCP one
"""

from __future__ import annotations

from typing import Any

from lab.lab import CONSUMER_ID, DATABASES, SYSTEM_DOMAIN, Lab

Configuration = dict[str, Any]

SMALL = {"minReplicas": 1, "maxReplicas": 1, "drainSeconds": 6}
SERVICES = {"mariadb": 3306, "redis": 6379, "web": 8080, "grpc": 9090}
"""Port by the name of a further service; it is exported, and imported into the namespace `shop`, under that name."""
BACKENDS = {"web": "echo", "grpc": "echo"}
"""Name of the Kubernetes Service where it is not the service's."""

DESK_ID = "client.desk.example"
MAIL_DOMAIN = "istio.mail.example"
FRONTED_DOMAIN, FRONTED = "istio.fronted.example", "fronted-ingress"
"""Domain, and namespace and name of the gateway, of the stack `fronted`."""
MAIL_KEEPALIVE = 2
"""Seconds of silence after which connections to the provider `mail` are probed."""
API_HOST, API_ADDRESS = "api.upstream.example", "api.example.org"
LEDGER_HOST, LEDGER_ADDRESS = "ledger.upstream.example", "ledger.example.net"
LEDGER_PORT = 6379
CAPPED, CAP, LONGEST = "capped", 4, "40s"
"""An export, and import, with narrow limits: its most connections at each gateway, and their longest life at the provider's.
A gateway that loses a route drains for longer: 45 s."""
REPORTS, REPORTER = "reports", "reporter"
"""Namespace of the upstreams' further client, which reaches the cluster alone, and the client's service account and name."""


def address(service: str) -> str:
    """Where a service of the provider's cluster is."""
    return f"{service}.{DATABASES}.svc.cluster.local"


def export(
    name: str, service: str, port: int, consumers: list[str] | None = None, domain: str = SYSTEM_DOMAIN
) -> dict[str, Any]:
    """An export with one endpoint `main`."""
    endpoint = {"name": "main", "host": f"{name}.{domain}", "address": address(service), "port": port}
    return {"name": name, "consumers": consumers or [CONSUMER_ID], "endpoints": [endpoint]}


def imported(
    name: str, port: int, namespace: str = "shop", provider: str = "data", **more: object
) -> dict[str, Any]:
    """An import of such an export; applications address `svc-<name>-main.<namespace>`."""
    endpoint = {"name": "main", "port": port}
    return {"name": name, "provider": provider, "namespace": namespace, "endpoints": [endpoint], **more}


def limited(service: dict[str, Any], **more: object) -> dict[str, Any]:
    """An export or import whose endpoint takes few connections."""
    service["endpoints"][0]["limits"] = {"maxConnections": CAP, **more}
    return service


def providers(lab: Lab) -> dict[str, Configuration]:
    """The providers' stacks by name."""
    usual = lab.usual("provider")
    (orders,) = usual["provider"]["exports"]
    replica = {
        "name": "replica",
        "host": f"replica.orders.{SYSTEM_DOMAIN}",
        "address": address("replica"),
        "port": 5432,
    }
    orders["endpoints"].append(replica)
    usual["provider"]["exports"] += [
        *(export(name, BACKENDS.get(name, name), port) for name, port in SERVICES.items()),
        export("archive", "archive", 5432, [DESK_ID]),
        limited(export(CAPPED, "postgres", 5432), maxConnectionDuration=LONGEST),
    ]
    mail = {
        "cluster": usual["cluster"],
        "provider": {
            "systemDomain": MAIL_DOMAIN,
            "caCertificate": usual["provider"]["caCertificate"],
            "certificate": {"directory": str(lab.provider_authority.folder("server", MAIL_DOMAIN))},
            "ingressGateway": {"name": "mail-ingress", "namespace": "mail-ingress", "workload": SMALL},
            "exports": [export("letters", "echo", 8080, domain=MAIL_DOMAIN)],
        },
    }
    return {"provider": usual, "mail": mail}


def fronted(lab: Lab) -> Configuration:
    """The stack whose load balancer, which another owner has, sends PROXY protocol."""
    usual = lab.usual("provider")
    return {
        "cluster": usual["cluster"],
        "provider": {
            "systemDomain": FRONTED_DOMAIN,
            "caCertificate": usual["provider"]["caCertificate"],
            "certificate": {"directory": str(lab.provider_authority.folder("server", FRONTED_DOMAIN))},
            "ingressGateway": {
                "name": FRONTED,
                "namespace": FRONTED,
                "workload": {**SMALL, "drainSeconds": 1},
            },
            "loadBalancer": {"existing": {"address": "203.0.113.1", "proxyProtocol": True}},
            "exports": [export("redis", "redis", 6379, domain=FRONTED_DOMAIN)],
        },
    }


def consumers(lab: Lab) -> dict[str, Configuration]:
    """The consumers' stacks by name."""
    usual = lab.usual("consumer")
    section = usual["consumer"]
    section["imports"][0]["endpoints"].append({"name": "replica", "port": 5432})
    section["imports"] += [imported(name, port) for name, port in SERVICES.items()]
    section["imports"].append(limited(imported(CAPPED, 5432, serviceAccounts=["orders-api"])))
    section["providers"].append(
        {
            "name": "mail",
            "stack": "organization/meshbridge/mail",
            "clientSecret": "mail-client",
            "keepalive": {"timeSeconds": MAIL_KEEPALIVE, "intervalSeconds": 1},
            "loadBalancerIdleSeconds": 2 * MAIL_KEEPALIVE + 2,
        }
    )
    section["imports"].append(imported("letters", 8080, provider="mail"))
    desk = {
        "cluster": usual["cluster"],
        "consumer": {
            "id": DESK_ID,
            "caCertificate": section["caCertificate"],
            "certificate": {"directory": str(lab.consumer_authority.folder("client", DESK_ID))},
            "egressGateway": {"name": "desk-egress", "namespace": "desk-egress", "workload": SMALL},
            "providers": [{"name": "data", "stack": "organization/meshbridge/provider"}],
            "imports": [imported("archive", 5432, namespace="desk")],
        },
    }
    return {"consumer": usual, "desk": desk, "upstreams": upstreams(usual["cluster"])}


def upstreams(cluster: dict[str, Any]) -> Configuration:
    """The upstreams' stack."""
    api = {
        "name": "api",
        "namespace": "egress-api",
        "protocol": "HTTPS",
        "host": API_HOST,
        "address": API_ADDRESS,
        "port": 8080,
        "tls": {"credentialSecret": "api-ca"},
        "clients": [
            {"namespace": "shop", "serviceAccounts": ["orders-api"]},
            {"namespace": REPORTS, "serviceAccounts": [REPORTER]},
        ],
        "ingress": {
            "namespace": "istio-ingress",
            "labels": {"istio": "front"},
            "serviceAccount": "front",
            "serverSecret": "api-server",
        },
        "workload": SMALL,
    }
    ledger = {
        "name": "ledger",
        "namespace": "egress-ledger",
        "protocol": "TCP",
        "host": LEDGER_HOST,
        "address": LEDGER_ADDRESS,
        "port": LEDGER_PORT,
        "servicePort": LEDGER_PORT,
        "clients": [{"namespace": REPORTS}],
        "confineClients": ["10.0.0.0/8"],
        "workload": SMALL,
    }
    return {"cluster": cluster, "upstreams": [api, ledger]}
