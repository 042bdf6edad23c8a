"""What all tests share: property-based tests draw the same examples on every run."""

from __future__ import annotations

import gc

from hypothesis import HealthCheck, settings

settings.register_profile(
    "meshbridge",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("meshbridge")


def pytest_collection_finish() -> None:
    """What the imports made stays to the end: no collection of garbage goes through it again."""
    gc.collect()
    gc.freeze()
