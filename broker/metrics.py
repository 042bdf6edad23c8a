"""Prometheus metrics of one replica, at `/metrics`."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60)

calls = Counter("meshbridge_broker_calls", "Calls answered.", ["operation", "status"])
call_seconds = Histogram("meshbridge_broker_call_seconds", "Time to answer.", ["operation"], buckets=SECONDS)
upstream_failures = Counter("meshbridge_broker_upstream_failures", "Upstream calls without a usable answer.")
updates = Histogram("meshbridge_broker_update_seconds", "Time of one update of a stack.", buckets=SECONDS)
update_size = Histogram(
    "meshbridge_broker_update_bindings",
    "Changed bindings in one update.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128),
)
faults = Counter(
    "meshbridge_broker_faults", "Failures of the reconciler that nobody expected; the log says more."
)
undone = Counter(
    "meshbridge_broker_undone", "Bindings that were unbound upstream because their route failed."
)


def update_done(seconds: float, changed: int) -> None:
    """An update ended."""
    updates.observe(seconds)
    update_size.observe(changed)
