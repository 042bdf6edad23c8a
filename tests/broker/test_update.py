"""Whose lock of a stack is broken, and when."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

from broker import update
from broker.store.locks import HOLD_TIMEOUT
from broker.store.store import KEEPALIVE
from broker.update import FOREIGN_LOCK_SECONDS, WATCH
from tests.broker.chain import wait_until


def owner(host: str, pid: int) -> re.Match[str]:
    found = update._LOCKED_BY.search(f"created by root@{host} (pid {pid}) at 2026-01-01T00:00:00Z")
    assert found is not None
    return found


def test_a_lock_is_broken_only_where_its_owner_is_known_to_be_dead(tmp_path: Path) -> None:
    binary = tmp_path / "pulumi"
    binary.symlink_to("/bin/sleep")
    here = socket.gethostname()
    alive = subprocess.Popen([str(binary), "600"])
    try:
        # A process that is just being executed has no command line yet.
        wait_until(Path(f"/proc/{alive.pid}/cmdline").read_bytes, "it runs")
        assert not update._is_dead(owner(here, alive.pid), 10_000)
    finally:
        alive.kill()
        alive.wait()
    assert update._is_dead(owner(here, alive.pid), 0)
    assert update._is_dead(owner(here, os.getpid()), 0)
    assert not update._is_dead(owner("elsewhere", 1), FOREIGN_LOCK_SECONDS / 2)
    assert update._is_dead(owner("elsewhere", 1), FOREIGN_LOCK_SECONDS + 1)


def test_a_replica_that_is_cut_off_ends_its_engine_before_another_may_begin() -> None:
    noticed = WATCH + 2 * HOLD_TIMEOUT
    freed = KEEPALIVE["idle"] + KEEPALIVE["interval"] * KEEPALIVE["count"]

    assert noticed < freed
    assert noticed < FOREIGN_LOCK_SECONDS
