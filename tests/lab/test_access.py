"""Clusters as whoever looks at a lab sees them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab import lab
from lab.access import ClusterAccess
from lab.errors import LabError
from lab.lab import Lab

POD = {
    "metadata": {"namespace": "shop", "name": "orders-api-1"},
    "spec": {"initContainers": [{"name": "istio-proxy"}], "containers": [{"name": "app"}]},
}


class _Api:
    """An API server with one Pod."""

    def items(self, _version: str, _kind: str, namespace: str | None) -> list[dict[str, Any]]:
        return [POD] if namespace == "shop" else []


@pytest.fixture
def cluster(tmp_path: Path) -> ClusterAccess:
    api: Any = _Api()
    return ClusterAccess("consumer", api, tmp_path / "kubeconfig", tmp_path / "node", tmp_path / "logs")


def test_a_log_is_that_of_the_first_container_or_the_named_one(cluster: ClusterAccess) -> None:
    assert cluster.log_file("shop/orders-api").name == "app.log"
    assert cluster.log_file("shop/orders-api", "istio-proxy").name == "istio-proxy.log"


def test_a_container_that_is_not_there_is_named_with_those_that_are(cluster: ClusterAccess) -> None:
    with pytest.raises(LabError, match="no container 'proxy', but: istio-proxy, app"):
        cluster.log_file("shop/orders-api", "proxy")


def test_a_first_query_without_answer_says_so_even_where_hops_have_no_log(
    cluster: ClusterAccess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No proxy of the application has logged yet, and neither gateway has a Pod."""
    found: Any = Lab(name="unit")
    found.consumer = found.provider = cluster
    monkeypatch.setattr(lab, "ANSWER_TIMEOUT", -1)
    monkeypatch.setattr(found, "query", _unanswered)

    with pytest.raises(LabError, match="connection refused") as error:
        found._first_answer()

    for hop in lab.HOPS:
        assert f"The end of the log of {hop}:\n  (there is none: " in str(error.value)


def _unanswered(_sql: str) -> str:
    raise LabError("psql: connection refused")
