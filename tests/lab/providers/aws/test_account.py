"""The stand-in reaches nothing but a server on this machine, which can tell the deployer's calls from AWS's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from moto.server import ThreadedMotoServer

from lab.providers.aws.account import ENDPOINT, Account
from lab.providers.errors import ProviderError
from tests.rights import DEPLOYER, recorded


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "https://elasticloadbalancing.eu-central-1.amazonaws.com",
        "http://192.0.2.1",
        "http://localhost.example",
    ],
)
def test_a_real_account_is_for_the_official_plugin(endpoint: str) -> None:
    with pytest.raises(ProviderError, match="install the official plugin"):
        Account("eu-central-1", {ENDPOINT: endpoint})


@pytest.fixture
def server() -> Iterator[str]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    yield f"http://{host}:{port}"
    moto.stop()


def test_the_server_sees_what_the_deployer_asks(server: str) -> None:
    account = Account("eu-central-1", {ENDPOINT: server, "AWS_ACCESS_KEY_ID": DEPLOYER})
    with recorded() as calls:
        account.client("elbv2").describe_load_balancers()
        account.client("route53").list_hosted_zones()
        account.client("ec2", quiet=True).describe_vpcs()
    assert [call.action for call in calls] == [
        "elasticloadbalancing:DescribeLoadBalancers",
        "route53:ListHostedZones",
    ]
