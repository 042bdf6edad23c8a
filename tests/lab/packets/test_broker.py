"""Bindings through brokers that the stacks have set up: the calls and the data go the same way, over the internet."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab import applications
from lab.api import Object
from lab.cluster import Cluster
from lab.lab import (
    CLIENT,
    CONSUMER,
    CONSUMER_ID,
    DATABASES,
    EGRESS_NAMESPACE,
    INGRESS_NAMESPACE,
    PROVIDER,
    SYSTEM_DOMAIN,
    Lab,
)
from tests.broker import service_broker
from tests.broker.service_broker import PLAN, SERVICE
from tests.lab.packets import stacks
from tests.lab.packets.access import EGRESS_POD, INGRESS_POD, AccessLog, Line

REPOSITORY = Path(__file__).parents[3]
NAMESPACE = "mesh-broker"
IMAGE = "registry.example/meshbridge/meshbridge-broker:0.1.0"
PROFILE = "urn:local.test:public"
PREFIX = "istio-"
FABRIK, FABRIK_PORT = "fabrik", 8080
PLATFORM = ("catalog", "platform")
"""The Pod from which the platform calls."""
MANAGER = "manager.example.net"
"""The service manager of the plugin scenario."""
PLATFORM_USER, CONSUMER_USER = ("platform", "s3cret-of-the-platform"), ("shop", "s3cret:of/the@shop")
DEPLOY_TIMEOUT = 120
"""Seconds that a broker waits for a route, whatever else the machine does."""
BROKER_HOST = f"istio-broker.{SYSTEM_DOMAIN}"
INSTANCE, BINDING = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
MADE = {"app.kubernetes.io/managed-by": "meshbridge"}
KINDS = {
    "ConfigMap": "v1",
    "EnvoyFilter": "networking.istio.io/v1alpha3",
    "NetworkPolicy": "networking.k8s.io/v1",
    "Service": "v1",
    **dict.fromkeys(
        ("ServiceEntry", "DestinationRule", "Gateway", "VirtualService"), "networking.istio.io/v1"
    ),
}


@dataclass(frozen=True)
class Answer:
    """What a broker answered; `code` is curl's exit code."""

    code: int
    status: int
    body: Any


@dataclass(frozen=True)
class Platform:
    """Calls the consumer's broker from a Pod, as a platform does."""

    cluster: Cluster
    url: str
    user: tuple[str, str] | None = PLATFORM_USER
    pod: str = "/".join(PLATFORM)

    base: str = ""
    """Of the paths, behind a service manager."""

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """One OSB call."""
        url = f"{self.url}{self.base}{path}"
        command = [
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            str(4 * DEPLOY_TIMEOUT),
            "-X",
            method,
            url,
        ]
        command += ["-H", "X-Broker-API-Version: 2.17", "-w", "\n%{http_code}"]
        if self.user is not None:
            command += ["-u", ":".join(self.user)]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        done = self.cluster.exec(self.pod, command, timeout=5 * DEPLOY_TIMEOUT)
        text, _, status = done.stdout.rpartition("\n")
        return Answer(done.code, int(status or 0), json.loads(text) if text.startswith("{") else text)

    def wait(self) -> None:
        """Wait until calls get through to the service broker: proxies learn of routes a moment after they are made."""
        self.cluster.wait_until(
            lambda: self.call("GET", "/v2/catalog").status == 200, "the brokers' calls get through"
        )

    def provision(self) -> Answer:
        body = {"service_id": SERVICE, "plan_id": PLAN, "organization_guid": "o", "space_guid": "s"}
        return self.call("PUT", f"/v2/service_instances/{INSTANCE}", body)

    def bind(self, binding: str = BINDING) -> Answer:
        context = {"platform": "kubernetes", "namespace": "shop"}
        body = {"service_id": SERVICE, "plan_id": PLAN, "context": context}
        return self.call("PUT", f"/v2/service_instances/{INSTANCE}/service_bindings/{binding}", body)

    def unbind(self, binding: str = BINDING) -> Answer:
        query = f"service_id={SERVICE}&plan_id={PLAN}"
        path = f"/v2/service_instances/{INSTANCE}/service_bindings/{binding}?{query}"
        return self.call("DELETE", path)


@pytest.fixture(scope="module")
def standalone(lab: Lab) -> Iterator[Platform]:
    """The brokers of the standalone scenario, as the stacks set them up, with an instance."""
    _prepare(lab)
    usual = {name: lab.stack(name).configuration for name in (PROVIDER, CONSUMER)}
    lab.up(PROVIDER, _providing(lab, usual[PROVIDER]))
    outputs = lab.up(CONSUMER, _consuming(lab, usual[CONSUMER]))
    try:
        platform = Platform(lab.consumer, f"http://{outputs['broker']['address']}")
        platform.wait()
        provisioned = platform.provision()
        assert provisioned.status == 201, provisioned
        yield platform
    finally:
        lab.up(CONSUMER, usual[CONSUMER])
        lab.up(PROVIDER, usual[PROVIDER])


def _prepare(lab: Lab) -> None:
    """What the stacks presuppose: Secrets, the service broker, and the platform's Pod."""
    fabrik = (service_broker.USER, service_broker.PASSWORD)
    secrets = (
        (lab.provider, {"consumers": CONSUMER_USER, "fabrik": fabrik}),
        (lab.consumer, {"platform": PLATFORM_USER, "data-broker": CONSUMER_USER}),
    )
    for cluster, users in secrets:
        cluster.plane.create_namespace(NAMESPACE)
        for name, (user, password) in users.items():
            data = {"username": user.encode(), "password": password.encode()}
            cluster.put_secret(NAMESPACE, name, data)
    lab.provider.apply(*_fabrik())
    lab.consumer.apply(*applications.client(*PLATFORM, sidecar=False))
    lab.provider.wait_ready(FABRIK, FABRIK)
    lab.consumer.wait_ready(*PLATFORM)


def _fabrik() -> list[Object]:
    """The service broker, for the PostgreSQL of the provider's cluster."""
    command = [sys.executable, "-m", "tests.lab.packets.fabrik", str(FABRIK_PORT), stacks.address("postgres")]
    namespace, account, deployment = applications.client(FABRIK, FABRIK, sidecar=False)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    container |= {"command": [*command, applications.PASSWORD], "workingDir": str(REPOSITORY)}
    container["readinessProbe"] = {"httpGet": {"path": "/info", "port": FABRIK_PORT}}
    ports = [{"name": "http", "port": FABRIK_PORT, "targetPort": FABRIK_PORT}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": FABRIK, "namespace": FABRIK},
        "spec": {"selector": {"app": FABRIK}, "ports": ports},
    }
    return [namespace, account, deployment, service]


def _broker(cluster: Cluster, **more: object) -> dict[str, Any]:
    return {
        "image": IMAGE,
        "networkProfile": PROFILE,
        "serviceNamePrefix": PREFIX,
        "deployTimeoutSeconds": DEPLOY_TIMEOUT,
        "apiServerPorts": [urlsplit(cluster.plane.server).port],
        **more,
    }


def _providing(lab: Lab, usual: Mapping[str, Any]) -> dict[str, Any]:
    upstream = {"url": f"http://{FABRIK}.{FABRIK}.svc.cluster.local:{FABRIK_PORT}", "secret": "fabrik"}
    return {
        **usual,
        "provider": {**usual["provider"], "controlPlane": {"consumers": [CONSUMER_ID]}},
        "broker": _broker(lab.provider, role="provider", callers={"secret": "consumers"}, upstream=upstream),
    }


def _consuming(lab: Lab, usual: Mapping[str, Any]) -> dict[str, Any]:
    broker = _broker(
        lab.consumer,
        role="consumer",
        provider="data",
        namespaces=["shop"],
        callers={"secret": "platform", "namespaces": [PLATFORM[0]]},
        upstream={"secret": "data-broker", "timeoutSeconds": 2 * DEPLOY_TIMEOUT},
    )
    return {**usual, "broker": broker}


@pytest.fixture(scope="module")
def plugin(lab: Lab, standalone: Platform) -> Platform:
    """The brokers of the plugin scenario, between which a service manager on the internet carries the calls. What the stacks
    were before, `standalone` brings back."""
    lab.provider.apply(_public_broker())
    public = f"http://{_balancer(lab.provider)}:{FABRIK_PORT}"
    manager = lab.internet.host(MANAGER)
    command = [sys.executable, "-m", "broker", "serve", "--role", "forward", "--upstream", public]
    manager.start(
        [*command, "--listen", f"{manager.address}:{FABRIK_PORT}"],
        {"PYTHONPATH": str(REPOSITORY), "MESHBRIDGE_BROKER_ANONYMOUS": "true"},
    )
    provider, consumer = (lab.stack(name).configuration for name in (PROVIDER, CONSUMER))
    del provider["provider"]["controlPlane"]
    provider["broker"]["callers"]["networks"] = [f"{manager.address}/32"]
    consumer["broker"]["upstream"]["url"] = f"http://{MANAGER}:{FABRIK_PORT}"
    lab.up_together({PROVIDER: provider, CONSUMER: consumer})
    platform = dataclasses.replace(standalone, base="/v1/osb/fabrik")
    platform.wait()
    return platform


def _public_broker() -> Object:
    """The provider's broker as a service manager reaches it."""
    selector = {"app.kubernetes.io/name": "meshbridge-broker"}
    spec = {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "selector": selector,
        "ports": [{"name": "http", "port": FABRIK_PORT, "targetPort": FABRIK_PORT}],
    }
    metadata = {"name": "public", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _balancer(cluster: Cluster) -> str:
    def found() -> list[Object]:
        service = cluster.api.get("v1", "Service", "public", NAMESPACE) or {}
        return (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []

    cluster.wait_until(lambda: bool(found()), "the provider's broker has a public address")
    return cluster.balancer(NAMESPACE, "public")


def test_a_call_of_the_platform_reaches_the_service_broker_through_both_gateways(
    lab: Lab, standalone: Platform
) -> None:
    egress, ingress = AccessLog(lab.consumer, EGRESS_POD), AccessLog(lab.provider, INGRESS_POD)

    catalog = standalone.call("GET", "/v2/catalog")

    assert catalog.status == 200, catalog
    assert [service["name"] for service in catalog.body["services"]] == ["postgresql"]
    _restart(lab.consumer)
    standalone.wait()
    egress.wait(_at_broker, "the egress gateway has logged a connection to the provider's broker")
    line = ingress.wait(_at_broker, "the ingress gateway has logged it")
    assert line["peer_names"] == CONSUMER_ID


def _at_broker(line: Line) -> bool:
    return bool(line["sni"] == BROKER_HOST)


def _restart(cluster: Cluster) -> None:
    """Replace the broker's Pod, so that the connections which it kept end and are logged."""
    pod = cluster.pod(f"{NAMESPACE}/broker")["metadata"]
    cluster.api.delete("v1", "Pod", pod["name"], NAMESPACE)
    cluster.wait_until(
        lambda: all(found["metadata"]["uid"] != pod["uid"] for found in cluster.pods(NAMESPACE, "broker")),
        "the broker's Pod is replaced",
    )
    cluster.wait_ready(NAMESPACE, "broker")


def test_an_application_queries_the_database_that_it_is_bound_to_until_the_unbind(
    lab: Lab, standalone: Platform
) -> None:
    before = _made(lab)
    ingress = AccessLog(lab.provider, INGRESS_POD)

    bound = standalone.bind()

    assert bound.status == 201, bound
    credentials = bound.body["credentials"]
    service = lab.consumer.api.get("v1", "Service", f"svc-0-{BINDING}", "shop")
    assert service is not None
    assert (credentials["hostname"], credentials["port"]) == (service["spec"]["clusterIP"], 5555)
    server = lab.provider.pod(f"{DATABASES}/postgres")["status"]["podIP"]
    assert _first_query(lab, credentials["uri"]) == f"user-{BINDING} {server}"
    line = ingress.wait(
        lambda line: bool(line["sni"] == f"0.{BINDING}.{SYSTEM_DOMAIN}"), "the ingress gateway has logged it"
    )
    assert line["peer_names"] == CONSUMER_ID

    unbound = standalone.unbind()

    assert unbound.status == 200, unbound
    assert _made(lab) == before
    with pytest.raises(AssertionError):
        _query(lab, credentials["uri"])
    assert standalone.unbind().status == 410


def _first_query(lab: Lab, uri: str) -> str:
    """What the database answers, once the proxies have learnt of the route."""

    def answered() -> bool:
        try:
            _query(lab, uri)
        except AssertionError:
            return False
        return True

    lab.consumer.wait_until(answered, "the database answers to the binding's credentials")
    return _query(lab, uri)


def _query(lab: Lab, uri: str) -> str:
    command = ["psql", uri, "--no-psqlrc", "--tuples-only", "--no-align", "--field-separator", " "]
    query = "SELECT current_user, host(inet_server_addr())"
    done = lab.consumer.exec(CLIENT, [*command, "--command", query], timeout=60)
    assert done.code == 0, done.stderr
    return done.stdout.strip()


def _made(lab: Lab) -> set[tuple[str, str, str, str]]:
    """The objects that stacks and brokers have made, where those of bindings lie."""
    return {
        (cluster.name, kind, namespace, item["metadata"]["name"])
        for cluster, namespaces in (
            (lab.consumer, (EGRESS_NAMESPACE, "shop")),
            (lab.provider, (INGRESS_NAMESPACE,)),
        )
        for namespace in namespaces
        for kind, version in KINDS.items()
        for item in cluster.api.items(version, kind, namespace)
        if MADE.items() <= item["metadata"].get("labels", {}).items()
    }


def test_a_broker_knows_its_bindings_after_its_pod_was_replaced(lab: Lab, standalone: Platform) -> None:
    assert standalone.bind("kept").status == 201

    for cluster in (lab.consumer, lab.provider):
        _restart(cluster)
    standalone.wait()

    assert standalone.bind("kept").status == 200
    assert standalone.unbind("kept").status == 200


def test_a_consumer_that_is_not_listed_does_not_reach_the_broker(lab: Lab, standalone: Platform) -> None:
    del standalone
    usual = lab.stack("desk").configuration
    uninvited = {
        "name": "uninvited",
        "systemDomain": SYSTEM_DOMAIN,
        "clientSecret": "desk-uninvited",
        "caCertificate": lab.stack(PROVIDER).outputs()["provider"]["caCertificate"],
    }
    endpoint = {"name": "main", "host": BROKER_HOST, "port": 8080}
    wanted = {"name": "broker", "provider": "uninvited", "namespace": "desk", "endpoints": [endpoint]}
    section = usual["consumer"]
    changed = {
        **usual,
        "consumer": {
            **section,
            "providers": [*section["providers"], uninvited],
            "imports": [*section["imports"], wanted],
        },
    }
    ingress = AccessLog(lab.provider, INGRESS_POD)
    broker = lab.provider.log_file(f"{NAMESPACE}/broker", "broker")
    seen = broker.stat().st_size
    lab.up("desk", changed)
    try:
        url = "http://svc-broker-main.desk.svc.cluster.local:8080"
        answer = Platform(lab.consumer, url, CONSUMER_USER, "desk/desk-app").call("GET", "/v2/catalog")
    finally:
        lab.up("desk", usual)

    assert answer.status == 0, answer
    line = ingress.wait(_at_broker, "the ingress gateway has refused the certificate")
    assert "CERTIFICATE_VERIFY_FAILED" in line["downstream_failure"]
    assert broker.stat().st_size == seen


def test_only_callers_with_a_password_and_from_their_namespace_get_through(
    lab: Lab, standalone: Platform
) -> None:
    elsewhere = Platform(lab.consumer, standalone.url, pod="desk/desk-app")

    assert Platform(lab.consumer, standalone.url, None).call("GET", "/v2/catalog").status == 401
    refused = elsewhere.call("GET", "/v2/catalog")
    assert refused.status in {0, 503}, refused


def test_the_broker_has_no_rights_beyond_its_routes(lab: Lab, standalone: Platform) -> None:
    del standalone
    for cluster, forbidden in (
        (lab.consumer, ("secrets", EGRESS_NAMESPACE)),
        (lab.provider, ("secrets", INGRESS_NAMESPACE)),
    ):
        resource, namespace = forbidden
        review: Object = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{NAMESPACE}:broker",
                "resourceAttributes": {"namespace": namespace, "verb": "get", "resource": resource},
            },
        }
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        assert cluster.api.request("POST", path, review)["status"]["allowed"] is False


def test_behind_a_service_manager_the_data_takes_the_same_way(lab: Lab, plugin: Platform) -> None:
    """The last test here: it has changed the stacks."""
    before = _made(lab)
    assert not [name for _, _, _, name in before if "control-plane" in name or "broker-upstream" in name]

    bound = plugin.bind("managed")

    assert bound.status == 201, bound
    server = lab.provider.pod(f"{DATABASES}/postgres")["status"]["podIP"]
    assert _first_query(lab, bound.body["credentials"]["uri"]) == f"user-managed {server}"
    assert plugin.unbind("managed").status == 200
    assert _made(lab) == before
