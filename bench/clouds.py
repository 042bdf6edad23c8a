"""What AWS costs a stack: one whose gateway stands behind a load balancer and a record of its own there, against the same
stack without.

Each run is a process of its own, from the first import to the last registration, under Pulumi's mocks; they take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import pulumi

import components
import config
from bench.table import Section, summary

PROVIDER: dict[str, Any] = {
    "systemDomain": "istio.data.example",
    "exports": [
        {
            "name": "orders",
            "consumers": ["client.shop.example"],
            "endpoints": [
                {
                    "name": "main",
                    "host": "main.orders.istio.data.example",
                    "address": "10.0.0.1",
                    "port": 5432,
                }
            ],
        }
    ],
}
WITHOUT: dict[str, Any] = {"cluster": {"render": True}, "provider": PROVIDER}
STACKS: dict[str, dict[str, Any]] = {
    "without AWS": WITHOUT,
    "with AWS": {
        **WITHOUT,
        "aws": {"region": "eu-central-1"},
        "provider": {
            **PROVIDER,
            "loadBalancer": {"awsNlb": {"subnets": ["subnet-0000000a", "subnet-0000000b"]}},
            "dns": {"route53": {"zone": "data.example"}},
        },
    },
}
SDKS = ("pulumi_aws", "boto3", "botocore")


class _Mocks(pulumi.runtime.Mocks):
    def __init__(self) -> None:
        self.registered = 0

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], list[tuple[str, str]]]:
        answers: dict[str, dict[Any, Any]] = {
            "aws:ec2/getSubnet:getSubnet": {
                "vpcId": "vpc-1",
                "availabilityZone": str(args.args.get("id", ""))[-1:],
            },
            "aws:route53/getZone:getZone": {"zoneId": "Z00000", "name": "data.example", "privateZone": False},
            "aws:route53/getRecords:getRecords": {"resourceRecordSets": []},
        }
        return answers[args.token], []

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[Any, Any]]:
        self.registered += 1
        known = {"arn": f"arn:aws:x/{args.name}", "dnsName": "edge.elb.example", "zoneId": "Z00001"}
        return args.name, {**args.inputs, **(known if args.typ.startswith("aws:") else {})}


def measure(rounds: int) -> Section:
    """Run the program for each of the stacks `rounds` times."""
    found: dict[str, list[list[float]]] = {name: [] for name in STACKS}
    for _ in range(rounds):
        for name in STACKS:
            found[name].append(_in_process(name))
    rows = []
    for name, runs in found.items():
        whole, declared, registered, modules = zip(*runs, strict=True)
        rows.append(
            [
                name,
                summary(whole, "ms", 1000),
                summary(declared, "ms", 1000),
                f"{statistics.median(registered):.0f}",
                f"{max(modules):.0f}",
            ]
        )
    return Section(
        "A stack with AWS against one without",
        f"A provider of one endpoint, the second with a Network Load Balancer and a Route 53 record of its own; {rounds} fresh "
        f"processes each, in turns, under mocks, CPU time. SDK modules: those of {', '.join(SDKS)} that the program has loaded.",
        ["stack", "program, start to end", "of which parse and declare", "registrations", "SDK modules"],
        rows,
    )


def _in_process(name: str) -> list[float]:
    command = [sys.executable, "-m", "bench.clouds", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: list[float] = json.loads(done.stdout)
    return measured


def _run(name: str) -> list[float]:
    """CPU seconds of the process and of parsing and declaring, registrations, and modules of AWS's SDKs."""
    mocks = _Mocks()
    pulumi.runtime.set_mocks(mocks, "meshbridge", "bench")
    began = time.process_time()
    stack = config.parse(STACKS[name])

    def declare() -> None:
        components.declare_stack(stack)

    pulumi.runtime.test(declare)()  # type: ignore[no-untyped-call]
    ended = time.process_time()
    loaded = sum(module.partition(".")[0] in SDKS for module in sys.modules)
    return [ended, ended - began, mocks.registered, loaded]


def main() -> None:
    """Run one of the stacks and print what it took."""
    parser = argparse.ArgumentParser(prog="python -m bench.clouds", description=__doc__)
    parser.add_argument("stack", choices=STACKS)
    print(json.dumps(_run(parser.parse_args().stack)))


if __name__ == "__main__":
    main()
