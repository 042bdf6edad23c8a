"""Brokers as processes of their own, on real API servers: the chain that the engine tests drive, and disturb."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import tools
from lab.control_plane import ControlPlane
from lab.ports import free_ports
from tests.broker.chain import (
    Platform,
    consumer_settings,
    provider_settings,
    wait_until,
    write_settings,
)

REPOSITORY = Path(__file__).parents[2]
APPLICATIONS, EGRESS, INGRESS = "shop", "mesh-egress", "mesh-ingress"
ISTIO = "networking.istio.io/v1"
START = 180
"""Seconds within which a broker must be ready; it takes 3 on an idle machine."""
STOP = 180
"""Seconds within which a broker must have ended the calls that were under way."""
PER_IMPORT = {
    "ConfigMap": 1,
    "EnvoyFilter": 1,
    "ServiceEntry": 1,
    "DestinationRule": 2,
    "Gateway": 1,
    "VirtualService": 2,
    "Service": 1,
}
PER_EXPORT = {"ConfigMap": 1, "ServiceEntry": 1, "DestinationRule": 1, "Gateway": 1, "VirtualService": 1}
KINDS = {
    "ConfigMap": "v1",
    "EnvoyFilter": "networking.istio.io/v1alpha3",
    "ServiceEntry": ISTIO,
    "DestinationRule": ISTIO,
    "Gateway": ISTIO,
    "VirtualService": ISTIO,
    "Service": "v1",
}


@dataclass
class Child:
    """A process that can be started, killed and started again."""

    command: list[str]
    log: Path
    url: str
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @functools.cached_property
    def platform(self) -> Platform:
        """A client of it."""
        return Platform(self.url)

    def start(self, ready: str = "/ready") -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env={**os.environ, **self.environment}, cwd=REPOSITORY, stdout=log, stderr=log
            )
        wait_until(lambda: self._answers(ready), f"{self.url} is ready, see {self.log}", seconds=START)

    def _answers(self, path: str) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return httpx.get(f"{self.url}{path}", trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """kill -9, as a lost node does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as Kubernetes does. The exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP)

    def engines(self) -> list[int]:
        """The Pulumi processes that it runs."""
        assert self.process is not None
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                command = (stat.parent / "cmdline").read_bytes()
            except OSError:  # it ended meanwhile
                continue
            if parent == self.process.pid and b"pulumi" in command.split(b"\0")[0]:
                found.append(int(stat.parent.name))
        return found

    def kill_engines(self) -> int:
        """kill -9 of the Pulumi processes; how many there were."""
        killed = 0
        for engine in self.engines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine, signal.SIGKILL)
                killed += 1
        return killed


class BrokerChain:
    """platform -> consumer's broker -> provider's broker -> service broker: four processes, two clusters."""

    def __init__(self, folder: Path, consumer: ControlPlane, provider: ControlPlane, **more: object) -> None:
        """more: settings of both brokers in place of the usual ones."""
        self.folder = folder
        self._more = more
        self.replicas: list[Child] = []
        self.clusters = {"consumer": consumer, "provider": provider}
        for plane, names in ((consumer, (APPLICATIONS, EGRESS)), (provider, (INGRESS,))):
            for name in names:
                plane.create_namespace(name)
        ports = free_ports(3)
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        self.service_broker = Child(
            [
                sys.executable,
                "-m",
                "tests.broker.service_broker",
                str(ports[0]),
                str(folder / "service-broker.json"),
            ],
            folder / "service-broker.log",
            urls[0],
        )
        self.provider = self._broker("provider", ports[1], provider_settings, urls[0])
        self.consumer = self._broker("consumer", ports[2], consumer_settings, urls[1])
        self.platform = self.consumer.platform

    def replica(self, name: str, **more: object) -> Child:
        """One more broker of the consumer's side, in a folder of its own."""
        (port,) = free_ports(1)
        made = self._broker("consumer", port, consumer_settings, self.provider.url, name, **more)
        self.replicas.append(made)
        return made

    def _broker(
        self, role: str, port: int, values: Any, upstream: str, name: str | None = None, **others: object
    ) -> Child:
        folder = self.folder / (name or role)
        folder.mkdir(parents=True)
        cluster = {"kubeconfig": str(self.clusters[role].kubeconfig)}
        more = values(
            folder,
            upstream,
            cluster=cluster,
            listen=f"127.0.0.1:{port}",
            deployTimeout=60,
            upstreamTimeout=90,
        )
        more = {**more, **self._more, **others}
        more[role] = {**more[role], **({"namespaces": [APPLICATIONS]} if role == "consumer" else {})}
        settings = write_settings(folder / "settings.yaml", **more)
        return Child(
            [sys.executable, "-m", "broker", "serve", "--settings", str(settings)],
            folder / "broker.log",
            f"http://127.0.0.1:{port}",
            tools.engine_environment(),
        )

    def start(self) -> None:
        self.service_broker.start("/info")
        self.provider.start()
        self.consumer.start()

    def close(self) -> None:
        """Ends every process, whatever became of the others."""
        for child in (*self.replicas, self.consumer, self.provider, self.service_broker):
            child.platform.client.close()
            if child.process is not None and child.process.poll() is None:
                child.kill()

    def objects(self, role: str) -> dict[str, list[str]]:
        """The objects that brokers made in a cluster, as `namespace/name` by kind."""
        found: dict[str, list[str]] = {}
        for kind, version in KINDS.items():
            for metadata in (item["metadata"] for item in self.clusters[role].api.items(version, kind)):
                ours = metadata.get("labels", {}).get("app.kubernetes.io/managed-by") == "meshbridge"
                if ours and metadata["namespace"] in (APPLICATIONS, EGRESS, INGRESS):
                    found.setdefault(kind, []).append(f"{metadata['namespace']}/{metadata['name']}")
        return found

    def counts(self, role: str) -> dict[str, int]:
        return {kind: len(names) for kind, names in self.objects(role).items()}

    def command(self, role: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`python -m broker …` with the settings of a role."""
        settings = self.folder / role / "settings.yaml"
        return subprocess.run(
            [sys.executable, "-m", "broker", *arguments, "--settings", str(settings)],
            env={**os.environ, **tools.engine_environment()},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
