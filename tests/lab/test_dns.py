from __future__ import annotations

from pathlib import Path
from typing import Any

from lab import dns


def service(name: str, address: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "shop"}, "spec": {"clusterIP": address}}


def test_a_service_is_found_at_its_cluster_ip() -> None:
    assert dns.service_names([service("web", "10.1.0.1")], [], "cluster.local") == (
        "10.1.0.1 web.shop.svc.cluster.local\n"
    )


def test_a_headless_service_is_found_at_its_ready_endpoints() -> None:
    endpoints = {
        "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": [
            {"addresses": ["10.0.1.1"], "conditions": {"ready": True}},
            {"addresses": ["10.0.1.2"], "conditions": {"ready": False}},
        ],
    }

    names = dns.service_names(
        [service("web", "None"), service("other", "None")], [endpoints], "cluster.local"
    )

    assert names == "10.0.1.1 web.shop.svc.cluster.local\n"


def test_a_wildcard_record_is_for_all_names_below_and_another_for_one() -> None:
    arguments = dns.internet_arguments(
        "198.18.0.1", {"*.istio.example": "198.18.0.33", "api.example": "198.18.0.65"}
    )

    assert "--address=/istio.example/198.18.0.33" in arguments
    assert "--host-record=api.example,198.18.0.65" in arguments


def test_a_cluster_answers_for_its_own_domain_alone_and_asks_the_internet_for_the_rest() -> None:
    arguments = dns.cluster_arguments("10.0.0.1", Path("/hosts"), "cluster.local", "198.18.0.1")

    assert {"--local=/cluster.local/", "--server=198.18.0.1", "--no-resolv", "--no-hosts"} <= set(arguments)
