"""ProviderIngress: the objects of one exported endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from config import IngressGateway, Limits
from routing import Manifest, ProviderEndpoint, provider

ENDPOINT = ProviderEndpoint(
    slug="orders-main",
    gateway=IngressGateway(name="ingress", namespace="mesh-ingress"),
    host="orders.istio.data.example",
    port=9000,
    server_secret="provider-server",
    consumers=("client.shop.example", "client.desk.example"),
    address="10.20.0.11",
    target_port=5432,
)


def spec(manifest: Manifest) -> Any:
    return manifest.spec


def server_tls(endpoint: ProviderEndpoint) -> Any:
    (server,) = spec(provider.public_server(endpoint))["servers"]
    return server["tls"]


def test_the_consumers_of_an_endpoint_are_admitted_by_name() -> None:
    assert server_tls(ENDPOINT)["subjectAltNames"] == ["client.shop.example", "client.desk.example"]


def test_an_empty_consumer_list_is_refused() -> None:
    with pytest.raises(ValueError, match=r"orders-main.*would admit every client of the CA"):
        provider.public_server(replace(ENDPOINT, consumers=()))


def test_only_an_explicit_none_admits_every_client_of_the_ca() -> None:
    assert "subjectAltNames" not in server_tls(replace(ENDPOINT, consumers=None))


@pytest.mark.parametrize(
    ("address", "resolution"),
    [("10.20.0.11", "STATIC"), ("fd00::11", "STATIC"), ("redis.cache.svc.cluster.local", "DNS")],
)
def test_an_address_is_looked_up_only_when_it_is_a_name(address: str, resolution: str) -> None:
    entry = spec(provider.service_entry(replace(ENDPOINT, address=address)))
    assert entry["resolution"] == resolution
    assert entry["endpoints"] == [{"address": address}]


def test_the_made_up_host_of_the_service_is_known_to_the_gateway_alone() -> None:
    entry = spec(provider.service_entry(ENDPOINT))
    assert entry["hosts"] == ["orders-main.export.internal"]
    assert entry["exportTo"] == ["."]


@pytest.mark.parametrize("limits", [Limits(), Limits(max_connections=5, idle_timeout="1h")])
def test_limits_stand_at_the_top_level_beside_the_connect_timeout(limits: Limits) -> None:
    policy = spec(provider.service_rule(replace(ENDPOINT, limits=limits)))["trafficPolicy"]
    agreed = {"maxConnections": 5, "idleTimeout": "1h"} if limits.max_connections else {}
    assert policy == {"connectionPool": {"tcp": {"connectTimeout": "5s", **agreed}}}


def test_an_older_tls_version_must_be_asked_for() -> None:
    assert server_tls(ENDPOINT)["minProtocolVersion"] == "TLSV1_3"
    assert server_tls(replace(ENDPOINT, min_tls_version="TLSV1_2"))["minProtocolVersion"] == "TLSV1_2"


def test_the_gateway_may_reach_an_ip_address_and_nothing_beside_it() -> None:
    (rule,) = spec(provider.reach(ENDPOINT))["egress"]
    assert rule["to"] == [{"ipBlock": {"cidr": "10.20.0.11/32"}}]


def test_a_name_is_reached_on_its_port_wherever_it_is() -> None:
    (rule,) = spec(provider.reach(replace(ENDPOINT, address="db.example.org")))["egress"]
    assert rule == {"ports": [{"protocol": "TCP", "port": 5432}]}
