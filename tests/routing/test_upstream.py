"""EgressGatewayPerUpstream: one gateway for one service outside every mesh."""

from __future__ import annotations

from typing import Any

import pytest

from config import Cluster, Upstream
from routing import Manifest, UpstreamGateway, upstream
from routing.gateway import deployment, network_policy

INGRESS = {
    "namespace": "istio-ingress",
    "labels": {"istio": "ingressgateway"},
    "serviceAccount": "entry",
    "serverSecret": "server",
}


def made(**options: Any) -> UpstreamGateway:
    data = {
        "name": "api",
        "namespace": "egress-api",
        "protocol": "HTTPS",
        "host": "api.upstream.example",
        "address": "api.example.org",
        "port": 443,
        "clients": [{"namespace": "shop", "serviceAccounts": ["api"]}],
    }
    return UpstreamGateway(Upstream.model_validate(data | options, strict=False), Cluster(render=True))


def spec(manifest: Manifest) -> Any:
    return manifest.spec


def tls_of(gateway: UpstreamGateway) -> Any:
    return spec(upstream.upstream_rule(gateway))["trafficPolicy"]["tls"]


class TestAuthority:
    """The Host header that the upstream gets."""

    @pytest.mark.parametrize(
        ("options", "authority"),
        [
            ({}, "api.example.org"),
            ({"port": 8443}, "api.example.org:8443"),
            ({"protocol": "HTTP", "port": 80}, "api.example.org"),
            ({"protocol": "HTTP", "port": 443}, "api.example.org:443"),
            ({"protocol": "HTTP", "address": "192.0.2.7", "port": 8080}, "192.0.2.7:8080"),
            ({"protocol": "HTTP", "address": "2001:db8::7", "port": 8080}, "[2001:db8::7]:8080"),
            ({"address": "192.0.2.7", "tls": {"sni": "real.example.org"}}, "real.example.org"),
        ],
    )
    def test_it_names_the_port_where_that_is_not_the_protocols_own(
        self, options: dict[str, Any], authority: str
    ) -> None:
        (route,) = spec(upstream.egress_route(made(**options)))["http"]
        assert route["rewrite"] == {"authority": authority}


class TestTls:
    def test_the_upstreams_own_name_is_sent_and_checked_against_the_systems_cas(self) -> None:
        assert tls_of(made()) == {
            "mode": "SIMPLE",
            "sni": "api.example.org",
            "subjectAltNames": ["api.example.org"],
            "caCertificates": "system",
        }

    def test_a_private_ca_takes_the_place_of_the_systems(self) -> None:
        tls = tls_of(made(tls={"credentialSecret": "ca"}))
        assert tls["credentialName"] == "ca"
        assert tls["mode"] == "SIMPLE"
        assert "caCertificates" not in tls

    def test_a_client_certificate_is_presented_only_when_asked(self) -> None:
        assert tls_of(made(tls={"credentialSecret": "c", "clientCertificate": True}))["mode"] == "MUTUAL"

    def test_other_names_may_be_expected_than_the_one_sent(self) -> None:
        tls = tls_of(made(tls={"sni": "s.example.org", "subjectAltNames": ["n.example.org"]}))
        assert (tls["sni"], tls["subjectAltNames"]) == ("s.example.org", ["n.example.org"])

    @pytest.mark.parametrize("protocol", ["HTTP", "TCP"])
    def test_a_plain_protocol_gets_no_tls(self, protocol: str) -> None:
        assert "tls" not in spec(upstream.upstream_rule(made(protocol=protocol)))["trafficPolicy"]


class TestPods:
    """What stands beside the proxy."""

    @staticmethod
    def containers(**options: Any) -> dict[str, Any]:
        template = spec(deployment(upstream.workload(made(**options))))["template"]
        return {container["name"]: container for container in template["spec"]["containers"]}

    def test_by_default_the_proxy_is_alone(self) -> None:
        assert set(self.containers()) == {"istio-proxy"}

    def test_the_upstreams_probe_has_a_container_of_its_own(self) -> None:
        found = self.containers(readiness={"image": "probe:1", "command": ["/probe"], "periodSeconds": 7})
        assert found["upstream-probe"]["readinessProbe"] == {
            "exec": {"command": ["/probe"]},
            "periodSeconds": 7,
            "timeoutSeconds": 3,
            "failureThreshold": 3,
        }
        assert found["upstream-probe"]["command"] == ["sleep", "infinity"]
        assert "readinessProbe" not in found["istio-proxy"]

    def test_opa_listens_inside_the_pod_and_reads_its_policy_from_the_config_map(self) -> None:
        gateway = made(opa={"image": "opa:1", "configMap": "rules", "port": 9292})
        opa = self.containers(opa={"image": "opa:1", "configMap": "rules", "port": 9292})["opa"]
        assert "--set=plugins.envoy_ext_authz_grpc.addr=127.0.0.1:9292" in opa["args"]
        assert opa["volumeMounts"] == [{"name": "policy", "mountPath": "/policy", "readOnly": True}]
        template = spec(deployment(upstream.workload(gateway)))["template"]
        assert template["spec"]["volumes"] == [{"name": "policy", "configMap": {"name": "rules"}}]

    def test_opa_s_health_is_found_in_every_ip_family(self) -> None:
        """An address without a host is all of both (OPA's "Command Line", `--diagnostic-addr`)."""
        opa = self.containers(opa={"image": "opa:1", "configMap": "rules"})["opa"]
        assert "--diagnostic-addr=:8282" in opa["args"]
        assert opa["readinessProbe"]["httpGet"]["port"] == 8282

    def test_any_image_s_probe_runs_as_a_user_of_whom_the_kubelet_knows_that_it_is_not_root(self) -> None:
        found = self.containers(readiness={"image": "p:1", "command": ["/p"]})
        assert found["upstream-probe"]["securityContext"]["runAsUser"] > 0

    def test_every_container_is_restricted(self) -> None:
        found = self.containers(
            opa={"image": "opa:1", "configMap": "rules"}, readiness={"image": "p:1", "command": ["/p"]}
        )
        for container in found.values():
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["securityContext"]["runAsNonRoot"] is True

    def test_opa_is_asked_on_the_gateways_port(self) -> None:
        policy = upstream.opa_policy(made(), "opa-api")
        assert policy.spec["provider"] == {"name": "opa-api"}
        assert policy.spec["rules"] == [{"to": [{"operation": {"ports": ["443"]}}]}]


class TestRoutes:
    def test_requests_are_routed_by_host_and_connections_by_virtual_ip(self) -> None:
        http, tcp = (
            spec(upstream.mesh_route(made())),
            spec(upstream.mesh_route(made(protocol="TLS"), ["V/32"])),
        )
        assert http["hosts"] == ["api.upstream.example"]
        assert tcp["hosts"] == ["svc-api.egress-api.svc.cluster.local"]
        assert tcp["tcp"][0]["match"] == [{"port": 5555, "destinationSubnets": ["V/32"]}]

    def test_an_ingress_gateway_is_one_more_client(self) -> None:
        gateway = made(ingress=INGRESS)
        assert spec(upstream.mesh_route(gateway))["gateways"] == ["mesh", "istio-ingress/upstream-api"]
        assert spec(upstream.mesh_rule(gateway))["exportTo"] == ["egress-api", "istio-ingress", "shop"]
        (server,) = spec(upstream.server(gateway))["servers"]
        assert "spiffe://cluster.local/ns/istio-ingress/sa/entry" in server["tls"]["subjectAltNames"]

    def test_the_ingress_redirects_http_to_https(self) -> None:
        gateway = made(ingress=INGRESS)
        entry = gateway.upstream.ingress
        assert entry is not None
        http, https = spec(upstream.ingress_server(gateway, entry))["servers"]
        assert http["tls"] == {"httpsRedirect": True}
        assert (https["port"]["number"], https["tls"]["mode"]) == (443, "SIMPLE")

    def test_clients_know_the_proxied_host_and_nothing_else_does(self) -> None:
        entry = spec(upstream.mesh_host(made(ingress=INGRESS)))
        assert entry["exportTo"] == ["shop"]
        assert entry["location"] == "MESH_INTERNAL"

    def test_an_ip_address_gets_a_made_up_host(self) -> None:
        entry = spec(upstream.service_entry(made(address="192.0.2.7", tls={"sni": "s.example.org"})))
        assert (entry["hosts"], entry["resolution"]) == (["api.address.internal"], "STATIC")
        assert entry["endpoints"] == [{"address": "192.0.2.7"}]

    def test_the_made_up_host_is_not_the_proxied_one_that_an_error_message_suggests(self) -> None:
        gateway = made(address="192.0.2.7", host="api.upstream.internal", tls={"sni": "s.example.org"})
        assert gateway.upstream_host != gateway.upstream.host


class TestRestrictions:
    def test_the_gateway_reaches_the_given_networks_on_the_upstreams_port(self) -> None:
        workload = upstream.workload(made(egressCidrs=["192.0.2.0/24"], port=8443))
        rules = spec(network_policy(workload))["egress"]
        assert {
            "to": [{"ipBlock": {"cidr": "192.0.2.0/24"}}],
            "ports": [{"protocol": "TCP", "port": 8443}],
        } in rules

    def test_only_client_namespaces_enter(self) -> None:
        (rule, _) = spec(network_policy(upstream.workload(made())))["ingress"]
        names = [
            peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for peer in rule["from"]
        ]
        assert names == ["egress-api", "shop"]

    def test_a_confined_namespace_reaches_the_cluster_and_the_given_networks(self) -> None:
        policy = upstream.confinement(made(), "shop", ["10.0.0.0/8"])
        assert policy.namespace == "shop"
        assert policy.spec["egress"] == [
            {"to": [{"namespaceSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]}
        ]

    def test_failing_addresses_are_ejected_only_when_asked(self) -> None:
        assert "outlierDetection" not in spec(upstream.upstream_rule(made()))["trafficPolicy"]
        policy = spec(upstream.upstream_rule(made(outlierDetection={"consecutiveErrors": 2})))[
            "trafficPolicy"
        ]
        assert policy["outlierDetection"]["consecutive5xxErrors"] == 2
