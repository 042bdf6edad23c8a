"""What whoever runs the broker sees: health, metrics, logs, audit records, the command line."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import structlog

from broker import cli, logs
from lab.ports import free_ports
from tests.broker import service_broker
from tests.broker.chain import (
    BINDING,
    INSTANCE,
    PASSWORD,
    USER,
    Chain,
    consumer_settings,
    wait_until,
    write_settings,
)

SECRETS = (PASSWORD, service_broker.PASSWORD, "p/w:10.0.0.1", ":secret@")
IDENTITY = {
    "X-Broker-API-Originating-Identity": "kubernetes eyJ1IjoiYW5uIn0=",
    "X-Broker-API-Request-Identity": "req-1",
}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """`python -m broker`, a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "broker", *arguments],
        env={"PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """What `python -m broker` runs, in this process, which has imported it already. A traceback is raised here."""

    def called(*arguments: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["broker", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert isinstance(ended.value.code, int)
        written = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code, written.out, written.err)

    return called


def test_a_broker_whose_reconciler_died_has_to_be_started_again(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = chain.platform.client
    reconciler = chain.consumer._reconciler
    assert reconciler is not None
    monkeypatch.setattr(reconciler, "_thread", threading.Thread())

    assert client.get("/health").status_code == 503
    assert client.get("/ready").status_code == 503


def test_readiness_and_metrics_do_not_wait_in_line_with_calls(tmp_path: Path) -> None:
    chain = Chain(tmp_path, maxCalls=1)
    chain.consumer_cluster.gate = threading.Event()
    try:
        chain.platform.provision()
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(chain.platform.bind)
            wait_until(lambda: chain.consumer_cluster.running, "the only thread for calls waits")
            for path in ("/ready", "/metrics"):
                assert chain.platform.client.get(path, timeout=20).status_code == 200
            assert not call.done()
            chain.consumer_cluster.gate.set()
            assert call.result().status_code == 201
    finally:
        chain.consumer_cluster.gate.set()
        chain.close()


def test_health_and_readiness_need_no_password_and_metrics_do(chain: Chain) -> None:
    chain.platform.bind()
    client = chain.platform.client

    assert client.get("/health", auth=None).json() == {"status": "alive"}
    assert client.get("/ready", auth=None).json() == {"status": "ready"}
    assert client.get("/metrics", auth=("a", "b")).status_code == 401
    text = client.get("/metrics").text
    assert 'meshbridge_broker_calls_total{operation="bind",status="201"}' in text
    assert "meshbridge_broker_update_seconds_bucket" in text


def test_every_bind_and_unbind_is_on_record(chain: Chain) -> None:
    chain.platform.client.headers.update(IDENTITY)
    chain.platform.bind()
    chain.platform.bind(parameters={"other": 1})
    chain.platform.unbind()

    for store, user in zip(chain.stores, (USER, USER), strict=True):
        records = store.audited(BINDING)
        assert [(r.action, r.status, r.instance_id) for r in records] == [
            ("bind", 201, INSTANCE),
            ("bind", 409, INSTANCE),
            ("unbind", 200, INSTANCE),
        ]
        assert {(r.request_id, r.user, r.originating_identity) for r in records} == {
            ("req-1", user, IDENTITY["X-Broker-API-Originating-Identity"])
        }


def test_what_the_proxy_undoes_on_its_own_is_on_record(chain: Chain) -> None:
    chain.consumer_cluster.refused[BINDING] = "no"

    assert chain.platform.bind().status_code == 500

    wait_until(lambda: not any(store.all() for store in chain.stores), "it is undone")
    provider, consumer = (store.audited(BINDING) for store in chain.stores)
    assert [(r.action, r.status, r.error) for r in provider[:2]] == [
        ("bind", 201, None),
        ("unbind", 202, None),
    ]
    assert [(r.action, r.error) for r in consumer] == [("bind", "RouteError"), ("undone", None)]
    assert consumer[1].user is None


def test_no_secret_is_written_anywhere(
    chain: Chain, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure()
    try:
        chain.platform.client.headers.update(IDENTITY)
        assert chain.platform.bind().status_code == 201
        chain.platform.client.get("/v2/catalog", auth=("platform", "guess-4711"))
        chain.broker.next_answers.append((200, b'{"credentials": {"password": "p/w:10.0.0.1"'))
        assert chain.platform.bind().status_code == 502
        chain.platform.unbind()
    finally:
        structlog.reset_defaults()
    written = capfd.readouterr()
    lines = [json.loads(line) for line in written.err.splitlines() if line.startswith("{")]
    assert {line.get("request_id") for line in lines if line["event"] == "bind"} == {"req-1"}
    assert {"bind", "unbind", "refused", "updated"} <= {line["event"] for line in lines}
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "settings.yaml"]
    assert any(path.name == "broker.db" for path in files)
    kept = b"".join(path.read_bytes() for path in files) + (written.out + written.err).encode()
    for secret in (*SECRETS, "guess-4711"):
        assert secret.encode() not in kept


def test_wrong_settings_are_a_message_with_every_finding_and_no_traceback(
    command: Command, tmp_path: Path
) -> None:
    values = consumer_settings(tmp_path, "ftp://nowhere", role="konsumer", shards=0, unknown=1)
    file = write_settings(tmp_path / "settings.yaml", **values)

    done = command("serve", "--settings", str(file))

    assert done.returncode == 64
    for said in ("upstream", "role", "shards", "unknown"):
        assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert PASSWORD not in done.stderr


@pytest.mark.parametrize("flag", ["--database", "--state"])
def test_a_password_on_the_command_line_is_refused(command: Command, tmp_path: Path, flag: str) -> None:
    file = write_settings(tmp_path / "settings.yaml", **consumer_settings(tmp_path, "http://localhost:1"))

    done = command("serve", "--settings", str(file), flag, "postgresql://broker:hunter2@db/broker")

    assert done.returncode == 64
    assert "hunter2" not in done.stderr
    assert f"MESHBRIDGE_BROKER_{flag[2:].upper()}" in done.stderr


def test_a_database_that_is_away_at_the_start_is_a_message(tmp_path: Path) -> None:
    more = {
        "database": "postgresql+psycopg://broker@127.0.0.1:1/b",
        "state": "postgres://broker@127.0.0.1:1/b",
    }
    values = consumer_settings(tmp_path, "http://localhost:1", **more)
    file = write_settings(tmp_path / "settings.yaml", **values)

    done = run("serve", "--settings", str(file))

    assert (done.returncode, done.stderr) == (
        75,
        "error: the database is away (OperationalError); try again\n",
    )


def test_a_database_of_a_later_version_is_a_message(chain: Chain, tmp_path: Path) -> None:
    chain.close()
    file = tmp_path / "consumer" / "settings.yaml"
    with sqlite3.connect(tmp_path / "consumer" / "broker.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    done = run("serve", "--settings", str(file))
    assert done.returncode == 1
    assert done.stderr.startswith(
        "error: the database's tables are of a version that this program does not know"
    )
    assert "9999" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_processes_never_serve_one_sqlite_database(chain: Chain, tmp_path: Path) -> None:
    done = run("reconcile", "--settings", str(tmp_path / "consumer" / "settings.yaml"))

    assert done.returncode == 75
    assert "another broker serves" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_told_to_stop_leaves_neither_engine_nor_files(
    tmp_path: Path, number: signal.Signals
) -> None:
    running, temporary = tmp_path / "running", tmp_path / "tmp"
    pulumi = tmp_path / "bin" / "pulumi"
    for folder in (pulumi.parent, temporary):
        folder.mkdir()
    pulumi.write_text(
        f'#!/bin/sh\ncase "$*" in *version*) echo v3.250.0; exit;; esac\necho $$ > {running}; exec /bin/sleep 60\n'
    )
    pulumi.chmod(0o700)
    file = write_settings(tmp_path / "settings.yaml", **consumer_settings(tmp_path, "http://localhost:1"))
    log = tmp_path / "log"
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "broker", "reconcile", "--settings", str(file)],
            env={"PATH": f"{pulumi.parent}:/usr/bin:/bin", "HOME": str(tmp_path), "TMPDIR": str(temporary)},
            cwd=Path(__file__).parents[2],
            stderr=written,
        )
    try:
        wait_until(lambda: running.exists() and running.read_text().strip(), "the engine runs")
        process.send_signal(number)
        assert process.wait(60) == 130
        assert "Traceback" not in log.read_text()
        wait_until(lambda: not Path(f"/proc/{running.read_text().strip()}").exists(), "the engine ended", 10)
        assert not list(temporary.iterdir())
    finally:
        process.kill()


def test_a_broker_that_is_told_to_stop_before_it_serves_stops(tmp_path: Path) -> None:
    program = (
        "import os, signal, uvicorn\n"
        "run = uvicorn.Server.run\n"
        "uvicorn.Server.run = lambda server: (os.kill(os.getpid(), signal.SIGTERM), run(server))\n"
        "from broker.cli import main\n"
        "main()\n"
    )
    (port,) = free_ports(1)
    flags = ["--role", "forward", "--upstream", "http://localhost:1", "--listen", f"127.0.0.1:{port}"]
    done = subprocess.run(
        [sys.executable, "-c", program, "serve", *flags],
        env={"PATH": "/usr/bin:/bin", "MESHBRIDGE_BROKER_ANONYMOUS": "true"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 0


def test_the_list_shows_what_is_wanted_and_what_is_there(
    chain: Chain, command: Command, tmp_path: Path
) -> None:
    chain.platform.bind()

    settings = str(tmp_path / "consumer" / "settings.yaml")
    (row,) = json.loads(command("list", "--json", "--settings", settings).stdout)
    assert (row["binding_id"], row["phase"], row["route"], row["virtual_ips"]) == (
        BINDING,
        "bound",
        "there",
        ["10.96.0.1"],
    )
    assert BINDING in command("list", "--settings", settings).stdout


@pytest.mark.parametrize("name", ["serve", "reconcile", "list", "doctor"])
def test_every_command_explains_itself(command: Command, name: str) -> None:
    done = command(name, "--help")

    assert done.returncode == 0
    assert re.match(rf"Usage: .* {name} \[OPTIONS\]\n", done.stdout)


def test_the_program_explains_itself() -> None:
    done = run("--help")

    assert done.returncode == 0
    assert "Usage: python -m broker" in done.stdout
