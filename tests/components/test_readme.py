"""The README's walk through writing a stack works as it is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import config
from components import declare_stack
from tests.components import samples
from tests.components.recorder import Previewed, Run, Stacks, run

README = (Path(__file__).parents[2] / "README.md").read_text()
CLUSTER, PROVIDER, CONSUMER, BROKER = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
PROVIDER_STACK = "organization/meshbridge/data"
INTRODUCTION, *_SIDES = re.split(
    r"^\*\*(Consumer|Provider|Upstream|Broker)\*\*",
    README.partition("## What a stack makes")[2].partition("\n## ")[0],
    flags=re.MULTILINE,
)
SIDES = dict(zip(_SIDES[::2], _SIDES[1::2], strict=True))
MADE = {"createNamespace": True}
TARGET_GROUP = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:targetgroup/edge/0123456789abcdef"
CERTIFICATE = {"certManager": {"issuer": {"name": "ca"}, "trustIssuer": True}}


def written(*steps: str) -> config.Stack:
    """The stack whose file has these steps, one below the other."""
    sections: dict[str, Any] = yaml.safe_load("".join(steps))["config"]
    return config.parse({key.removeprefix("meshbridge:"): value for key, value in sections.items()})


def brought_up(stack: config.Stack, others: Stacks, *, preview: bool = False) -> Run:
    return run(lambda: declare_stack(stack), plugin=others, preview=preview)


def test_the_steps_make_a_provider_and_a_consumer_of_it() -> None:
    data, shop = written(CLUSTER, PROVIDER), written(CLUSTER, CONSUMER)

    brought_up(data, Previewed(), preview=True)
    exported = brought_up(data, Stacks()).result
    previewed = brought_up(shop, Previewed({PROVIDER_STACK: exported}), preview=True)
    made = brought_up(shop, Stacks({PROVIDER_STACK: exported}))

    assert {r.urn for r in previewed} == {r.urn for r in made}
    (endpoint,) = made.result["consumer"]["endpoints"]
    assert endpoint["address"] == "svc-orders-primary.shop.svc.cluster.local:5432"
    assert f"connects to\n`{endpoint['address']}`" in README


def test_roles_mix_in_one_file() -> None:
    exported = brought_up(written(CLUSTER, PROVIDER), Stacks()).result

    both = brought_up(written(CLUSTER, PROVIDER, CONSUMER), Stacks({PROVIDER_STACK: exported})).result

    assert {"provider", "consumer"} <= set(both)


def test_the_consumer_has_a_broker_of_its_own() -> None:
    provider = yaml.safe_load(CLUSTER + PROVIDER)["config"]
    provider["meshbridge:provider"]["controlPlane"] = {
        "address": "10.20.0.12",
        "port": 5555,
        "consumers": ["client.shop.example"],
    }
    exported = brought_up(written(yaml.safe_dump({"config": provider})), Stacks()).result

    made = brought_up(written(CLUSTER, CONSUMER, BROKER), Stacks({PROVIDER_STACK: exported})).result

    assert {"consumer", "broker"} <= set(made)


@pytest.mark.parametrize(
    ("raw", "sides"),
    [
        (
            samples.consumer(
                egressGateway=MADE,
                certificate=CERTIFICATE,
                provider={"name": "data", "systemDomain": "istio.data.example", "caCertificate": samples.CA},
                sidecars=[{"namespace": "shop", "limits": {"idleTimeout": "2h"}}],
            ),
            ["Consumer"],
        ),
        (
            samples.provider(
                ingressGateway=MADE,
                certificate=CERTIFICATE,
                consumersCaCertificate=samples.CA,
                loadBalancer={"existing": {"address": "192.0.2.1", "targetGroupArn": TARGET_GROUP}},
                dns={"externalDns": {"source": "dns-endpoint"}},
            ),
            ["Provider", "Consumer"],  # "those of the consumer's"
        ),
        (samples.upstreams({**samples.FULL_HTTP, **MADE}, samples.FULL_TCP), ["Upstream"]),
        (samples.brokered_provider(createNamespace=True), ["Broker", "Provider", "Consumer"]),
    ],
    ids=["consumer", "provider", "upstream", "broker"],
)
def test_every_kind_of_object_that_a_side_makes_is_said(raw: samples.Raw, sides: list[str]) -> None:
    said = "\n".join([INTRODUCTION, *(SIDES[side] for side in sides)]).replace("claim", "ConfigMap")
    made = brought_up(samples.parsed(raw), Stacks())

    assert {o.kind for o in made.objects if not re.search(rf"\b{o.kind}\b", said)} == set()
