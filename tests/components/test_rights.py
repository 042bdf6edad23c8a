"""The deployer's rights that docs/aws.md asks for: they end at what the stack made."""

from __future__ import annotations

import pytest

from tests.rights import Call, Touched, documented_policy

POLICY = documented_policy("eu-central-1", "123456789012", "Z0123456789ABCDEFGHIJ")
OURS = {"app.kubernetes.io/managed-by": "meshbridge"}
REQUESTED = {f"aws:RequestTag/{key}": value for key, value in OURS.items()}
EC2 = "arn:aws:ec2:eu-central-1:123456789012:"
ELB = "arn:aws:elasticloadbalancing:eu-central-1:123456789012:"
ZONE = "arn:aws:route53:::hostedzone/Z0123456789ABCDEFGHIJ"
NAMES = "route53:ChangeResourceRecordSetsNormalizedRecordNames"

CHANGES = (
    ("ec2:AuthorizeSecurityGroupIngress", f"{EC2}security-group/sg-1"),
    ("ec2:RevokeSecurityGroupEgress", f"{EC2}security-group/sg-1"),
    ("ec2:DeleteSecurityGroup", f"{EC2}security-group/sg-1"),
    ("ec2:ReleaseAddress", f"{EC2}elastic-ip/eipalloc-1"),
    ("ec2:CreateTags", f"{EC2}security-group/sg-1"),
    ("ec2:DeleteTags", f"{EC2}elastic-ip/eipalloc-1"),
    ("elasticloadbalancing:AddTags", f"{ELB}loadbalancer/net/edge/1"),
    ("elasticloadbalancing:RemoveTags", f"{ELB}targetgroup/edge/1"),
    ("elasticloadbalancing:CreateListener", f"{ELB}loadbalancer/net/edge/1"),
    ("elasticloadbalancing:DeleteLoadBalancer", f"{ELB}loadbalancer/net/edge/1"),
    ("elasticloadbalancing:ModifyTargetGroupAttributes", f"{ELB}targetgroup/edge/1"),
)


@pytest.mark.parametrize(("action", "arn"), CHANGES)
@pytest.mark.parametrize("context", [{}, REQUESTED], ids=["", "claiming it"])
def test_what_another_one_made_is_not_touched(action: str, arn: str, context: dict[str, str]) -> None:
    for tags in ({}, {"app.kubernetes.io/managed-by": "somebody"}):
        assert POLICY.refused([Call(action, (Touched(arn, tags),), context)]) == [f"{action} on {arn}"]
    assert POLICY.refused([Call(action, (Touched(arn, OURS),), context)]) == []


@pytest.mark.parametrize(
    ("action", "arn"),
    [
        ("ec2:AllocateAddress", f"{EC2}elastic-ip/new"),
        ("ec2:CreateSecurityGroup", f"{EC2}security-group/new"),
        ("elasticloadbalancing:CreateLoadBalancer", f"{ELB}loadbalancer/net/new"),
        ("elasticloadbalancing:CreateTargetGroup", f"{ELB}targetgroup/new"),
    ],
)
def test_nothing_is_made_that_would_not_be_known_again(action: str, arn: str) -> None:
    assert POLICY.refused([Call(action, (Touched(arn),))])
    assert POLICY.refused([Call(action, (Touched(arn),), REQUESTED)]) == []


def test_no_other_kind_of_load_balancer_is_made() -> None:
    made = Touched(f"{ELB}loadbalancer/app/new")
    assert POLICY.refused([Call("elasticloadbalancing:CreateLoadBalancer", (made,), REQUESTED)])


@pytest.mark.parametrize(
    ("name", "zone", "granted"),
    [
        ("\\052.istio.data.example", ZONE, True),
        ("www.data.example", ZONE, False),
        ("\\052.istio.data.example", "arn:aws:route53:::hostedzone/ZOTHER", False),
    ],
)
def test_one_record_of_one_zone_is_changed(name: str, zone: str, granted: bool) -> None:
    call = Call("route53:ChangeResourceRecordSets", (Touched(zone),), {NAMES: [name]})
    assert (POLICY.refused([call]) == []) == granted
