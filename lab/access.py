"""What one can do to a cluster that runs: objects, commands in Pods, logs and proxies."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.api import Api, Object
from lab.errors import LabError
from lab.node.agent import container_directory
from lab.node.containers import entering, kill
from lab.processes import POLL

READY_TIMEOUT = 180.0
"""Seconds within which Pods must be ready."""
COMMAND_TIMEOUT = 60.0
"""Seconds that a command in a container may take if not said otherwise."""
PROXY = "istio-proxy"
_WARNING = re.compile(r"\S+\s+(warn|warning|error|critical)\s")
"""The beginning of a proxy's log line: its time and level."""
SHOWN = 5
"""Of how many accesses, and of how many warnings, an error tells."""


@dataclass(frozen=True)
class Result:
    """What a command in a container did."""

    code: int
    stdout: str
    stderr: str

    def expect_success(self) -> str:
        """Its stdout.

        Raises:
            LabError: it failed.
        """
        if self.code != 0:
            raise LabError(f"exit code {self.code}: {self.stderr.strip() or self.stdout.strip()}")
        return self.stdout


class ClusterAccess:
    """A cluster, from whichever process it is looked at."""

    def __init__(self, name: str, api: Api, kubeconfig: Path, node_directory: Path, logs: Path) -> None:
        """Look at a cluster.

        Args:
            name: of the cluster.
            api: the administrator's client of its API server.
            kubeconfig: the administrator's.
            node_directory: the node's files.
            logs: folder of the containers' logs.
        """
        self.name = name
        self.api = api
        self.kubeconfig = kubeconfig
        self.logs = logs
        self.cancelled = threading.Event()
        """Ends all waiting for this cluster with an error."""
        self._node_directory = node_directory

    # Objects

    def apply(self, *objects: Object) -> None:
        """Apply objects in this order."""
        for item in objects:
            self.api.apply(item)

    def put_secret(self, namespace: str, name: str, data: Mapping[str, bytes]) -> None:
        """Make or replace a Secret."""
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        path = f"/api/v1/namespaces/{namespace}/secrets"
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "data": encoded,
        }
        if self.api.get("v1", "Secret", name, namespace) is None:
            self.api.request("POST", path, body)
        else:
            self.api.request("PUT", f"{path}/{name}", body)

    def balancer(self, namespace: str, name: str) -> str:
        """The address of a load-balancer Service.

        Raises:
            LabError: it has none.
        """
        service = self.api.get("v1", "Service", name, namespace) or {}
        for entry in (service.get("status", {}).get("loadBalancer") or {}).get("ingress", []):
            return str(entry["ip"])
        raise LabError(f"{self.name} has no load balancer {namespace}/{name}")

    # Pods

    def pods(self, namespace: str | None = None, name: str = "") -> list[Object]:
        """Pods that are not being deleted, whose name or owner's name begins with `name`."""
        return [
            pod
            for pod in self.api.items("v1", "Pod", namespace)
            if "deletionTimestamp" not in pod["metadata"] and pod["metadata"]["name"].startswith(name)
        ]

    def pod(self, reference: str) -> Object:
        """The one Pod of `namespace/name`, where the name may be the beginning of it, such as its Deployment's.

        Raises:
            LabError: there is none or more than one.
        """
        namespace, _, name = reference.partition("/")
        found = self.pods(namespace, name)
        exact = [pod for pod in found if pod["metadata"]["name"] == name] or found
        if len(exact) != 1:
            names = ", ".join(pod["metadata"]["name"] for pod in exact) or "none"
            raise LabError(f"{self.name} has not one Pod {reference}, but: {names}")
        return exact[0]

    def wait_ready(self, namespace: str, name: str, timeout: float = READY_TIMEOUT) -> None:
        """Wait until all Pods of a name are ready, and there is one.

        Raises:
            LabError: they are not ready in time; the message says why.
        """

        def ready() -> bool:
            pods = self.pods(namespace, name)
            return bool(pods) and all(_is_ready(pod) for pod in pods)

        self.wait_until(
            ready, f"{namespace}/{name} is ready", timeout, lambda: self._why_unready(namespace, name)
        )

    def wait_until(
        self,
        done: Callable[[], bool],
        what: str,
        timeout: float = READY_TIMEOUT,
        why_not: Callable[[], str] = lambda: "",
    ) -> None:
        """Wait until something is so.

        Raises:
            LabError: it is not so in time.
        """
        deadline = time.monotonic() + timeout
        while not done():
            if time.monotonic() > deadline:
                raise LabError(f"{self.name}: not within {timeout:.0f} s: {what}. {why_not()}")
            if self.cancelled.wait(POLL):
                raise LabError(f"{self.name}: no longer waited for: {what}")

    def command(
        self, reference: str, command: Sequence[str], *, container: str | None = None, as_root: bool = False
    ) -> list[str]:
        """The command line on this machine that runs a command in a Pod's container, by default its first."""
        pod = self.pod(reference)
        place = self._container(pod, container)
        return entering(place, command, as_root=as_root)

    def exec(
        self,
        reference: str,
        command: Sequence[str],
        *,
        container: str | None = None,
        text: str = "",
        timeout: float = COMMAND_TIMEOUT,
    ) -> Result:
        """Run a command in a Pod and return what it did.

        Args:
            reference: `namespace/name`; see `pod`.
            command: program and arguments.
            container: by default the first.
            text: its stdin.
            timeout: seconds after which it is ended.

        Raises:
            LabError: the container does not run, or the time is up.
        """
        line = self.command(reference, command, container=container)
        try:
            done = subprocess.run(
                line, input=text, capture_output=True, text=True, check=False, timeout=timeout
            )
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{reference}: {' '.join(command)}: not done within {timeout:.0f} s") from error
        return Result(done.returncode, done.stdout, done.stderr)

    def popen(
        self, reference: str, command: Sequence[str], *, container: str | None = None
    ) -> subprocess.Popen[str]:
        """Start a command in a Pod, with pipes; whoever asks for it ends it."""
        return subprocess.Popen(
            self.command(reference, command, container=container),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kill(self, reference: str, container: str | None = None) -> None:
        """Kill a Pod's container, by default its first, as the kernel does when memory runs out."""
        kill(self._container(self.pod(reference), container))

    # Proxies

    def log_file(self, reference: str, container: str | None = None) -> Path:
        """The log of a Pod's container, by default its first.

        Raises:
            LabError: there is no such Pod or container.
        """
        pod = self.pod(reference)
        metadata, spec = pod["metadata"], pod["spec"]
        there = [each["name"] for each in (*spec.get("initContainers", ()), *spec["containers"])]
        name = str(container or spec["containers"][0]["name"])
        if name not in there:
            raise LabError(f"{reference} has no container {name!r}, but: {', '.join(there)}")
        return self.logs / str(metadata["namespace"]) / str(metadata["name"]) / f"{name}.log"

    def access_log(self, reference: str) -> list[dict[str, Any]]:
        """The access-log lines of a Pod's proxy, oldest first; for the fields see `lab.istio.ACCESS_LOG_FORMAT`."""
        return list(_json_lines(self._proxy_lines(reference)))

    def last_logged(self, reference: str) -> list[str]:
        """The last accesses that a Pod's proxy has logged, and the last warnings and errors."""
        lines = self._proxy_lines(reference)
        accesses = [line for line in lines if line.startswith("{")]
        warnings = [line for line in lines if _WARNING.match(line)]
        return [*warnings[-SHOWN:], *accesses[-SHOWN:]]

    def _proxy_lines(self, reference: str) -> list[str]:
        return self.log_file(reference, PROXY).read_text(errors="replace").splitlines()

    def admin(self, reference: str, path: str, method: str = "GET") -> str:
        """What a Pod's Envoy answers on its admin port."""
        command = ["curl", "--silent", "--fail", "-X", method, f"http://127.0.0.1:15000{path}"]
        return self.exec(reference, command, container=PROXY).expect_success()

    def stats(self, reference: str, contains: str = "") -> dict[str, int]:
        """Counters and gauges of a Pod's Envoy whose name contains a text."""
        text = self.admin(reference, f"/stats?filter={contains}" if contains else "/stats")
        pairs = (line.rpartition(": ") for line in text.splitlines())
        return {name: int(value) for name, _, value in pairs if value.isdigit()}

    # Help

    def _container(self, pod: Object, container: str | None) -> Path:
        metadata = pod["metadata"]
        name = str(container or pod["spec"]["containers"][0]["name"])
        return container_directory(
            self._node_directory, str(metadata["namespace"]), str(metadata["name"]), name
        )

    def _why_unready(self, namespace: str, name: str) -> str:
        found = [
            f"{pod['metadata']['name']}/{status['name']}: {json.dumps(status['state'])}"
            for pod in self.pods(namespace, name)
            for status in (
                *pod.get("status", {}).get("initContainerStatuses", []),
                *pod.get("status", {}).get("containerStatuses", []),
            )
            if not status["ready"]
        ]
        return "; ".join(found) or "there is no such Pod"


def _is_ready(pod: Object) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _json_lines(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("{"):
            try:
                yield json.loads(line)
            except ValueError:
                continue  # Envoy is still writing it
