"""What the tests of the command line share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cli.github_api import Api, serving


@pytest.fixture
def api() -> Iterator[Api]:
    """GitHub, on this machine."""
    with serving() as running:
        yield running
