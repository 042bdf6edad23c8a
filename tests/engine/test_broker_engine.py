"""The broker's deployer with the real engine and API server, without the brokers around it: one update, many bindings."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

import tools
from broker import update
from broker.engine import Engine, Gone
from broker.network import PublicEndpoint
from broker.program import Wanted
from broker.store import ConsumerRoute
from broker.store.store import Result
from broker.update import EngineError
from lab.control_plane import ControlPlane
from lab.errors import ApiError
from tests.broker.chain import consumer_settings, load, wait_until
from tests.engine.brokers import APPLICATIONS, EGRESS, ISTIO, KINDS

KEPT = "kept"
"""Bindings whose egress server nobody may delete."""


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane("west", tmp_path_factory.mktemp("control-plane") / "west") as made:
        for namespace in (APPLICATIONS, EGRESS):
            made.create_namespace(namespace)
        yield made


@pytest.fixture
def engine(plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    for name, value in tools.engine_environment().items():
        monkeypatch.setenv(name, value)
    cluster = {"kubeconfig": str(plane.kubeconfig)}
    read = load(tmp_path / "c", consumer_settings(tmp_path, "http://localhost:1", cluster=cluster))
    made = Engine(read)
    yield made
    made.close()


def wanted(name: str, generation: int = 1, **more: object) -> Wanted:
    endpoint = PublicEndpoint(host=f"0.{name}.istio.data.example", port=9000)
    route = ConsumerRoute(namespace=APPLICATIONS, provider_id="istio.data.example", endpoints=(endpoint,))
    return Wanted(name, generation, route, **more)  # type: ignore[arg-type]


def by_name(results: list[Result]) -> dict[str, Result]:
    return {result.binding_id: result for result in results}


def test_a_refused_object_fails_its_binding_alone_and_nothing_is_kept_of_it_in_the_end(
    engine: Engine, plane: ControlPlane
) -> None:
    # An address outside of the cluster's range: the API server refuses the Service, after the objects before it.
    bad = wanted("bad", 7, virtual_ips=("192.0.2.1",))
    results = by_name(engine.apply(0, [wanted("first"), bad, wanted("second")], []))

    assert results.keys() == {"first", "bad", "second"}
    for name in ("first", "second"):
        assert (results[name].error, results[name].certain) == (None, True)
        service = plane.api.get("v1", "Service", f"svc-0-{name}", APPLICATIONS)
        assert service is not None
        assert results[name].virtual_ips == [service["spec"]["clusterIP"]]
    refused = results["bad"]
    assert "192.0.2.1" in str(refused.error)
    assert (refused.generation, refused.certain, refused.temporary) == (7, True, False)
    assert plane.api.get("v1", "Service", "svc-0-bad", APPLICATIONS) is None
    assert plane.api.get(ISTIO, "Gateway", "import-0-bad", EGRESS) is not None
    assert engine.drift(0, [wanted("first"), wanted("second")]).keys() == {"0-bad"}

    results = by_name(engine.apply(0, [wanted("first"), wanted("second")], [Gone("bad", 8)]))
    assert {name: r.error for name, r in results.items()} == {"first": None, "second": None, "bad": None}
    assert plane.api.get(ISTIO, "Gateway", "import-0-bad", EGRESS) is None

    _keep(plane)
    assert (
        by_name(engine.apply(0, [wanted("first"), wanted(KEPT)], [Gone("second", 1)]))["second"].error is None
    )
    results = by_name(engine.apply(0, [wanted("third")], [Gone("first", 2), Gone(KEPT, 3)]))
    assert {name: r.error is None for name, r in results.items()} == {
        "third": True,
        "first": True,
        KEPT: False,
    }
    assert "not to be deleted" in str(results[KEPT].error)
    assert plane.api.get(ISTIO, "Gateway", "import-0-first", EGRESS) is None
    assert plane.api.get(ISTIO, "Gateway", f"import-0-{KEPT}", EGRESS) is not None
    plane.api.delete("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding", KEPT)
    wait_until(
        lambda: all(r.error is None for r in engine.apply(0, [], [Gone("third", 1), Gone(KEPT, 3)])),
        "the rest is removed",
        120,
    )


def test_an_update_that_is_killed_comes_to_no_result_and_the_next_one_takes_up_what_it_made(
    engine: Engine, plane: ControlPlane
) -> None:
    raised: list[BaseException] = []

    def update() -> None:
        try:
            engine.apply(1, [wanted("killed")], [])
        except EngineError as error:
            raised.append(error)

    thread = threading.Thread(target=update)
    thread.start()
    wait_until(
        lambda: plane.api.get(ISTIO, "ServiceEntry", "import-0-killed", EGRESS),
        "the first object is there",
        300,
    )
    engine.kill(1)
    thread.join(60)
    assert not thread.is_alive()

    assert "lost the shard" in str(raised[0])
    assert not _processes(str(engine._folder(1)))
    (done,) = engine.apply(1, [wanted("killed")], [])
    assert (done.error, done.certain) == (None, True)
    (gone,) = engine.apply(1, [], [Gone("killed", 2)])
    assert gone.error is None
    assert plane.api.get(ISTIO, "ServiceEntry", "import-0-killed", EGRESS) is None


def test_an_update_that_was_begun_ahead_of_time_brings_what_is_wanted_by_then(
    engine: Engine, plane: ControlPlane
) -> None:
    engine.apply(2, [wanted("before")], [])
    engine.prepare(2)
    begun = engine._prepared[2]

    results = by_name(engine.apply(2, [wanted("before", settled=True), wanted("later")], []))

    assert begun.declared.resources.keys() == {"0-later"}
    assert {name: r.error for name, r in results.items()} == {"later": None}
    service = plane.api.get("v1", "Service", "svc-0-later", APPLICATIONS)
    assert service is not None
    assert results["later"].virtual_ips == [service["spec"]["clusterIP"]]
    assert plane.api.get("v1", "Service", "svc-0-before", APPLICATIONS) is not None


@pytest.mark.parametrize("prepared", [False, True], ids=["begun-when-needed", "begun-ahead-of-time"])
def test_a_change_of_one_binding_declares_no_other_and_leaves_them_all_there(
    engine: Engine, plane: ControlPlane, *, prepared: bool
) -> None:
    shard = 8 + prepared
    stay, go, come = (f"{name}-{shard}" for name in ("stay", "go", "come"))

    def changed(names: list[str], new: list[str], gone: list[str]) -> dict[str, Result]:
        if prepared:
            engine.prepare(shard)
        settled = [wanted(name, settled=True) for name in names]
        return by_name(engine.apply(shard, [*settled, *map(wanted, new)], [Gone(name, 2) for name in gone]))

    def there() -> dict[str, str]:
        """The versions of all these bindings' objects."""
        found = {}
        for kind, version in KINDS.items():
            for metadata in (item["metadata"] for item in plane.api.items(version, kind)):
                if metadata["name"].endswith(f"-{shard}"):
                    found[f"{kind}/{metadata['name']}"] = metadata["resourceVersion"]
        return found

    engine.apply(shard, [wanted(stay), wanted(go)], [])
    before = there()

    results = changed([stay, go], [come], [])
    assert {name: r.error for name, r in results.items()} == {come: None}
    service = plane.api.get("v1", "Service", f"svc-0-{come}", APPLICATIONS)
    assert service is not None
    assert results[come].virtual_ips == [service["spec"]["clusterIP"]]
    assert {key: version for key, version in there().items() if f"-{come}" not in key} == before

    results = changed([stay, come], [], [go])
    assert {name: r.error for name, r in results.items()} == {go: None}
    assert {key: version for key, version in there().items() if f"-{come}" not in key} == {
        key: version for key, version in before.items() if f"-{go}" not in key
    }
    assert engine.drift(shard, [wanted(stay), wanted(come)]) == {}

    assert changed([], [], [stay, come]).keys() == {stay, come}
    assert there() == {}
    assert engine.resources(shard) == set()


@pytest.mark.filterwarnings("ignore:coroutine .*rpc_wrapper:RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["released", "killed", "too late"])
def test_an_update_that_was_begun_and_not_needed_changes_nothing(
    engine: Engine, plane: ControlPlane, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = how.replace(" ", "-")
    engine.apply(3, [wanted(name)], [])
    if how == "too late":
        monkeypatch.setattr(update, "IDLE", 0.1)
    engine.prepare(3)
    begun = engine._prepared[3]
    wait_until(lambda: begun.ended or _has_plugin(engine, 3), "the program waits", 60)
    if how == "released":
        engine.retain(lambda shard: shard != 3)
    elif how == "killed":
        for pid in _processes(str(engine._folder(3))):
            os.kill(int(pid), signal.SIGKILL)
    assert begun.wait(60)

    assert begun.unused
    wait_until(lambda: not _programs(), "its program has ended", 60)
    gc.collect()  # what the SDK had begun to ask an engine that is dead
    assert plane.api.get("v1", "Service", f"svc-0-{name}", APPLICATIONS) is not None
    assert engine.resources(3) == {f"0-{name}"}
    (done, gone) = engine.apply(3, [wanted("next")], [Gone(name, 2)])
    assert (done.error, gone.error) == (None, None)
    assert plane.api.get("v1", "Service", f"svc-0-{name}", APPLICATIONS) is None


def test_what_was_begun_ahead_of_time_is_not_begun_twice(engine: Engine, plane: ControlPlane) -> None:
    engine.apply(7, [], [])
    engine.prepare(7)
    begun = engine._prepared[7]
    engine.prepare(7)

    (done,) = engine.apply(7, [wanted("once")], [])

    assert done.error is None
    assert begun.ended
    assert not begun.unused
    assert plane.api.get("v1", "Service", "svc-0-once", APPLICATIONS) is not None


def test_no_more_updates_wait_than_the_settings_say_and_none_after_the_end(engine: Engine) -> None:
    for shard in (4, 5, 6):
        engine.apply(shard, [], [])
        engine.prepare(shard)
    first, *others = (engine._prepared.get(shard) for shard in (4, 5, 6))

    assert first is None
    engine.close()
    assert all(begun is not None and begun.ended for begun in others)
    assert not any(_processes(str(engine._folder(shard))) for shard in (4, 5, 6))


def _programs() -> list[str]:
    """Functions of Pulumi's runtime that a thread is in."""
    functions = [
        step.f_code for frame in sys._current_frames().values() for step, _ in traceback.walk_stack(frame)
    ]
    return [f.co_name for f in functions if "pulumi/runtime/" in f.co_filename]


def _has_plugin(engine: Engine, shard: int) -> bool:
    """Whether the shard's engine has started the plugin, so that the program waits for its routes, or is about to."""
    commands = (Path(f"/proc/{pid}/cmdline") for pid in _processes(str(engine._folder(shard))))
    return any(b"kubernetes" in command.read_bytes() for command in commands)


def _keep(plane: ControlPlane) -> None:
    """From now on nobody deletes the Gateways of bindings that are called KEPT."""
    api, version = plane.api, "admissionregistration.k8s.io/v1"
    api.apply(
        {
            "apiVersion": version,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": KEPT},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "resourceRules": [
                        {
                            "apiGroups": ["networking.istio.io"],
                            "apiVersions": ["*"],
                            "operations": ["DELETE"],
                            "resources": ["gateways"],
                        }
                    ]
                },
                "validations": [
                    {
                        "expression": f"!oldObject.metadata.name.endsWith('-{KEPT}')",
                        "message": "it is not to be deleted",
                    }
                ],
            },
        }
    )
    api.apply(
        {
            "apiVersion": version,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": KEPT},
            "spec": {"policyName": KEPT, "validationActions": ["Deny"]},
        }
    )
    tried = {
        "apiVersion": ISTIO,
        "kind": "Gateway",
        "metadata": {"name": f"tried-{KEPT}", "namespace": EGRESS},
        "spec": {"servers": []},
    }

    def refused() -> bool:
        api.apply(tried)
        try:
            api.delete(ISTIO, "Gateway", f"tried-{KEPT}", EGRESS)
        except ApiError:
            return True
        return False

    wait_until(refused, "deletions are refused", 60)


def _processes(folder: str) -> list[str]:
    """Processes that work in a folder."""
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if str(link.readlink()) == folder:
                found.append(link.parent.name)
        except OSError:
            continue
    return found
