"""The stand-in Kubernetes plugin under Pulumi's real engine, against a real API server.

The program of these tests declares whatever objects the test has put into a file, so that each test says what it wants
in Kubernetes' own words.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import tools
from lab.control_plane import ControlPlane
from tests.engine.conftest import RESTRICTED, NewNamespace
from tests.engine.project import Result, wait_until
from tools.plugins import STAND_IN

PROGRAM = """
import json, pathlib, pulumi

wanted = json.loads(pathlib.Path("wanted.json").read_text())
provider = pulumi.ProviderResource("kubernetes", "cluster", wanted["provider"])
made = {}

def value(given):
    if isinstance(given, dict):
        if "$secret" in given:
            return pulumi.Output.secret(given["$secret"])
        if "$of" in given:
            name, first, *path = given["$of"]
            def pick(found):
                for step in path:
                    found = found[step]
                return found
            return getattr(made[name], first).apply(pick)
        return {key: value(item) for key, item in given.items()}
    return [value(item) for item in given] if isinstance(given, list) else given

for name, item in wanted["objects"].items():
    group_version = item["apiVersion"] if "/" in item["apiVersion"] else "core/" + item["apiVersion"]
    options = pulumi.ResourceOptions(
        provider=provider,
        depends_on=[made[other] for other in item.pop("$after", [])],
        import_=item.pop("$import", None),
    )
    token = f"kubernetes:{group_version}:{item['kind']}{item.pop('$suffix', '')}"
    outputs = {key: None for key in ("metadata", "spec", "data", "status") if key not in item}
    made[name] = pulumi.CustomResource(token, name, {**outputs, **value(item)}, options)

for name, path in wanted["outputs"].items():
    pulumi.export(name, value({"$of": path}))
"""

Object = dict[str, Any]


class Bench:
    """One stack of that program."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.directory = directory
        self._environment = {
            **environment,
            "PATH": f"{STAND_IN}{os.pathsep}{environment['PATH']}",
            "PULUMI_BACKEND_URL": tools.state_url(directory / "state"),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        (directory / "state").mkdir()
        (directory / "Pulumi.yaml").write_text("name: bench\nruntime: python\n")
        (directory / "__main__.py").write_text(PROGRAM)
        self._provider: Object = {}
        self._run("stack", "init", "test").expect_success()

    def on(self, **provider: object) -> None:
        """Sets the provider's inputs."""
        self._provider = provider

    def want(self, objects: dict[str, Object], outputs: dict[str, list[str]] | None = None) -> None:
        """What the program declares from now on."""
        wanted = {"provider": self._provider, "objects": objects, "outputs": outputs or {}}
        (self.directory / "wanted.json").write_text(json.dumps(wanted))

    def up(self, *options: str, **environment: str) -> Result:
        return self._run("up", "--yes", "--skip-preview", *options, **environment)

    def preview(self, *options: str) -> Result:
        return self._run("preview", *options)

    def refresh(self) -> Result:
        return self._run("refresh", "--yes", "--skip-preview")

    def destroy(self) -> Result:
        return self._run("destroy", "--yes", "--skip-preview")

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """Starts the engine in a process group of its own; its plugins have groups of theirs."""
        return subprocess.Popen(
            ["pulumi", "-C", str(self.directory), *arguments, "--stack", "test", "--non-interactive"],
            env={**self._environment, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def unlock(self) -> None:
        self._run("cancel", "--yes", stack="test").expect_success()

    def state(self) -> dict[str, Object]:
        """The resources of the state by name, secrets encrypted."""
        exported = self._text("stack", "export", "--stack", "test")
        found = json.loads(exported)["deployment"].get("resources") or []
        return {item["urn"].rpartition("::")[2]: item for item in found}

    def outputs(self) -> Object:
        shown: Object = json.loads(self._text("stack", "output", "--json", "--stack", "test"))
        return shown

    def _run(self, *arguments: str, stack: str = "", **environment: str) -> Result:
        place = [stack] if stack else []
        if arguments[0] not in ("stack", "cancel"):
            place = ["--stack", "test", "--json", "--non-interactive"]
        ran = subprocess.run(
            ["pulumi", "-C", str(self.directory), *arguments, *place],
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        events = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        return Result(ran.returncode, events, ran.stderr)

    def _text(self, *arguments: str) -> str:
        command = ["pulumi", "-C", str(self.directory), *arguments]
        return subprocess.run(
            command, env=self._environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout


@pytest.fixture(scope="module")
def engine_environment() -> dict[str, str]:
    return tools.engine_environment()


@pytest.fixture
def bench(tmp_path: Path, engine_environment: dict[str, str], api_server: ControlPlane) -> Iterator[Bench]:
    made = Bench(tmp_path, engine_environment)
    made.on(kubeconfig=str(api_server.kubeconfig))
    yield made
    if (tmp_path / "wanted.json").exists() and made.state():
        made.destroy().expect_success()


def messages(result: Result) -> list[str]:
    """What the engine showed that is no error."""
    found = [event["diagnosticEvent"] for event in result.events if "diagnosticEvent" in event]
    return [item["message"] for item in found if item["severity"] != "error"]


def config_map(namespace: str, name: str, *, data: str = "x", **metadata: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "data": {"key": data},
    }


def gateway(namespace: str, *hosts: object) -> Object:
    port = {"number": 443, "name": "tls", "protocol": "TLS"}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "public", "namespace": namespace},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": port, "hosts": list(hosts), "tls": {"mode": "PASSTHROUGH"}}],
        },
    }


def service(namespace: str, **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "vip", "namespace": namespace},
        "spec": {"ports": [{"name": "tls", "port": 443}], **spec},
    }


def deployment(namespace: str, **annotations: str) -> Object:
    labels = {"app": "gateway"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "gateway", "namespace": namespace, "annotations": annotations},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [
                        {"name": "proxy", "image": "auto", "resources": {"limits": {"memory": "1024Mi"}}}
                    ]
                },
            },
        },
    }


def test_the_life_of_objects(bench: Bench, api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()
    objects = {
        "map": config_map(namespace, "map"),
        "gateway": gateway(namespace, "a.example"),
        "service": service(namespace),
        "secret": {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "secret", "namespace": namespace},
            "stringData": {"password": {"$secret": "hunter2"}},
        },
    }
    bench.want(objects, {"ip": ["service", "spec", "clusterIP"], "secret": ["secret", "data"]})
    created = bench.up().expect_success()
    assert created.counts == {"create": 6}
    assert sum("stand-in" in message for message in messages(created)) == 1
    live = api_server.api.get("v1", "Service", "vip", namespace)
    assert live is not None
    assert bench.outputs()["ip"] == live["spec"]["clusterIP"]
    stored = api_server.api.get("v1", "Secret", "secret", namespace)
    assert stored is not None
    assert base64.b64decode(stored["data"]["password"]) == b"hunter2"
    assert (
        "hunter2" not in (bench.directory / "state").read_text()
        if (bench.directory / "state").is_file()
        else True
    )

    assert bench.up().expect_success().operations == {}

    changed = {**objects, "gateway": gateway(namespace, "a.example", "b.example")}
    changed["map"] = config_map(namespace, "map", data="y")
    bench.want(changed)
    before = api_server.api.get("v1", "ConfigMap", "map", namespace)
    updated = bench.up().expect_success()
    assert updated.operations == {"gateway": "update", "map": "replace"}
    after = api_server.api.get("v1", "ConfigMap", "map", namespace)
    assert before is not None
    assert after is not None
    assert after["data"] == {"key": "y"}
    assert after["metadata"]["uid"] != before["metadata"]["uid"]

    del changed["service"]
    bench.want(changed)
    assert bench.up().expect_success().operations == {"service": "delete"}
    assert api_server.api.get("v1", "Service", "vip", namespace) is None

    api_server.api.delete("networking.istio.io/v1", "Gateway", "public", namespace)
    bench.refresh().expect_success()
    assert "gateway" not in bench.state()
    assert bench.up().expect_success().operations == {"gateway": "create"}

    bench.destroy().expect_success()
    assert bench.state() == {}
    assert [item["metadata"]["name"] for item in api_server.api.items("v1", "Secret", namespace)] == []
    assert api_server.api.items("networking.istio.io/v1", "Gateway", namespace) == []


def test_secrets_are_never_stored_in_the_clear(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "secret", "namespace": namespace},
        "stringData": {"password": "hunter2"},
    }
    labelled = config_map(namespace, "map")
    labelled["data"]["token"] = {"$secret": "swordfish"}
    bench.want({"secret": secret, "map": labelled}, {"data": ["map", "data"]})
    bench.up().expect_success()
    files = [path for path in (bench.directory / "state").rglob("*") if path.is_file()]
    kept = b"".join(path.read_bytes() for path in files)
    for clear in (b"hunter2", b"swordfish", base64.b64encode(b"hunter2")):
        assert clear not in kept
    assert b'"key": "x"' not in kept  # the outputs' map holds a secret, so the whole output is one
    assert bench.preview().expect_success().operations == {}


def test_a_field_changed_by_hand_is_drift_and_needs_a_decision(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    bench.want({"gateway": gateway(namespace, "a.example")})
    bench.up().expect_success()
    api_server.api.apply(gateway(namespace, "attacker.example"))

    assert bench.up().expect_success().operations == {}  # as with the official plugin, only a refresh looks
    bench.refresh().expect_success()
    assert bench.state()["gateway"]["inputs"]["spec"]["servers"][0]["hosts"] == ["attacker.example"]
    refused = bench.up()
    assert refused.code != 0
    assert "server-side apply field conflict detected" in refused.errors
    assert 'pulumi.com/patchForce: "true"' in refused.errors

    repaired = bench.up(PULUMI_K8S_ENABLE_PATCH_FORCE="true").expect_success()
    assert repaired.operations == {"gateway": "update"}
    live = api_server.api.get("networking.istio.io/v1", "Gateway", "public", namespace)
    assert live is not None
    assert live["spec"]["servers"][0]["hosts"] == ["a.example"]
    bench.refresh().expect_success()
    assert bench.preview().expect_success().operations == {}


def test_what_others_add_is_no_drift(bench: Bench, api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()
    bench.want({"map": config_map(namespace, "map", labels={"ours": "1"})})
    bench.up().expect_success()
    addition = config_map(namespace, "map", labels={"theirs": "1"}, annotations={"theirs.example/a.b": "1"})
    del addition["data"]
    api_server.api.apply(addition)
    bench.refresh().expect_success()
    bench.want({"map": config_map(namespace, "map", labels={"ours": "2"})})
    assert bench.up().expect_success().operations == {"map": "update"}
    bench.want({"map": config_map(namespace, "map")})
    assert bench.up().expect_success().operations == {"map": "update"}
    live = api_server.api.get("v1", "ConfigMap", "map", namespace)
    assert live is not None
    assert live["metadata"]["labels"] == {"theirs": "1"}
    assert live["metadata"]["annotations"] == {"theirs.example/a.b": "1"}


def plugins_of(directory: Path) -> list[int]:
    """The stand-in processes that work for the engine in `directory`."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            arguments = (process / "cmdline").read_bytes()
            here = (process / "cwd").readlink() == directory
        except OSError:
            continue
        if here and b"lab.providers.kubernetes" in arguments:
            found.append(int(process.name))
    return found


def test_a_killed_engine_leaves_no_process_and_its_objects_can_be_taken_up(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    bench.want({f"map{index}": config_map(namespace, f"map{index}") for index in range(120)})
    engine = bench.start(
        "up", "--yes", "--skip-preview", PULUMI_SKIP_CHECKPOINTS="true", PULUMI_EXPERIMENTAL="true"
    )

    def made() -> int:
        return sum(
            item["metadata"]["name"].startswith("map")
            for item in api_server.api.items("v1", "ConfigMap", namespace)
        )

    wait_until(lambda: made() >= 20, "objects")
    assert plugins_of(bench.directory)
    engine.send_signal(signal.SIGKILL)
    engine.wait()
    wait_until(lambda: not plugins_of(bench.directory), "the end of the plugin", seconds=5)
    bench.unlock()
    partial = {
        item["metadata"]["name"]: item["metadata"]["uid"]
        for item in api_server.api.items("v1", "ConfigMap", namespace)
    }

    refused = bench.up()
    assert refused.code != 0
    assert "AlreadyExists" in refused.errors
    assert "PULUMI_K8S_UPSERT_EXISTING_OBJECTS=true" in refused.errors

    bench.up(PULUMI_K8S_UPSERT_EXISTING_OBJECTS="true").expect_success()
    whole = {
        item["metadata"]["name"]: item["metadata"]["uid"]
        for item in api_server.api.items("v1", "ConfigMap", namespace)
    }
    assert made() == 120
    assert partial.items() <= whole.items()
    assert bench.preview("--refresh").expect_success().operations == {}


def test_a_preview_changes_nothing_and_asks_the_server(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    bench.want({"gateway": gateway(namespace, "a.example"), "map": config_map(namespace, "map")})
    assert bench.preview().expect_success().counts == {"create": 4}
    assert api_server.api.get("v1", "ConfigMap", "map", namespace) is None

    wrong = gateway(namespace, "a.example")
    wrong["spec"]["servers"][0]["port"]["number"] = "many"
    bench.want({"gateway": wrong})
    refused = bench.preview()
    assert refused.code != 0
    assert f"Gateway {namespace}/public was not successfully created" in refused.errors
    assert "number" in refused.errors


def test_only_what_is_unknown_is_unknown(bench: Bench, api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()
    made = gateway(namespace, "a.example", {"$of": ["new", "id"]})
    bench.want({"new": config_map(namespace, "new"), "gateway": made})
    previewed = bench.preview().expect_success()
    (new,) = [
        event["resourcePreEvent"]["metadata"]["new"]["inputs"]
        for event in previewed.events
        if event.get("resourcePreEvent", {}).get("metadata", {}).get("urn", "").endswith("::gateway")
    ]
    first, second = new["spec"]["servers"][0]["hosts"]
    assert first == "a.example"
    assert second not in ("", f"{namespace}/new")
    assert new["spec"]["selector"] == {"istio": "ingressgateway"}


def test_a_missing_kind_is_named_and_no_obstacle_to_a_preview(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    unknown = {
        "apiVersion": "nowhere.example/v1",
        "kind": "Thing",
        "metadata": {"name": "thing", "namespace": fresh()},
        "spec": {},
    }
    bench.want({"thing": unknown})
    bench.preview().expect_success()
    engine = bench.start("up", "--yes", "--skip-preview")
    time.sleep(8)
    started = time.monotonic()
    engine.send_signal(signal.SIGINT)  # the retries are interrupted, not sat out
    engine.wait(timeout=30)
    assert time.monotonic() - started < 10
    assert "thing" not in bench.state()


def test_a_definition_and_its_objects_in_one_run(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    group = f"{namespace}.example"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": "Thing", "plural": "things"},
            "scope": "Namespaced",
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
            ],
        },
    }
    thing = {
        "apiVersion": f"{group}/v1",
        "kind": "Thing",
        "metadata": {"name": "thing", "namespace": namespace},
        "spec": {"empty": {}, "none": [], "half": 0.5},
        "$after": ["definition"],
    }
    bench.want({"definition": definition, "thing": thing})
    bench.up().expect_success()
    assert bench.preview("--refresh").expect_success().operations == {}
    bench.destroy().expect_success()


def test_waiting_for_readiness(bench: Bench, api_server: ControlPlane, fresh: NewNamespace) -> None:
    """Nothing ever runs here, so what is waited for fails, and what is not waited for does not."""
    namespace = fresh()
    bench.want({"deployment": deployment(namespace, **{"pulumi.com/timeoutSeconds": "2"})})
    failed = bench.up()
    assert failed.code != 0
    assert "'gateway' timed out waiting to be Ready" in failed.errors
    assert "Minimum number of live Pods was not attained" in failed.errors
    assert bench.state()["deployment"]["id"] == f"{namespace}/gateway"

    bench.want({"deployment": deployment(namespace, **{"pulumi.com/skipAwait": "true"})})
    assert bench.up().expect_success().operations == {"deployment": "update"}
    assert bench.up().expect_success().operations == {}

    bench.want({"service": service(namespace, type="LoadBalancer")})
    balancer = bench.start("up", "--yes", "--skip-preview")
    wait_until(lambda: api_server.api.get("v1", "Service", "vip", namespace) is not None, "the Service")
    balancer.send_signal(signal.SIGINT)
    balancer.wait(timeout=20)
    assert bench.state()["service"]["id"] == f"{namespace}/vip"


def test_a_service_that_selects_pods_waits_until_its_endpoints_settle(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    bench.want({"service": service(fresh(), selector={"app": "none"})})
    started = time.monotonic()
    bench.up().expect_success()
    assert time.monotonic() - started > 10


def test_an_import_takes_an_object_over(bench: Bench, api_server: ControlPlane, fresh: NewNamespace) -> None:
    namespace = fresh()
    api_server.api.apply(config_map(namespace, "map"))
    bench.want({"map": {**config_map(namespace, "map"), "$import": f"{namespace}/map"}})
    assert bench.up().expect_success().operations["map"] == "import"
    bench.want({"map": config_map(namespace, "map")})
    assert bench.up().expect_success().operations == {}


def test_a_patch_sets_its_own_fields_and_takes_only_them_away(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    api_server.api.apply(config_map(namespace, "map"))
    patch = {**config_map(namespace, "map"), "data": {"ours": "1"}, "$suffix": "Patch"}
    bench.want({"patch": patch})
    bench.preview().expect_success()
    bench.up().expect_success()
    bench.want({"patch": {**patch, "data": {"ours": "2"}}})
    assert bench.up().expect_success().operations == {"patch": "update"}
    live = api_server.api.get("v1", "ConfigMap", "map", namespace)
    assert live is not None
    assert live["data"] == {"key": "x", "ours": "2"}
    bench.destroy().expect_success()
    live = api_server.api.get("v1", "ConfigMap", "map", namespace)
    assert live is not None
    assert live["data"] == {"key": "x"}


def test_existing_objects_are_taken_over_where_the_provider_may(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    existing = deployment(namespace)
    existing["spec"]["selector"]["matchLabels"] = {"other": "label"}
    existing["spec"]["template"]["metadata"]["labels"] = {"other": "label"}
    api_server.api.apply(existing)
    api_server.api.apply(config_map(namespace, "map"))
    bench.on(kubeconfig=str(api_server.kubeconfig), upsertExistingObjects="true")
    bench.want({"map": config_map(namespace, "map"), "deployment": deployment(namespace)})
    bench.preview().expect_success()  # though the selector of an existing Deployment cannot be changed
    bench.want({"map": config_map(namespace, "map")})
    bench.up().expect_success()
    assert bench.up().expect_success().operations == {}


def test_objects_can_be_patched_instead_of_applied(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    bench.on(kubeconfig=str(api_server.kubeconfig), enableServerSideApply="false")
    bench.want({"gateway": gateway(namespace, "a.example")})
    bench.up().expect_success()
    bench.want({"gateway": gateway(namespace, "b.example")})
    assert bench.up().expect_success().operations == {"gateway": "update"}
    live = api_server.api.get("networking.istio.io/v1", "Gateway", "public", namespace)
    assert live is not None
    assert live["spec"]["servers"][0]["hosts"] == ["b.example"]


def test_an_unreachable_server_leaves_the_state_intact(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace
) -> None:
    namespace = fresh()
    bench.want({"map": config_map(namespace, "map")})
    bench.up().expect_success()
    before = bench.state()["map"]["outputs"]
    api_server.stop_api_server()
    try:
        bench.want(
            {"map": config_map(namespace, "map", labels={"a": "b"}), "new": config_map(namespace, "new")}
        )
        bench.preview().expect_success()
        for run in (bench.up, bench.refresh, bench.destroy):
            failed = run()
            assert failed.code != 0
            assert "unreachable" in failed.errors
        assert bench.state()["map"]["outputs"] == before
    finally:
        api_server.start_api_server()
    assert bench.up().expect_success().operations == {"map": "update", "new": "create"}


def test_a_user_who_may_not_is_told_so(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace, tmp_path: Path
) -> None:
    namespace = fresh()
    for token, said in ((api_server.token(RESTRICTED), "Forbidden"), ("nonsense", "Unauthorized")):
        kubeconfig = api_server.kubeconfig_for(token, tmp_path / f"{said}.yaml")
        bench.on(kubeconfig=kubeconfig.read_text())
        bench.want({"map": config_map(namespace, "map")})
        failed = bench.up()
        assert failed.code != 0
        assert f"ConfigMap {namespace}/map" in failed.errors
        assert said in failed.errors
        assert token not in failed.errors


def test_rendering_needs_no_cluster(
    bench: Bench, api_server: ControlPlane, fresh: NewNamespace, tmp_path: Path
) -> None:
    folder = tmp_path / "rendered"
    bench.on(renderYamlToDirectory=str(folder))
    objects = {
        "map": config_map("demo", "map"),
        "gateway": gateway("demo", "a.example"),
        "service": service("demo"),
    }
    bench.want(objects)
    bench.up(KUBECONFIG="/nowhere").expect_success()

    def rendered() -> dict[str, Object]:
        return {path.name: yaml.safe_load(path.read_text()) for path in (folder / "1-manifest").iterdir()}

    assert rendered() == {
        "v1-configmap-demo-map.yaml": objects["map"],
        "v1-service-demo-vip.yaml": objects["service"],
        "networking.istio.io_v1-gateway-demo-public.yaml": objects["gateway"],
    }
    assert bench.up().expect_success().operations == {}
    bench.want({"map": config_map("demo", "renamed"), "gateway": gateway("demo", "b.example")})
    bench.up().expect_success()
    assert set(rendered()) == {
        "v1-configmap-demo-renamed.yaml",
        "networking.istio.io_v1-gateway-demo-public.yaml",
    }
    assert rendered()["networking.istio.io_v1-gateway-demo-public.yaml"]["spec"]["servers"][0]["hosts"] == [
        "b.example"
    ]
    bench.refresh().expect_success()
    bench.destroy().expect_success()
    assert list((folder / "1-manifest").iterdir()) == []
