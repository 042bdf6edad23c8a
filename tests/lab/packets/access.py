"""The growing access log of a proxy."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lab.cluster import Cluster
from lab.lab import EGRESS_NAMESPACE, INGRESS_NAMESPACE

EGRESS_POD = f"{EGRESS_NAMESPACE}/istio-egressgateway"
INGRESS_POD = f"{INGRESS_NAMESPACE}/provider-ingress"
FLUSH = 30.0
"""Seconds within which a line is there; Envoy writes each second."""

Line = dict[str, Any]


class AccessLog:
    """What a proxy logs from now on."""

    def __init__(self, cluster: Cluster, reference: str) -> None:
        self._cluster = cluster
        self._file = cluster.log_file(reference, "istio-proxy")
        self._place = self._file.stat().st_size
        self.lines: list[Line] = []

    def wait(self, wanted: Callable[[Line], bool], what: str, timeout: float = FLUSH) -> Line:
        """The first line that is as wanted.

        Raises:
            LabError: there is none in time.
        """
        found: list[Line] = []
        looked = 0

        def look() -> bool:
            nonlocal looked
            self.read()
            found.extend(line for line in self.lines[looked:] if wanted(line))
            looked = len(self.lines)
            return bool(found)

        self._cluster.wait_until(look, what, timeout, lambda: f"last: {self.lines[-1:]}")
        return found[0]

    def read(self) -> list[Line]:
        """All lines up to now."""
        with self._file.open("rb") as file:
            file.seek(self._place)
            text = file.read()
        whole = text.rpartition(b"\n")[0]
        self._place += len(whole) + bool(whole)
        self.lines += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return self.lines
