"""What a consumer reads from a provider's stack, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from config import ConfigError, ResolvedEndpoint, reference

STACK = "organization/meshbridge/data"


def outputs(**more: object) -> dict[str, Any]:
    """The output `provider` as the engine hands it over: every number a float."""
    return {
        "id": "istio.data.example",
        "systemDomain": "istio.data.example",
        "port": 9000.0,
        "ingressGateway": "mesh-ingress/provider-ingress",
        "address": None,
        "services": {
            "orders": {
                "consumers": ["client.shop.example"],
                "endpoints": {"primary": {"host": "primary.istio.data.example", "port": 9000.0}},
            }
        },
        **more,
    }


def resolve(data: object, consumer: str = "client.shop.example", service: str = "orders") -> ResolvedEndpoint:
    return found(data, consumer, reference.Wanted("mine", "primary", service))


def found(data: object, consumer: str, *wanted: reference.Wanted, with_ca: bool = False) -> ResolvedEndpoint:
    """What the provider `data` supplies of the first endpoint wanted."""
    source = reference.Source("data", f"stack {STACK!r}", wanted, with_ca)
    supplied = reference.resolve_all({"data": data}, [source], consumer, {})
    return supplied["data"].endpoints[wanted[0]]


def test_an_endpoint_is_resolved_with_whole_ports() -> None:
    found = resolve(outputs())
    assert found == ResolvedEndpoint(
        "primary.istio.data.example", 9000, "istio.data.example", "istio.data.example"
    )
    assert isinstance(found.port, int)


@pytest.mark.parametrize(
    ("data", "consumer", "service", "words"),
    [
        (outputs(), "client.shop.example", "billing", "exported there: orders"),
        (outputs(), "other.example", "orders", "admitted: client.shop.example"),
        (
            outputs(systemDomain="istio.other.example"),
            "client.shop.example",
            "orders",
            "not below its system domain",
        ),
        (outputs(port="9000"), "client.shop.example", "orders", "must be an integer"),
        (outputs(id=""), "client.shop.example", "orders", "would switch the check"),
        ({}, "client.shop.example", "orders", "is missing but required"),
        (None, "client.shop.example", "orders", STACK),
    ],
)
def test_what_does_not_fit_names_the_stack_and_the_remedy(
    data: object, consumer: str, service: str, words: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(data, consumer, service)
    assert words in str(refused.value)
    assert STACK in str(refused.value)


def test_an_endpoint_that_is_not_exported_is_refused() -> None:
    with pytest.raises(ConfigError, match="there: primary"):
        found(outputs(), "client.shop.example", reference.Wanted("mine", "replica", "orders"))


def test_a_missing_ca_certificate_is_refused_with_both_remedies() -> None:
    with pytest.raises(ConfigError, match="caFromStack: false"):
        found(outputs(), "client.shop.example", reference.Wanted("mine", "primary", "orders"), with_ca=True)


def test_all_that_does_not_fit_comes_in_one_error_under_the_import_s_own_keys() -> None:
    sources = [
        reference.Source(
            "data",
            "stack 'data'",
            (
                reference.Wanted("mine", "primary", "ordres"),
                reference.Wanted("mine", "replica", "ordres"),
                reference.Wanted("other", "standby", "orders"),
                reference.Wanted("good", "primary", "orders"),
                reference.Wanted("again", "primary", "orders"),
            ),
            with_ca=True,
        ),
        reference.Source("mail", "bundle 'mail.json'", (), with_ca=False),
        reference.Source(
            "copy", "stack 'copy'", (reference.Wanted("third", "primary", "orders"),), with_ca=False
        ),
    ]
    supplied = {"data": outputs(), "mail": outputs(port=70000.0), "copy": outputs()}

    with pytest.raises(ConfigError) as refused:
        reference.resolve_all(supplied, sources, "client.shop.example", {})

    assert [f.key for f in refused.value.findings] == [
        "consumer.providers[data].caFromStack",
        "consumer.imports[mine].service",
        "consumer.imports[other].endpoints[standby].name",
        "consumer.imports[again].endpoints[primary]",
        "bundle 'mail.json': port",
        "consumer.imports[third].endpoints[primary]",
    ]
    assert all("correct one of the two" not in f.remedy for f in refused.value.findings)


def test_a_host_that_the_configuration_spells_out_is_not_imported_from_a_stack_too() -> None:
    source = reference.Source("data", "stack 'data'", (reference.Wanted("mine", "primary", "orders"),), False)
    taken = {"primary.istio.data.example": "upstreams[api]"}

    with pytest.raises(
        ConfigError, match=r"endpoints\[primary\]: .* and that of upstreams\[api\]; import it once"
    ):
        reference.resolve_all({"data": outputs()}, [source], "client.shop.example", taken)


ROUTE = {"host": "istio-broker.istio.data.example", "consumers": ["client.shop.example"]}


def control_plane(data: object, taken: dict[str, str] | None = None) -> ResolvedEndpoint | None:
    source = reference.Source("data", "stack 'data'", (), with_ca=False, with_broker=True)
    supplied = reference.resolve_all({"data": data}, [source], "client.shop.example", taken or {})["data"]
    assert supplied.system_domain == "istio.data.example"
    return supplied.control_plane


@pytest.mark.parametrize("consumers", [ROUTE["consumers"], []])
def test_a_control_plane_route_is_resolved_for_those_it_admits(consumers: object) -> None:
    assert control_plane(outputs(controlPlane={**ROUTE, "consumers": consumers})) == ResolvedEndpoint(
        "istio-broker.istio.data.example", 9000, "istio.data.example", "istio.data.example"
    )


@pytest.mark.parametrize(
    ("data", "key", "words"),
    [
        (outputs(), "broker.provider", "has no control-plane route"),
        (outputs(controlPlane=None), "broker.provider", "add `provider.controlPlane`"),
        (
            outputs(controlPlane={**ROUTE, "consumers": ["other.example"]}),
            "consumer.id",
            "(admitted: other.example)",
        ),
        (
            outputs(controlPlane={**ROUTE, "host": "istio-broker.other.example"}),
            "broker.upstream.host",
            "not below its system domain",
        ),
    ],
)
def test_a_control_plane_route_that_does_not_fit_is_refused(data: object, key: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        control_plane(data)
    assert [finding.key for finding in refused.value.findings] == [key]
    assert words in str(refused.value)


def test_the_host_of_a_control_plane_route_is_not_imported_besides() -> None:
    with pytest.raises(ConfigError, match=r"broker.upstream.host: .* and that of upstreams\[api\]"):
        control_plane(outputs(controlPlane=ROUTE), {str(ROUTE["host"]): "upstreams[api]"})
