"""The lab's node does what a kubelet and a service proxy do; without this, the other packet tests would prove little."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from lab import applications
from lab.access import SHOWN
from lab.cluster import Cluster
from lab.errors import LabError
from lab.network import BRIDGE

NAMESPACE = "node-tests"
READY = "/tmp/ready"  # noqa: S108 - the container's
HOST = f"{NAMESPACE}.svc.cluster.local"


@pytest.fixture(scope="module")
def cluster(lab: Any) -> Iterator[Cluster]:
    """The provider's cluster with a namespace in which Istio has no part: a client, and an echo of two replicas."""
    world: Cluster = lab.provider
    world.plane.create_namespace(NAMESPACE)
    world.apply(
        *applications.client(NAMESPACE, "client", sidecar=False),
        *applications.echo(NAMESPACE, "echo", replicas=2),
    )
    world.wait_ready(NAMESPACE, "client")
    world.wait_ready(NAMESPACE, "echo")
    yield world
    world.api.delete("v1", "Namespace", NAMESPACE)


Run = Callable[[dict[str, Any]], str]


@pytest.fixture
def run(cluster: Cluster) -> Iterator[Run]:
    """Runs a Pod of the image `client` with parts of its spec replaced; returns its reference."""
    made: list[str] = []

    def start(spec: dict[str, Any]) -> str:
        name = f"pod-{len(made)}"
        made.append(name)
        containers = spec.get("containers", [{}])
        full = {
            "terminationGracePeriodSeconds": 1,
            **spec,
            "containers": [{"name": "app", "image": "client", **container} for container in containers],
        }
        cluster.apply(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": NAMESPACE},
                "spec": full,
            }
        )
        return f"{NAMESPACE}/{name}"

    yield start
    for name in made:
        cluster.api.delete("v1", "Pod", name, NAMESPACE)
    cluster.wait_until(
        lambda: not any(cluster.api.get("v1", "Pod", n, NAMESPACE) for n in made), "Pods are gone", 30
    )


def script(text: str) -> dict[str, Any]:
    return {"command": ["sh", "-c", text]}


def get(cluster: Cluster, url: str) -> tuple[int, str]:
    command = ["curl", "--silent", "--show-error", "--max-time", "10", url]
    done = cluster.exec(f"{NAMESPACE}/client", command)
    return done.code, done.stdout or done.stderr


def status(cluster: Cluster, reference: str) -> dict[str, Any]:
    """What is reported of a Pod's one container; nothing yet if the node has not seen the Pod."""
    nothing: dict[str, Any] = {"state": {}, "ready": False, "restartCount": 0}
    (found,) = cluster.pod(reference)["status"].get("containerStatuses") or [nothing]
    return dict(found)


def test_a_service_reaches_all_its_endpoints_and_only_ready_ones(cluster: Cluster) -> None:
    url = f"http://echo.{HOST}:8080/"
    pods = {pod["metadata"]["name"] for pod in cluster.pods(NAMESPACE, "echo")}

    servers = {json.loads(get(cluster, url)[1])["server"] for _ in range(24)}

    assert servers == pods
    assert len(pods) == 2


def test_a_service_without_endpoints_is_unreachable_at_once(cluster: Cluster) -> None:
    selector = {"app": "nobody"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty", "namespace": NAMESPACE}}
    cluster.apply({**service, "spec": {"selector": selector, "ports": [{"port": 80}]}})
    cluster.wait_until(
        lambda: cluster.exec(f"{NAMESPACE}/client", ["getent", "hosts", f"empty.{HOST}"]).code == 0,
        "it has a name",
        10,
    )

    code, said = get(cluster, f"http://empty.{HOST}/")

    assert code == 7, said  # curl: could not connect


def test_names_are_short_inside_a_namespace_and_foreign_ones_asked_of_the_internet(cluster: Cluster) -> None:
    client = f"{NAMESPACE}/client"
    address = cluster.api.get("v1", "Service", "echo", NAMESPACE)
    assert address is not None

    for name in ("echo", f"echo.{NAMESPACE}", f"echo.{NAMESPACE}.svc", f"echo.{HOST}"):
        found = cluster.exec(client, ["getent", "hosts", name]).stdout.split()
        assert found[0] == address["spec"]["clusterIP"], name
    assert cluster.exec(client, ["getent", "hosts", "nowhere.example"]).code != 0


def test_the_internet_s_names_stay_where_they_are_when_a_machine_joins(lab: Any) -> None:
    """A bridge without an address of its own would take the newcomer's, whose is lower than any other."""
    client, names = "shop/orders-api", ("first.istio.data.example", "next.istio.data.example")

    assert lab.consumer.exec(client, ["getent", "hosts", names[0]]).code == 0
    lab.internet.network.ip(
        "link add newcomer address 02:00:00:00:00:01 type veth peer name cable",
        f"link set newcomer master {BRIDGE} up",
    )
    try:
        assert lab.consumer.exec(client, ["getent", "hosts", names[1]]).code == 0
    finally:
        lab.internet.network.ip("link delete newcomer")


def test_a_proxy_s_last_accesses_and_warnings_are_shown(lab: Any) -> None:
    lab.query("SELECT 1")
    egress = "mesh-egress/istio-egressgateway"
    lab.consumer.wait_until(lambda: lab.consumer.access_log(egress) != [], "it has logged the query", 10)

    shown = lab.consumer.last_logged(egress)

    assert json.loads(shown[-1])["sni"] in {line["sni"] for line in lab.consumer.access_log(egress)}
    assert len(shown) <= 2 * SHOWN


def test_a_crashed_container_is_restarted_and_held_back_when_it_crashes_again(
    cluster: Cluster, run: Run
) -> None:
    pod = run({"containers": [script("echo started; exit 3")]})

    cluster.wait_until(
        lambda: status(cluster, pod)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff",
        "it is held back",
        30,
    )

    found = status(cluster, pod)
    assert found["restartCount"] == 1
    assert found["lastState"]["terminated"]["exitCode"] == 3
    assert not found["ready"]
    assert cluster.log_file(pod).read_text() == "started\nstarted\n"


def test_a_pod_is_ready_when_its_probe_says_so_and_not_any_longer(cluster: Cluster, run: Run) -> None:
    probe = {"exec": {"command": ["test", "-e", READY]}, "periodSeconds": 1, "failureThreshold": 1}
    pod = run({"containers": [{"readinessProbe": probe}]})
    cluster.wait_until(lambda: "running" in status(cluster, pod)["state"], "it runs", 30)
    assert not status(cluster, pod)["ready"]

    cluster.exec(pod, ["touch", READY]).expect_success()
    cluster.wait_until(lambda: status(cluster, pod)["ready"], "it is ready", 10)
    cluster.exec(pod, ["rm", READY]).expect_success()
    cluster.wait_until(lambda: not status(cluster, pod)["ready"], "it is unready", 10)


def test_a_container_that_does_not_live_is_killed_and_restarted(cluster: Cluster, run: Run) -> None:
    probe = {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}
    pod = run({"containers": [{"livenessProbe": probe}]})

    cluster.wait_until(lambda: status(cluster, pod)["restartCount"] >= 1, "it is restarted", 30)

    assert status(cluster, pod)["lastState"]["terminated"]["exitCode"] == 137


def test_a_deleted_pod_may_end_by_itself_within_its_grace(cluster: Cluster, run: Run) -> None:
    end = "trap 'echo ending; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    pod = run({"terminationGracePeriodSeconds": 20, "containers": [script(end)]})
    cluster.wait_until(lambda: "running" in status(cluster, pod)["state"], "it runs", 30)
    log = cluster.log_file(pod)
    cluster.wait_until(lambda: "up" in log.read_text(), "it says so", 10)

    cluster.api.delete("v1", "Pod", pod.split("/")[1], NAMESPACE)

    cluster.wait_until(
        lambda: cluster.api.get("v1", "Pod", pod.split("/")[1], NAMESPACE) is None, "it is gone", 15
    )
    assert log.read_text() == "up\nending\n"


def test_a_container_has_its_own_files_processes_and_rights(cluster: Cluster, run: Run) -> None:
    context = {
        "runAsUser": 1337,
        "runAsGroup": 1337,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    volumes = [{"name": "work", "emptyDir": {}}]
    mounts = [{"name": "work", "mountPath": "/var/lib/work"}]
    pod = run({"volumes": volumes, "containers": [{"securityContext": context, "volumeMounts": mounts}]})
    cluster.wait_until(lambda: "running" in status(cluster, pod)["state"], "it runs", 30)

    def inside(text: str) -> str:
        return cluster.exec(pod, ["sh", "-c", text]).stdout.strip()

    assert inside("id -u; id -g").split() == ["1337", "1337"]
    assert inside("touch /etc/x 2>/dev/null || echo refused") == "refused"
    assert inside("echo kept > /var/lib/work/x; cat /var/lib/work/x") == "kept"
    assert inside("cat /proc/1/comm") == "sleep"
    assert inside("grep -E 'CapEff|CapBnd|NoNewPrivs' /proc/1/status | awk '{print $2}'").split() == [
        "0" * 16,
        "0" * 16,
        "1",
    ]


def test_a_container_without_own_root_leaves_the_machine_alone(
    cluster: Cluster, run: Run, tmp_path: Any
) -> None:
    pod = run({"containers": [script(f"echo x > {tmp_path}/made && echo y > /etc/made && sleep infinity")]})
    cluster.wait_until(lambda: "running" in status(cluster, pod)["state"], "it runs", 30)

    cluster.wait_until(lambda: cluster.exec(pod, ["cat", "/etc/made"]).stdout == "y\n", "it has written", 10)

    assert list(tmp_path.iterdir()) == []


def test_a_projected_token_is_for_its_audience_and_bound_to_its_pod(cluster: Cluster, run: Run) -> None:
    source = {"serviceAccountToken": {"path": "token", "audience": "istio-ca", "expirationSeconds": 600}}
    volumes = [{"name": "token", "projected": {"sources": [source]}}]
    pod = run(
        {
            "volumes": volumes,
            "containers": [{"volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/tokens"}]}],
        }
    )
    cluster.wait_until(lambda: "running" in status(cluster, pod)["state"], "it runs", 30)

    token = cluster.exec(pod, ["cat", "/var/run/secrets/tokens/token"]).expect_success()

    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["aud"] == ["istio-ca"]
    assert claims["kubernetes.io"]["pod"]["name"] == pod.split("/")[1]
    assert claims["sub"] == f"system:serviceaccount:{NAMESPACE}:default"


def test_a_pod_waits_for_what_it_needs_and_says_for_what(cluster: Cluster, run: Run) -> None:
    volumes = [{"name": "settings", "configMap": {"name": "late"}}]
    pod = run(
        {
            "volumes": volumes,
            "containers": [{"volumeMounts": [{"name": "settings", "mountPath": "/settings"}]}],
        }
    )

    def waits() -> dict[str, Any]:
        return dict(status(cluster, pod)["state"].get("waiting", {}))

    cluster.wait_until(lambda: "late not found" in waits().get("message", ""), "it says what is missing", 30)
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "late", "namespace": NAMESPACE},
            "data": {"a": "1"},
        }
    )
    cluster.wait_until(lambda: "running" in status(cluster, pod)["state"], "it runs", 30)

    assert cluster.exec(pod, ["cat", "/settings/a"]).stdout == "1"


def test_an_image_that_the_lab_does_not_have_is_named(cluster: Cluster, run: Run) -> None:
    pod = run({"containers": [{"image": "docker.io/library/nginx:1"}]})

    def waiting() -> dict[str, Any]:
        return dict(status(cluster, pod)["state"].get("waiting", {}))

    cluster.wait_until(lambda: waiting().get("reason") == "ErrImagePull", "it says so", 30)
    assert "'docker.io/library/nginx:1'; it has: proxyv2" in waiting()["message"]


@pytest.mark.parametrize("direction", ["Egress", "Ingress"])
def test_a_network_policy_is_enforced(cluster: Cluster, direction: str) -> None:
    selected = "client" if direction == "Egress" else "echo"
    metadata = {"name": "closed", "namespace": NAMESPACE}
    names = {"ports": [{"port": 53, "protocol": "UDP"}]}

    def closed(**rules: list[dict[str, Any]]) -> dict[str, Any]:
        spec = {"podSelector": {"matchLabels": {"app": selected}}, "policyTypes": [direction], **rules}
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": metadata,
            "spec": spec,
        }

    url = f"http://echo.{HOST}:8080/"
    assert get(cluster, url)[0] == 0

    cluster.apply(closed(egress=[names]))
    try:
        cluster.wait_until(lambda: get(cluster, url)[0] == 7, "it is refused", 10)
        if direction == "Egress":
            cluster.apply(closed(egress=[names, {"to": [{"podSelector": {"matchLabels": {"app": "echo"}}}]}]))
        else:
            cluster.apply(closed(ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]))
        cluster.wait_until(lambda: get(cluster, url)[0] == 0, "it is allowed by name", 10)
    finally:
        cluster.api.delete("networking.k8s.io/v1", "NetworkPolicy", "closed", NAMESPACE)


def test_clusters_reach_each_other_by_load_balancers_alone(lab: Any) -> None:
    """What a cluster does not show on the internet is out of reach, even for those who know the way to its edge."""
    server = lab.provider.pod("databases/echo")["status"]["podIP"]
    api = urlsplit(lab.provider.plane.server)
    edge, public = lab.provider.addresses.outside, lab.stack("provider").outputs()["provider"]["address"]
    known = [f"http://{server}:8080/", f"https://{api.hostname}:{api.port}/version"]
    hidden = [*known, f"https://{edge}:{api.port}/version", f"http://{edge}:8080/"]
    curl = ["curl", "--silent", "--insecure", "--max-time", "5"]

    for url in known:
        assert lab.provider.exec("databases/echo", [*curl, url]).code == 0
    routes = [f"route add {host}/32 via {edge}" for host in (server, api.hostname)]
    lab.internet.network.ip(*routes)
    try:
        for url in hidden:
            with pytest.raises(LabError):
                lab.internet.network.run(*curl, url)
            assert lab.consumer.exec("shop/orders-api", [*curl, url]).code != 0, url
        lab.internet.network.run("bash", "-c", f"exec 3<>/dev/tcp/{public}/9000")
    finally:
        lab.internet.network.ip(*(route.replace("add", "del") for route in routes))
