"""What the deployer does around Pulumi: backend, leash, locks, secrets; `tests/engine` has it at work."""

from __future__ import annotations

import functools
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from broker import engine, update
from broker.engine import Engine, Gone
from broker.network import Endpoint
from broker.program import Wanted, endpoints
from broker.settings import Settings
from broker.store import ConsumerRoute, ProviderRoute
from broker.update import EngineError
from components import ConsumerEgressArgs
from tests.broker.chain import consumer_settings, load, provider_settings, wait_until

ROUTE = ProviderRoute(consumer_id="client.shop.example", endpoints=(Endpoint(host="10.0.0.1", port=5432),))
FAKE = """#!{python} -IS
import os, sys, time
if "version" in sys.argv:
    print("v3.250.0")
elif "export" in sys.argv or "select" in sys.argv:
    {does}
"""


@pytest.fixture
def read(tmp_path: Path) -> Settings:
    return load(
        tmp_path / "p",
        provider_settings(
            tmp_path, "http://localhost:1", state="postgres://u:p%2Fw@localhost/db?password=other"
        ),
    )


def fake(folder: Path, monkeypatch: pytest.MonkeyPatch, does: str) -> None:
    """A `pulumi` on PATH that does this."""
    binary = folder / "bin" / "pulumi"
    binary.parent.mkdir()
    binary.write_text(FAKE.format(python=sys.executable, does=does))
    binary.chmod(0o700)
    monkeypatch.setenv("PATH", str(binary.parent), prepend=os.pathsep)


@pytest.fixture
def hanging(read: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine whose command hangs, with a plugin in a process group of its own, after it wrote both numbers to a file."""
    does = (
        "import subprocess; plugin = subprocess.Popen(['sleep', '600'], start_new_session=True); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} {{plugin.pid}}'); time.sleep(600)"
    )
    fake(tmp_path, monkeypatch, does)
    made = Engine(read)
    yield made
    made.close()


def test_the_work_folder_cannot_be_guessed_is_the_owners_alone_and_goes(
    read: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "pass")
    first, second = Engine(read), Engine(read)
    assert first._directory != second._directory
    assert stat.S_IMODE(first._directory.stat().st_mode) == 0o700
    for made in (first, second):
        made.close()
        assert not made._directory.exists()


def test_an_engine_that_is_killed_ends_with_all_that_it_started(hanging: Engine, tmp_path: Path) -> None:
    raised: list[BaseException] = []

    def update() -> None:
        try:
            hanging.apply(0, [Wanted("a", 1, ROUTE)], [Gone("b", 1)])
        except EngineError as error:
            raised.append(error)

    thread = threading.Thread(target=update)
    thread.start()
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the command runs", 60)
    hanging.kill(0)
    thread.join(60)

    assert not thread.is_alive()
    assert "lost the shard" in str(raised[0])
    for pid in (tmp_path / "pid").read_text().split():
        wait_until(functools.partial(_is_dead, pid), "it is dead", 60)


def test_what_is_killed_between_two_commands_begins_no_other(hanging: Engine, tmp_path: Path) -> None:
    hanging.kill(0)
    folder = hanging._folder(0)
    folder.mkdir()

    with pytest.raises(Exception, match="lost the shard"):
        hanging._command.run(["stack", "select"], str(folder), {})
    assert not (tmp_path / "pid").exists()


def test_a_failed_command_shows_no_password(
    read: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path, monkeypatch, "sys.exit(f\"error: cannot open {os.environ['PULUMI_BACKEND_URL']} p/w\")")
    made = Engine(read)
    for work in (lambda: made.apply(0, [Wanted("a", 1, ROUTE)], []), lambda: made.resources(0)):
        with pytest.raises(EngineError) as caught:
            work()
        assert "postgres://u:***@localhost/db?password=***" in str(caught.value)
        assert "p/w" not in str(caught.value)
        assert "other" not in str(caught.value)
    made.close()


def _is_dead(pid: str) -> bool:
    """Whether a process is no more, but for its entry that nobody has read."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_an_address_that_was_handed_out_is_asked_for_again(tmp_path: Path) -> None:
    read = load(tmp_path / "c", consumer_settings(tmp_path, "http://localhost:1"))
    route = ConsumerRoute.model_validate(
        {
            "namespace": "shop",
            "provider_id": "istio.data.example",
            "endpoints": [{"host": f"{n}.a.istio.data.example", "port": 9000} for n in range(3)],
        }
    )
    made = [
        args.cluster_ip
        for _, args in endpoints(read, Wanted("a", 1, route, virtual_ips=("10.96.0.7", "10.96.0.8")))
        if isinstance(args, ConsumerEgressArgs)
    ]

    assert made == ["10.96.0.7", "10.96.0.8", None]


def test_a_binding_that_cannot_be_declared_fails_alone(tmp_path: Path) -> None:
    read = load(tmp_path / "c", consumer_settings(tmp_path, "http://localhost:1"))
    new = Wanted("new", 3, ROUTE)

    refused = engine._refused(read, [new])

    assert [(r.binding_id, r.generation, r.certain, r.temporary) for r in refused.values()] == [
        ("new", 3, True, False)
    ]
    assert "no section `provider`" in str(refused["new"].error)
    with pytest.raises(EngineError, match="binding old has a route that can no longer be declared"):
        engine._refused(read, [new, Wanted("old", 1, ROUTE, applied=True)])


def test_only_settled_bindings_that_stand_whole_are_kept() -> None:
    two = ProviderRoute(
        consumer_id=ROUTE.consumer_id, endpoints=(*ROUTE.endpoints, Endpoint(host="10.0.0.2", port=5432))
    )
    standing = {slug: frozenset({f"urn::{slug}"}) for slug in ("0-a", "0-b", "0-c", "0-gone")}
    wanted = [Wanted("a", 1, ROUTE, settled=True), Wanted("b", 2, ROUTE), Wanted("c", 1, two, settled=True)]

    kept = engine._kept(wanted, standing)

    assert kept.keys() == {"0-a"}
    assert [item.binding_id for item in engine._changed(wanted, kept)] == ["b", "c"]
    assert [item.binding_id for item in engine._changed(wanted, {})] == ["a", "b", "c"]


def test_what_is_kept_fits_on_a_command_line() -> None:
    names = [f"binding-{number}" for number in range(3000)]
    urns = frozenset(f"urn:pulumi:stack::meshbridge::{'x' * 100}::{number}" for number in range(10))
    standing = {f"0-{name}": urns for name in names}
    wanted = [Wanted(name, 1, ROUTE, settled=True) for name in names]

    kept = engine._kept(wanted, standing)
    arguments = [part for urns in kept.values() for urn in urns for part in ("--exclude", urn)]

    assert 600 < len(kept) < 800
    assert len(engine._changed(wanted, kept)) == len(names) - len(kept)
    subprocess.run(["true", *arguments], check=True)


def test_what_the_engine_did_not_tell_of_does_not_stand(
    read: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update.Update, "_run", lambda _: None)
    done = update.Update(read, SimpleNamespace(name="none"))  # type: ignore[arg-type]
    done.wanted = [Wanted("told", 1, ROUTE), Wanted("half", 1, ROUTE)]
    for slug in ("0-told", "0-half"):
        done.declared.resources[slug] = {slug, f"{slug}-route"}
        done.seen.present[slug] = {f"urn:x::{slug}"}
    done.seen.present["0-told"].add("urn:y::0-told-route")

    present = engine._present(done)

    assert present == {"0-told": frozenset({"urn:x::0-told", "urn:y::0-told-route"})}
