"""Several replicas of one broker on PostgreSQL, with the real engine and API server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from lab.control_plane import ControlPlane
from tests.broker.chain import wait_until
from tests.engine.brokers import EGRESS, ISTIO, PER_EXPORT, PER_IMPORT, BrokerChain, Child
from tests.engine.postgres import Postgres


@pytest.fixture(scope="module")
def brokers(api_server: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerChain]:
    """Both sides in one cluster; only the provider's broker and the service broker run."""
    chain = BrokerChain(tmp_path_factory.mktemp("brokers"), api_server, api_server)
    chain.service_broker.start("/info")
    chain.provider.start()
    try:
        yield chain
    finally:
        chain.close()


@pytest.fixture(scope="module")
def replicas(brokers: BrokerChain, postgres: Postgres) -> Iterator[list[Child]]:
    made = [
        brokers.replica(name, database=postgres.url, state=postgres.backend, shards=1)
        for name in ("first", "second")
    ]
    for replica in made:
        replica.start()
    assert made[0].platform.provision().status_code == 201
    yield made
    assert [replica.stop() for replica in made] == [0, 0]


def everything(brokers: BrokerChain, count: int) -> bool:
    expected = {k: (PER_IMPORT.get(k, 0) + PER_EXPORT.get(k, 0)) * count for k in PER_IMPORT}
    return brokers.counts("consumer") == {k: v for k, v in expected.items() if v}


def test_any_replica_answers_for_all(brokers: BrokerChain, replicas: list[Child]) -> None:
    first, second = (replica.platform for replica in replicas)
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit((first, second)[n % 2].bind, f"shared-{n}") for n in range(8)]
        assert [c.result().status_code for c in calls] == [201] * 8
    assert everything(brokers, 8)
    assert second.bind("shared-0").status_code == 200
    with ThreadPoolExecutor(8) as pool:
        calls = [pool.submit((second, first)[n % 2].unbind, f"shared-{n}") for n in range(8)]
        assert [c.result().status_code for c in calls] == [200] * 8
    assert brokers.counts("consumer") == {}


def test_a_replica_that_dies_in_an_update_is_succeeded_at_once(
    brokers: BrokerChain, replicas: list[Child]
) -> None:
    owner, other = replicas
    owner.platform.bind("warm")
    if not _owns(owner, "warm-2"):
        owner, other = other, owner
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(owner.platform.bind, "taken-over")
        wait_until(lambda: _begun(brokers, "taken-over"), "an update is under way", 120)
        owner.kill()
        assert isinstance(call.exception(), httpx.HTTPError)
    try:
        answer = other.platform.bind("taken-over")
        assert answer.status_code in {200, 201}, answer.text
        for name in ("taken-over", "warm", "warm-2"):
            assert other.platform.unbind(name).status_code == 200
        assert brokers.counts("consumer") == {}
    finally:
        owner.start()


@contextlib.contextmanager
def _away(postgres: Postgres, *, hangs: bool, seconds: float) -> Iterator[None]:
    """While it lasts, and for so long at least, PostgreSQL is away."""
    gone = time.monotonic()
    if hangs:
        postgres.hang()
    else:
        postgres.kill()
    try:
        yield
        time.sleep(max(0.0, gone + seconds - time.monotonic()))
    finally:
        if hangs:
            postgres.go_on()
        else:
            postgres.start()


@pytest.mark.parametrize(
    ("hangs", "seconds"), [(False, 3), (False, 60), (True, 30)], ids=["away", "away-for-a-minute", "hangs"]
)
def test_a_database_that_goes_away_and_comes_back(
    brokers: BrokerChain, replicas: list[Child], postgres: Postgres, hangs: bool, seconds: float
) -> None:
    platform = replicas[0].platform
    assert platform.bind("before").status_code == 201
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(platform.bind, "during")
        wait_until(lambda: _begun(brokers, "during"), "an update is under way", 120)
        with _away(postgres, hangs=hangs, seconds=seconds):
            refused = replicas[1].platform.bind("refused")
            assert (refused.status_code, refused.json()["error"]) == (503, "Unavailable")
            assert httpx.get(f"{replicas[1].url}/ready", timeout=60, trust_env=False).status_code == 503
            assert httpx.get(f"{replicas[1].url}/health", timeout=60, trust_env=False).status_code == 200
        call.result()

    wait_until(
        lambda: platform.bind("during").status_code in {200, 201}, "the interrupted bind succeeds", 180
    )
    assert platform.bind("before").status_code == 200
    assert everything(brokers, 2)
    for name in ("before", "during"):
        assert platform.unbind(name).status_code == 200
    assert platform.unbind("refused").status_code == 410
    assert brokers.counts("consumer") == {}


def _begun(brokers: BrokerChain, name: str) -> bool:
    """Whether one of a binding's first objects is in the consumer's cluster."""
    return brokers.clusters["consumer"].api.get(ISTIO, "ServiceEntry", f"import-0-{name}", EGRESS) is not None


def _owns(replica: Child, name: str) -> bool:
    """Whether the shard's updates run in this replica."""
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(replica.platform.bind, name)
        seen = False
        while not call.done():
            seen = seen or bool(replica.engines())
            time.sleep(0.02)
        assert call.result().status_code == 201
        return seen
