"""LoadBalancer: what each mode makes, in which order, and what it tells."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from components import aws, declare_stack
from components.load_balancer import unique_name
from tests.components import samples
from tests.components.cloud import ARN, SCHEMA, SUBNETS, Cloud, Unmade, balanced
from tests.components.recorder import Registration, Run, run

OWN = {"awsNlb": {"subnets": list(SUBNETS[:2])}}


def declared(raw: samples.Raw, plugin: Cloud | None = None, *, preview: bool = False) -> Run:
    stack = samples.parsed(raw)
    return run(lambda: declare_stack(stack), plugin=plugin or Cloud(), preview=preview)


def own(**options: Any) -> samples.Raw:
    return balanced({"awsNlb": {"subnets": list(SUBNETS[:2]), **options}})


def of_kind(done: Run, kind: str) -> Registration:
    (found,) = [r for r in done if r.kind == kind and r.type.startswith("aws:")]
    return found


def cloud_resources(done: Run) -> list[Registration]:
    return [r for r in done if r.type.startswith("aws:")]


MODES: dict[str, tuple[samples.Raw, Cloud, str | None]] = {
    "plain": (balanced(), Cloud(), "k8s-lb.elb.eu-central-1.amazonaws.com"),
    "plain, by address": (balanced(), Cloud(services=({"ip": "192.0.2.9"},)), "192.0.2.9"),
    "plain, not yet": (balanced(), Cloud(services=()), None),
    "no load balancer": (balanced(ingressGateway={"service": {"type": "ClusterIP"}}), Cloud(), None),
    "adopted": (balanced(ingressGateway={"adopt": True}), Cloud(), None),
    "rendered": (balanced(cluster=samples.RENDERED), Cloud(), None),
    "controller": (balanced({"awsController": {}}), Cloud(), "k8s-lb.elb.eu-central-1.amazonaws.com"),
    "controller, rendered": (balanced({"awsController": {}}, cluster=samples.RENDERED), Cloud(), None),
    "own": (balanced(OWN), Cloud(), "ours.elb.eu-central-1.amazonaws.com"),
    "own, rendered": (
        balanced(OWN, cluster=samples.RENDERED),
        Cloud(),
        "ours.elb.eu-central-1.amazonaws.com",
    ),
    "existing, by address": (balanced({"existing": {"address": "lb.example"}}), Cloud(), "lb.example"),
    "existing, by ARN": (
        balanced({"existing": {"arn": ARN.format("loadbalancer/net")}}),
        Cloud(),
        "theirs.elb.eu-central-1.amazonaws.com",
    ),
}


@pytest.mark.parametrize(("raw", "plugin", "address"), MODES.values(), ids=MODES.keys())
def test_every_mode_tells_where_the_gateway_is_found(
    raw: samples.Raw, plugin: Cloud, address: str | None
) -> None:
    done = declared(raw, plugin)

    assert done.result["provider"]["address"] == address
    record = done.result["wildcardRecord"]
    assert (record["name"], record["value"], record["madeBy"]) == ("*.istio.data.example", address, None)
    assert bool(cloud_resources(done)) == ("awsNlb" in raw["provider"].get("loadBalancer", {}))


@pytest.mark.parametrize("raw", [raw for raw, _, _ in MODES.values()], ids=MODES.keys())
def test_a_stack_reaches_for_aws_only_where_it_uses_it(raw: samples.Raw) -> None:
    done = declared(raw)

    reached = [r for r in done if "aws" in r.type.split(":")[:3]] + list(done.invocations)
    assert bool(reached) == ("aws" in raw)


class TestOwn:
    def test_it_passes_tls_through_to_the_pods(self) -> None:
        done = declared(own())
        assert of_kind(done, "LoadBalancer").inputs["loadBalancerType"] == "network"
        listener = of_kind(done, "Listener").inputs
        assert (listener["protocol"], listener["port"]) == ("TCP", 9000)
        assert not {"certificateArn", "sslPolicy", "alpnPolicy"} & set(listener)
        group = of_kind(done, "TargetGroup").inputs
        assert (group["protocol"], group["targetType"], group["port"]) == ("TCP", "ip", 9000)
        assert group["healthCheck"] == {"protocol": "HTTP", "port": "15021", "path": "/healthz/ready"}

    @pytest.mark.parametrize(
        ("option", "kept", "sent"),
        [("preserve", "true", False), ("proxy-protocol", "false", True), ("none", "false", False)],
    )
    def test_the_clients_address_is_told_in_one_way_at_both_ends(
        self, option: str, kept: str, sent: bool
    ) -> None:
        done = declared(own(clientAddress=option))
        group = of_kind(done, "TargetGroup").inputs
        assert (group["preserveClientIp"], group["proxyProtocolV2"]) == (kept, sent)
        template = done.named("provider-ingress-deployment").inputs["spec"]["template"]
        expected = "proxyProtocol" in template["metadata"]["annotations"].get("proxy.istio.io/config", "")
        environment = {item["name"] for item in template["spec"]["containers"][0].get("env", ())}
        assert expected == sent
        assert ("ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL" in environment) == sent

    def test_only_clients_get_in_and_only_pods_are_reached(self) -> None:
        done = declared(own(ipAddressType="dualstack", sourceRanges=["192.0.2.0/24", "2001:db8::/32"]))
        rules = [r for r in cloud_resources(done) if r.kind == "SecurityGroupIngressRule"]
        admitted = {r.inputs.get("cidrIpv4") or r.inputs["cidrIpv6"]: r.inputs["fromPort"] for r in rules}
        assert admitted == {"192.0.2.0/24": 9000, "2001:db8::/32": 9000}
        out = [r.inputs for r in cloud_resources(done) if r.kind == "SecurityGroupEgressRule"]
        assert {(r["fromPort"], r["toPort"]) for r in out} == {(9000, 9000), (15021, 15021)}

    def test_dual_stack_admits_both_families(self) -> None:
        done = declared(own(ipAddressType="dualstack"))
        rules = [r.inputs for r in cloud_resources(done) if r.kind == "SecurityGroupIngressRule"]
        assert {r.get("cidrIpv4") or r["cidrIpv6"] for r in rules} == {"0.0.0.0/0", "::/0"}
        assert of_kind(done, "LoadBalancer").inputs["ipAddressType"] == "dualstack"

    def test_options_reach_the_load_balancer(self) -> None:
        done = declared(
            own(
                scheme="internal",
                crossZone=False,
                deletionProtection=True,
                deregistrationSeconds=30,
                accessLogs={"bucket": "logs", "prefix": "edge"},
            )
        )
        balancer = of_kind(done, "LoadBalancer").inputs
        assert balancer["internal"] is True
        assert balancer["enableCrossZoneLoadBalancing"] is False
        assert balancer["enableDeletionProtection"] is True
        assert balancer["accessLogs"] == {"enabled": True, "bucket": "logs", "prefix": "edge"}
        assert of_kind(done, "TargetGroup").inputs["deregistrationDelay"] == 30

    def test_each_subnet_can_have_a_fixed_address(self) -> None:
        done = declared(own(elasticIps=True))
        addresses = [r for r in cloud_resources(done) if r.kind == "Eip"]
        mappings = of_kind(done, "LoadBalancer").inputs["subnetMappings"]
        assert [m["subnetId"] for m in mappings] == list(SUBNETS[:2])
        assert {m["allocationId"] for m in mappings} == {f"id-{r.name}" for r in addresses}
        assert [r.trigger for r in addresses] == [list(SUBNETS[:2])] * 2

    def test_pods_are_registered_once_the_listener_is_there(self) -> None:
        done = declared(own())
        binding = done.named("provider-ingress-lb-binding")
        spec = binding.inputs["spec"]
        assert spec["targetGroupARN"] == ARN.format("targetgroup")
        assert spec["serviceRef"] == {"name": "provider-ingress-targets", "port": 9000}
        (rule,) = spec["networking"]["ingress"]
        assert rule["from"] == [{"securityGroup": {"groupID": "id-provider-ingress-lb-firewall"}}]
        assert [port["port"] for port in rule["ports"]] == [9000, 15021]
        assert {"provider-ingress-service", "provider-ingress-lb-listener"} <= done.ancestors(binding)
        service = done.named("provider-ingress-service").inputs
        assert service["metadata"]["name"] == "provider-ingress-targets"
        assert service["spec"]["type"] == "ClusterIP"

    def test_a_replacement_can_stand_beside_the_old_one(self) -> None:
        done = declared(own(elasticIps=True))
        balancer, group = of_kind(done, "LoadBalancer"), of_kind(done, "TargetGroup")
        assert "name" not in balancer.inputs
        assert "name" not in group.inputs
        assert group.replaced_with == {balancer.urn}
        assert not [r.name for r in cloud_resources(done) if r.options["deleteBeforeReplace"]]
        binding = done.named("provider-ingress-lb-binding").inputs["metadata"]["name"]
        assert binding.endswith("0123456789abcdef")

    def test_what_is_made_says_whose_it_is(self) -> None:
        raw = own()
        raw["aws"] = {**raw["aws"], "tags": {"team": "edge"}}
        for resource in cloud_resources(declared(raw)):
            tags = resource.inputs["tags"]
            assert tags["meshbridge.io/stack"].endswith("/meshbridge/unit")
            assert tags["team"] == "edge"
            assert tags["app.kubernetes.io/managed-by"] == "meshbridge"

    def test_an_adopted_gateways_own_service_is_bound(self) -> None:
        done = declared(balanced(OWN, ingressGateway={"adopt": True}))
        spec = done.named("provider-ingress-lb-binding").inputs["spec"]
        assert spec["serviceRef"]["name"] == "provider-ingress"

    def test_a_rollout_waits_for_the_load_balancer(self) -> None:
        label = "elbv2.k8s.aws/pod-readiness-gate-inject"
        made = {"ingressGateway": {"createNamespace": True}}
        group = {"existing": {"address": "lb.example", "targetGroupArn": ARN.format("targetgroup")}}
        for raw, gated in (
            (balanced(OWN, **made), True),
            (balanced(group, **made), True),
            (balanced({"existing": {"address": "lb.example"}}, **made), False),
            (balanced(**made), False),
        ):
            namespace = declared(raw).named("namespace-mesh-ingress").inputs
            assert (label in namespace["metadata"]["labels"]) == gated

    def test_a_preview_knows_all_but_what_aws_decides(self) -> None:
        done = declared(own(), Unmade(), preview=True)
        assert of_kind(done, "TargetGroup").inputs["vpcId"] == "vpc-1"
        assert of_kind(done, "LoadBalancer").inputs["subnets"] == list(SUBNETS[:2])


@pytest.mark.parametrize(
    ("cloud", "said"),
    [
        (Cloud(vpcs={SUBNETS[1]: "vpc-2"}), "lie in different VPCs"),
        (Cloud(zones={SUBNETS[0]: "z", SUBNETS[1]: "z"}), "lie in one zone"),
    ],
    ids=["two VPCs", "one zone twice"],
)
def test_subnets_that_do_not_fit_are_refused_at_preview(cloud: Cloud, said: str) -> None:
    with pytest.raises(pulumi.RunError, match=said):
        declared(own(), cloud, preview=True)


class TestExisting:
    def test_one_that_ends_tls_is_refused(self) -> None:
        raw = balanced({"existing": {"arn": ARN.format("loadbalancer/app")}})
        with pytest.raises(pulumi.RunError, match="is of type 'application', which ends the TLS"):
            declared(raw, Cloud(kind="application"))

    def test_one_with_other_families_than_said_is_refused(self) -> None:
        raw = balanced({"existing": {"arn": ARN.format("loadbalancer/net")}})
        with pytest.raises(pulumi.RunError, match=r"ipAddressType: is 'ipv4', but .* is 'dualstack'"):
            declared(raw, Cloud(families="dualstack"))

    def test_its_target_group_gets_the_pods(self) -> None:
        group = ARN.format("targetgroup")
        done = declared(balanced({"existing": {"address": "lb.example", "targetGroupArn": group}}))
        spec = done.named("provider-ingress-lb-binding").inputs["spec"]
        assert spec["targetGroupARN"] == group
        assert "networking" not in spec

    def test_its_proxy_protocol_is_expected(self) -> None:
        done = declared(balanced({"existing": {"address": "lb.example", "proxyProtocol": True}}))
        template = done.named("provider-ingress-deployment").inputs["spec"]["template"]
        assert "proxyProtocol" in template["metadata"]["annotations"]["proxy.istio.io/config"]


def test_each_kind_has_a_service_of_its_own_so_that_the_next_is_made_before_the_last_goes() -> None:
    schemes = [{"awsController": {"scheme": scheme}} for scheme in ("internal", "internet-facing")]
    named = [
        declared(balanced(balancer)).named("provider-ingress-service").inputs["metadata"]["name"]
        for balancer in (None, *schemes, OWN)
    ]
    assert named == [
        "provider-ingress",
        "provider-ingress-internal",
        "provider-ingress-internet-facing",
        "provider-ingress-targets",
    ]


@pytest.mark.parametrize(
    "name", ["edge", "provider-ingress-lb-nlb", "x" * 24, "x" * 25, "x" * 63, "a-" * 20 + "b"]
)
def test_names_leave_room_for_what_makes_them_unique(name: str) -> None:
    short = unique_name(name)
    assert len(short) + aws.RANDOM_SUFFIX <= aws.NAME_LIMIT
    assert not short.endswith("-")
    assert (short == name) == (len(name) <= 24)
    assert unique_name(name + "y") != short


@pytest.mark.parametrize("former", ["edge", "istio-ingressgateway", "x" * 55])
@pytest.mark.parametrize("present", ["public", "provider-ingressgateway", "y" * 50])
def test_a_renamed_gateway_keeps_what_it_has_in_aws(former: str, present: str) -> None:
    fixed = {"awsNlb": {"subnets": list(SUBNETS[:2]), "elasticIps": True}}
    before = declared(balanced(fixed, ingressGateway={"name": former}))
    after = declared(balanced(fixed, ingressGateway={"name": present, "formerly": former}))

    followed = set().union(*map(after.formerly, after)) | after.registrations.keys()
    assert [r.name for r in cloud_resources(before) if r.urn not in followed] == []


@pytest.mark.parametrize(
    "balancer",
    [OWN, {"existing": {"address": "lb.example", "targetGroupArn": ARN.format("targetgroup")}}],
)
def test_a_renamed_gateway_frees_its_target_group_before_it_binds_it_again(balancer: samples.Raw) -> None:
    before = declared(balanced(balancer, ingressGateway={"name": "edge"}))
    after = declared(balanced(balancer, ingressGateway={"name": "public", "formerly": "edge"}))

    old, new = before.named("edge-lb-binding"), after.named("public-lb-binding")
    assert old.urn in after.formerly(new)
    assert old.object != new.object
    assert new.options["deleteBeforeReplace"]
    assert not old.options["deleteBeforeReplace"], (
        "a new target group's binding comes before the old one's goes"
    )


EVERYTHING = [
    own(
        elasticIps=True,
        ipAddressType="dualstack",
        accessLogs={"bucket": "logs", "prefix": "edge"},
        sourceRanges=["192.0.2.0/24"],
    ),
    own(),
    balanced(OWN, {"route53": {"zone": "data.example"}}),
    balanced({"existing": {"address": "lb.example"}}, {"route53": {"zone": "data.example"}}),
]


@pytest.mark.parametrize("raw", EVERYTHING)
def test_tokens_inputs_and_outputs_are_the_official_providers(raw: samples.Raw) -> None:
    for resource in cloud_resources(declared(raw)):
        official = SCHEMA["resources"][resource.type]
        given = {key: value for key, value in resource.inputs.items() if value is not None}
        assert set(given) <= set(official["inputs"])
        assert set(resource.inputs) - set(given) <= set(official["outputs"])
        for key, value in given.items():
            known = SCHEMA["nested"].get(f"{resource.type}.{key}")
            for item in value if isinstance(value, list) else [value]:
                if known is not None:
                    assert set(item) <= set(known)
        assert resource.version == SCHEMA["version"] == aws.PLUGIN_VERSION


def test_the_account_is_the_one_that_was_meant() -> None:
    raw = own()
    raw["aws"] = {"region": "eu-west-1", "account": "123456789012", "profile": "edge"}
    done = declared(raw)
    provider = done.named("aws")
    assert provider.type == "pulumi:providers:aws"
    assert provider.inputs == {
        "region": "eu-west-1",
        "profile": "edge",
        "allowedAccountIds": '["123456789012"]',
    }
    assert {r.provider_urn for r in cloud_resources(done)} == {provider.urn}
    assert {urn for _, _, urn in done.invocations} == {provider.urn}
