"""The engine without its debug logs, for tests in which it runs often."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from broker.command import quiet_home


@pytest.fixture(scope="session", autouse=True)
def quiet_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nobody reads these logs here, and they cost a third of the engine's time. A conftest that imports this has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PULUMI_HOME", str(quiet_home(tmp_path_factory.mktemp("engine"))))
        yield
