"""ConsumerEgress: the objects of one imported endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from config import Cluster, EgressGateway, Limits, SidecarPolicy
from routing import ConsumerEndpoint, Manifest, consumer

HOST, PORT, PROVIDER_ID, SUBNETS, CA = object(), object(), object(), object(), object()
"""Stand for values that the engine knows only at run time."""

GATEWAY = EgressGateway(name="egress", namespace="mesh-egress", port=8443, service_account="sender")
ENDPOINT = ConsumerEndpoint(
    slug="orders-main",
    namespace="shop",
    cluster=Cluster(render=True, trust_domain="shop.example"),
    gateway=GATEWAY,
    host=HOST,
    port=PORT,
    provider_id=PROVIDER_ID,
    client_secret="consumer-client",
    service="orders",
    service_port=5432,
    service_accounts=("api",),
)


def mesh_route(endpoint: ConsumerEndpoint) -> Manifest:
    return consumer.mesh_route(endpoint, SUBNETS)


BUILDERS: tuple[Callable[[ConsumerEndpoint], Manifest], ...] = (
    consumer.service_entry,
    consumer.upstream_rule,
    consumer.admission,
    consumer.egress_server,
    consumer.egress_route,
    consumer.sidecar_rule,
    consumer.virtual_ip,
    mesh_route,
)


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from leaves(item, f"{path}/{number}")
    else:
        yield path, value


def places(manifest: Manifest, placeholder: object) -> set[str]:
    return {path for path, leaf in leaves(manifest.as_dict()) if leaf is placeholder}


def spec(manifest: Manifest) -> Any:
    return manifest.spec


def test_a_placeholder_host_is_passed_through_untouched_everywhere() -> None:
    assert places(consumer.service_entry(ENDPOINT), HOST) == {"/spec/hosts/0"}
    assert places(consumer.upstream_rule(ENDPOINT), HOST) == {"/spec/host", "/spec/trafficPolicy/tls/sni"}
    assert places(consumer.egress_server(ENDPOINT), HOST) == {"/spec/servers/0/hosts/0"}
    assert places(consumer.egress_route(ENDPOINT), HOST) == {
        "/spec/hosts/0",
        "/spec/tcp/0/route/0/destination/host",
    }
    assert places(consumer.sidecar_rule(ENDPOINT), HOST) == {"/spec/subsets/0/trafficPolicy/tls/sni"}
    assert places(consumer.admission(ENDPOINT), HOST) == {
        "/spec/configPatches/0/match/listener/filterChain/sni"
    }


def test_a_placeholder_is_nowhere_part_of_a_text() -> None:
    texts = [
        leaf for build in BUILDERS for _, leaf in leaves(build(ENDPOINT).as_dict()) if isinstance(leaf, str)
    ]
    assert not [text for text in texts if "object at" in text]


def test_port_provider_id_and_subnets_are_passed_through_too() -> None:
    assert places(consumer.service_entry(ENDPOINT), PORT) == {"/spec/ports/0/number"}
    assert places(consumer.egress_route(ENDPOINT), PORT) == {"/spec/tcp/0/route/0/destination/port/number"}
    assert places(consumer.upstream_rule(ENDPOINT), PROVIDER_ID) == {
        "/spec/trafficPolicy/tls/subjectAltNames/0"
    }
    assert places(mesh_route(ENDPOINT), SUBNETS) == {"/spec/tcp/0/match/0/destinationSubnets"}
    assert places(consumer.trust_anchor(GATEWAY, "c", CA), CA) == {"/stringData/ca.crt"}


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_objects_lie_with_the_gateway_or_with_the_application(
    build: Callable[[ConsumerEndpoint], Manifest],
) -> None:
    local = {consumer.sidecar_rule, consumer.virtual_ip, mesh_route}
    assert build(ENDPOINT).namespace == ("shop" if build in local else "mesh-egress")


def test_an_endpoint_shares_no_name_with_another() -> None:
    other = replace(ENDPOINT, slug="orders-replica", service="orders-replica")
    for build in BUILDERS:
        assert build(ENDPOINT).name != build(other).name


def test_without_a_known_address_the_host_alone_selects_the_virtual_ip() -> None:
    (route,) = spec(consumer.mesh_route(ENDPOINT, None))["tcp"]
    assert route["match"] == [{"port": 5432}]


def test_the_sidecar_expects_the_gateways_service_account() -> None:
    (subset,) = spec(consumer.sidecar_rule(ENDPOINT))["subsets"]
    assert subset["trafficPolicy"]["tls"]["subjectAltNames"] == [
        "spiffe://shop.example/ns/mesh-egress/sa/sender"
    ]


def test_listed_accounts_stand_in_the_handshake() -> None:
    endpoint = replace(ENDPOINT, service_accounts=("api", "worker"))
    (server,) = spec(consumer.egress_server(endpoint))["servers"]
    assert server["tls"]["subjectAltNames"] == [
        "spiffe://shop.example/ns/shop/sa/api",
        "spiffe://shop.example/ns/shop/sa/worker",
    ]


def test_a_server_for_a_namespace_admits_nobody_of_its_own() -> None:
    (server,) = spec(consumer.egress_server(replace(ENDPOINT, service_accounts=())))["servers"]
    assert server["tls"]["subjectAltNames"] == ["spiffe://shop.example/ns/shop/sa/*"]


def test_a_namespace_is_admitted_by_what_its_names_begin_with() -> None:
    (patch,) = spec(consumer.admission(ENDPOINT))["configPatches"]
    context = patch["patch"]["value"]["transport_socket"]["typed_config"]["common_tls_context"]
    assert context["combined_validation_context"]["default_validation_context"] == {
        "match_typed_subject_alt_names": [
            {"san_type": "URI", "matcher": {"prefix": "spiffe://shop.example/ns/shop/sa/"}}
        ]
    }


def test_limits_act_on_the_egress_gateway() -> None:
    limited = replace(ENDPOINT, limits=Limits(max_connections=9, max_connection_duration="1h"))
    pool = spec(consumer.upstream_rule(limited))["trafficPolicy"]["connectionPool"]["tcp"]
    assert (pool["maxConnections"], pool["maxConnectionDuration"]) == (9, "1h")
    assert pool["connectTimeout"] == "5s"
    assert "tcpKeepalive" in pool


def test_the_external_rule_is_for_the_gateways_pods_alone() -> None:
    assert spec(consumer.upstream_rule(ENDPOINT))["workloadSelector"] == {"matchLabels": {"istio": "egress"}}


def test_sidecar_timeouts_stand_alone_at_the_top_level() -> None:
    policy = SidecarPolicy(namespace="shop", limits=Limits(idle_timeout="12h"))
    rule = consumer.sidecar_policy(GATEWAY, ENDPOINT.cluster, policy)
    assert rule.namespace == "shop"
    assert spec(rule) == {
        "host": "egress.mesh-egress.svc.cluster.local",
        "exportTo": ["."],
        "trafficPolicy": {"connectionPool": {"tcp": {"idleTimeout": "12h"}}},
    }


@pytest.mark.parametrize(("family", "fixed"), [("IPv4", None), ("IPv6", "fd00::7")])
def test_a_virtual_ip_has_one_family_and_perhaps_a_fixed_address(family: Any, fixed: str | None) -> None:
    endpoint = replace(ENDPOINT, cluster=Cluster(render=True, ip_family=family), cluster_ip=fixed)
    service = spec(consumer.virtual_ip(endpoint))
    assert (service["ipFamilyPolicy"], service["ipFamilies"]) == ("SingleStack", [family])
    assert service.get("clusterIP") == fixed
    assert "selector" not in service


def test_the_trust_anchor_holds_the_ca_alone_beside_the_client_secret() -> None:
    anchor = consumer.trust_anchor(GATEWAY, "data-client", "PEM")
    assert (anchor.name, anchor.namespace) == ("data-client-cacert", "mesh-egress")
    assert anchor.body["stringData"] == {"ca.crt": "PEM"}
