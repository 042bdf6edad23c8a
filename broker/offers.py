"""Which bindings the upstream can be asked for again, as its catalog says."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from http import HTTPStatus

import structlog

from broker import catalog
from broker.errors import UpstreamError
from broker.upstream import Answer, Call, Upstream

CATALOG_SECONDS = 300.0
"""How long a catalog is believed."""

log = structlog.get_logger(__name__)


class Offers:
    """What the upstream's catalog offers, asked when it is needed."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._known: dict[str, tuple[float, set[str]]] = {}
        """Until when, and the services with retrievable bindings, by the path before `/v2`."""
        self._lock = threading.Lock()

    def retrievable(self, call: Call, service_id: str) -> bool:
        """Whether bindings of the service can be fetched; not where the catalog cannot be read. call: on whose behalf."""
        with self._lock:
            until, services = self._known.get(call.base, (0.0, set[str]()))
        if time.monotonic() >= until:
            asked = replace(call, method="GET", path="/v2/catalog", query="", body=b"")
            try:
                services = self.learn(asked, self._upstream.send(asked))
            except UpstreamError as error:
                log.warning("catalog_unknown", reason=error.description)
                return False
        return service_id in services

    def learn(self, call: Call, answered: Answer) -> set[str]:
        """Takes an answer of the upstream to `GET /v2/catalog`; the services with retrievable bindings.

        Raises UpstreamError.
        """
        if answered.status != HTTPStatus.OK:
            raise UpstreamError(f"the upstream's catalog cannot be read (it answers {answered.status})")
        services = catalog.retrievable(answered.document())
        with self._lock:
            self._known[call.base] = (time.monotonic() + CATALOG_SECONDS, services)
        return services
