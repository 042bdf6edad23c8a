"""What this proxy calls itself in `X-Istio-Broker-Versions`."""

from __future__ import annotations

VERSION = "0.1.0"


def own_version() -> str:
    """Name and version."""
    return f"meshbridge/{VERSION}"
