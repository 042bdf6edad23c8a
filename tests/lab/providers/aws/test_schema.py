"""Which changes the stand-in calls a replacement: as the official provider does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lab.providers.aws.functions import FUNCTIONS
from lab.providers.aws.process import _RESOURCES
from lab.providers.aws.schema import SCHEMAS, VERSION, changes
from lab.providers.values import UNKNOWN

OFFICIAL = json.loads(
    (Path(__file__).parents[3] / "components" / "data" / "aws-schema.json").read_text(encoding="utf-8")
)
BALANCER = "aws:lb/loadBalancer:LoadBalancer"
GROUP = "aws:lb/targetGroup:TargetGroup"
RECORD = "aws:route53/record:Record"


def diff(token: str, before: Any, after: Any) -> dict[str, bool]:
    """The changed inputs, each with whether it replaces."""
    return dict(changes(token, before, before, after))


@pytest.mark.parametrize(
    ("token", "before", "after", "expected"),
    [
        (BALANCER, {"internal": False}, {"internal": True}, {"internal": True}),
        (BALANCER, {"subnets": ["a", "b"]}, {"subnets": ["b", "a"]}, {}),
        (BALANCER, {"subnets": ["a"]}, {"subnets": ["a", "b"]}, {"subnets": False}),
        (BALANCER, {"subnets": ["a", "b"]}, {"subnets": ["a"]}, {"subnets": True}),
        (BALANCER, {"subnets": ["a", "b"]}, {"subnets": ["a", "c"]}, {"subnets": True}),
        (BALANCER, {"subnets": ["a", "b"]}, {"subnets": ["b", "c", "d"]}, {"subnets": True}),
        (BALANCER, {"securityGroups": ["a"]}, {"securityGroups": ["b"]}, {"securityGroups": False}),
        (BALANCER, {"securityGroups": []}, {"securityGroups": ["b"]}, {"securityGroups": True}),
        (BALANCER, {"securityGroups": ["a"]}, {"securityGroups": [UNKNOWN]}, {"securityGroups": False}),
        (
            BALANCER,
            {"subnetMappings": [{"subnetId": "a", "allocationId": "1"}]},
            {"subnetMappings": [{"subnetId": "a", "allocationId": "2"}]},
            {"subnetMappings": True},
        ),
        (
            BALANCER,
            {"subnetMappings": [{"subnetId": "a", "allocationId": "1"}]},
            {"subnetMappings": [{"subnetId": "b"}, {"subnetId": "a", "allocationId": "1"}]},
            {"subnetMappings": False},
        ),
        (BALANCER, {"accessLogs": {"enabled": False}}, {}, {"accessLogs": False}),
        (BALANCER, {"ipAddressType": "ipv4"}, {"ipAddressType": "dualstack"}, {"ipAddressType": False}),
        (GROUP, {"port": 1}, {"port": 2}, {"port": True}),
        (GROUP, {"proxyProtocolV2": False}, {"proxyProtocolV2": True}, {"proxyProtocolV2": False}),
        (GROUP, {"vpcId": "a"}, {"vpcId": UNKNOWN}, {"vpcId": True}),
        (RECORD, {"type": "CNAME"}, {"type": "A"}, {"type": False}),
        (RECORD, {"name": "a"}, {"name": "b"}, {"name": True}),
        (RECORD, {"records": ["a", "b"]}, {"records": ["b", "a"]}, {}),
    ],
)
def test_changes_and_replacements(token: str, before: Any, after: Any, expected: dict[str, bool]) -> None:
    assert diff(token, before, after) == expected


def test_what_aws_adds_by_itself_is_no_change() -> None:
    state: Any = {"name": "edge", "dnsName": "edge.elb", "tags": {"a": "1"}}
    assert not list(changes(BALANCER, {"name": "edge"}, state, {"name": "edge"}))


def test_a_tag_that_somebody_took_away_is_a_change() -> None:
    inputs: Any = {"tags": {"a": "1"}}
    assert dict(changes(BALANCER, inputs, {"tags": {}}, inputs)) == {"tags": False}


def test_the_schema_is_a_part_of_the_official_one() -> None:
    assert OFFICIAL["version"] == VERSION
    assert SCHEMAS.keys() == _RESOURCES.keys() == OFFICIAL["resources"].keys()
    assert FUNCTIONS.keys() == OFFICIAL["functions"].keys()
    for token, schema in SCHEMAS.items():
        assert schema.inputs <= set(OFFICIAL["resources"][token]["inputs"])
        assert schema.required | schema.replace | schema.sets <= schema.inputs
