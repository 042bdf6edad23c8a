"""What a preview says of a change of the load balancer."""

from __future__ import annotations

from typing import Any

import pytest

from cli.comment import comment
from cli.interruptions import (
    ELSEWHERE,
    FOLLOWS,
    GONE,
    PROTECTED,
    REMADE,
    ROLLOUT,
    UNBOUND,
    UNFOUND,
    interruption,
)
from cli.markdown import code
from cli.plan import Plan, Resource


def service(name: str = "edge", port: int = 9000, kind: str = "LoadBalancer", attributes: str = "") -> Any:
    return {
        "metadata": {
            "name": name,
            "annotations": {
                "service.beta.kubernetes.io/aws-load-balancer-target-group-attributes": attributes
            },
        },
        "spec": {"type": kind, "ports": [{"port": port}]},
    }


def annotated(*keys: str, **more: str) -> Any:
    """A Service with further annotations, all `true` but for those whose value is given."""
    made = service()
    made["metadata"]["annotations"] |= dict.fromkeys(keys, "true") | more
    return made


def aws(**annotations: str) -> Any:
    """A Service with annotations of the AWS Load Balancer Controller."""
    prefix = "service.beta.kubernetes.io/aws-load-balancer-"
    return annotated(**{prefix + key.replace("_", "-"): text for key, text in annotations.items()})


def deployment(config: str | None) -> Any:
    annotations = {} if config is None else {"proxy.istio.io/config": config}
    return {"spec": {"template": {"metadata": {"annotations": annotations}}}}


def endpoint(*targets: str) -> Any:
    return {"spec": {"endpoints": [{"dnsName": "*.data.example", "targets": list(targets)}]}}


def binding(target_group: str) -> Any:
    return {"spec": {"targetGroupARN": target_group}}


EXPECTS = '{"gatewayTopology": {"proxyProtocol": {}}}'

PROXY = "preserve_client_ip.enabled=false,proxy_protocol_v2.enabled=true"
MOVED = "the public port moves from 9000 to 9443; clients are cut until they use it"


@pytest.mark.parametrize(
    ("kind", "operation", "old", "new", "said"),
    [
        ("LoadBalancer", "replace", {"internal": False}, {"internal": True}, FOLLOWS),
        ("LoadBalancer", "delete", {}, {}, GONE),
        ("LoadBalancer", "delete", {"enableDeletionProtection": True}, {}, f"{GONE}; {PROTECTED}"),
        (
            "LoadBalancer",
            "replace",
            {"internal": False, "enableDeletionProtection": True},
            {"internal": True, "enableDeletionProtection": False},
            f"{FOLLOWS}; {PROTECTED}",
        ),
        ("Record", "update", {"records": ["192.0.2.1"]}, {"records": ["192.0.2.2"]}, ELSEWHERE),
        ("Record", "update", {"records": ["a.example"]}, {"aliases": [{"name": "b.example"}]}, ELSEWHERE),
        (
            "Record",
            "update",
            {"records": ["a.example"], "ttl": 60},
            {"records": ["a.example"], "ttl": 30},
            None,
        ),
        ("Record", "delete", {"records": ["a.example"]}, {}, UNFOUND),
        (
            "Record",
            "replace",
            {"zoneId": "Z1", "records": ["a"]},
            {"zoneId": "Z2", "records": ["a"]},
            UNFOUND,
        ),
        ("Record", "replace", {"name": "*.a", "records": ["a"]}, {"name": "*.b", "records": ["a"]}, UNFOUND),
        (
            "Record",
            "replace",
            {"type": "A", "records": ["a"]},
            {"type": "CNAME", "records": ["b"]},
            ELSEWHERE,
        ),
        ("Record", "create", {}, {"records": ["a.example"]}, None),
        ("DNSEndpoint", "update", endpoint("192.0.2.1"), endpoint("192.0.2.2"), ELSEWHERE),
        ("DNSEndpoint", "update", endpoint("192.0.2.1"), endpoint("192.0.2.1"), None),
        ("DNSEndpoint", "delete", endpoint("192.0.2.1"), {}, UNFOUND),
        ("Deployment", "update", deployment(None), deployment(EXPECTS), ROLLOUT),
        ("Deployment", "update", deployment(EXPECTS), deployment("{}"), ROLLOUT),
        ("Deployment", "update", deployment("{}"), deployment(None), None),
        ("Deployment", "create", {}, deployment(EXPECTS), None),
        ("LoadBalancer", "update", {}, {}, None),
        ("LoadBalancer", "create", {}, {}, None),
        ("Listener", "update", {"port": 9000}, {"port": 9443}, MOVED),
        ("Listener", "update", {"port": 9000.0}, {"port": 9443.0}, MOVED),
        ("Listener", "update", {"port": 9000}, {"port": 9000}, None),
        ("TargetGroup", "update", {"proxyProtocolV2": False}, {"proxyProtocolV2": True}, ROLLOUT),
        ("TargetGroup", "update", {"proxyProtocolV2": True}, {"proxyProtocolV2": True}, None),
        ("TargetGroup", "replace", {"port": 9000}, {"port": 9443}, None),
        ("TargetGroupBinding", "replace", binding("arn:1"), binding("arn:1"), UNBOUND),
        ("TargetGroupBinding", "replace", binding("arn:1"), binding("arn:2"), None),
        ("TargetGroupBinding", "update", binding("arn:1"), binding("arn:1"), None),
        ("Service", "replace", service("edge-internal"), service("edge-internet-facing"), FOLLOWS),
        ("Service", "replace", service(), service("edge-targets", kind="ClusterIP"), FOLLOWS),
        (
            "Service",
            "replace",
            service(),
            service(),
            "there is no load balancer until the new one has an address",
        ),
        ("Service", "delete", service(), {}, GONE),
        ("Service", "update", service(), service(kind="ClusterIP"), GONE),
        ("Service", "update", service(), service(kind="NodePort", port=9443), GONE),
        ("Service", "update", service(kind="NodePort"), service(port=9443), None),
        ("Service", "update", service(kind="NodePort"), service(kind="NodePort", port=9443), MOVED),
        ("Service", "update", service(kind="NodePort"), service(kind="NodePort"), None),
        ("Service", "update", service(), service(attributes=PROXY.replace("=", " = ")), ROLLOUT),
        ("Service", "update", service(), service(port=9443), MOVED),
        ("Service", "update", service(), service(attributes=PROXY), ROLLOUT),
        ("Service", "update", service(), service(), None),
        ("Service", "update", service(), service(port=9443, attributes=PROXY), f"{MOVED}; {ROLLOUT}"),
        ("Service", "update", aws(scheme="internal"), aws(scheme="internet-facing"), REMADE),
        ("Service", "update", service(), aws(internal="true"), REMADE),
        ("Service", "update", aws(type="external"), aws(type="nlb-ip"), REMADE),
        (
            "Service",
            "update",
            service(),
            annotated("service.beta.kubernetes.io/azure-load-balancer-internal"),
            REMADE,
        ),
        ("Service", "update", service(), annotated("networking.gke.io/load-balancer-type"), REMADE),
        (
            "Service",
            "update",
            service(),
            annotated("service.beta.kubernetes.io/openstack-internal-load-balancer"),
            REMADE,
        ),
        ("Service", "update", aws(scheme="internal"), aws(scheme="internal", name="b"), None),
        ("Service", "update", aws(nlb_target_type="ip"), aws(nlb_target_type="instance"), None),
        ("Service", "update", aws(ip_address_type="ipv4"), aws(ip_address_type="dualstack"), None),
        ("Service", "update", service(), annotated("example.org/internal-name"), None),
        ("Service", "update", service(kind="ClusterIP"), service(kind="ClusterIP", port=1), None),
        ("Service", "delete", {"spec": {"ports": [{"port": 5432}]}}, {}, None),
        ("Deployment", "delete", {}, {}, None),
    ],
)
def test_each_change_is_called_what_it_is(
    kind: str, operation: str, old: Any, new: Any, said: str | None
) -> None:
    assert interruption(kind, operation, old, new) == said


def test_the_comment_says_it_first_also_of_what_is_only_changed() -> None:
    def resource(kind: str, operation: Any, **more: Any) -> Resource:
        return Resource(
            urn=f"urn:{kind}",
            kind=kind,
            name="edge",
            component="",
            is_component=False,
            operation=operation,
            **more,
        )

    plan = Plan(
        stack="edge",
        succeeded=True,
        unchanged=0,
        resources=(
            resource("Gateway", "replace", cut="the gateway no longer accepts a host"),
            resource("Listener", "update", interruption=MOVED),
            resource("Record", "update"),
        ),
        diagnostics=(),
    )
    warnings = [line for line in comment(plan).splitlines() if line.startswith("> -")]
    assert warnings[0].endswith(f"is **changed**: {code(MOVED)}")
    assert "Gateway" in warnings[1]
    assert len(warnings) == 2
