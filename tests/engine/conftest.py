"""A real API server for the engine tests, with Istio's kinds and istiod's validation.

Nothing is skipped: what is missing is built (`tools.ensure`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from lab.control_plane import ControlPlane
from tests.engine.postgres import Postgres
from tests.quiet import quiet_engine  # noqa: F401 - a fixture

RESTRICTED = "restricted"
"""A user whom the API server knows and who may do only what a test's RBAC objects allow."""

NewNamespace = Callable[[], str]


@pytest.fixture(scope="session")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One control plane for all tests of a process. A test that stops a part of it starts that part again."""
    directory = tmp_path_factory.mktemp("control-plane") / "north"
    with ControlPlane("north", directory, istiod=True, users={RESTRICTED: ()}) as plane:
        yield plane


@pytest.fixture(scope="session")
def _serial() -> Iterator[int]:
    return itertools.count(1)


@pytest.fixture
def fresh(api_server: ControlPlane, _serial: Iterator[int]) -> Iterator[NewNamespace]:
    """Makes empty namespaces of new names, which are deleted after the test.

    The deletion is not waited for: the namespace controller takes 5 s for each.
    """
    made: list[str] = []

    def namespace() -> str:
        made.append(f"test-{next(_serial)}")
        api_server.create_namespace(made[-1])
        return made[-1]

    yield namespace
    for name in made:
        api_server.api.delete("v1", "Namespace", name)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A database server for all tests of a module. A test that stops it starts it again."""
    server = Postgres()
    server.start()
    yield server
    server.close()
