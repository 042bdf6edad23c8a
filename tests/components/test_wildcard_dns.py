"""WildcardDns: who makes the record, to what it leads, and what is refused or warned of."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from components import declare_stack
from tests.components import samples
from tests.components.cloud import ARN, NLB_ZONE, SUBNETS, ZONE_ID, Cloud, balanced
from tests.components.recorder import Registration, Run, run

ROUTE53: samples.Raw = {"route53": {"zone": "data.example"}}
OWN: samples.Raw = {"awsNlb": {"subnets": list(SUBNETS[:2])}}
WILDCARD = "*.istio.data.example"


def declared(raw: samples.Raw, plugin: Cloud | None = None) -> Run:
    stack = samples.parsed(raw)
    return run(lambda: declare_stack(stack), plugin=plugin or Cloud())


def records(done: Run) -> dict[str, dict[str, Any]]:
    """Inputs of the records by their type."""
    return {r.inputs["type"]: dict(r.inputs) for r in done if r.kind == "Record"}


@pytest.mark.parametrize(
    ("balancer", "address"),
    [
        (OWN, "ours.elb.eu-central-1.amazonaws.com"),
        ({"awsController": {}}, "k8s-lb.elb.eu-central-1.amazonaws.com"),
    ],
    ids=["own", "controller"],
)
def test_a_network_load_balancer_gets_an_alias(balancer: samples.Raw, address: str) -> None:
    done = declared(balanced(balancer, ROUTE53))

    alias = {"name": address, "zoneId": NLB_ZONE, "evaluateTargetHealth": True}
    assert records(done) == {"A": {"zoneId": ZONE_ID, "name": WILDCARD, "type": "A", "aliases": [alias]}}
    assert done.result["wildcardRecord"] == {
        "name": WILDCARD,
        "type": "A",
        "value": address,
        "madeBy": f"the stack, in hosted zone {ZONE_ID}",
    }


def test_dual_stack_gets_an_alias_of_each_family() -> None:
    balancer = {"awsNlb": {**OWN["awsNlb"], "ipAddressType": "dualstack"}}
    dns = {"route53": {"zone": "data.example", "evaluateTargetHealth": False}}
    found = records(declared(balanced(balancer, dns)))
    assert found.keys() == {"A", "AAAA"}
    assert found["A"]["aliases"] == found["AAAA"]["aliases"]
    assert found["A"]["aliases"][0]["evaluateTargetHealth"] is False


def test_a_dual_stack_load_balancer_of_another_owner_gets_an_alias_of_each_family() -> None:
    existing = {"arn": ARN.format("loadbalancer/net"), "ipAddressType": "dualstack"}
    found = records(declared(balanced({"existing": existing}, ROUTE53), Cloud(families="dualstack")))
    assert found.keys() == {"A", "AAAA"}
    assert found["A"]["aliases"] == found["AAAA"]["aliases"]


BOTH = ({"ip": "192.0.2.9"}, {"ip": "2001:db8::9"}, {"ip": "192.0.2.10"})


def test_all_addresses_of_a_family_are_in_the_record_and_the_other_family_is_warned_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    monkeypatch.setattr(pulumi.log, "warn", lambda message, _resource=None: told.append(message))
    found = records(declared(balanced(None, ROUTE53), Cloud(services=BOTH)))
    assert found["A"]["records"] == ["192.0.2.9", "192.0.2.10"]
    (warning,) = told
    assert "also at 2001:db8::9, and no record of type AAAA" in warning


def test_external_dns_is_asked_for_a_record_of_each_family() -> None:
    raw = balanced(None, {"externalDns": {"source": "dns-endpoint"}})
    endpoint = declared(raw, Cloud(services=BOTH)).named("provider-ingress-dns-endpoint")
    wanted = {e["recordType"]: e["targets"] for e in endpoint.inputs["spec"]["endpoints"]}
    assert wanted == {"A": ["192.0.2.9", "192.0.2.10"], "AAAA": ["2001:db8::9"]}


@pytest.mark.parametrize(
    ("address", "kind"),
    [("192.0.2.9", "A"), ("2001:db8::9", "AAAA"), ("lb.example", "CNAME")],
)
def test_any_other_address_gets_a_record_of_its_type(address: str, kind: str) -> None:
    dns = {"route53": {"zone": "data.example", "ttlSeconds": 30}}
    plain = {"zoneId": ZONE_ID, "name": WILDCARD, "type": kind, "ttl": 30, "records": [address]}
    assert records(declared(balanced({"existing": {"address": address}}, dns))) == {kind: plain}
    status = {"hostname" if kind == "CNAME" else "ip": address}
    assert records(declared(balanced(None, dns), Cloud(services=(status,)))) == {kind: plain}


def test_a_service_without_an_address_is_no_reason_to_make_a_wrong_record() -> None:
    with pytest.raises(pulumi.RunError, match="has no address yet"):
        declared(balanced(None, ROUTE53), Cloud(services=()))


@pytest.mark.parametrize(
    ("zone", "private", "asked"),
    [
        ("data.example", False, {"name": "data.example", "privateZone": False}),
        ("data.example", True, {"name": "data.example", "privateZone": True}),
        (ZONE_ID, False, {"zoneId": ZONE_ID}),
        (ZONE_ID, True, {"zoneId": ZONE_ID}),
    ],
)
def test_the_zone_is_looked_up_by_name_or_id(zone: str, private: bool, asked: samples.Raw) -> None:
    raw = balanced(OWN, {"route53": {"zone": zone, "private": private}})
    done = declared(raw, Cloud(private=private))
    (arguments,) = [given for token, given, _ in done.invocations if token.endswith("getZone")]
    assert arguments == asked


@pytest.mark.parametrize(
    ("cloud", "said"),
    [
        (Cloud(zone="other.example"), "does not contain the system domain 'istio.data.example'"),
        (Cloud(zone="stio.data.example"), "does not contain the system domain"),
        (Cloud(private=True), "is a private zone"),
    ],
    ids=["another domain", "half a label", "the wrong kind"],
)
def test_a_zone_by_id_that_is_not_the_one_meant_is_refused(cloud: Cloud, said: str) -> None:
    with pytest.raises(pulumi.RunError, match=said):
        declared(balanced(OWN, {"route53": {"zone": ZONE_ID}}), cloud)


def warned(records_: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is warned of when the zone has these records."""
    told: list[str] = []

    def warn(message: str, _resource: object = None) -> None:
        told.append(message)

    monkeypatch.setattr(pulumi.log, "warn", warn)
    declared(balanced(OWN, ROUTE53), Cloud(records=records_))
    return told


def test_records_that_hide_the_wildcard_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    (told,) = warned([("x.orders.istio.data.example.", "TXT")], monkeypatch)
    assert told == (
        f"{WILDCARD} in zone data.example: the record x.orders.istio.data.example (TXT) hides the wildcard from "
        "main.orders.istio.data.example; remove it, or choose other hosts"
    )


def test_the_stacks_own_record_is_nothing_to_warn_of(monkeypatch: pytest.MonkeyPatch) -> None:
    own = [("\\052.istio.data.example.", "A"), ("data.example.", "NS"), ("data.example.", "SOA")]
    assert warned(own, monkeypatch) == []


class TestExternalDns:
    @pytest.mark.parametrize("balancer", [None, {"awsController": {}}], ids=["plain", "controller"])
    def test_the_service_asks_for_the_record(self, balancer: samples.Raw | None) -> None:
        done = declared(balanced(balancer, {"externalDns": {"ttlSeconds": 30}}))
        annotations = done.named("provider-ingress-service").inputs["metadata"]["annotations"]
        for prefix in ("external-dns.alpha.kubernetes.io/", "external-dns.kubernetes.io/"):
            assert annotations[f"{prefix}hostname"] == WILDCARD
            assert annotations[f"{prefix}ttl"] == "30"
        assert done.result["wildcardRecord"]["madeBy"] == "external-dns"

    @pytest.mark.parametrize(
        ("balancer", "kind", "address"),
        [
            (OWN, "CNAME", "ours.elb.eu-central-1.amazonaws.com"),
            ({"existing": {"address": "192.0.2.9"}}, "A", "192.0.2.9"),
            (None, "CNAME", "k8s-lb.elb.eu-central-1.amazonaws.com"),
        ],
        ids=["own", "existing", "plain"],
    )
    def test_an_object_asks_for_the_record(
        self, balancer: samples.Raw | None, kind: str, address: str
    ) -> None:
        done = declared(balanced(balancer, {"externalDns": {"source": "dns-endpoint"}}))
        endpoint = done.named("provider-ingress-dns-endpoint")
        assert endpoint.inputs["apiVersion"] == "externaldns.k8s.io/v1alpha1"
        (wanted,) = endpoint.inputs["spec"]["endpoints"]
        assert wanted == {"dnsName": WILDCARD, "recordType": kind, "recordTTL": 60, "targets": [address]}
        annotations = done.named("provider-ingress-service").inputs["metadata"].get("annotations", {})
        assert not [key for key in annotations if key.startswith("external-dns")]


def before(done: Run, later: Registration) -> set[str]:
    return {done.registrations[urn].kind for urn in later.dependencies} | {
        done.named(name).kind for name in done.ancestors(later)
    }


def test_the_record_follows_when_the_way_to_the_gateway_is_there() -> None:
    done = declared(balanced(OWN, ROUTE53))
    (record,) = [r for r in done if r.kind == "Record"]
    assert {"LoadBalancer", "Listener", "TargetGroup", "TargetGroupBinding", "Service"} <= before(
        done, record
    )


@pytest.mark.parametrize(
    ("dns", "kind"),
    [(ROUTE53, "Record"), ({"externalDns": {"source": "dns-endpoint"}}, "DNSEndpoint")],
)
def test_the_record_follows_the_gateway_behind_a_load_balancer_of_another_owner(
    dns: samples.Raw, kind: str
) -> None:
    """Nothing of that load balancer's is made here, and the gateway may turn out to be another stack's."""
    done = declared(balanced({"existing": {"address": "lb.example.net"}}, dns))
    (record,) = [r for r in done if r.kind == kind]
    assert {"ConfigMap", "Deployment", "Service"} <= before(done, record)


def test_without_dns_the_stack_says_what_is_to_be_made() -> None:
    done = declared(balanced(OWN))
    assert done.result["wildcardRecord"] == {
        "name": WILDCARD,
        "type": "CNAME",
        "value": "ours.elb.eu-central-1.amazonaws.com",
        "madeBy": None,
    }
    assert not records(done)
