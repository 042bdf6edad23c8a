from __future__ import annotations

from typing import Any

from lab.node.status import ContainerState, PodState

ENDED = {"exitCode": 0, "reason": "Completed"}
FAILED = {"exitCode": 3, "reason": "Error"}


def running(name: str = "app", **more: Any) -> ContainerState:
    return ContainerState(
        name, "image", **{"init": False, "running_since": "t", "started": True, "ready": True, **more}
    )


def pod(*containers: ContainerState, **more: Any) -> PodState:
    return PodState("uid", "10.0.0.1", containers, ip="10.0.1.1", **more)


def conditions(state: PodState) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in state.report()["conditions"]}


def test_a_pod_whose_containers_are_ready_is_ready() -> None:
    state = pod(running())

    assert state.phase == "Running"
    assert set(conditions(state).values()) == {"True"}
    assert state.report()["podIPs"] == [{"ip": "10.0.1.1"}]


def test_a_pod_is_pending_until_its_init_containers_are_done() -> None:
    init = ContainerState("init", "image", init=True, running_since="t")
    state = pod(init, ContainerState("app", "image", init=False))

    assert (state.phase, conditions(state)["Initialized"]) == ("Pending", "False")

    init.running_since, init.ended = None, ENDED
    assert conditions(state)["Initialized"] == "True"
    assert state.report()["initContainerStatuses"][0]["ready"] is True


def test_a_sidecar_is_past_its_turn_when_it_has_started_and_counts_for_readiness() -> None:
    sidecar = running("proxy", init=True, sidecar=True, ready=False)
    state = pod(sidecar, running())

    assert conditions(state) | {"Initialized": "True", "Ready": "False"} == conditions(state)
    assert state.report()["conditions"][3]["message"] == "containers with unready status: proxy"

    sidecar.ready = True
    assert conditions(state)["Ready"] == "True"


def test_a_pod_that_is_being_deleted_is_not_ready() -> None:
    assert conditions(pod(running(), deleting=True))["Ready"] == "False"


def test_a_pod_that_is_not_restarted_succeeds_or_fails() -> None:
    done = running(running_since=None, ended=ENDED)
    broken = running("other", running_since=None, ended=FAILED)

    assert pod(done, restarts_always=False).phase == "Succeeded"
    assert pod(done, broken, restarts_always=False).phase == "Failed"
    assert pod(done, running(), restarts_always=False).phase == "Running"


def test_a_restarted_container_shows_how_it_ended_before() -> None:
    state = running(ended=FAILED, restarts=2).report("uid")

    assert state["state"] == {"running": {"startedAt": "t"}}
    assert state["lastState"] == {"terminated": FAILED}
    assert state["restartCount"] == 2


def test_a_container_that_is_held_back_says_why() -> None:
    waiting = running(
        running_since=None, ended=FAILED, ready=False, waiting=("CrashLoopBackOff", "back-off 10s")
    )

    assert waiting.report("uid")["state"] == {
        "waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}
    }


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    container = running()
    state = pod(container)
    before = state.report()["conditions"]
    container.restarts = 1

    assert state.report()["conditions"] == before
