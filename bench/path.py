"""Latency and throughput of the path through the product's objects, against static Envoys and against none.

Redis in the provider's cluster is the service, a Pod in the consumer's the client. The three ways take turns, so that whatever
else the machine does slows all of them.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench import static
from bench.table import Section, percentile, verdict
from bench.world import REDIS, REDIS_PORT, service
from lab import applications, pki
from lab.api import Object
from lab.cluster import Cluster
from lab.errors import LabError
from lab.lab import CLIENT, DATABASES, EGRESS, Lab

PROGRAM = Path(__file__).with_name("client.py").read_text()
NAMESPACE = "static"
REQUESTS, CONNECTS, TRANSFERS = 1000, 200, 4
"""Of each turn; all requests, and all transfers, on one connection."""
LARGE = 64 * 2**20
"""Bytes of one transfer."""
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Way:
    """One way from a Pod of the consumer's cluster to Redis."""

    title: str
    pod: str
    host: str


def measure(lab: Lab, turns: int) -> Section:
    """Measure each way in so many turns."""
    ways = [_direct(lab), _static(lab), Way("the product's objects", CLIENT, service("redis"))]
    lab.provider.exec(
        f"{DATABASES}/redis", ["redis-cli", "SETRANGE", "large", str(LARGE - 1), "x"]
    ).expect_success()
    for way in ways:
        lab.consumer.wait_until(partial(_answers, lab, way), f"{way.title}: Redis answers", 60)
    found: dict[str, dict[str, list[float]]] = {way.title: defaultdict(list) for way in ways}
    for number in range(turns + 1):
        for way in ways:
            for name, values in _run(lab, way).items():
                if number:  # the first turn only warms up
                    found[way.title][name] += values
    _, plain, ours = found.values()
    ratio = percentile(ours["requests"], 50) / percentile(plain["requests"], 50)
    text = (
        "Two clusters of the lab on one machine: client, Redis and all proxies share its CPUs. A request is Redis's PING on an open "
        "connection; a connect is a new connection up to the answer of its first PING; a transfer is one value of "
        f"{LARGE // 2**20} MiB on one connection. {turns} turns of {REQUESTS} requests, {CONNECTS} connects and {TRANSFERS} "
        "transfers for each way. The static Envoys are the same program in the same number, with the same threads, mutual TLS 1.3 "
        "on both legs, P-256 keys and a check of the peer's name; access logs are off on all ways."
    )
    header = ["way", *(f"{what} p{p}" for what in ("request", "connect") for p in PERCENTILES), "throughput"]
    return Section(
        "The path",
        text,
        header,
        [[title, *_cells(values)] for title, values in found.items()],
        verdict(
            "A request's median, our objects against the static Envoys",
            ratio,
            "at most 1.1",
            met=ratio <= 1.1,
        ),
    )


def _cells(values: Mapping[str, Sequence[float]]) -> list[str]:
    times = [
        f"{percentile(values[name], p) * 1000:.2f} ms"
        for name in ("requests", "connects")
        for p in PERCENTILES
    ]
    return [*times, f"{percentile(values['transfers'], 50) / 2**20:.0f} MiB/s"]


def _run(lab: Lab, way: Way) -> dict[str, list[float]]:
    counts = map(str, (REQUESTS, CONNECTS, TRANSFERS))
    command = [sys.executable, "-c", PROGRAM, "measure", way.host, str(REDIS_PORT), *counts]
    answer: dict[str, list[float]] = json.loads(
        lab.consumer.exec(way.pod, command, timeout=300).expect_success()
    )
    return answer


def _answers(lab: Lab, way: Way) -> bool:
    command = ["redis-cli", "-h", way.host, "PING"]
    return lab.consumer.exec(way.pod, command).stdout.strip() == "PONG"


def _direct(lab: Lab) -> Way:
    """Without any proxy: a load balancer of its own in front of Redis, and a Pod without sidecar."""
    lab.provider.apply(_balancer(DATABASES, "redis-direct", "redis", REDIS_PORT))
    lab.consumer.apply(*applications.client(NAMESPACE, "direct", sidecar=False))
    lab.consumer.wait_ready(NAMESPACE, "direct")
    return Way("direct, no proxy", f"{NAMESPACE}/direct", _address(lab.provider, DATABASES, "redis-direct"))


def _static(lab: Lab) -> Way:
    """Through three Envoys with a static configuration, with as many threads each as the product's."""
    threads = json.loads(lab.consumer.admin(EGRESS.partition("/")[2], "/server_info"))[
        "command_line_options"
    ]["concurrency"]
    authority = pki.Authority.create("bench")
    names = {name: authority.serving([name]) for name in ("application", "egress", "ingress")}
    ingress = static.towards_the_service(REDIS, REDIS_PORT, names["ingress"], authority)
    lab.provider.apply(*_envoy("ingress", static.arguments(ingress, threads)))
    lab.provider.apply(_balancer(NAMESPACE, "ingress", "ingress", static.PORT))
    address = _address(lab.provider, NAMESPACE, "ingress")
    egress = static.towards_the_provider(address, names["egress"], authority)
    lab.consumer.apply(*_envoy("egress", static.arguments(egress, threads)))
    here = static.beside_the_client(
        REDIS_PORT, f"egress.{NAMESPACE}.svc.cluster.local", names["application"], authority
    )
    application: list[Object] = applications.client(NAMESPACE, "application", sidecar=False)
    application[-1]["spec"]["template"]["spec"]["containers"].append(
        {"name": "envoy", "image": "envoy", "args": static.arguments(here, threads)}
    )
    lab.consumer.apply(*application)
    lab.provider.wait_ready(NAMESPACE, "ingress")
    lab.consumer.wait_ready(NAMESPACE, "egress")
    lab.consumer.wait_ready(NAMESPACE, "application")
    return Way("the same Envoys, static", f"{NAMESPACE}/application", "127.0.0.1")


def _envoy(name: str, arguments: list[str]) -> list[Object]:
    objects = applications.client(NAMESPACE, name, sidecar=False)
    objects[-1]["spec"]["template"]["spec"]["containers"] = [
        {"name": "envoy", "image": "envoy", "args": arguments, "ports": [{"containerPort": static.PORT}]}
    ]
    return [*objects, _service(NAMESPACE, name, name, static.PORT)]


def _service(namespace: str, name: str, app: str, port: int, **more: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"app": app}, "ports": [{"name": "tcp", "port": port}], **more},
    }


def _balancer(namespace: str, name: str, app: str, port: int) -> Object:
    return _service(namespace, name, app, port, type="LoadBalancer")


def _address(cluster: Cluster, namespace: str, name: str) -> str:
    """The address of a load balancer, once it has one."""

    def given() -> bool:
        try:
            return bool(cluster.balancer(namespace, name))
        except LabError:
            return False

    cluster.wait_until(given, f"{namespace}/{name} has an address", 30)
    return cluster.balancer(namespace, name)
