"""The packet rules, as text; that they do what they say is seen by tests/lab/packets."""

from __future__ import annotations

from typing import Any

import pytest

from lab import firewall
from lab.firewall import PodPlace, Virtual

WEB = PodPlace("shop", {"app": "web"}, "10.0.1.1", "podweb", {"http": 8080})
DB = PodPlace("data", {"app": "db"}, "10.0.1.2", "poddb", {})
NAMESPACES = {"shop": {"team": "a"}, "data": {"team": "b"}}


def policy(namespace: str, **spec: object) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace}, "spec": {"podSelector": {}, **spec}}


def rules(*policies: dict[str, Any]) -> list[str]:
    """What is decided for single Pods."""
    table = firewall.filter_table(policies, [WEB, DB], NAMESPACES)
    return [line for line in table.splitlines() if line.startswith(("-A EGRESS", "-A INGRESS"))]


def test_without_a_policy_nothing_is_decided_for_a_pod() -> None:
    assert rules() == []


def test_a_policy_closes_its_pods_in_its_directions_alone() -> None:
    assert rules(policy("shop", policyTypes=["Ingress"])) == [
        "-A INGRESS-podweb -j REJECT --reject-with icmp-admin-prohibited"
    ]
    assert rules(policy("data", policyTypes=["Egress"])) == [
        "-A EGRESS-poddb -j REJECT --reject-with icmp-admin-prohibited"
    ]
    assert rules(policy("shop", podSelector={"matchLabels": {"app": "other"}}, policyTypes=["Ingress"])) == []


def test_a_policy_without_types_is_for_ingress_and_where_it_has_egress_rules_for_egress() -> None:
    assert {rule.split()[1] for rule in rules(policy("shop"))} == {"INGRESS-podweb"}
    assert {rule.split()[1] for rule in rules(policy("shop", egress=[]))} == {
        "INGRESS-podweb",
        "EGRESS-podweb",
    }


@pytest.mark.parametrize(
    ("peer", "matches"),
    [
        ({"podSelector": {}}, ["-s 10.0.1.1/32"]),
        ({"namespaceSelector": {}}, ["-s 10.0.1.1/32", "-s 10.0.1.2/32"]),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, ["-s 10.0.1.2/32"]),
        ({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "db"}}}, ["-s 10.0.1.2/32"]),
        ({"namespaceSelector": {"matchLabels": {"team": "c"}}}, []),
        ({"ipBlock": {"cidr": "192.0.2.0/24"}}, ["-s 192.0.2.0/24"]),
        ({"ipBlock": {"cidr": "2001:db8::/32"}}, []),
        (
            {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/25"]}},
            ["-s 192.0.2.128/25"],
        ),
        ({"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.0/24"]}}, []),
    ],
)
def test_the_peers_of_a_rule(peer: dict[str, Any], matches: list[str]) -> None:
    found = rules(policy("shop", ingress=[{"from": [peer]}]))

    assert found[:-1] == [f"-A INGRESS-podweb {match} -j RETURN" for match in matches]


@pytest.mark.parametrize(
    ("port", "match"),
    [
        ({"port": 443}, "-p tcp --dport 443 "),
        ({"port": 53, "protocol": "UDP"}, "-p udp --dport 53 "),
        ({"port": 8000, "endPort": 8010}, "-p tcp --dport 8000:8010 "),
        ({"protocol": "TCP"}, "-p tcp "),
        ({"port": "http"}, "-p tcp --dport 8080 "),
    ],
)
def test_the_ports_of_a_rule(port: dict[str, Any], match: str) -> None:
    found = rules(policy("shop", ingress=[{"ports": [port]}]))

    assert found[0] == f"-A INGRESS-podweb {match}-j RETURN"


def test_a_port_name_that_the_pod_does_not_have_allows_nothing() -> None:
    assert len(rules(policy("shop", ingress=[{"ports": [{"port": "grpc"}]}]))) == 1


def test_an_empty_rule_allows_everything() -> None:
    assert rules(policy("shop", ingress=[{}]))[0] == "-A INGRESS-podweb -j RETURN"


@pytest.mark.parametrize(
    ("expression", "selects"),
    [
        ({"operator": "In", "values": ["web", "api"]}, True),
        ({"operator": "NotIn", "values": ["web"]}, False),
        ({"operator": "Exists"}, True),
        ({"operator": "DoesNotExist"}, False),
    ],
)
def test_label_expressions(expression: dict[str, Any], selects: bool) -> None:
    selector = {"matchExpressions": [{"key": "app", **expression}]}

    assert bool(rules(policy("shop", podSelector=selector, policyTypes=["Ingress"]))) is selects


def service(**spec: object) -> dict[str, Any]:
    ports = [{"name": "http", "port": 80}]
    return {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"clusterIP": "10.1.0.1", "ports": ports, **spec},
    }


def endpoints(*addresses: str, ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": ready}} for address in addresses],
    }


def test_a_service_has_a_cluster_ip_and_as_a_load_balancer_an_address_outside() -> None:
    balancer = {**service(), "status": {"loadBalancer": {"ingress": [{"ip": "198.18.0.33"}]}}}

    cluster_ips, balancers = firewall.virtuals([balancer], [endpoints("10.0.1.1")])

    assert cluster_ips == [Virtual("10.1.0.1", "tcp", 80, (("10.0.1.1", 8080),))]
    assert balancers == [Virtual("198.18.0.33", "tcp", 80, (("10.0.1.1", 8080),))]


def test_endpoints_that_are_not_ready_get_nothing() -> None:
    cluster_ips, _ = firewall.virtuals(
        [service()], [endpoints("10.0.1.1", ready=False), endpoints("10.0.1.3")]
    )

    assert cluster_ips[0].endpoints == (("10.0.1.3", 8080),)


def test_a_headless_service_has_no_address() -> None:
    assert firewall.virtuals([service(clusterIP="None")], [endpoints("10.0.1.1")]) == ([], [])


def test_each_endpoint_has_the_same_chance() -> None:
    table = firewall.nat_table([Virtual("10.1.0.1", "tcp", 80, (("a", 1), ("b", 2), ("c", 3)))])

    chances = [
        line.split("--probability ")[1].split()[0] for line in table.splitlines() if "probability" in line
    ]
    assert [float(chance) for chance in chances] == pytest.approx([1 / 3, 1 / 2])
    assert "-A SERVICES -s 0.0.0.0/0 -d 10.1.0.1/32 -p tcp --dport 80 -j DNAT --to-destination c:3" in table


def test_a_load_balancer_admits_its_source_ranges_alone() -> None:
    limited = service(loadBalancerSourceRanges=["192.0.2.0/24"])
    limited["status"] = {"loadBalancer": {"ingress": [{"ip": "198.18.0.33"}]}}

    _, balancers = firewall.virtuals([limited], [endpoints("10.0.1.1")])

    assert "-A SERVICES -s 192.0.2.0/24 -d 198.18.0.33/32" in firewall.nat_table(balancers)


def test_only_the_edge_hides_pods() -> None:
    assert "eth0" not in firewall.nat_table([])
    assert "-A POSTROUTING -o eth0 -j MASQUERADE" in firewall.nat_table([], hidden="10.0.1.0/24")
