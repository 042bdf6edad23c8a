"""The program on the real engine and a real API server: what a stack's life looks like from the first `up` on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

import tools
from lab.api import Api, Kind, Object
from lab.control_plane import ControlPlane
from tests.engine import stacks
from tests.engine.conftest import NewNamespace
from tests.engine.project import Project, Result, Stack, kill, wait_until

ISTIO = "networking.istio.io/v1"
MANAGED = "app.kubernetes.io/managed-by"
CONTROLLED = {"Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler"}
OBJECTS_PER_IMPORT = 9
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""What the engine's events hold in place of a string that is not known yet."""


class Deploy(Protocol):
    """Makes a stack that is destroyed after the test."""

    def __call__(self, name: str, config: dict[str, Any], *, checkpoints: bool = False) -> Stack: ...


@pytest.fixture(scope="session")
def engine() -> dict[str, str]:
    return tools.engine_environment()


@pytest.fixture
def deploy(tmp_path: Path, engine: dict[str, str], api_server: ControlPlane) -> Iterator[Deploy]:
    """The stacks of one test, in one project; `checkpoints` chooses a project that saves its state at each step."""
    projects: dict[bool, Project] = {}
    made: list[Stack] = []

    def new(name: str, config: dict[str, Any], *, checkpoints: bool = False) -> Stack:
        if checkpoints not in projects:
            directory = tmp_path / f"project-{checkpoints}"
            projects[checkpoints] = Project(directory, engine, checkpoints=checkpoints)
        made.append(projects[checkpoints].stack(name, config))
        return made[-1]

    yield new
    for stack in reversed(made):
        stack.destroy().expect_success()


@functools.cache
def _kinds(api: Api) -> list[Kind]:
    return api.kinds()


def managed(plane: ControlPlane, namespace: str) -> dict[tuple[str, str, str], Object]:
    """The objects that Meshbridge owns in namespaces that begin with `namespace`, of whatever kind, those in deletion too:
    by kind, namespace and name. What the cluster's controllers make of them, with their labels, is not counted."""
    found = {}
    for kind in _kinds(plane.api):
        query = {"labelSelector": f"{MANAGED}=meshbridge"}
        answer = plane.api.request("GET", kind.path(None), query=query)
        for item in answer["items"]:
            metadata = item["metadata"]
            place = metadata.get("namespace", metadata["name"])
            if "ownerReferences" in metadata or kind.plural == "endpoints":
                continue
            if place == namespace or place.startswith(f"{namespace}-"):
                name = answer["kind"].removesuffix("List")
                found[name, place, metadata["name"]] = item
    return found


def nothing_is_left(plane: ControlPlane, namespace: str) -> None:
    """A gateway's Deployment is not waited for, neither when it comes nor when it goes."""
    wait_until(lambda: managed(plane, namespace) == {}, f"{namespace}: all objects are gone")


def versions(objects: dict[tuple[str, str, str], Object]) -> dict[tuple[str, str, str], str]:
    """What changes when somebody writes to an object: its resource version, or, where controllers write too (a status,
    and the autoscaler the replicas), the rest of its spec."""
    return {
        key: str({**item["spec"], "replicas": None})
        if key[0] in CONTROLLED
        else item["metadata"]["resourceVersion"]
        for key, item in objects.items()
    }


def uids(objects: dict[tuple[str, str, str], Object]) -> dict[tuple[str, str, str], str]:
    """What changes when an object is deleted and made again."""
    return {key: item["metadata"]["uid"] for key, item in objects.items()}


def foretold(result: Result, preview: Result | None = None) -> dict[str, object]:
    """The inputs of each resource that changes, without those that the preview could not know."""
    known = result.inputs
    return {
        name: _known(inputs, preview.inputs[name]) if preview is not None else _known(inputs, inputs)
        for name, inputs in known.items()
    }


def _known(value: Any, previewed: Any) -> Any:
    if previewed == UNKNOWN:
        return UNKNOWN
    if isinstance(value, dict) and isinstance(previewed, dict):
        return {
            key: _known(item, previewed[key]) if key in previewed else item for key, item in value.items()
        }
    if isinstance(value, list) and isinstance(previewed, list) and len(value) == len(previewed):
        return [_known(item, old) for item, old in zip(value, previewed, strict=True)]
    return value


def state_of(stack: Stack) -> dict[str, tuple[object, object]]:
    """Inputs and outputs of the Kubernetes objects in a stack's state."""
    return {
        r["urn"]: (r.get("inputs"), r.get("outputs"))
        for r in stack.resources()
        if r["type"].startswith("kubernetes:")
    }


def names(stack: Stack) -> set[str]:
    return {resource["urn"].rpartition("::")[2] for resource in stack.resources()}


@pytest.mark.parametrize("role", ["consumer", "provider", "upstreams"])
def test_a_stack_is_deployed_left_alone_and_destroyed(
    role: str, deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    config = {
        "consumer": lambda: stacks.consumer(
            api_server.kubeconfig, namespace, [stacks.imported(0), stacks.imported(1)]
        ),
        "provider": lambda: stacks.provider(
            api_server.kubeconfig,
            namespace,
            controlPlane={"address": "broker.example.org", "port": 8080, "openToAll": True},
        ),
        "upstreams": lambda: stacks.upstreams(api_server.kubeconfig, namespace),
    }[role]()
    stack = deploy(role, config)

    previewed = stack.preview().expect_success()
    first = stack.up().expect_success()
    assert previewed.operations == first.operations
    assert set(first.counts) == {"create"}
    assert foretold(previewed) == foretold(first, previewed)
    objects = managed(api_server, namespace)
    in_state = [r for r in stack.resources() if r["type"].startswith("kubernetes:")]
    assert len(objects) == len(in_state) > 0

    assert stack.preview().expect_success().operations == {}
    assert stack.up().expect_success().operations == {}
    assert stack.preview("--refresh", "--expect-no-changes").expect_success().operations == {}
    assert versions(managed(api_server, namespace)) == versions(objects)

    stack.destroy().expect_success()
    nothing_is_left(api_server, namespace)


def test_the_mesh_route_matches_the_address_that_the_cluster_allocated(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    stack = deploy("consumer", stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0)]))
    stack.up().expect_success()
    service = api_server.api.get("v1", "Service", "svc-db0-main", namespace)
    route = api_server.api.get(ISTIO, "VirtualService", "import-db0-main", namespace)
    assert service is not None
    assert route is not None
    vip = service["spec"]["clusterIP"]
    assert route["spec"]["tcp"][0]["match"] == [{"destinationSubnets": [f"{vip}/32"], "port": 5432}]
    (endpoint,) = stack.outputs()["consumer"]["endpoints"]
    assert endpoint["vip"] == vip
    assert endpoint["address"] == f"svc-db0-main.{namespace}.svc.cluster.local:5432"


def test_only_the_virtual_ip_is_unknown_in_a_preview(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    stack = deploy("consumer", stacks.consumer(api_server.kubeconfig, fresh(), [stacks.imported(0)]))
    previewed = stack.preview().expect_success()
    (new,) = [
        event["resourcePreEvent"]["metadata"]["new"]["inputs"]
        for event in previewed.events
        if event.get("resourcePreEvent", {})
        .get("metadata", {})
        .get("urn", "")
        .endswith("::db0-main-mesh-route")
    ]
    (match,) = new["spec"]["tcp"][0].pop("match")
    subnets = match.pop("destinationSubnets")
    assert match == {"port": 5432}
    assert subnets == [UNKNOWN]
    assert new["spec"]["tcp"][0]["route"][0]["destination"]["subset"] == "db0-main"


def test_a_change_of_one_endpoint_touches_its_objects_alone(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    three = [stacks.imported(index) for index in range(3)]
    stack = deploy("consumer", stacks.consumer(api_server.kubeconfig, namespace, three))
    stack.up().expect_success()

    three[1] = stacks.imported(1, limits={"maxConnections": 10})
    stack.configure(stacks.consumer(api_server.kubeconfig, namespace, three))
    previewed = stack.preview().expect_success()
    changed = stack.up().expect_success()
    assert changed.operations == {"db1-main-upstream-rule": "update"}
    assert previewed.operations == changed.operations
    assert foretold(previewed) == foretold(changed, previewed)
    rule = api_server.api.get(ISTIO, "DestinationRule", "import-db1-main", f"{namespace}-egress")
    assert rule is not None
    assert rule["spec"]["trafficPolicy"]["connectionPool"]["tcp"]["maxConnections"] == 10


def test_endpoints_come_and_go_without_a_trace_in_the_others(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    stack = deploy(
        "consumer",
        stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0), stacks.imported(2)]),
    )
    stack.up().expect_success()
    before = managed(api_server, namespace)

    stack.configure(
        stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(index) for index in range(3)])
    )
    added = stack.up().expect_success()
    assert set(added.counts) == {"create"}
    assert [name for name in added.operations if "db1-main" not in name] == []
    assert len(added.operations) == OBJECTS_PER_IMPORT + 1

    stack.configure(
        stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0), stacks.imported(2)])
    )
    removed = stack.up().expect_success()
    assert set(removed.counts) == {"delete"}
    after = managed(api_server, namespace)
    assert versions(after) == versions(before)


def test_a_renamed_import_keeps_its_virtual_ip(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    stack = deploy("consumer", stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0)]))
    stack.up().expect_success()
    before = api_server.api.get("v1", "Service", "svc-db0-main", namespace)
    assert before is not None

    renamed = {**stacks.imported(0, service="svc-db0-main"), "name": "orders", "formerly": "db0"}
    stack.configure(stacks.consumer(api_server.kubeconfig, namespace, [renamed]))
    result = stack.up().expect_success()
    after = api_server.api.get("v1", "Service", "svc-db0-main", namespace)
    assert after is not None
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert f"svc-db0-main.{namespace}" not in result.operations
    assert set(result.counts) == {"replace"}
    assert {name for kind, _, name in managed(api_server, namespace) if kind == "VirtualService"} == {
        "import-orders-main"
    }


def test_what_was_changed_by_hand_is_found_and_repaired(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    stack = deploy("provider", stacks.provider(api_server.kubeconfig, namespace))
    stack.up().expect_success()
    ingress = f"{namespace}-ingress"
    server = api_server.api.get(ISTIO, "Gateway", "export-orders-main", ingress)
    assert server is not None
    server["spec"]["servers"][0]["tls"]["subjectAltNames"] = ["attacker.example"]
    del server["metadata"]["managedFields"]
    api_server.api.apply(server)
    api_server.api.delete(ISTIO, "VirtualService", "export-orders-main", ingress)

    drift = stack.preview("--refresh", "--expect-no-changes")
    assert drift.code != 0
    assert stack.up().expect_success().operations == {}
    repaired = stack.up("--refresh").expect_success()
    assert repaired.operations == {
        "orders-main-public-server": "update",
        "orders-main-public-route": "create",
    }
    server = api_server.api.get(ISTIO, "Gateway", "export-orders-main", ingress)
    assert server is not None
    assert server["spec"]["servers"][0]["tls"]["subjectAltNames"] == [stacks.CONSUMER_ID]
    assert api_server.api.get(ISTIO, "VirtualService", "export-orders-main", ingress) is not None
    assert stack.preview("--refresh", "--expect-no-changes").expect_success().operations == {}


@pytest.mark.parametrize("checkpoints", [True, False], ids=["checkpoints", "saved-at-the-end"])
def test_an_engine_killed_at_any_moment_leaves_nothing_that_the_next_one_does_not_mend(
    checkpoints: bool, deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    egress = f"{namespace}-egress"
    count = 12

    def config(**more: object) -> dict[str, Any]:
        imports = [stacks.imported(index, **more) for index in range(count)]
        return stacks.consumer(api_server.kubeconfig, namespace, imports)

    stack = deploy("consumer", config(), checkpoints=checkpoints)

    def killed(operation: str, moment: Callable[[], bool]) -> None:
        engine = stack.start(operation, "--yes", "--skip-preview")
        wait_until(moment, f"{operation} is under way", seconds=120)
        kill(engine)
        stack.unlock()

    def entries() -> int:
        return len(api_server.api.items(ISTIO, "ServiceEntry", egress))

    def limited() -> int:
        rules = api_server.api.items(ISTIO, "DestinationRule", egress)
        return sum(
            "maxConnections" in rule["spec"]["trafficPolicy"]["connectionPool"]["tcp"] for rule in rules
        )

    for least in (1, count // 2):
        killed("up", lambda least=least: entries() >= least)  # type: ignore[misc]
    partial = managed(api_server, namespace)
    stack.up().expect_success()
    objects = managed(api_server, namespace)
    assert len(partial) < len(objects)
    assert len(objects) == len(state_of(stack))
    assert uids(partial).items() <= uids(objects).items()

    stack.configure(config(limits={"maxConnections": 10}))
    killed("up", lambda: limited() >= count // 3)
    stack.up().expect_success()
    assert limited() == count
    updated = managed(api_server, namespace)
    assert uids(updated) == uids(objects)
    assert stack.preview("--refresh", "--expect-no-changes").expect_success().operations == {}

    killed("destroy", lambda: entries() <= count // 2)
    stack.destroy().expect_success()
    nothing_is_left(api_server, namespace)
    assert state_of(stack) == {}


def test_an_object_that_the_server_refuses_leaves_the_others_intact(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    good = [stacks.imported(index) for index in range(3)]
    stack = deploy("consumer", stacks.consumer(api_server.kubeconfig, namespace, good), checkpoints=True)
    stack.up().expect_success()
    before = managed(api_server, namespace)

    config = stacks.consumer(
        api_server.kubeconfig, namespace, [*good, stacks.imported(3, clusterIp="192.0.2.1")]
    )
    stack.configure(config)
    known = state_of(stack)
    for options in ([], ["--continue-on-error"]):
        refused = stack.up(*options)
        assert refused.code != 0
        assert f"{namespace}/svc-db3-main" in refused.errors
        assert "failed to allocate IP 192.0.2.1" in refused.errors
        assert versions(before).items() <= versions(managed(api_server, namespace)).items()
        assert known.items() <= state_of(stack).items()
        assert "db3-main-mesh-route" not in names(stack)

    stack.configure(stacks.consumer(api_server.kubeconfig, namespace, [*good, stacks.imported(3)]))
    stack.up().expect_success()
    assert len(managed(api_server, namespace)) == len(before) + OBJECTS_PER_IMPORT


def test_a_token_that_is_refused_leaves_the_state_intact(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace, tmp_path: Path
) -> None:
    namespace = fresh()
    kubeconfig = tmp_path / "kubeconfig"
    api_server.kubeconfig_for(api_server.token(), kubeconfig)
    config = stacks.consumer(kubeconfig, namespace, [stacks.imported(0)])
    stack = deploy("consumer", config, checkpoints=True)
    stack.up().expect_success()
    before = state_of(stack)

    api_server.kubeconfig_for("wrong", kubeconfig)
    stack.configure(stacks.consumer(kubeconfig, namespace, [stacks.imported(0), stacks.imported(1)]))
    refused = stack.up()
    assert refused.code != 0
    assert "Unauthorized" in refused.errors or "401" in refused.errors
    assert before.items() <= state_of(stack).items()

    api_server.kubeconfig_for(api_server.token(), kubeconfig)
    stack.up().expect_success()
    assert api_server.api.get(ISTIO, "VirtualService", "import-db1-main", namespace) is not None


def test_an_api_server_that_is_away_leaves_the_state_intact(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    config = stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0)])
    stack = deploy("consumer", config, checkpoints=True)
    stack.up().expect_success()
    before = state_of(stack)

    stack.configure(stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(1)]))
    api_server.stop_api_server()
    try:
        away = stack.up()
        refreshed = stack.refresh()
    finally:
        api_server.start_api_server()
    assert away.code != 0
    assert "unreachable" in away.errors
    assert refreshed.code != 0
    assert before.items() <= state_of(stack).items()

    stack.up().expect_success()
    assert {name for kind, _, name in managed(api_server, namespace) if kind == "VirtualService"} == {
        "import-db1-main"
    }


def test_two_stacks_side_by_side_with_a_reference(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    exported = deploy("provider", stacks.provider(api_server.kubeconfig, namespace))
    config = stacks.consumer(
        api_server.kubeconfig,
        namespace,
        [{"name": "orders", "provider": "data", "endpoints": [{"name": "main"}, {"name": "replica"}]}],
    )
    config["consumer"]["providers"] = [{"name": "data", "stack": exported.reference, "caFromStack": False}]
    importing = deploy("consumer", config)

    early = importing.preview()
    assert early.code != 0
    assert "provider" in early.errors

    exported.up().expect_success()
    importing.up().expect_success()
    entry = api_server.api.get(ISTIO, "ServiceEntry", "import-orders-main", f"{namespace}-egress")
    rule = api_server.api.get(ISTIO, "DestinationRule", "import-orders-replica", f"{namespace}-egress")
    assert entry is not None
    assert rule is not None
    assert entry["spec"]["hosts"] == [f"orders.{stacks.SYSTEM_DOMAIN}"]
    assert entry["spec"]["ports"][0]["number"] == 9000
    assert rule["spec"]["trafficPolicy"]["tls"]["sni"] == f"replica.{stacks.SYSTEM_DOMAIN}"
    assert rule["spec"]["trafficPolicy"]["tls"]["subjectAltNames"] == [stacks.SYSTEM_DOMAIN]
    assert importing.preview().expect_success().operations == {}

    config["consumer"]["id"] = "stranger.example"
    importing.configure(config)
    stranger = importing.preview()
    assert stranger.code != 0
    assert "\"stranger.example\" is not admitted to 'orders'" in stranger.errors

    config["consumer"] |= {"id": stacks.CONSUMER_ID}
    config["consumer"]["providers"][0]["caFromStack"] = True
    importing.configure(config)
    no_ca = importing.preview()
    assert no_ca.code != 0
    assert "caFromStack" in no_ca.errors


def test_a_second_stack_cannot_take_a_gateway_over(
    deploy: Deploy, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    config = stacks.consumer(api_server.kubeconfig, namespace, [stacks.imported(0)])
    deploy("first", config).up().expect_success()
    before = managed(api_server, namespace)

    config["consumer"]["egressGateway"]["createNamespace"] = False
    second = deploy("second", config).up()
    assert second.code != 0
    assert f"{namespace}-egress/istio-egressgateway-owner" in second.errors
    assert "immutable" in second.errors
    after = managed(api_server, namespace)
    assert versions(after) == versions(before)


def test_three_hundred_endpoints_in_one_stack(
    tmp_path: Path, engine: dict[str, str], api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    many = [stacks.imported(index) for index in range(300)]
    project = Project(tmp_path / "project", engine)
    stack = project.stack("consumer", stacks.consumer(api_server.kubeconfig, namespace, many))
    stack.up().expect_success()
    routes = api_server.api.items(ISTIO, "VirtualService", namespace)
    assert len(routes) == 300
    assert (
        len({subnet for r in routes for subnet in r["spec"]["tcp"][0]["match"][0]["destinationSubnets"]})
        == 300
    )

    before = versions(managed(api_server, namespace))
    many[150] = stacks.imported(150, limits={"idleTimeout": "2h"})
    stack.configure(stacks.consumer(api_server.kubeconfig, namespace, many))
    assert stack.up().expect_success().operations == {"db150-main-upstream-rule": "update"}
    after = versions(managed(api_server, namespace))
    assert {key for key in before if after[key] != before[key]} == {
        ("DestinationRule", f"{namespace}-egress", "import-db150-main")
    }
    api_server.api.delete("v1", "Namespace", f"{namespace}-egress")
