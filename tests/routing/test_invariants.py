"""Whatever stack people write, all its objects together hold every invariant."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import Phase, given, settings

from tests.authorities import authority
from tests.routing.deployed import deploy
from tests.routing.invariants import INVARIANTS, violated
from tests.strategies import Data, stacks

STACKS = sorted((Path(__file__).parents[2] / "stacks").glob("Pulumi.*.yaml"))

PROVIDER_OUTPUTS = {
    "id": "istio.data.example",
    "systemDomain": "istio.data.example",
    "port": 9000,
    "caCertificate": authority("data"),
    "services": {
        "orders": {
            "consumers": ["client.shop.example"],
            "endpoints": {
                "primary": {"host": "primary.orders.istio.data.example", "port": 9000},
                "replica": {"host": "replica.orders.istio.data.example", "port": 9000},
            },
        }
    },
    "ingressGateway": "mesh-ingress/provider-ingress",
    "controlPlane": {"host": "istio-broker.istio.data.example", "consumers": ["client.shop.example"]},
}
REFERENCES = {
    f"organization/meshbridge/{name}": PROVIDER_OUTPUTS
    for name in ("example-provider", "example-standalone-provider")
}


@settings(max_examples=20, phases=[Phase.generate], report_multiple_bugs=False)
@given(stacks())
def test_every_stack_holds_every_invariant(data: Data) -> None:
    assert violated(deploy(data)) == {}


@pytest.mark.parametrize("file", STACKS, ids=lambda file: file.stem)
def test_the_stacks_of_this_repository_hold_every_invariant(file: Path) -> None:
    prefixed = yaml.safe_load(file.read_text())["config"]
    data = {key.removeprefix("meshbridge:"): value for key, value in prefixed.items()}
    assert violated(deploy(data, REFERENCES)) == {}


def test_each_invariant_says_what_it_means() -> None:
    for number, invariant in INVARIANTS.items():
        assert invariant.id == number
        assert len(invariant.says) > 20, number
