"""The program on the real engine, with AWS played by a moto server: what a load balancer and its record go through.

Where the official plugin is installed, the tests use it; else the stand-in of `lab/providers/aws`. Kubernetes objects
are rendered.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3
import yaml
from moto.server import ThreadedMotoServer

import tools
from cli.interruptions import FOLLOWS, GONE, PROTECTED, UNFOUND
from tests.engine.project import Project, Result, Stack, planned
from tests.rights import DEPLOYER, Call, documented_policy, recorded
from tools.plugins import aws_stand_in

REGION = "eu-central-1"
ACCOUNT = "123456789012"
DOMAIN = "istio.data.example"
WILDCARD = f"*.{DOMAIN}"
KEY = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}


class Aws:
    """The account behind a moto server, as somebody with another tool sees it."""

    def __init__(self, endpoint: str) -> None:
        def client(service: str) -> Any:
            return boto3.client(service, region_name=REGION, endpoint_url=endpoint, **KEY)

        self.elb, self.ec2, self.route53 = client("elbv2"), client("ec2"), client("route53")
        self.vpc = self.ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
        self.subnets = [
            self.ec2.create_subnet(
                VpcId=self.vpc, CidrBlock=f"10.9.{index}.0/24", AvailabilityZone=f"{REGION}{zone}"
            )["Subnet"]["SubnetId"]
            for index, zone in enumerate("abc")
        ]
        self.zone = self.zone_of("data.example")

    def zone_of(self, name: str, **options: Any) -> str:
        """A new hosted zone; its id."""
        zone = self.route53.create_hosted_zone(Name=name, CallerReference=os.urandom(4).hex(), **options)
        return str(zone["HostedZone"]["Id"].rpartition("/")[2])

    def crowded(self) -> list[str]:
        """Two subnets of one zone."""
        made = self.ec2.create_subnet(VpcId=self.vpc, CidrBlock="10.9.9.0/24", AvailabilityZone=f"{REGION}a")
        return [self.subnets[0], made["Subnet"]["SubnetId"]]

    def records(self) -> dict[tuple[str, str], Any]:
        """The zone's records by name and type, without those that every zone has."""
        listed = self.route53.list_resource_record_sets(HostedZoneId=self.zone)["ResourceRecordSets"]
        return {
            (record["Name"].rstrip(".").replace("\\052", "*"), record["Type"]): record
            for record in listed
            if record["Type"] not in {"NS", "SOA"}
        }

    def change_record(self, action: str, record: dict[str, Any]) -> None:
        """What somebody does by hand."""
        self.route53.change_resource_record_sets(
            HostedZoneId=self.zone,
            ChangeBatch={"Changes": [{"Action": action, "ResourceRecordSet": record}]},
        )

    def balancers(self) -> list[Any]:
        """The load balancers."""
        return list(self.elb.describe_load_balancers()["LoadBalancers"])

    def groups(self) -> list[Any]:
        """The target groups."""
        return list(self.elb.describe_target_groups()["TargetGroups"])

    def attributes(self, what: str, arn: str) -> dict[str, str]:
        """Attributes of a load balancer or a target group."""
        described = (
            self.elb.describe_load_balancer_attributes(LoadBalancerArn=arn)
            if what == "load_balancer"
            else self.elb.describe_target_group_attributes(TargetGroupArn=arn)
        )
        return {item["Key"]: item["Value"] for item in described["Attributes"]}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def aws(endpoint: str) -> Aws:
    """An account with a VPC of three subnets and a hosted zone, and nothing else."""
    urllib3.request("POST", f"{endpoint}/moto-api/reset", timeout=60)
    return Aws(endpoint)


@pytest.fixture(autouse=True)
def calls(aws: Aws) -> Iterator[list[Call]]:
    """What the plugin asks of AWS. The documented policy grants all of it, on what it is asked for."""
    with recorded() as asked:
        yield asked
    assert documented_policy(REGION, ACCOUNT, aws.zone).refused(asked) == []


OF_ITSELF = "by Elastic Load Balancing, with the caller's rights (policy of the AWS Load Balancer Controller)"
NOT_ASKED_HERE = {
    "ec2:AllocateAddress": "elasticIps",
    "ec2:DescribeAddresses": "elasticIps",
    "ec2:ReleaseAddress": "elasticIps",
    "ec2:DescribeAddressesAttribute": "elasticIps, by the official plugin alone",
    "ec2:DescribeNetworkInterfaces": "by the official plugin alone, which waits for those of a deleted load balancer",
    "elasticloadbalancing:DescribeCapacityReservation": "by the official plugin alone",
    "elasticloadbalancing:ModifyTargetGroup": "when a newer version of the program checks health in another way",
    "elasticloadbalancing:ModifyListener": "when the port changes",
    "ec2:DescribeAccountAttributes": OF_ITSELF,
    "ec2:DescribeAvailabilityZones": OF_ITSELF,
    "ec2:DescribeInternetGateways": OF_ITSELF,
    "ec2:DescribeVpcs": OF_ITSELF,
    "ec2:GetSecurityGroupsForVpc": OF_ITSELF,
    "iam:CreateServiceLinkedRole": "with the first load balancer of an account",
}
"""What the policy allows and the life of one load balancer does not need, and why it is there."""


@pytest.fixture
def project(tmp_path: Path, endpoint: str) -> Project:
    environment = tools.engine_environment()
    stand_in = aws_stand_in()
    path = environment["PATH"] if stand_in is None else f"{stand_in}{os.pathsep}{environment['PATH']}"
    return Project(
        tmp_path / "project",
        {
            **environment,
            "PATH": path,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": DEPLOYER,
            "AWS_SECRET_ACCESS_KEY": "test",
        },
    )


def configuration(subnets: list[str], port: int = 9000, **nlb: object) -> dict[str, Any]:
    """A provider behind a load balancer of its own, with its record in Route 53."""
    return {
        "cluster": {"render": True},
        "aws": {"region": REGION, "account": ACCOUNT, "tags": {"team": "edge"}},
        "provider": {
            "systemDomain": DOMAIN,
            "port": port,
            "ingressGateway": {"createNamespace": True},
            "loadBalancer": {"awsNlb": {"subnets": subnets, **nlb}},
            "dns": {"route53": {"zone": "data.example"}},
            "exports": [
                {
                    "name": "orders",
                    "consumers": ["client.shop.example"],
                    "endpoints": [
                        {
                            "name": "main",
                            "host": f"main.orders.{DOMAIN}",
                            "address": "10.0.0.1",
                            "port": 5432,
                        }
                    ],
                }
            ],
        },
    }


def steps(result: Result, kind: str) -> list[str]:
    """The operations on resources of a kind, in the order in which they were begun."""
    found = []
    for event in result.events:
        metadata = event.get("resourcePreEvent", {}).get("metadata", {})
        if str(metadata.get("type", "")).endswith(f":{kind}"):
            found.append(metadata["op"])
    return found


def order(result: Result) -> list[tuple[str, str]]:
    """Operation and kind of everything that was begun."""
    return [
        (metadata["op"], metadata["type"].rpartition(":")[2])
        for event in result.events
        if (metadata := event.get("resourcePreEvent", {}).get("metadata")) is not None
    ]


def messages(result: Result, severity: str) -> str:
    """What the program and its plugins said."""
    told = [event["diagnosticEvent"] for event in result.events if "diagnosticEvent" in event]
    return "".join(d["message"] for d in told if d["severity"] == severity)


def rendered(project: Project, stack: Stack, kind: str) -> list[dict[str, Any]]:
    """The rendered objects of a kind."""
    found = []
    for file in sorted((project.directory / "build" / stack.name).rglob("*.yaml")):
        for item in yaml.safe_load_all(file.read_text()):
            if item["kind"] == kind:
                found.append(item)
    return found


def test_a_load_balancer_from_its_preview_to_its_end(project: Project, aws: Aws, calls: list[Call]) -> None:
    first = configuration(aws.subnets[:2], accessLogs={"bucket": "logs"})
    stack = project.stack("edge", first)
    assert set(stack.preview().expect_success().operations.values()) == {"create"}
    assert aws.balancers() == []

    stack.up().expect_success()
    (balancer,) = aws.balancers()
    assert (balancer["Type"], balancer["Scheme"], balancer["IpAddressType"]) == (
        "network",
        "internet-facing",
        "ipv4",
    )
    assert len(balancer["LoadBalancerName"]) <= 32
    attributes = aws.attributes("load_balancer", balancer["LoadBalancerArn"])
    assert attributes["access_logs.s3.bucket"] == "logs"
    assert attributes["load_balancing.cross_zone.enabled"] == "true"
    (group,) = aws.groups()
    assert (group["TargetType"], group["Protocol"], group["Port"]) == ("ip", "TCP", 9000)
    assert (group["HealthCheckProtocol"], group["HealthCheckPort"], group["HealthCheckPath"]) == (
        "HTTP",
        "15021",
        "/healthz/ready",
    )
    (listener,) = aws.elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    assert (listener["Protocol"], listener["Port"]) == ("TCP", 9000)
    assert "Certificates" not in listener
    (firewall,) = aws.ec2.describe_security_groups(GroupIds=balancer["SecurityGroups"])["SecurityGroups"]
    admitted = [(p["FromPort"], r["CidrIp"]) for p in firewall["IpPermissions"] for r in p["IpRanges"]]
    assert admitted == [(9000, "0.0.0.0/0")]
    assert {p["FromPort"] for p in firewall["IpPermissionsEgress"]} == {9000, 15021}
    alias = aws.records()[WILDCARD, "A"]["AliasTarget"]
    assert alias["DNSName"] == balancer["DNSName"]
    (binding,) = rendered(project, stack, "TargetGroupBinding")
    assert binding["spec"]["targetGroupARN"] == group["TargetGroupArn"]
    assert binding["spec"]["serviceRef"] == {"name": "provider-ingress-targets", "port": 9000}
    outputs = stack.outputs()
    assert outputs["provider"]["address"] == balancer["DNSName"]
    assert outputs["wildcardRecord"]["value"] == balancer["DNSName"]

    assert stack.up().expect_success().operations == {}

    changed = configuration(
        aws.subnets,
        ipAddressType="dualstack",
        clientAddress="proxy-protocol",
        sourceRanges=["192.0.2.0/24"],
        crossZone=False,
    )
    changed["aws"]["tags"] = {"cost": "shared"}
    stack.configure(changed)
    done = stack.up().expect_success()
    assert "replace" not in done.operations.values()
    (same,) = aws.balancers()
    assert same["LoadBalancerArn"] == balancer["LoadBalancerArn"]
    assert len(same["AvailabilityZones"]) == 3
    attributes = aws.attributes("target_group", group["TargetGroupArn"])
    assert attributes["proxy_protocol_v2.enabled"] == "true"
    assert attributes["preserve_client_ip.enabled"] == "false"
    assert {kind for name, kind in aws.records() if name == WILDCARD} == {"A", "AAAA"}
    (deployment,) = rendered(project, stack, "Deployment")
    assert (
        "proxyProtocol" in deployment["spec"]["template"]["metadata"]["annotations"]["proxy.istio.io/config"]
    )

    stack.destroy().expect_success()
    assert (aws.balancers(), aws.groups(), aws.records()) == ([], [], {})
    left = aws.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [aws.vpc]}])[
        "SecurityGroups"
    ]
    assert [group["GroupName"] for group in left] == ["default"]
    permitted = documented_policy(REGION, ACCOUNT, aws.zone).actions
    assert permitted - {call.action for call in calls} == NOT_ASKED_HERE.keys()


def test_a_replacement_is_there_before_the_old_one_goes(project: Project, aws: Aws) -> None:
    stack = project.stack("edge", configuration(aws.subnets[:2]))
    stack.up().expect_success()
    (old,) = aws.balancers()
    (old_group,) = aws.groups()

    stack.configure(configuration(aws.subnets[:2], scheme="internal"))
    assert planned(project, stack)["LoadBalancer"].interruption == FOLLOWS
    done = stack.up().expect_success()
    begun = order(done)
    deleted = begun.index(("delete-replaced", "LoadBalancer"))
    for before in ("LoadBalancer", "TargetGroup", "Listener", "TargetGroupBinding"):
        assert begun.index(("create-replacement", before)) < deleted
    assert begun.index(("update", "Record")) < deleted
    (new,) = aws.balancers()
    assert new["Scheme"] == "internal"
    assert new["LoadBalancerName"] != old["LoadBalancerName"]
    assert aws.records()[WILDCARD, "A"]["AliasTarget"]["DNSName"] == new["DNSName"]
    (group,) = aws.groups()
    assert group["TargetGroupArn"] != old_group["TargetGroupArn"], (
        "AWS lets one load balancer use a target group"
    )
    (binding,) = rendered(project, stack, "TargetGroupBinding")
    assert binding["spec"]["targetGroupARN"] == group["TargetGroupArn"]

    stack.configure(configuration(aws.subnets[:2], port=9443, scheme="internal"))
    plan = planned(project, stack)
    assert plan["TargetGroup"].operation == plan["TargetGroupBinding"].operation == "replace"
    assert plan["Listener"].operation == "update"
    assert plan["Listener"].interruption == (
        "the public port moves from 9000 to 9443; clients are cut until they use it"
    )
    assert "LoadBalancer" not in plan
    made = stack.up().expect_success().operations
    assert made["provider-ingress-lb-tg"] == made["provider-ingress-lb-binding"] == "replace"
    assert made["provider-ingress-lb-listener"] == "update"
    assert "provider-ingress-lb-nlb" not in made
    (listener,) = aws.elb.describe_listeners(LoadBalancerArn=new["LoadBalancerArn"])["Listeners"]
    assert listener["Port"] == 9443


def test_fixed_addresses_come_and_go_with_their_load_balancer(project: Project, aws: Aws) -> None:
    stack = project.stack("edge", configuration(aws.subnets, elasticIps=True))
    stack.up().expect_success()
    before = {item["AllocationId"] for item in aws.ec2.describe_addresses()["Addresses"]}
    assert len(before) == 3

    stack.configure(configuration(aws.subnets[:2], elasticIps=True, deletionProtection=True))
    done = stack.up().expect_success()
    begun = order(done)
    assert begun.index(("create-replacement", "LoadBalancer")) < begun.index(
        ("delete-replaced", "LoadBalancer")
    )
    after = {item["AllocationId"] for item in aws.ec2.describe_addresses()["Addresses"]}
    assert len(after) == 2
    assert not before & after, "an address that the old load balancer still has cannot serve the new one"

    refused = stack.destroy()
    assert refused.code != 0
    assert "deletion protection is enabled" in refused.errors
    assert len(aws.balancers()) == 1


def test_a_record_that_was_changed_by_hand_is_seen_and_put_right(project: Project, aws: Aws) -> None:
    stack = project.stack("edge", configuration(aws.subnets[:2]))
    stack.up().expect_success()
    made = aws.records()[WILDCARD, "A"]
    elsewhere = {**made, "AliasTarget": {**made["AliasTarget"], "DNSName": "elsewhere.elb.amazonaws.com"}}
    aws.change_record("UPSERT", elsewhere)

    assert stack.refresh().expect_success().all_operations["provider-ingress-dns-record"] == "refresh"
    assert stack.up().expect_success().operations == {"provider-ingress-dns-record": "update"}
    assert aws.records()[WILDCARD, "A"] == made

    aws.change_record("DELETE", made)
    aws.change_record(
        "CREATE",
        {"Name": f"x.orders.{DOMAIN}", "Type": "TXT", "TTL": 60, "ResourceRecords": [{"Value": '"x"'}]},
    )
    stack.refresh().expect_success()
    # moto refuses to repeat a change that it has seen, so the new record differs in something.
    unchecked = configuration(aws.subnets[:2])
    unchecked["provider"]["dns"]["route53"]["evaluateTargetHealth"] = False
    stack.configure(unchecked)
    done = stack.up().expect_success()
    assert done.operations == {"provider-ingress-dns-record": "create"}
    assert aws.records()[WILDCARD, "A"]["AliasTarget"]["EvaluateTargetHealth"] is False
    assert f"hides the wildcard from main.orders.{DOMAIN}" in messages(done, "warning")


def test_from_an_existing_load_balancer_to_one_of_the_stacks_own(project: Project, aws: Aws) -> None:
    before = configuration([])
    before["provider"]["loadBalancer"] = {"existing": {"address": "lb.example.net"}}
    stack = project.stack("edge", before)
    stack.up().expect_success()
    record = aws.records()[WILDCARD, "CNAME"]
    assert (record["TTL"], record["ResourceRecords"]) == (60, [{"Value": "lb.example.net"}])

    stack.configure(configuration(aws.subnets[:2]))
    begun = order(stack.up().expect_success())
    assert begun.index(("create", "TargetGroupBinding")) < begun.index(("update", "Record"))
    assert begun.index(("update", "Record")) < begun.index(("delete-replaced", "Service"))
    (balancer,) = aws.balancers()
    assert aws.records()[WILDCARD, "A"]["AliasTarget"]["DNSName"] == balancer["DNSName"]

    referring = configuration([])
    referring["provider"]["loadBalancer"] = {"existing": {"arn": balancer["LoadBalancerArn"]}}
    other = project.stack("other", referring)
    taken = other.up()
    assert taken.code != 0, "a record that exists is somebody's"
    assert "already exists" in taken.errors
    assert other.outputs()["provider"]["address"] == balancer["DNSName"]


def test_a_private_zone_by_its_id_gets_the_record_until_another_mode_has_none(
    project: Project, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    # AWS's ids begin with a Z, moto's as it happens.
    monkeypatch.setattr("moto.route53.models.create_route53_zone_id", lambda **_: "Z0123456789PRIVATE00")
    aws.zone = aws.zone_of(
        "data.example",
        VPC={"VPCRegion": REGION, "VPCId": aws.vpc},
        HostedZoneConfig={"PrivateZone": True, "Comment": ""},
    )
    raw = configuration(aws.subnets[:2], scheme="internal")
    raw["provider"]["dns"] = {"route53": {"zone": aws.zone, "private": True}}
    stack = project.stack("edge", raw)
    stack.up().expect_success()
    (balancer,) = aws.balancers()
    assert aws.records()[WILDCARD, "A"]["AliasTarget"]["DNSName"] == balancer["DNSName"]

    plain = configuration([])
    del plain["aws"], plain["provider"]["loadBalancer"], plain["provider"]["dns"]
    stack.configure(plain)
    plan = planned(project, stack)
    assert (plan["LoadBalancer"].interruption, plan["Record"].interruption) == (GONE, UNFOUND)
    stack.up().expect_success()
    assert (aws.balancers(), aws.groups(), aws.records()) == ([], [], {})


def test_a_protected_load_balancer_stays_when_it_is_replaced_and_the_preview_says_so(
    project: Project, aws: Aws
) -> None:
    stack = project.stack("edge", configuration(aws.subnets[:2], deletionProtection=True))
    stack.up().expect_success()
    (old,) = aws.balancers()

    stack.configure(configuration(aws.subnets[:2], deletionProtection=True, scheme="internal"))
    assert planned(project, stack)["LoadBalancer"].interruption == f"{FOLLOWS}; {PROTECTED}"
    refused = stack.up()
    assert refused.code != 0
    assert "deletion protection is enabled" in refused.errors
    (new,) = (found for found in aws.balancers() if found["LoadBalancerArn"] != old["LoadBalancerArn"])
    assert aws.records()[WILDCARD, "A"]["AliasTarget"]["DNSName"] == new["DNSName"]

    unprotected = [{"Key": "deletion_protection.enabled", "Value": "false"}]
    aws.elb.modify_load_balancer_attributes(LoadBalancerArn=old["LoadBalancerArn"], Attributes=unprotected)
    stack.up().expect_success()
    assert [found["LoadBalancerArn"] for found in aws.balancers()] == [new["LoadBalancerArn"]]


Raw = dict[str, Any]


def of_another_account(raw: Raw, _aws: Aws) -> None:
    raw["aws"]["account"] = "210987654321"


def in_no_such_zone(raw: Raw, _aws: Aws) -> None:
    raw["provider"]["dns"]["route53"]["private"] = True


def crowded(raw: Raw, aws: Aws) -> None:
    raw["provider"]["loadBalancer"]["awsNlb"]["subnets"] = aws.crowded()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (of_another_account, f"AWS account ID not allowed: {ACCOUNT}"),
        (in_no_such_zone, "no matching Route 53 Hosted Zone found"),
        (crowded, "lie in one zone"),
    ],
)
def test_what_does_not_fit_is_refused_at_preview(
    project: Project, aws: Aws, change: Callable[[Raw, Aws], None], said: str
) -> None:
    raw = configuration(aws.subnets[:2])
    change(raw, aws)
    refused = project.stack("edge", raw).preview()
    assert refused.code != 0
    assert said in refused.errors
    assert aws.balancers() == []
