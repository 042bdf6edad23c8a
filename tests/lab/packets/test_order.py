"""In whatever order the objects of both stacks come and go, nothing goes over the internet unencrypted or to a stranger.

While an application tries to connect all the time, an intruder calls the provider with a certificate of another name,
an impostor answers to the provider's name with such a certificate, and all that goes over the internet is captured.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lab import applications
from lab.capture import Capture
from lab.lab import SYSTEM_DOMAIN, Lab
from lab.load import Load
from lab.network import BRIDGE
from tests.lab.packets import outside
from tests.lab.packets.deployed import Deployed, deployed

HOST = f"redis.{SYSTEM_DOMAIN}"
REDIS = ("svc-redis-main.shop.svc.cluster.local", 6379)
CLIENT = ("shop", "order-probe")
POD = "/".join(CLIENT)
CANARY = "canary-that-must-not-be-seen"
RATE = 40
"""Connections a second that the application tries to open."""
PATIENCE = 1
"""Seconds that it waits: the address of a Service that is gone may not even refuse."""
STEP = 2
"""Connections that it begins between two objects."""
ORDERS = 50
SEED = 20261122
FINAL_ANSWERS = 5


class Watched(NamedTuple):
    """The application's load, and the strangers."""

    load: Load
    intruder: outside.Intruder
    impostor: outside.Impostor


@contextmanager
def watched(lab: Lab, directory: Path) -> Iterator[Watched]:
    """Traffic with strangers about, and the proof that none of them learnt anything."""
    address = outside.public_address(lab)
    stranger = str(lab.internet.addresses[250])
    lab.internet.network.ip(f"addr add {stranger}/{lab.internet.addresses.prefixlen} dev {BRIDGE}")
    (consumers,), (providers,) = lab.consumer_authority.signers(), lab.provider_authority.signers()
    intruding = consumers.serving(["other.shop.example"])
    posing = providers.serving(["istio.other.example"])
    capture = Capture(lab.internet.network, BRIDGE, directory / "internet.pcap")
    try:
        with (
            capture,
            outside.Intruder(lab, address, HOST, intruding, directory) as intruder,
            outside.Impostor(lab, stranger, posing, directory) as impostor,
            both_answer(lab, address, stranger),
            Load(lab.consumer, POD, REDIS, rate=RATE, text=CANARY, timeout=PATIENCE) as load,
        ):
            load.wait(lambda _: impostor.refused > 0, "the impostor was asked")
            yield Watched(load, intruder, impostor)
    finally:
        lab.internet.network.ip(f"addr del {stranger}/{lab.internet.addresses.prefixlen} dev {BRIDGE}")
    traffic = capture.traffic()
    assert traffic.findings() == []
    assert not traffic.holds(CANARY.encode())
    assert traffic.encrypted() > 0
    assert intruder.admitted == [], "the intruder was admitted"
    assert impostor.admitted == [], "the impostor was believed"
    assert intruder.refused > 0


@contextmanager
def both_answer(lab: Lab, right: str, wrong: str) -> Iterator[None]:
    """While it lasts, the name of the service has the provider's address and another one."""
    lab.internet.name({HOST: f"{right},{wrong}"})
    try:
        yield
    finally:
        lab.internet.name({HOST: right})


@pytest.fixture(scope="module", autouse=True)
def application(lab: Lab) -> Iterator[None]:
    """The application: one of its own, for the kernel remembers for two minutes what it tried in vain."""
    *others, deployment = applications.client(*CLIENT, service_account="orders-api")
    lab.consumer.apply(*others, deployment)
    lab.consumer.wait_ready(*CLIENT)
    yield
    namespace, name = CLIENT
    lab.consumer.api.delete("apps/v1", "Deployment", name, namespace)
    lab.consumer.wait_until(lambda: not lab.consumer.pods(namespace, name), "the application is gone")


Stacks = dict[str, list[Deployed]]


@pytest.fixture(scope="module")
def objects(lab: Lab) -> Stacks:
    """The objects of both stacks."""
    return {
        "provider": deployed(lab, lab.provider, "provider"),
        "consumer": deployed(lab, lab.consumer, "consumer"),
    }


@pytest.fixture
def stacks(lab: Lab, objects: Stacks) -> Iterator[Stacks]:
    """The objects of both stacks; they are all there again afterwards."""
    yield objects
    for item in (*objects["provider"], *objects["consumer"]):
        item.apply()
    lab.provider.wait_ready("mesh-ingress", "provider-ingress")
    lab.consumer.wait_ready("mesh-egress", "istio-egressgateway")
    with Load(lab.consumer, POD, REDIS, rate=RATE) as load:
        load.recovered()


def test_the_components_order(lab: Lab, stacks: Stacks, tmp_path: Path) -> None:
    """Everything of both stacks goes in the reverse of the order in which the engine made it, and comes in this order."""
    every = [*stacks["provider"], *stacks["consumer"]]

    with watched(lab, tmp_path) as (load, _, _):
        for item in reversed(every):
            item.delete()
            load.tries(STEP)
        before = load.refused(FINAL_ANSWERS).answered
        for item in every:
            item.apply()
            load.tries(STEP)
        _wait_answered(load, before, "the final state works")


def test_random_orders(lab: Lab, stacks: Stacks, tmp_path: Path) -> None:
    """The objects of one endpoint, on both sides, go in one random order and come in another.

    The gateways, and their right to read Secrets, stay: by the components' order they are there before any endpoint.
    """
    endpoint = _of_endpoint(stacks, "redis-main")
    assert len(endpoint) == 15
    order = random.Random(SEED)  # noqa: S311 - to be repeated

    with watched(lab, tmp_path) as (load, _, _):
        for number in range(ORDERS):
            going, coming = (order.sample(endpoint, len(endpoint)) for _ in range(2))
            print(f"order {number}: delete {_names(going)}; apply {_names(coming)}")
            for item in going:
                item.delete()
                load.tries(STEP)
            before = load.refused(FINAL_ANSWERS).answered
            for item in coming:
                item.apply()
                load.tries(STEP)
            _wait_answered(load, before, f"order {number} ends in a working state")


def test_a_route_to_a_host_without_tls_would_be_seen(lab: Lab, stacks: Stacks, tmp_path: Path) -> None:
    """The capture does see plain text: here, of a route that leaves before the rule which encrypts its hop."""
    endpoint = {item.name.removeprefix("redis-main-"): item for item in _of_endpoint(stacks, "redis-main")}
    route = endpoint["egress-route"]
    del route.body["spec"]["tcp"][0]["route"][0]["destination"]["subset"]
    file = tmp_path / "internet.pcap"

    try:
        with (
            Capture(lab.internet.network, BRIDGE, file) as capture,
            Load(lab.consumer, POD, REDIS, rate=RATE, text=CANARY, timeout=PATIENCE) as load,
        ):
            route.apply()
            load.tries(STEP)
            endpoint["upstream-rule"].delete()
            load.refused(FINAL_ANSWERS)
    finally:
        route.body["spec"]["tcp"][0]["route"][0]["destination"]["subset"] = "redis-main"

    traffic = capture.traffic()
    assert traffic.holds(CANARY.encode())
    assert any("plain text" in finding for finding in traffic.findings())


def test_an_intruder_would_be_seen(lab: Lab, stacks: Stacks, tmp_path: Path) -> None:
    server = _named(stacks, "redis-main-public-server")

    with (
        pytest.raises(AssertionError, match="the intruder was admitted"),
        watched(lab, tmp_path) as (load, intruder, _),
        _without_names(server, server.body["spec"]["servers"][0]["tls"]),
    ):
        load.wait(lambda _: bool(intruder.admitted), "the intruder is admitted")


def test_an_impostor_would_be_seen(lab: Lab, stacks: Stacks, tmp_path: Path) -> None:
    rule = _named(stacks, "redis-main-upstream-rule")

    with (
        pytest.raises(AssertionError, match="the impostor was believed"),
        watched(lab, tmp_path) as (load, _, impostor),
        _without_names(rule, rule.body["spec"]["trafficPolicy"]["tls"]),
    ):
        load.wait(lambda _: bool(impostor.admitted), "the impostor is believed")


@contextmanager
def _without_names(item: Deployed, tls: dict[str, Any]) -> Iterator[None]:
    """While it lasts, an object does not say which names it admits."""
    names = tls.pop("subjectAltNames")
    item.apply()
    try:
        yield
    finally:
        tls["subjectAltNames"] = names
        item.apply()


def _wait_answered(load: Load, before: int, what: str) -> None:
    load.wait(lambda now: now.answered >= before + FINAL_ANSWERS, what)


def _of_endpoint(stacks: Stacks, slug: str) -> list[Deployed]:
    own = (f"{slug}-", f"svc-{slug}.")
    return [item for items in stacks.values() for item in items if item.name.startswith(own)]


def _named(stacks: Stacks, name: str) -> Deployed:
    return next(item for items in stacks.values() for item in items if item.name == name)


def _names(items: Sequence[Deployed]) -> str:
    return " ".join(str(item).replace("redis-main-", "") for item in items)
