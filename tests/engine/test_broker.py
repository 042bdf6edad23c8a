"""The broker with the real engine and real API servers."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from lab.api import Object
from lab.control_plane import ControlPlane
from tests.broker.chain import BINDING, CONSUMER_ID, SYSTEM_DOMAIN, wait_until
from tests.engine.brokers import APPLICATIONS, EGRESS, INGRESS, ISTIO, PER_EXPORT, PER_IMPORT, BrokerChain

CALLERS = 64


@pytest.fixture(scope="module")
def south(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The consumer's cluster."""
    with ControlPlane("south", tmp_path_factory.mktemp("control-plane") / "south") as plane:
        yield plane


@pytest.fixture(scope="module")
def brokers(
    api_server: ControlPlane, south: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BrokerChain]:
    """The chain: the consumer in `south`, the provider, with istiod's validation, in the session's API server."""
    chain = BrokerChain(tmp_path_factory.mktemp("brokers"), south, api_server)
    chain.start()
    try:
        assert chain.platform.provision().status_code == 201
        yield chain
    finally:
        chain.close()


def test_a_binding_is_there_when_it_is_answered_and_gone_after_unbind(brokers: BrokerChain) -> None:
    answer = brokers.platform.bind()

    assert answer.status_code == 201, answer.text
    assert brokers.counts("consumer") == PER_IMPORT
    assert brokers.counts("provider") == PER_EXPORT
    service = brokers.clusters["consumer"].api.get("v1", "Service", f"svc-0-{BINDING}", APPLICATIONS)
    assert service is not None
    vip = service["spec"]["clusterIP"]
    credentials = answer.json()["credentials"]
    assert (credentials["hostname"], credentials["port"]) == (vip, "5555")
    assert f"@{vip}:5555/db" in credentials["uri"]
    server = brokers.clusters["provider"].api.get(ISTIO, "Gateway", f"export-0-{BINDING}", INGRESS)
    assert server is not None
    assert server["spec"]["servers"][0]["hosts"] == [f"0.{BINDING}.{SYSTEM_DOMAIN}"]
    assert server["spec"]["servers"][0]["tls"]["subjectAltNames"] == [CONSUMER_ID]
    rule = brokers.clusters["consumer"].api.get(ISTIO, "DestinationRule", f"import-0-{BINDING}", EGRESS)
    assert rule is not None
    assert rule["spec"]["trafficPolicy"]["tls"]["subjectAltNames"] == [SYSTEM_DOMAIN]

    assert brokers.platform.bind().status_code == 200
    assert brokers.platform.unbind().status_code == 200
    assert (brokers.objects("consumer"), brokers.objects("provider")) == ({}, {})
    assert brokers.platform.unbind().status_code == 410


def test_64_callers_share_few_updates_and_each_gets_its_own(
    api_server: ControlPlane, south: ControlPlane, tmp_path: Path
) -> None:
    """Nothing here is about speed, so the brokers and the platform have time for a machine that is busy with other tests."""
    names = [f"many-{number}" for number in range(CALLERS)]
    chain = BrokerChain(tmp_path, south, api_server, shards=2, deployTimeout=300, upstreamTimeout=700)
    chain.platform.client.timeout = httpx.Timeout(1200)
    try:
        chain.start()
        assert chain.platform.provision().status_code == 201
        with ThreadPoolExecutor(CALLERS) as pool:
            answers = dict(zip(names, pool.map(chain.platform.bind, names), strict=True))
            assert {a.status_code for a in answers.values()} == {201}, [a.text for a in answers.values()]
            for role, each in (("consumer", PER_IMPORT), ("provider", PER_EXPORT)):
                expected = Counter({(kind, name): count for kind, count in each.items() for name in names})
                assert _by_binding(chain.objects(role)) == expected
                updates = _updates(chain, role)
                assert sum(updates) >= CALLERS
                assert len(updates) <= CALLERS / 2
            addresses = {s["metadata"]["name"]: s["spec"]["clusterIP"] for s in _services(chain)}
            assert len(set(addresses.values())) == CALLERS
            assert {n: a.json()["credentials"]["hostname"] for n, a in answers.items()} == {
                name: addresses[f"svc-0-{name}"] for name in names
            }
            assert {a.status_code for a in pool.map(chain.platform.unbind, names)} == {200}
        assert (chain.objects("consumer"), chain.objects("provider")) == ({}, {})
        assert json.loads((chain.folder / "service-broker.json").read_text())["bindings"] == {}
        for role in ("consumer", "provider"):
            assert json.loads(chain.command(role, "list", "--json").stdout) == []
    finally:
        chain.close()


def _by_binding(objects: dict[str, list[str]]) -> Counter[tuple[str, str]]:
    """How many objects of each kind each binding has, as their names say."""
    return Counter(
        (kind, name.partition("-0-")[2].removesuffix("-owner"))
        for kind, names in objects.items()
        for name in names
    )


def _updates(chain: BrokerChain, role: str) -> list[int]:
    """How many bindings each update of a broker changed, as its log says."""
    lines = (chain.folder / role / "broker.log").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.startswith("{")]
    return [record["changed"] for record in records if record["event"] == "updated"]


def _services(chain: BrokerChain) -> list[Object]:
    return [
        item
        for item in chain.clusters["consumer"].api.items("v1", "Service")
        if item["metadata"]["namespace"] == APPLICATIONS
    ]


def test_what_somebody_deleted_by_hand_is_found_and_repaired(brokers: BrokerChain) -> None:
    """A Service that is made again has the address that the application's credentials name."""
    credentials = brokers.platform.bind("repaired").json()["credentials"]
    api = brokers.clusters["consumer"].api
    assert brokers.command("consumer", "doctor").returncode == 0
    api.delete(ISTIO, "Gateway", "import-0-repaired", EGRESS)
    api.delete("v1", "Service", "svc-0-repaired", APPLICATIONS)
    found = brokers.command("consumer", "doctor")
    assert found.returncode == 1, found.stderr
    assert "create 0-repaired-egress-server" in found.stdout
    assert "create svc-0-repaired.shop" in found.stdout
    brokers.consumer.stop()
    try:
        listed = json.loads(brokers.command("consumer", "list", "--json").stdout)
        assert [(row["binding_id"], row["phase"], row["route"]) for row in listed] == [
            ("repaired", "bound", "there")
        ]
        repaired = brokers.command("consumer", "reconcile")
        assert repaired.returncode == 0, repaired.stderr
        assert api.get(ISTIO, "Gateway", "import-0-repaired", EGRESS) is not None
        service = api.get("v1", "Service", "svc-0-repaired", APPLICATIONS)
        assert service is not None
        assert service["spec"]["clusterIP"] == credentials["hostname"]
        assert brokers.command("consumer", "doctor").returncode == 0
    finally:
        brokers.consumer.start()
    assert brokers.platform.unbind("repaired").status_code == 200
    assert brokers.objects("consumer") == {}


def test_a_broker_that_is_stopped_answers_the_calls_that_are_under_way(brokers: BrokerChain) -> None:
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(brokers.platform.bind, "stopped")
        wait_until(brokers.consumer.engines, "an update is under way", 120)
        code = brokers.consumer.stop()
        answer = call.result()
    try:
        assert (answer.status_code, code) == (201, 0)
        assert brokers.counts("consumer") == PER_IMPORT
    finally:
        brokers.consumer.start()
    assert brokers.platform.bind("stopped").status_code == 200
    assert brokers.platform.unbind("stopped").status_code == 200
    assert (brokers.objects("consumer"), brokers.objects("provider")) == ({}, {})


@pytest.mark.parametrize("victim", ["broker", "engine", "api-server"])
def test_a_crash_in_the_middle_of_a_bind_loses_nothing(brokers: BrokerChain, victim: str) -> None:
    name = f"crash-{victim}"
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(brokers.platform.bind, name)
        wait_until(
            lambda: brokers.consumer.engines() and brokers.objects("consumer"), "an update is under way", 120
        )
        _strike(brokers, victim)
        try:
            call.result()
        except httpx.HTTPError as error:  # the platform lost its connection
            assert victim == "broker", error
    _restore(brokers, victim)

    def bound() -> bool:
        return brokers.platform.bind(name).status_code in {200, 201}

    wait_until(bound, "the repeated bind succeeds", 60)
    assert brokers.counts("consumer") == PER_IMPORT
    assert brokers.counts("provider") == PER_EXPORT

    assert brokers.platform.unbind(name).status_code == 200
    assert (brokers.objects("consumer"), brokers.objects("provider")) == ({}, {})


def test_a_bind_that_crashed_and_is_undone_by_the_platform_leaves_no_orphan(brokers: BrokerChain) -> None:
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(brokers.platform.bind, "abandoned")
        wait_until(
            lambda: brokers.consumer.engines() and brokers.objects("consumer"), "an update is under way", 120
        )
        brokers.consumer.kill()
        assert call.exception() is not None
    assert brokers.objects("consumer")
    brokers.consumer.start()

    def unbound() -> bool:
        return brokers.platform.unbind("abandoned").status_code in {200, 410}

    wait_until(unbound, "the platform's clean-up succeeds", 60)
    wait_until(
        lambda: (brokers.objects("consumer"), brokers.objects("provider")) == ({}, {}), "nothing is left", 30
    )


def _strike(brokers: BrokerChain, victim: str) -> None:
    if victim == "broker":
        brokers.consumer.kill()
    elif victim == "engine":
        brokers.consumer.kill_engines()
    else:
        brokers.clusters["consumer"].stop_api_server()
        time.sleep(1)
        brokers.clusters["consumer"].start_api_server()


def _restore(brokers: BrokerChain, victim: str) -> None:
    if victim == "broker":
        brokers.consumer.start()
