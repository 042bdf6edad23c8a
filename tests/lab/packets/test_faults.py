"""Parts of the path and of the control planes fail: what an application sees, and how all comes back by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.access import PROXY
from lab.api import Object
from lab.capture import Capture
from lab.cluster import Cluster
from lab.errors import ApiError
from lab.lab import CLIENT, EGRESS_NAMESPACE, SYSTEM_DOMAIN, Lab
from lab.load import Load
from lab.network import BRIDGE
from tests.lab.packets import certificates
from tests.lab.packets.access import EGRESS_POD, INGRESS_POD, AccessLog
from tests.lab.packets.deployed import deployed
from tests.lab.packets.rejections import Rejections

REDIS = ("svc-redis-main.shop.svc.cluster.local", 6379)
WEB = "http://svc-web-main.shop.svc.cluster.local:8080/"
RATE, HELD = 50, 5
SOME = 100
"""Connections after which something would have shown."""
ISTIOD = "istiod"
MESH_NAMESPACE = "istio-system"


@pytest.fixture
def load(consumer: Cluster) -> Iterator[Load]:
    """Short and long connections of an application."""
    with Load(consumer, CLIENT, REDIS, rate=RATE, held=HELD) as running:
        running.attempts(RATE)
        yield running


def _assert_nothing_lost(load: Load) -> None:
    load.attempts(SOME)
    load.exchanges(2)
    done = load.stop()
    assert (done.failed, done.lost, done.held) == (0, 0, HELD), done


@pytest.mark.parametrize(("side", "pod"), [("consumer", EGRESS_POD), ("provider", INGRESS_POD)])
def test_a_gateway_is_killed(lab: Lab, rejections: Rejections, load: Load, side: str, pod: str) -> None:
    """Its connections are cut and new ones refused at once, none hangs; the node restarts it and all is well again."""
    rejections.check()
    cluster: Cluster = getattr(lab, side)
    before = _restarts(cluster, pod)

    cluster.kill(pod, PROXY)

    cut = load.wait(lambda now: now.lost == HELD and now.failed > 0, "the application notices")
    namespace, name = pod.split("/")
    cluster.wait_until(lambda: _restarts(cluster, pod) == before + 1, "the node restarts the proxy")
    cluster.wait_ready(namespace, name)
    load.recovered()
    reasons = load.stop().reasons
    assert cut.reasons
    assert not [reason for reason in reasons if "Timeout" in reason or "wrong answer" in reason], reasons


@pytest.mark.parametrize(
    ("role", "gateway", "pod"),
    [("consumer", "egressGateway", EGRESS_POD), ("provider", "ingressGateway", INGRESS_POD)],
)
def test_a_gateways_pod_is_deleted(lab: Lab, load: Load, role: str, gateway: str, pod: str) -> None:
    """Its connections may go on for the agreed time, in which another Pod takes over."""
    cluster: Cluster = getattr(lab, role)
    agreed = lab.usual(role)[role][gateway]["workload"]["drainSeconds"]
    namespace, name = pod.split("/")
    before = cluster.pod(pod)["metadata"]["name"]
    began = time.monotonic()

    cluster.api.delete("v1", "Pod", before, namespace)

    load.exchanges(1)
    load.wait(lambda now: now.lost > 0, "the deleted Pod's connections end")
    assert time.monotonic() - began >= agreed
    cluster.wait_ready(namespace, name)
    load.recovered()
    assert cluster.pod(pod)["metadata"]["name"] != before


def test_istiod_is_down(lab: Lab, consumer: Cluster, rejections: Rejections, load: Load) -> None:
    """Traffic goes on. Istio's objects are refused; a new certificate is taken, and presented when istiod is back."""
    rejections.check()
    ingress = AccessLog(lab.provider, INGRESS_POD)
    route = _object(consumer, "VirtualService", "import-redis-main", EGRESS_NAMESPACE)

    with _without_istiod(consumer):
        with pytest.raises(ApiError, match="failed calling webhook"):
            consumer.api.apply(route, dry_run=True)
        serial = certificates.renew_client(lab)
        load.attempts(SOME)
        assert serial not in {line["peer_serial"] for line in ingress.read()}

    ingress.wait(lambda line: line["peer_serial"] == serial, "the new certificate is presented")
    consumer.wait_until(lambda: _is_taken(consumer, route), "objects are taken again", 60)
    _assert_nothing_lost(load)


# When the server resets a connection before its handshake, CPython's ssl module loses the socket (SSLSocket._create).
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning",
    "ignore:unclosed <ssl.SSLSocket:ResourceWarning",
)
def test_the_api_server_is_down(lab: Lab, consumer: Cluster, load: Load) -> None:
    """Traffic goes on, and no change is taken; one that is made when it is back arrives."""
    ingress = AccessLog(lab.provider, INGRESS_POD)

    consumer.plane.stop_api_server()
    try:
        with pytest.raises(ApiError, match="no answer"):
            consumer.plane.create_namespace("too-late")
        load.attempts(2 * SOME)
    finally:
        consumer.plane.start_api_server()

    serial = certificates.renew_client(lab)
    # istiod tries to watch again at growing intervals.
    ingress.wait(lambda line: line["peer_serial"] == serial, "a change arrives", 150)
    _assert_nothing_lost(load)


def test_the_internets_names_are_gone(lab: Lab, consumer: Cluster, load: Load, tmp_path: Path) -> None:
    """What has been resolved keeps its address; a binding made meanwhile works a while after the names are back."""
    objects = {item.name: item for item in deployed(lab, consumer, "consumer")}
    new = objects["web-main-service-entry"]
    host = f"web.{SYSTEM_DOMAIN}"
    assert _web(consumer) == 0
    assert consumer.exec(CLIENT, ["getent", "hosts", host]).code == 0

    lab.internet.stop_names()
    try:
        new.delete()
        consumer.wait_until(
            lambda: host not in consumer.admin(EGRESS_POD, "/clusters"), "the gateway forgets the host", 30
        )
        consumer.wait_until(
            lambda: consumer.exec(CLIENT, ["getent", "hosts", host]).code != 0, "so does the cluster", 30
        )
        new.apply()
        consumer.wait_until(
            lambda: host in consumer.admin(EGRESS_POD, "/clusters"), "the gateway knows the binding", 30
        )
        with Capture(lab.internet.network, BRIDGE, tmp_path / "names.pcap") as capture:
            consumer.wait_until(
                lambda: any(
                    _question(f"redis.{SYSTEM_DOMAIN}") in packet.lower()
                    for packet in capture.traffic().packets
                ),
                "the gateway asks again for what it knows",
                90,
            )
        load.attempts(SOME)
        assert _web(consumer) != 0
    finally:
        new.apply()
        lab.internet.start_names()
    # Envoy gives a query up, and then asks again only after its refresh interval of a minute.
    consumer.wait_until(lambda: _web(consumer) == 0, "the new binding works", 150)
    _assert_nothing_lost(load)


def test_the_clusters_names_are_gone(consumer: Cluster, load: Load) -> None:
    """An application cannot find the service, which it is told; what knows the address goes on."""
    consumer.node.names.stop()
    try:
        answer = consumer.exec(CLIENT, ["curl", "--silent", "--show-error", "--max-time", "20", WEB])
        load.attempts(SOME)
    finally:
        consumer.node.start_names()

    assert (answer.code, "resolve" in answer.stderr.lower()) == (6, True), answer
    assert _web(consumer) == 0
    _assert_nothing_lost(load)


def test_envoy_refuses_an_update(lab: Lab, consumer: Cluster, rejections: Rejections, load: Load) -> None:
    """All bindings go on as they were, and changes of the refused listener wait until the cause is gone."""
    rejections.check()
    server = next(
        item for item in deployed(lab, consumer, "consumer") if item.name == "web-main-egress-server"
    )
    with _accepted(rejections):
        try:
            consumer.apply(_refused_filter())
            consumer.wait_until(lambda: _rejected(rejections) > 0, "Envoy refuses", 30)
            counts = rejections.counts()
            assert any("istiod" in key and '"lds"' in key for key in counts), counts
            before = _rejected(rejections)
            server.delete()
            consumer.wait_until(
                lambda: _rejected(rejections) > before, "Envoy refuses the next change too", 30
            )
            load.attempts(SOME)
            assert _web(consumer) == 0, "a binding of the refused listener did not go on"
        finally:
            filter_ = _refused_filter()
            consumer.api.delete(
                filter_["apiVersion"], filter_["kind"], filter_["metadata"]["name"], EGRESS_NAMESPACE
            )
        try:
            consumer.wait_until(lambda: _web(consumer) != 0, "the change that waited arrives", 30)
        finally:
            server.apply()
        consumer.wait_until(lambda: _web(consumer) == 0, "and so does the next", 30)
        _assert_nothing_lost(load)


@contextmanager
def _accepted(rejections: Rejections) -> Iterator[None]:
    """What is refused meanwhile is meant to be."""
    try:
        yield
    finally:
        rejections.accept()


def _refused_filter() -> Object:
    """An object that istiod takes and Envoy refuses: an access log with a command that there is not."""
    log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": "/dev/stdout",
            "log_format": {"text_format_source": {"inline_string": "%NO_SUCH_COMMAND%\n"}},
        },
    }
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "refused", "namespace": EGRESS_NAMESPACE},
        "spec": {
            "workloadSelector": {"labels": {"istio": EGRESS_POD.rpartition("/")[2]}},
            "configPatches": [
                {
                    "applyTo": "LISTENER",
                    "match": {"context": "GATEWAY"},
                    "patch": {"operation": "MERGE", "value": {"access_log": [log]}},
                }
            ],
        },
    }


def _rejected(rejections: Rejections) -> int:
    """How many listeners the egress gateway has refused."""
    return sum(
        count for key, count in rejections.counts().items() if EGRESS_POD in key and "listener_manager" in key
    )


def _question(host: str) -> bytes:
    """A host as it stands in a DNS query: RFC 1035, section 3.1."""
    return b"".join(bytes([len(label)]) + label.encode() for label in host.split("."))


@contextmanager
def _without_istiod(cluster: Cluster) -> Iterator[None]:
    """While it lasts, istiod does not run; afterwards it does and its webhook answers."""
    _scale_istiod(cluster, 0)
    try:
        for pod in cluster.pods(MESH_NAMESPACE, ISTIOD):
            path = f"/api/v1/namespaces/{MESH_NAMESPACE}/pods/{pod['metadata']['name']}"
            cluster.api.request("DELETE", path, {"gracePeriodSeconds": 0})
        cluster.wait_until(lambda: not cluster.api.items("v1", "Pod", MESH_NAMESPACE), "istiod is gone", 60)
        yield
    finally:
        _scale_istiod(cluster, 1)
        cluster.wait_ready(MESH_NAMESPACE, ISTIOD)
        cluster.wait_until(cluster.plane.istiod_refuses, "istiod's webhook answers", 60)


def _scale_istiod(cluster: Cluster, replicas: int) -> None:
    path = f"/apis/apps/v1/namespaces/{MESH_NAMESPACE}/deployments/{ISTIOD}"
    cluster.api.request("PATCH", path, {"spec": {"replicas": replicas}}, "application/merge-patch+json")


def _restarts(cluster: Cluster, pod: str) -> int:
    statuses = cluster.pod(pod)["status"]["containerStatuses"]
    return next(int(status["restartCount"]) for status in statuses if status["name"] == PROXY)


def _object(cluster: Cluster, kind: str, name: str, namespace: str) -> Object:
    """An object to be applied again."""
    found = cluster.api.get("networking.istio.io/v1", kind, name, namespace)
    assert found is not None
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": found["spec"],
    }


def _is_taken(cluster: Cluster, item: Object) -> bool:
    try:
        cluster.api.apply(item, dry_run=True)
    except ApiError:
        return False
    return True


def _web(consumer: Cluster) -> int:
    """With what curl ends when the application asks another service of the provider; 0 is success."""
    command = ["curl", "--silent", "--fail", "--max-time", "20", "--output", "/dev/null", WEB]
    return consumer.exec(CLIENT, command).code
