"""Free TCP ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from lab.errors import LabError

LOOPBACK = "127.0.0.1"
LOWEST = 20000
"""Below lie the ports that services are commonly found on."""
ATTEMPTS = 1000


def free_ports(count: int) -> list[int]:
    """Different free ports outside the range from which the kernel takes ports for outgoing connections.

    So a server that is stopped finds its port still free when it comes back.

    Raises:
        LabError: there are not enough.
    """
    highest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) - 1
    found: set[int] = set()
    for _ in range(ATTEMPTS):
        port = random.randint(LOWEST, max(highest, LOWEST + 10000))  # noqa: S311 - no secret
        if port not in found and _is_free(port):
            found.add(port)
        if len(found) == count:
            return list(found)
    raise LabError(f"only {len(found)} of {count} free ports found on {LOOPBACK} from {LOWEST} to {highest}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
