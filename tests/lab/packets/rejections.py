"""Updates of istiod that an Envoy refused. There must be none: what istiod makes of our objects, Envoy must take."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lab.access import PROXY
from lab.api import Object
from lab.cluster import Cluster
from lab.errors import LabError
from lab.lab import Lab

ISTIOD = "istio-system/istiod"
METRICS = "http://127.0.0.1:15014/metrics"
TOTAL = re.compile(r'^(pilot_total_xds_rejects\{type="\w+"\}) (\d+)$', re.MULTILINE)
"""Istiod's count; unlike Envoy's own, it has the refused Secrets too. Source: Istio's "pilot-discovery", metrics."""


class Rejections:
    """The counts of all proxies of a lab, and of its istiods."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._accepted: dict[str, int] = {}

    def check(self) -> None:
        """Fail if there is one that was not accepted.

        Counts go with the process that keeps them: check before one is ended.
        """
        new = {key: count for key, count in self.counts().items() if count > self._accepted.get(key, 0)}
        assert not new, f"updates that Envoy refused: {new}"

    def accept(self) -> None:
        """Accept those that there are now."""
        self._accepted = self.counts()

    def counts(self) -> dict[str, int]:
        """Counts above 0 by where and what they are.

        Raises:
            LabError: a cluster has no proxy that counts, or its istiod does not.
        """
        found: dict[str, int] = {}
        for cluster in (self._lab.consumer, self._lab.provider):
            of_proxies = dict(_of_proxies(cluster))
            if not of_proxies:
                raise LabError(f"{cluster.name}: no proxy says what it refused")
            found |= of_proxies | dict(_of_istiod(cluster))
        return {key: count for key, count in found.items() if count > 0}


def _of_proxies(cluster: Cluster) -> Iterator[tuple[str, int]]:
    for pod in cluster.pods():
        if not _has_proxy(pod):
            continue
        name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        try:
            stats = cluster.stats(name, "update_rejected")
        except LabError:
            if pod["metadata"]["uid"] in {other["metadata"]["uid"] for other in cluster.pods()}:
                raise
            continue  # it has ended meanwhile
        for stat, count in stats.items():
            yield f"{cluster.name}/{name} {stat}", count


def _of_istiod(cluster: Cluster) -> Iterator[tuple[str, int]]:
    text = cluster.exec(ISTIOD, ["curl", "--silent", "--fail", METRICS]).expect_success()
    if "\npilot_xds_pushes{" not in text:
        raise LabError(f"{cluster.name}: istiod does not say what it sent")
    for name, count in TOTAL.findall(text):
        yield f"{cluster.name}/{ISTIOD} {name}", int(count)


def _has_proxy(pod: Object) -> bool:
    status = pod.get("status", {})
    containers = (*status.get("initContainerStatuses", []), *status.get("containerStatuses", []))
    return any(container["name"] == PROXY and container["ready"] for container in containers)
