"""Time and memory of `pulumi up` with many endpoints: the real engine, the plugin and the program together.

Objects are rendered, or applied to a real API server of the lab. The state lies in files, saved at the end
(`PULUMI_SKIP_CHECKPOINTS`) or at each step, as Pulumi does by itself.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

import tools
from bench.table import Section
from lab.control_plane import ControlPlane

STACK = "organization/meshbridge/bench"
POLL = 0.2
SAVED_ONCE = {"PULUMI_EXPERIMENTAL": "true", "PULUMI_SKIP_CHECKPOINTS": "true"}
ROLES = {"pulumi-resource-": "plugin", "lab.providers": "plugin", "pulumi-language-python-exec": "program"}


@dataclass(frozen=True)
class Cost:
    """What one run cost: seconds, and the largest resident memory of each part in MiB."""

    seconds: float
    memory: Mapping[str, float]

    @property
    def cells(self) -> list[str]:
        """The cost as cells of a table."""
        parts = [f"{self.memory.get(part, 0):.0f}" for part in ("engine", "program", "plugin")]
        return [f"{self.seconds:.1f} s", *parts]


class Project:
    """A project of its own: the program, one stack, and a state."""

    def __init__(self, folder: Path, cluster: Mapping[str, object], settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._cluster = cluster
        tools.link_program(folder)
        (folder / "stacks").mkdir()
        (folder / "state").mkdir()
        self._environment = {
            **tools.engine_environment(),
            "PULUMI_BACKEND_URL": tools.state_url(folder / "state"),
            "PULUMI_CONFIG_PASSPHRASE": "bench",
            **settings,
        }
        self._run("stack", "init", "--stack", STACK)

    def up(self, endpoints: int, *, changed: bool = False) -> Cost:
        """Bring up a consumer with so many endpoints; with `changed`, the middle one has another local port."""
        file = self._folder / "stacks" / "Pulumi.bench.yaml"
        salt = yaml.safe_load(file.read_text()) if file.exists() else {}
        ports = [6432 if changed and number == endpoints // 2 else 5432 for number in range(endpoints)]
        imports = [
            {
                "name": f"orders-{number}",
                "provider": "data",
                "namespace": "shop",
                "endpoints": [{"name": "main", "host": f"orders-{number}.istio.data.example", "port": port}],
            }
            for number, port in enumerate(ports)
        ]
        consumer = {
            "id": "client.shop.example",
            "egressGateway": {"createNamespace": True},
            "providers": [{"name": "data", "systemDomain": "istio.data.example"}],
            "imports": imports,
        }
        values = {"meshbridge:cluster": dict(self._cluster), "meshbridge:consumer": consumer}
        file.write_text(yaml.safe_dump({**salt, "config": values}))
        return self._run("up", "--yes", "--skip-preview", "--suppress-outputs", "--stack", STACK)

    def down(self) -> Cost:
        """Destroy everything."""
        return self._run("destroy", "--yes", "--skip-preview", "--stack", STACK)

    def _run(self, *arguments: str) -> Cost:
        started = time.perf_counter()
        with (
            tempfile.TemporaryFile() as output,
            subprocess.Popen(
                [tools.ensure("pulumi"), *arguments, "--non-interactive"],
                cwd=self._folder,
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            ) as process,
        ):
            with watched(process.pid) as memory:
                code = process.wait()
            if code:
                output.seek(0)
                raise SystemExit(f"pulumi {arguments[0]} failed:\n{output.read().decode()[-4000:]}")
        return Cost(time.perf_counter() - started, memory)


@contextlib.contextmanager
def watched(root: int) -> Iterator[dict[str, float]]:
    """The largest resident memory, by part, of a process and all below it, in MiB."""
    peak: dict[str, float] = {}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL):
            now: defaultdict[str, float] = defaultdict(float)
            for pid in _tree(root):
                with contextlib.suppress(OSError, IndexError):
                    part = _part(Path(f"/proc/{pid}/cmdline").read_bytes().decode())
                    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                    now[part] += pages * os.sysconf("SC_PAGE_SIZE") / 2**20
            for part, size in now.items():
                peak[part] = max(peak.get(part, 0), size)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def _tree(root: int) -> set[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    return found


def _part(command: str) -> str:
    return next((part for word, part in ROLES.items() if word in command), "engine")


def measure(sizes: Iterable[int], stepwise: Iterable[int], *, cluster: bool = False) -> Section:
    """First up, unchanged up, one changed endpoint and destroy, for each size.

    stepwise: sizes that are also measured with the state saved at each step, whose cost grows with the square of the size.
    cluster: apply to a real API server instead of rendering.
    """
    runs: list[tuple[int, str, Mapping[str, str]]] = [
        *((size, "at the end", SAVED_ONCE) for size in sizes),
        *((size, "at each step", {}) for size in stepwise),
    ]
    rows = []
    with tempfile.TemporaryDirectory(prefix="meshbridge-bench-") as name:
        folder = Path(name)
        with _target(folder, cluster=cluster) as target:
            for number, (size, saved, settings) in enumerate(runs):
                rows += _rows(folder / str(number), target, size, saved, settings)
    plugin = "official" if tools.kubernetes_plugin().official else "stand-in"
    where = "applied to a real API server (etcd, kube-apiserver)" if cluster else "rendered to files"
    return Section(
        f"`pulumi up`, {'applied' if cluster else 'rendered'}",
        f"`up --skip-preview` of a consumer, 9 objects an endpoint, {where}; state in files; {plugin} "
        "Kubernetes plugin; one run each. Memory is the largest resident size in MiB.",
        ["endpoints", "state saved", "run", "time", "engine", "program", "plugin"],
        rows,
    )


def _rows(
    folder: Path, target: Mapping[str, object], size: int, saved: str, settings: Mapping[str, str]
) -> list[list[str]]:
    folder.mkdir()
    project = Project(folder, target, settings)
    return [
        [str(size), saved, "first up", *project.up(size).cells],
        [str(size), saved, "nothing changed", *project.up(size).cells],
        [str(size), saved, "one endpoint changed", *project.up(size, changed=True).cells],
        [str(size), saved, "all destroyed", *project.down().cells],
    ]


@contextlib.contextmanager
def _target(folder: Path, *, cluster: bool) -> Iterator[Mapping[str, object]]:
    if not cluster:
        yield {"render": True}
        return
    with ControlPlane("bench", folder / "control-plane") as plane:
        plane.create_namespace("shop")
        yield {"kubeconfig": str(plane.kubeconfig), "awaitReadiness": False}
