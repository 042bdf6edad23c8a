from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker.chain import Chain


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """A chain of its own, with one service instance."""
    made = Chain(tmp_path)
    try:
        assert made.platform.provision().status_code == 201
        yield made
    finally:
        made.close()
