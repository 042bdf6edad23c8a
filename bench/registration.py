"""Rate at which objects are registered: our components against Pulumi's raw CustomResources of the same content.

Both run under Pulumi's mocks in processes of their own, in turns. Ours also register a component for each endpoint, its
outputs, and the order of the objects.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pulumi

from bench.bindings import OWNER, consumer_side
from bench.table import Section, summary, verdict
from components import ConsumerEgress, ConsumerEgressArgs
from config import Cluster, EgressGateway

GOAL = 0.9
ENDPOINTS = 100
OBJECTS = 9
"""Of an endpoint."""
REGISTRATIONS = OBJECTS + 1
CLUSTER = Cluster(context="north")
VIRTUAL_IP = "10.96.0.7"
"""Of every Service."""


class _Mocks(pulumi.runtime.Mocks):
    def __init__(self) -> None:
        self.objects = 0

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], None]:
        raise NotImplementedError(args.token)

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[Any, Any]]:
        self.objects += args.typ.startswith("kubernetes:")
        if args.inputs.get("kind") == "Service":
            spec = {**args.inputs["spec"], "clusterIP": VIRTUAL_IP}
            return args.name, {**args.inputs, "spec": spec}
        return args.name, args.inputs


def _endpoint(number: int) -> ConsumerEgressArgs:
    slug = f"orders-{number}"
    return ConsumerEgressArgs(
        slug=slug,
        namespace="shop",
        cluster=CLUSTER,
        gateway=EgressGateway(),
        host=f"{slug}.istio.data.example",
        port=9000,
        provider_id="istio.data.example",
        client_secret="consumer-client",  # noqa: S106
        service=f"svc-{slug}",
        service_port=5432,
    )


def _components() -> None:
    for number in range(ENDPOINTS):
        ConsumerEgress(f"orders-{number}", _endpoint(number))


def _raw() -> None:
    from pulumi_kubernetes.apiextensions import CustomResource  # noqa: PLC0415 (only this program needs it)

    for number in range(ENDPOINTS):
        for index, manifest in enumerate(consumer_side(_endpoint(number), VIRTUAL_IP)):
            content = manifest.as_dict(OWNER)
            CustomResource(
                f"orders-{number}-{index}",
                api_version=manifest.api_version,
                kind=manifest.kind,
                metadata=content["metadata"],  # type: ignore[arg-type]
                spec=manifest.body.get("spec", manifest.body),
            )


PROGRAMS: dict[str, Callable[[], None]] = {"components": _components, "raw": _raw}


def measure(rounds: int) -> Section:
    """Register the objects of `ENDPOINTS` endpoints, `rounds` times in each way."""
    rates: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    for _ in range(rounds):
        for name in PROGRAMS:
            rates[name].append(_in_process(name))
    objects = {name: statistics.median(values) for name, values in rates.items()}
    registrations = objects["components"] * REGISTRATIONS / OBJECTS / objects["raw"]
    rows = [
        [
            "`ConsumerEgress`",
            summary(rates["components"], "objects/s"),
            summary(rates["components"], "/s", REGISTRATIONS / OBJECTS),
        ],
        [
            "raw `apiextensions.CustomResource`",
            summary(rates["raw"], "objects/s"),
            summary(rates["raw"], "/s"),
        ],
    ]
    text = (
        f"{ENDPOINTS} endpoints, {ENDPOINTS * OBJECTS} objects of the same content; {rounds} fresh processes each, in turns, by CPU "
        "time. Ours register a component for each nine objects, which is a registration too, and outputs and the objects' order "
        f"besides: object for object they reach {objects['components'] / objects['raw']:.2f} of the raw rate."
    )
    return Section(
        "Registering objects",
        text,
        ["registered as", "objects", "registrations"],
        rows,
        verdict(
            "Registrations, ours against raw", registrations, f"at least {GOAL}", met=registrations >= GOAL
        ),
    )


def _in_process(name: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "bench.registration", name], check=True, capture_output=True, text=True
    )
    return float(json.loads(done.stdout))


def _rate(program: Callable[[], None]) -> float:
    """Objects per second of CPU time that a program registers, its first registration not counted."""
    mocks = _Mocks()
    pulumi.runtime.set_mocks(mocks, "meshbridge", "bench", False)
    before = time.process_time()
    pulumi.runtime.test(program)()  # type: ignore[no-untyped-call]
    return mocks.objects / (time.process_time() - before)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Register once and print the rate.")
    parser.add_argument("program", choices=PROGRAMS)
    sys.stdout.write(json.dumps(_rate(PROGRAMS[parser.parse_args().program])))
