"""Probes of containers: when they are due, what they ask, and what follows from the answers.

Source: the Kubernetes page "Configure Liveness, Readiness and Startup Probes".
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass

from lab.api import Object

UNREADY_PERIOD = 1.0
"""Seconds between two readiness probes until the first success; the kubelet, too, does not wait for a whole period."""

Execute = Callable[[list[str], float], bool]
"""Runs a command in the container, for at most so many seconds; whether it exited with 0."""


@dataclass
class Probe:
    """One probe of one container, from the container's start on."""

    wanted: Object
    """As in the Pod."""
    address: str
    """The Pod's IP address."""
    ports: dict[str, int]
    """The container's ports by name."""
    execute: Execute
    due: float
    """When to ask next, on the monotonic clock."""
    patient: bool = False
    """Whether it is asked at its period from the beginning: its failures end the container."""
    passed: bool = False
    """Whether the last successes in a row were enough."""
    failed: bool = False
    """Whether the last failures in a row were too many."""
    said: str = ""
    """Why the last one failed."""
    _in_a_row: int = 0
    _last: bool | None = None

    def ask(self, now: float) -> None:
        """Ask once and note the answer."""
        try:
            success, self.said = self._answer(), ""
        except (OSError, http.client.HTTPException, ValueError) as error:
            success, self.said = False, str(error)
        self._in_a_row = self._in_a_row + 1 if success is self._last else 1
        self._last = success
        if success:
            enough = self._in_a_row >= self.wanted.get("successThreshold", 1)
            self.passed, self.failed = self.passed or enough, self.failed and not enough
        elif self._in_a_row >= self.wanted.get("failureThreshold", 3):
            self.passed, self.failed = False, True
        period = float(self.wanted.get("periodSeconds", 10))
        self.due = now + (period if self.passed or self.patient else min(period, UNREADY_PERIOD))

    def _answer(self) -> bool:
        timeout = float(self.wanted.get("timeoutSeconds", 1))
        if "exec" in self.wanted:
            return self.execute(self.wanted["exec"]["command"], timeout)
        if "tcpSocket" in self.wanted:
            place = self.wanted["tcpSocket"]
            socket.create_connection((self._host(place), self._port(place)), timeout).close()
            return True
        if "httpGet" in self.wanted:
            return self._http(self.wanted["httpGet"], timeout)
        raise ValueError(f"the lab's node has no probes of kind {set(self.wanted)}")

    def _http(self, place: Object, timeout: float) -> bool:
        host, port = self._host(place), self._port(place)
        if place.get("scheme", "HTTP") == "HTTPS":
            # A kubelet does not verify the certificate either.
            tls = ssl._create_unverified_context()  # noqa: S323
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, port, timeout=timeout, context=tls
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=timeout)
        try:
            headers = {header["name"]: header["value"] for header in place.get("httpHeaders", [])}
            connection.request("GET", place.get("path", "/"), headers=headers)
            status = connection.getresponse().status
        finally:
            connection.close()
        if not 200 <= status < 400:
            raise ValueError(f"HTTP status {status}")
        return True

    def _host(self, place: Object) -> str:
        return str(place.get("host") or self.address)

    def _port(self, place: Object) -> int:
        port = place["port"]
        return self.ports[port] if port in self.ports else int(port)
