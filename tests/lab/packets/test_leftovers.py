"""A lab that ends leaves nothing behind, in whatever way it ends: killed or interrupted half-way, or by `down` after its use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.processes import Identity
from lab.running import READY

START_TIMEOUT = 300.0
END_TIMEOUT = 120.0
CLIENT = "consumer/shop/orders-api"
GATEWAY = "consumer/mesh-egress/istio-egressgateway"


class OwnLab:
    """`python -m lab up` with a state directory of its own."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.mounts, self.rules = host_mounts(), host_rules()
        """What there was before it."""
        self.state = directory / "meshbridge"
        self._environment = {**os.environ, "XDG_STATE_HOME": str(directory)}
        self._log = directory / "output"
        self.process = self.start("up", *arguments)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "lab", *arguments],
                env=self._environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, *arguments: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "lab", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_until_pods_run(self) -> None:
        wait(lambda: bool(self._pods()), f"Pods run: {self.output}", START_TIMEOUT)

    def _pods(self) -> list[str]:
        code, text = self.run("status", "--json")
        clusters = json.loads(text)["clusters"].values() if code == 0 else []
        return [pod["name"] for cluster in clusters for pod in cluster.get("pods", []) if pod["ready"]]

    @property
    def directory(self) -> Path:
        return Path(self._description["directory"])

    @property
    def pid(self) -> int:
        return int(self._description["pid"])

    @property
    def _description(self) -> dict[str, Any]:
        return dict(json.loads((self.state / "lab.json").read_text()))


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """What is started hears SIGINT, even where these tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def starting_lab(tmp_path: Path) -> Iterator[OwnLab]:
    """A lab in which Pods run, while its clusters are still starting."""
    world = OwnLab(tmp_path, "--foreground")
    try:
        world.wait_until_pods_run()
        yield world
    finally:
        world.process.kill()
        world.process.wait()
        world.run("down")


@pytest.fixture
def ready_lab(tmp_path: Path) -> Iterator[OwnLab]:
    """A lab as people start it, after its first answer."""
    world = OwnLab(tmp_path)
    try:
        assert world.process.wait(START_TIMEOUT) == 0, world.output
        yield world
    finally:
        world.process.kill()
        world.process.wait()
        world.run("down")


def wait(done: Callable[[], bool], what: str, seconds: float = END_TIMEOUT) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.1)


def networks(pids: set[int] | None = None) -> dict[int, str]:
    """The network namespace of each process, or of these."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (pids is None or int(entry.name) in pids):
            try:
                found[int(entry.name)] = str((entry / "ns/net").readlink())
            except OSError:
                continue
    return found


def family(ancestor: int) -> set[int]:
    """A process and all its descendants."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found = {ancestor}
    while True:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        if not more:
            return found
        found |= more


def host_interfaces() -> set[str]:
    return {path.name for path in Path("/sys/class/net").iterdir() if path.name.startswith("mblab")}


def host_mounts() -> str:
    return Path("/proc/self/mounts").read_text()


def host_rules() -> str:
    saved = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line for line in saved.splitlines() if not line.startswith(("#", ":")))


def links_of(world: OwnLab) -> set[str]:
    return {
        link
        for path in world.state.glob("runs/*.json")
        for link in json.loads(path.read_text()).get("interfaces", {})
    }


class Belongings:
    """What a running lab has on this machine."""

    def __init__(self, own_lab: OwnLab) -> None:
        self._lab = own_lab
        self._directory = own_lab.directory
        self._links = links_of(own_lab)
        members = family(own_lab.pid)
        self._processes = [found for pid in members if (found := Identity.of(pid)) is not None]
        self._networks = set(networks(members).values()) - {str(Path("/proc/self/ns/net").readlink())}
        assert len(self._networks) >= 4  # of nodes and Pods at least
        assert len(self._processes) >= 8  # and of both control planes
        assert self._links and self._links <= host_interfaces()

    def check_ended(self) -> None:
        """What ends in whatever way the lab does."""
        wait(lambda: not any(each.alive() for each in self._processes), "no process of the lab is left")
        wait(lambda: not self._networks & set(networks().values()), "nor any in one of its networks")
        wait(lambda: not self._links & host_interfaces(), "the links are gone")
        assert (host_mounts(), host_rules()) == (self._lab.mounts, self._lab.rules)

    def check_no_files(self) -> None:
        """What is gone once it ended in order, or after `down`."""
        assert not self._directory.exists()
        assert {path.name for path in self._lab.state.iterdir()} <= {
            "lab.lock",
            "lab.log",
            "runs",
            "lab.json",
        }
        assert list((self._lab.state / "runs").iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_a_start_that_is_broken_off_leaves_nothing(starting_lab: OwnLab, how: signal.Signals) -> None:
    belongings = Belongings(starting_lab)
    check_that_a_second_is_refused(starting_lab, "starting")

    starting_lab.process.send_signal(how)

    starting_lab.process.wait(END_TIMEOUT)
    belongings.check_ended()
    if how is signal.SIGKILL:
        assert starting_lab.run("down")[0] == 0
    belongings.check_no_files()


def test_a_lab_that_was_used_leaves_nothing(ready_lab: OwnLab) -> None:
    """Its commands are those that docs/lab.md shows."""
    belongings = Belongings(ready_lab)
    assert "PostgreSQL" in ready_lab.output
    assert READY in ready_lab.output
    check_that_a_second_is_refused(ready_lab, "ready")

    code, said = ready_lab.run("exec", CLIENT, "--", "getent", "hosts", "svc-orders-primary")
    assert (code, "svc-orders-primary.shop.svc.cluster.local" in said) == (0, True), said
    assert ready_lab.run("exec", CLIENT, "--", "sh", "-c", "exit 7")[0] == 7
    code, said = ready_lab.run("logs", GATEWAY, "-c", "istio-proxy")
    assert (code, "Envoy proxy is ready" in said) == (0, True), said
    code, said = ready_lab.run("proxy-config", "clusters", GATEWAY)
    assert (code, "primary.orders.istio.data.example" in said) == (0, True), said
    code, said = ready_lab.run("kubeconfig", "provider")
    assert (code, Path(said.strip()).is_file()) == (0, True), said

    assert ready_lab.run("down")[0] == 0

    belongings.check_ended()
    belongings.check_no_files()


def check_that_a_second_is_refused(own_lab: OwnLab, phase: str) -> None:
    """A second lab of the same user is refused, and disturbs nothing."""
    pid = own_lab.pid
    for arguments in (["up"], ["up", "--foreground"]):
        code, said = own_lab.run(*arguments)
        assert code == 1
        assert f"a lab runs already (process {pid}, {phase})" in said
        assert "python -m lab down" in said
    assert own_lab.pid == pid
