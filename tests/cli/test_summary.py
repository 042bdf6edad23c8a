"""What a person reads after `up`, from outputs as the program exports them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from pydantic import JsonValue
from rich.console import Console

from cli.errors import CliError
from cli.outputs import Outputs
from cli.summary import summary

OUTPUTS: dict[str, JsonValue] = {
    "consumer": {
        "id": "client.shop.example",
        "egressGateway": "mesh-egress/istio-egressgateway",
        "endpoints": [
            {
                "name": "orders-primary",
                "namespace": "shop",
                "serviceAccounts": ["orders-api"],
                "address": "svc-orders-primary.shop.svc.cluster.local:5432",
                "vip": "10.0.0.7",
                "host": "primary.orders.data.example",
                "port": 9000,
                "providerId": "data.example",
            },
            {
                "name": "queue",
                "namespace": "notify",
                "serviceAccounts": [],
                "address": "svc-queue.notify.svc.cluster.local:5671",
                "vip": None,
                "host": "queue.mail.example",
                "port": 9000,
                "providerId": "mail.example",
            },
        ],
    },
    "provider": {
        "id": "data.example",
        "systemDomain": "data.example",
        "port": 9000,
        "caCertificate": "PEM",
        "ingressGateway": "mesh-ingress/provider",
        "address": "lb.example",
        "services": {
            "orders": {
                "consumers": ["client.shop.example"],
                "endpoints": {"primary": {"host": "primary.orders.data.example", "port": 9000}},
            }
        },
    },
    "upstreams": [
        {
            "name": "httpbin",
            "namespace": "egress-httpbin",
            "gateway": "egress-httpbin/upstream-httpbin",
            "host": "httpbin.upstream.example",
            "protocol": "HTTPS",
            "upstream": "httpbin.org:443",
            "clients": ["shop"],
            "from": ["mesh", "ingress"],
        }
    ],
    "broker": {
        "role": "consumer",
        "namespace": "mesh-broker",
        "address": "broker.mesh-broker.svc.cluster.local:8080",
        "upstream": "http://svc-broker-upstream.mesh-broker.svc.cluster.local:5555",
        "bindsIn": ["shop", "billing"],
    },
    "target": "build/example",
    "missing": ["provider.caCertificate: set it"],
    "unchecked": ["Secret mesh-ingress/provider-server: kubectl get secret | python -m pki check -"],
}


def shown(outputs: JsonValue, root: Path) -> str:
    console = Console(width=300, file=io.StringIO(), legacy_windows=False)
    with console.capture() as captured:
        console.print(summary("example", Outputs.read("example", outputs), root))
    return captured.get()


@pytest.mark.parametrize(
    "expected",
    [
        "Consumer client.shop.example: reaches through egress gateway mesh-egress/istio-egressgateway",
        "orders-api in shop",
        "every service account in notify",
        "svc-orders-primary.shop.svc.cluster.local:5432",
        "(10.0.0.7)",
        "primary.orders.data.example:9000",
        "of provider data.example",
        "reached through ingress gateway mesh-ingress/provider at lb.example",
        "orders / primary",
        "mesh (shop) and ingress",
        "httpbin.upstream.example (HTTPS)",
        "httpbin.org:443",
        "Missing: provider.caCertificate: set it",
        (
            "Not checked, since it exists already: Secret mesh-ingress/provider-server: kubectl get secret | "
            "python -m pki check -"
        ),
        (
            "Broker (consumer) at broker.mesh-broker.svc.cluster.local:8080: calls "
            "http://svc-broker-upstream.mesh-broker.svc.cluster.local:5555, binds into shop, billing."
        ),
        "Objects rendered to build/example/; no cluster was touched.",
    ],
)
def test_the_summary_says(expected: str, tmp_path: Path) -> None:
    (tmp_path / "build" / "example").mkdir(parents=True)
    assert expected in shown(OUTPUTS, tmp_path)


def test_rendered_objects_that_were_deleted_are_not_said_to_be_there(tmp_path: Path) -> None:
    text = shown(OUTPUTS, tmp_path)
    assert "build/example/ is gone" in text
    assert "python -m cli down example, then up example" in text
    assert "Objects rendered" not in text


def test_a_stack_without_roles(tmp_path: Path) -> None:
    text = shown({"target": "context prod"}, tmp_path)
    assert "Nothing is imported, exported or proxied" in text
    assert "Applied to context prod." in text


def test_names_are_no_markup(tmp_path: Path) -> None:
    named = dict.fromkeys(("name", "namespace", "gateway", "host", "protocol", "upstream"), "[red]x[/nope]")
    outputs: JsonValue = {"upstreams": [{**named, "from": ["mesh"]}]}
    assert "[red]x[/nope]" in shown(outputs, tmp_path)


def test_outputs_that_are_not_ours_are_refused_with_the_remedy() -> None:
    with pytest.raises(CliError, match="python -m cli up example"):
        Outputs.read("example", {"consumer": {"id": 1}})


RECORD = {"name": "*.data.example", "type": "CNAME", "value": "lb.example", "madeBy": None}


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (RECORD, "Create the record *.data.example CNAME lb.example"),
        (
            {**RECORD, "type": None, "value": None},
            "Create the record *.data.example, which leads to the load balancer of the ingress gateway.",
        ),
        (
            {**RECORD, "madeBy": "external-dns"},
            "The record *.data.example leads to lb.example and is made by external-dns.",
        ),
        (
            {**RECORD, "value": None, "madeBy": "external-dns"},
            "The record *.data.example is made by external-dns.",
        ),
    ],
)
def test_the_wildcard_record_is_made_or_left_to_you(
    record: dict[str, JsonValue], expected: str, tmp_path: Path
) -> None:
    assert expected in shown({**OUTPUTS, "wildcardRecord": record}, tmp_path)
