"""What the objects share: hosts, identities, admission."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given

from config import Cluster, Keepalive, Limits, MeshClient
from routing import tls
from tests.strategies import ipv4, ipv6

CLUSTER = Cluster(render=True, trust_domain="shop.example", domain="k8s.corp.example")
NAMED = MeshClient(namespace="shop", service_accounts=("api", "worker"))
OPEN = MeshClient(namespace="desk")


def test_a_service_is_addressed_by_its_full_host() -> None:
    assert tls.service_host("orders", "shop", CLUSTER) == "orders.shop.svc.k8s.corp.example"


def test_an_identity_is_a_spiffe_id_of_the_trust_domain() -> None:
    assert tls.spiffe(CLUSTER, "shop", "api") == "spiffe://shop.example/ns/shop/sa/api"


@pytest.mark.parametrize(("address", "block"), [("10.96.0.7", "10.96.0.7/32"), ("fd00::7", "fd00::7/128")])
def test_an_address_is_a_block_of_its_own(address: str, block: str) -> None:
    assert tls.subnet(address) == block


@given(ipv4 | ipv6)
def test_the_block_of_an_address_holds_nothing_else(address: str) -> None:
    block = ipaddress.ip_network(tls.subnet(address))
    assert block.num_addresses == 1
    assert ipaddress.ip_address(address) in block


def test_a_connection_pool_says_only_what_is_set() -> None:
    assert tls.connection_pool() == {"tcp": {}}
    assert tls.connection_pool("5s", limits=Limits(idle_timeout="1m")) == {
        "tcp": {"connectTimeout": "5s", "idleTimeout": "1m"}
    }


def test_keepalive_is_given_in_seconds() -> None:
    keepalive = Keepalive(time_seconds=60, interval_seconds=10, probes=4)
    assert tls.connection_pool(keepalive=keepalive) == {
        "tcp": {"tcpKeepalive": {"time": "60s", "interval": "10s", "probes": 4}}
    }


class TestAdmission:
    """Who may use a server: in the handshake where every client is named, by a policy in any case."""

    def test_named_service_accounts_stand_in_the_handshake(self) -> None:
        assert tls.accept_from_mesh(CLUSTER, [NAMED])["subjectAltNames"] == [
            "spiffe://shop.example/ns/shop/sa/api",
            "spiffe://shop.example/ns/shop/sa/worker",
        ]

    def test_without_service_accounts_the_namespace_is_the_guard(self) -> None:
        assert tls.accept_from_mesh(CLUSTER, [OPEN]) == {"mode": "ISTIO_MUTUAL"}
        policy = tls.deny_others(CLUSTER, {"istio": "egress"}, "h.example", [OPEN])
        assert policy["rules"] == [
            {
                "from": [{"source": {"notPrincipals": ["shop.example/ns/desk/sa/*"]}}],
                "when": [{"key": "connection.sni", "values": ["h.example"]}],
            }
        ]

    def test_one_open_client_takes_the_list_out_of_the_handshake(self) -> None:
        assert "subjectAltNames" not in tls.accept_from_mesh(CLUSTER, [NAMED, OPEN])

    def test_both_kinds_of_client_must_be_missed_before_a_workload_is_denied(self) -> None:
        policy = tls.deny_others(CLUSTER, {"istio": "egress"}, "h.example", [NAMED, OPEN], ["x/ns/in/sa/gw"])
        source = {
            "notPrincipals": [
                "shop.example/ns/shop/sa/api",
                "shop.example/ns/shop/sa/worker",
                "shop.example/ns/desk/sa/*",
                "x/ns/in/sa/gw",
            ],
        }
        when = {"key": "connection.sni", "values": ["h.example"]}
        assert policy["rules"] == [{"from": [{"source": source}], "when": [when]}]

    def test_other_routes_of_the_gateway_stay_open(self) -> None:
        assert tls.deny_others(CLUSTER, {}, "h.example", [NAMED])["action"] == "DENY"
