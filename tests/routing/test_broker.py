"""The broker's objects: its settings are those that it reads, its rights those that its routes need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pulumi
import pytest

from broker import settings as broker_settings
from broker import tracing
from broker.cli import longest_call
from broker.credentials import REFUSED_BY_DEFAULT, Code
from broker.network import Endpoint, PublicEndpoint
from broker.program import Declared, Wanted, declare, plugin_of
from broker.settings import Settings
from broker.store import ConsumerRoute, ProviderRoute
from config import Cluster
from config.broker import FindingCode
from routing import BrokerDeployment, broker
from tests.components import samples
from tests.components.recorder import Registration, run

PLURALS = {
    "ConfigMap": "configmaps",
    "DestinationRule": "destinationrules",
    "EnvoyFilter": "envoyfilters",
    "Gateway": "gateways",
    "NetworkPolicy": "networkpolicies",
    "Service": "services",
    "ServiceEntry": "serviceentries",
    "VirtualService": "virtualservices",
}


def deployment(raw: samples.Raw, system_domain: str | None = "istio.data.example") -> BrokerDeployment:
    """The broker of a stack."""
    stack = samples.parsed(raw)
    config = samples.given(stack.broker)
    imported = (
        next((p for p in stack.consumer.providers if p.name == config.provider), None)
        if stack.consumer
        else None
    )
    return BrokerDeployment(
        config,
        stack.cluster,
        upstream=broker.upstream_url(config, stack.cluster),
        consumer=stack.consumer if config.role == "consumer" else None,
        provider=stack.provider if config.role == "provider" else None,
        imported=imported,
        system_domain=system_domain,
    )


def read(folder: Path, wanted: BrokerDeployment) -> Settings:
    """The settings as the broker reads them, with its Secrets."""
    file = folder / "settings.json"
    file.write_text(json.dumps(broker.settings(wanted)))
    secrets = folder / "secrets"
    secrets.mkdir()
    values = {
        "username": "platform",
        "password": "s3cret",
        "upstream_username": "shop",
        "upstream_password": "s3cret-too",
        "database": "postgresql+psycopg://b:pw@db/b",
        "state": "postgres://b:pw@db/s",
    }
    for volume in spec(wanted)["template"]["spec"]["volumes"]:
        for source in volume.get("projected", {}).get("sources", []):
            for item in source["secret"]["items"]:
                (secrets / item["path"]).write_text(values[item["path"]])
    return broker_settings.read({}, file, secrets)


def spec(wanted: BrokerDeployment) -> Any:
    return broker.deployment(wanted, "digest").spec


SAMPLES = {
    "standalone": samples.brokered_consumer(),
    "plugin": samples.brokered_consumer(
        upstream={"url": "https://manager.example/v1/osb/7", "caSecret": "ca", "clientCertificate": True},
        replicas=2,
        store={"secret": "store", "ports": [5432, 5433]},
    ),
    "provider": samples.brokered_provider(),
    "provider, adopted gateway": samples.brokered_provider(ingressGateway={"adopt": True, "name": "shared"}),
    "forward": samples.brokered_forward(),
}
each = pytest.mark.parametrize("raw", SAMPLES.values(), ids=SAMPLES.keys())


def test_a_standalone_consumer_s_settings(tmp_path: Path) -> None:
    found = read(tmp_path, deployment(SAMPLES["standalone"]))

    assert found.upstream == "http://svc-broker-upstream.mesh-broker.svc.cluster.local:5555"
    assert (found.role, found.network_profile, found.listen) == ("consumer", "urn:a", "0.0.0.0:8080")
    assert (found.username, found.upstream_username) == ("platform", "shop")
    assert (found.database, found.state) == (
        "sqlite:////var/lib/broker/broker.db",
        "file:///var/lib/broker/state",
    )
    consumer = samples.given(found.consumer)
    assert (consumer.id, consumer.namespaces) == ("client.shop.example", ("shop", "billing"))
    assert consumer.system_domains == ("istio.data.example",)
    assert (consumer.client_secret, consumer.connect_timeout) == ("data-client", "9s")
    assert (consumer.egress_gateway.name, consumer.egress_gateway.port) == ("egress", 8443)
    assert found.cluster == Cluster(trust_domain="shop.example")


def test_a_plugin_consumer_s_settings(tmp_path: Path) -> None:
    found = read(tmp_path, deployment(SAMPLES["plugin"]))

    assert found.upstream == "https://manager.example/v1/osb/7"
    assert str(found.upstream_ca) == "/etc/broker/upstream-tls/ca.crt"
    assert str(found.upstream_key) == "/etc/broker/upstream-tls/tls.key"
    assert found.database.startswith("postgresql+psycopg://")


def test_a_provider_s_settings(tmp_path: Path) -> None:
    found = read(tmp_path, deployment(SAMPLES["provider, adopted gateway"]))

    provider = samples.given(found.provider)
    assert (provider.identity, provider.port) == ("istio.data.example", 9000)
    assert provider.ingress_gateway.adopt
    assert provider.ingress_gateway.selector == {"istio": "shared"}
    assert provider.plan_metadata == {"bullets": ["a"]}
    assert found.upstream == "https://fabrik.example"


def test_settings_of_forward_and_of_ipv6_and_tls(tmp_path: Path) -> None:
    raw = {**SAMPLES["forward"], "cluster": {**samples.APPLIED, "ipFamily": "IPv6"}}
    raw["broker"]["callers"]["tlsSecret"] = "broker-tls"

    found = read(tmp_path, deployment(raw))

    assert (found.role, found.anonymous, found.address) == ("forward", True, ("::", 8080))
    assert str(found.tls_certificate) == "/etc/broker/tls/tls.crt"


def test_the_findings_that_are_refused(tmp_path: Path) -> None:
    assert read(tmp_path, deployment(SAMPLES["provider"])).refuse == REFUSED_BY_DEFAULT
    assert get_args(FindingCode) == tuple(Code)
    for index, refused in enumerate(([], list(Code))):
        folder = tmp_path / str(index)
        folder.mkdir()
        assert read(folder, deployment(samples.brokered_provider(refuse=refused))).refuse == set(refused)


def test_traces_are_sent_where_the_stack_says() -> None:
    def environment(raw: samples.Raw) -> dict[str, str]:
        (container,) = spec(deployment(raw))["template"]["spec"]["containers"]
        return {entry["name"]: entry["value"] for entry in container["env"]}

    def ports(raw: samples.Raw) -> list[int]:
        egress: Any = broker.network_policy(deployment(raw)).spec["egress"]
        return [entry["port"] for entry in egress[-1]["ports"]]

    collector = "http://collector.observability.svc:4318"
    traced = samples.brokered_provider(traces={"url": collector})

    assert not tracing.wanted(environment(samples.brokered_provider()))
    assert tracing.wanted(environment(traced))
    assert 4318 in ports(traced)
    assert 4318 not in ports(samples.brokered_provider())
    mapped = samples.brokered_provider(traces={"url": "http://collector.observability.svc", "podPort": 4318})
    assert 4318 in ports(mapped)
    assert 80 not in ports(mapped)


def made_by_routes(settings: Settings) -> list[Registration]:
    """What the broker's own program declares for a binding."""
    route: ConsumerRoute | ProviderRoute
    if settings.role == "consumer":
        route = ConsumerRoute(
            namespace="shop",
            provider_id="istio.data.example",
            endpoints=(PublicEndpoint(host="0.b.istio.data.example", port=9000),),
        )
    else:
        route = ProviderRoute(
            consumer_id="client.shop.example", endpoints=(Endpoint(host="10.0.0.1", port=5432),)
        )
    wanted = [Wanted("b", 1, route)]
    return run(lambda: declare(settings, plugin_of(settings), wanted, Declared())).objects


@pytest.mark.parametrize("adopt", [False, True])
def test_the_servers_of_its_bindings_select_the_gateways_that_the_stack_makes_or_adopts(
    tmp_path: Path, adopt: bool
) -> None:
    """Of a gateway that the stack makes, its Pods alone; the Pods of another owner's lack the stack's label."""
    provider = samples.brokered_provider(ingressGateway={"adopt": adopt, "name": "shared"})
    consumer = samples.brokered_consumer()
    consumer["consumer"]["egressGateway"] = {"adopt": adopt, "name": "shared"}
    for raw, namespace in ((provider, "mesh-ingress"), (consumer, "mesh-egress")):
        (tmp_path / namespace).mkdir()
        made = made_by_routes(read(tmp_path / namespace, deployment(raw)))
        (server,) = [item.inputs["spec"] for item in made if item.object[0] == "Gateway"]
        own = {} if adopt else {"meshbridge.io/namespace": namespace}
        assert server["selector"] == {"istio": "shared", **own}


@pytest.mark.parametrize("name", ["standalone", "plugin", "provider", "provider, adopted gateway"])
def test_rights_are_exactly_for_what_bindings_are_made_of(tmp_path: Path, name: str) -> None:
    wanted = deployment(SAMPLES[name])
    made: dict[str, set[tuple[str, str]]] = {}
    for item in made_by_routes(read(tmp_path, wanted)):
        kind, namespace, _ = item.object
        group = item.inputs["apiVersion"].rpartition("/")[0]
        made.setdefault(namespace, set()).add((group, PLURALS[kind]))
    if wanted.config.role == "consumer":
        made["billing"] = made["shop"]

    granted: dict[str, set[tuple[str, str]]] = {}
    for namespace in broker.rights(wanted):
        role, binding = broker.route_maker(wanted, namespace), broker.route_maker_binding(wanted, namespace)
        assert (role.kind, role.namespace, binding.namespace) == ("Role", namespace, namespace)
        reference: Any = binding.body["roleRef"]
        assert (reference["kind"], reference["name"]) == ("Role", role.name)
        assert binding.body["subjects"] == [
            {"kind": "ServiceAccount", "name": wanted.name, "namespace": wanted.namespace}
        ]
        rules: Any = role.body["rules"]
        assert all(set(rule["verbs"]) == set(broker.VERBS) for rule in rules)
        granted[namespace] = {(g, r) for rule in rules for g in rule["apiGroups"] for r in rule["resources"]}
    assert granted == made


def test_a_broker_that_makes_nothing_has_no_rights() -> None:
    wanted = deployment(SAMPLES["forward"])

    assert broker.rights(wanted) == {}
    assert spec(wanted)["template"]["spec"]["automountServiceAccountToken"] is False


@each
def test_pods_are_restricted(raw: samples.Raw) -> None:
    pod = spec(deployment(raw))["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == broker.USER > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
    }
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert writable == {"/work"} | ({"/var/lib/broker"} if deployment(raw).keeps else set())
    assert {mount["name"] for mount in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}


@each
def test_it_is_asked_whether_it_lives_and_can_work(raw: samples.Raw) -> None:
    (container,) = spec(deployment(raw))["template"]["spec"]["containers"]

    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {kind: get["path"] for kind, get in asked.items()} == {
        "startup": "/health",
        "liveness": "/health",
        "readiness": "/ready",
    }
    assert {get["port"] for get in asked.values()} == {8080}
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 120


@each
def test_secrets_are_mounted_and_never_written_down(raw: samples.Raw) -> None:
    wanted = deployment(raw)
    pod = spec(wanted)["template"]["spec"]
    (container,) = pod["containers"]

    assert {entry["name"] for entry in container["env"]} == {"HOME", "TMPDIR", "USER"}
    assert not any("valueFrom" in entry for entry in container["env"])
    text = json.dumps(broker.settings(wanted))
    assert not {"password", "upstreamPassword"} & set(broker.settings(wanted))
    assert "postgres" not in text


def test_bindings_on_a_volume_are_one_process_s() -> None:
    kept, shared = deployment(SAMPLES["standalone"]), deployment(SAMPLES["plugin"])

    assert spec(kept)["strategy"] == {"type": "Recreate"}
    assert broker.volume_claim(kept).spec["resources"] == {"requests": {"storage": "3Gi"}}
    assert broker.volume_claim(kept).spec["storageClassName"] == "fast"
    assert (spec(shared)["replicas"], spec(shared)["strategy"]) == (
        2,
        {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
    )
    assert not [v for v in spec(shared)["template"]["spec"]["volumes"] if "persistentVolumeClaim" in v]


def test_a_change_of_the_settings_replaces_the_pods() -> None:
    annotations = spec(deployment(SAMPLES["provider"]))["template"]["metadata"]["annotations"]

    assert annotations[broker.DIGEST] == "digest"


@each
def test_the_pods_get_the_time_that_the_calls_and_the_background_need_to_end(
    raw: samples.Raw, tmp_path: Path
) -> None:
    wanted = deployment(raw)

    calls = longest_call(read(tmp_path, wanted))

    assert calls >= 10 + wanted.config.deploy_timeout_seconds + wanted.config.upstream_timeout_seconds
    assert spec(wanted)["template"]["spec"]["terminationGracePeriodSeconds"] >= calls + 10


def test_a_consumer_waits_longer_for_the_provider_than_that_for_its_broker_and_its_route(
    tmp_path: Path,
) -> None:
    found = {}
    for role, raw in (("consumer", SAMPLES["standalone"]), ("provider", SAMPLES["provider"])):
        (tmp_path / role).mkdir()
        found[role] = read(tmp_path / role, deployment(raw))

    provider = found["provider"]
    assert found["consumer"].upstream_timeout > provider.upstream_timeout + provider.deploy_timeout


@pytest.mark.parametrize(
    ("name", "label"), [("standalone", "true"), ("provider", "false"), ("plugin", None), ("forward", None)]
)
def test_who_has_a_sidecar(name: str, label: str | None) -> None:
    metadata = spec(deployment(SAMPLES[name]))["template"]["metadata"]

    assert metadata["labels"].get("sidecar.istio.io/inject") == label
    assert ("holdApplicationUntilProxyStarts" in str(metadata["annotations"])) is (name == "standalone")


def test_the_service_says_its_protocol() -> None:
    def port(raw: samples.Raw) -> Any:
        ports: Any = broker.service(deployment(raw)).spec["ports"]
        (found,) = ports
        return found

    tls = samples.brokered_consumer()
    tls["broker"]["callers"]["tlsSecret"] = "broker-tls"
    plain, secure = port(SAMPLES["standalone"]), port(tls)

    assert (plain["appProtocol"], plain["name"], plain["port"], plain["targetPort"]) == (
        "http", "http-osb", 8080, 8080,
    )  # fmt: skip
    assert (secure["appProtocol"], secure["name"]) == ("https", "https-osb")


def peers(rules: Any, key: str) -> list[Any]:
    return [peer for rule in rules for peer in rule.get(key, [None])]


def test_network_policies_admit_callers_alone() -> None:
    standalone, provider, plain = (
        broker.network_policy(deployment(SAMPLES[name])).spec
        for name in ("standalone", "provider", "forward")
    )

    catalog = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "catalog"}}}
    assert peers(standalone["ingress"], "from") == [catalog]
    assert peers(plain["ingress"], "from") == [{"ipBlock": {"cidr": "192.0.2.0/24"}}]
    (gateway,) = peers(provider["ingress"], "from")
    assert gateway["podSelector"] == {"matchLabels": {"istio": "provider-ingress"}}
    for policy in (standalone, provider, plain):
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        ingress: Any = policy["ingress"]
        assert all(rule["from"] and rule["ports"] for rule in ingress)


def test_network_policies_let_calls_out_to_the_next_broker_alone() -> None:
    def anywhere(name: str) -> set[int]:
        egress: Any = broker.network_policy(deployment(SAMPLES[name])).spec["egress"]
        return {p["port"] for rule in egress if "to" not in rule for p in rule["ports"]}

    assert anywhere("standalone") == {53, 443, 6443}
    assert anywhere("plugin") == {53, 443, 6443, 5432, 5433}
    assert anywhere("provider") == {53, 443, 6443}
    assert anywhere("forward") == {53, 443}
    egress: Any = broker.network_policy(deployment(SAMPLES["standalone"])).spec["egress"]
    assert {"matchLabels": {"istio": "egress"}} in [
        peer.get("podSelector") for rule in egress for peer in rule.get("to", [])
    ]
    with_port = samples.brokered_provider(upstream={"url": "http://fabrik.fabrik.svc", "podPort": 8080})
    egress = broker.network_policy(deployment(with_port)).spec["egress"]
    assert {"protocol": "TCP", "port": 8080} in egress[-1]["ports"]
    assert {"protocol": "TCP", "port": 80} not in egress[-1]["ports"]


def test_the_settings_may_hold_what_is_known_later() -> None:
    later = pulumi.Output.from_input("istio.data.example")

    found: Any = broker.settings(
        BrokerDeployment(**{**deployment(SAMPLES["standalone"]).__dict__, "system_domain": later})
    )

    assert found["consumer"]["systemDomains"][0] is later
