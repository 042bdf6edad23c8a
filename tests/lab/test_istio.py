from __future__ import annotations

import json

from lab import istio


def test_the_installation_names_cluster_and_trust_domain_and_takes_more_settings() -> None:
    wanted = istio.installation("north", "shop.example", {"enableTracing": False}, {"PILOT_X": "1"})

    spec = wanted["spec"]
    assert spec["values"]["global"]["multiCluster"]["clusterName"] == "north"
    assert spec["meshConfig"]["trustDomain"] == "shop.example"
    assert spec["meshConfig"]["enableTracing"] is False
    assert spec["meshConfig"]["dnsRefreshRate"] == istio.DNS_RETRY
    assert spec["values"]["pilot"]["env"] == {**istio.UPSTREAM_ENVOY, "PILOT_X": "1"}


def test_the_access_log_is_json_that_tells_why_a_connection_was_refused() -> None:
    mesh = istio.installation("north", "shop.example")["spec"]["meshConfig"]

    assert json.loads(mesh["accessLogFormat"]) == istio.ACCESS_LOG_FORMAT
    assert {"downstream_failure", "upstream_failure", "flags", "sni"} <= set(istio.ACCESS_LOG_FORMAT)


def test_webhooks_are_called_once_all_of_them_have_a_certificate() -> None:
    def webhooks(*bundles: str) -> dict[str, object]:
        return {"webhooks": [{"clientConfig": {"caBundle": bundle} if bundle else {}} for bundle in bundles]}

    assert istio.is_called(webhooks("a", "b"))
    assert not istio.is_called(webhooks("a", ""))
    assert not istio.is_called(None)
