"""One Pod on the node, from its network to its removal. Each has a thread of its own, which lives in the node's network."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lab.api import Api, Object
from lab.errors import ApiError, LabError
from lab.netns import NetworkNamespace
from lab.node import containers, images, spec
from lab.node.containers import Mount, Settings
from lab.node.images import Image
from lab.node.probes import Probe
from lab.node.spec import NotYetError
from lab.node.status import ContainerState, PodState, timestamp
from lab.node.volumes import Volumes
from lab.processes import Process, Supervisor

T = TypeVar("T")

TICK = 0.1
"""Seconds between two looks at a Pod that is not ready yet."""
STEADY_TICK = 0.5
"""Seconds between two looks at a ready one."""
RETRY = 0.5
"""Seconds until something missing is looked for again."""
RENEWAL = 30.0
"""Seconds between two renewals of a Pod's volumes."""
BACKOFF, BACKOFF_LIMIT, BACKOFF_RESET = 10.0, 300.0, 600.0
"""Seconds before a container's second restart in a row, at most, and of running after which they are forgotten."""


@dataclass(frozen=True)
class Place:
    """Where Pods run: what all Pods of a node share."""

    name: str
    """Of the node."""
    address: str
    """Of the node, which is also its Pods' name server."""
    domain: str
    api_service: str
    """Address of the Service `kubernetes`."""
    directory: Path
    logs: Path
    network: NetworkNamespace
    """The node's own."""
    api: Api
    supervisor: Supervisor
    images: images.Catalogue


class Pod:
    """A Pod that the node runs."""

    def __init__(self, wanted: Object, address: str, place: Place, changed: Callable[[], None]) -> None:
        """Take a Pod over; `start` begins.

        Args:
            wanted: the Pod.
            address: its IP address.
            place: where it runs.
            changed: called when its status has changed.
        """
        metadata, inner = wanted["metadata"], wanted["spec"]
        self.namespace, self.name, self.uid = metadata["namespace"], metadata["name"], metadata["uid"]
        self.wanted = wanted
        self.address = address
        self.interface = "pod" + hashlib.sha256(self.uid.encode()).hexdigest()[:10]
        self.directory = place.directory / "pods" / f"{self.namespace}_{self.name}"
        self.finished = threading.Event()
        self._logs = place.logs / self.namespace / self.name
        self._place = place
        self._changed = changed
        self._wake = threading.Event()
        self._grace: float | None = None
        self._network: NetworkNamespace | None = None
        self._processes: dict[str, Process] = {}
        self._probes: dict[str, dict[str, Probe]] = {}
        self._restart_at: dict[str, float] = {}
        self._backoff: dict[str, float] = {}
        self._reported: Object | None = None
        self._wanted_by_name = {
            c["name"]: c for c in (*inner.get("initContainers", []), *inner["containers"])
        }
        states = [
            ContainerState(c["name"], c["image"], init=True, sidecar=c.get("restartPolicy") == "Always")
            for c in inner.get("initContainers", [])
        ] + [ContainerState(c["name"], c["image"], init=False) for c in inner["containers"]]
        self._state = PodState(
            self.uid, place.address, states, restarts_always=inner.get("restartPolicy", "Always") == "Always"
        )
        self._fields = {
            "status.podIP": address,
            "status.podIPs": address,
            "status.hostIP": place.address,
            "spec.nodeName": place.name,
        }
        self._volumes = Volumes(
            wanted, self.directory / "volumes", place.api, self._fields, place.directory / "claims"
        )
        self._thread = threading.Thread(
            target=self._run, name=f"pod {self.namespace}/{self.name}", daemon=True
        )

    def start(self) -> None:
        """Begin to run it."""
        self._thread.start()

    def end(self, grace: float) -> None:
        """Begin to end it; its containers get `grace` seconds."""
        self._grace = grace
        self._wake.set()

    def join(self) -> None:
        """Wait until its thread has ended."""
        self._thread.join()

    @property
    def ending(self) -> bool:
        """Whether it is being ended."""
        return self._grace is not None

    def _run(self) -> None:
        place = self._place
        try:
            place.network.enter()
            self._report()
            self._connect()
            with contextlib.suppress(_EndingError):
                self._initialize()
                self._serve()
        except LabError as error:
            self._fail(error)
        finally:
            self._tear_down()

    def _fail(self, error: Exception) -> None:
        """Show an error that the node cannot mend in the Pod's status, and wait for the Pod's end."""
        for state in self._state.containers:
            if state.running_since is None:
                state.waiting = ("NodeError", str(error))
        self._report()
        with contextlib.suppress(_EndingError):
            while True:
                self._pause(STEADY_TICK)

    # Network and files

    def _connect(self) -> None:
        """Make the Pod's network: one interface, whose only neighbour is the node."""
        place, address, outside = self._place, self.address, self.interface
        network = NetworkNamespace(f"{self.namespace}/{self.name}")
        self._network = network
        place.network.ip(
            f"link add {outside} type veth peer name eth0 netns {network.path}",
            f"link set {outside} up",
            f"route add {address}/32 dev {outside}",
        )
        network.ip(
            f"addr add {address}/32 dev eth0",
            "link set eth0 up",
            f"route add {place.address}/32 dev eth0 scope link",
            f"route add default via {place.address} dev eth0",
        )
        for setting in (self.wanted["spec"].get("securityContext") or {}).get("sysctls", []):
            network.write_setting(setting["name"].replace(".", "/"), setting["value"])
        # What an earlier Pod of the same name has left.
        for directory in (self.directory, self._logs):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
        self._write_names()
        self._state.ip = address
        self._retried(self._volumes.write)
        self._report()

    def _write_names(self) -> None:
        place = self._place
        search = [f"{self.namespace}.svc.{place.domain}", f"svc.{place.domain}", place.domain]
        aliases = "".join(
            f"{alias['ip']}\t{' '.join(alias['hostnames'])}\n"
            for alias in self.wanted["spec"].get("hostAliases", [])
        )
        (self.directory / "hosts").write_text(
            f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{self.address}\t{self.name}\n{aliases}"
        )
        (self.directory / "resolv.conf").write_text(
            f"nameserver {place.address}\nsearch {' '.join(search)}\noptions ndots:5\n"
        )

    # The order of containers

    def _initialize(self) -> None:
        for state in self._state.containers:
            if not state.init:
                continue
            self._start(state)
            while not (state.done or (state.sidecar and state.started)):
                self._tend()
                self._pause(TICK)

    def _serve(self) -> None:
        for state in self._state.containers:
            if not state.init:
                self._start(state)
        renew_at = time.monotonic() + RENEWAL
        while True:
            self._tend()
            if time.monotonic() > renew_at:
                with contextlib.suppress(NotYetError, ApiError):
                    self._volumes.write()
                renew_at = time.monotonic() + RENEWAL
            self._pause(STEADY_TICK if self._state.ready else TICK)

    def _start(self, state: ContainerState) -> None:
        wanted = self._wanted_by_name[state.name]
        image = images.find(self._place.images, state.image)
        if image is None:
            known = ", ".join(self._place.images)
            state.waiting = ("ErrImagePull", f"the lab has no image {state.image!r}; it has: {known}")
            self._restart_at[state.name] = time.monotonic() + BACKOFF_LIMIT
            return
        settings = self._retried(lambda: self._settings(wanted, image), state)
        assert self._network is not None  # noqa: S101 - made before any container
        self._processes[state.name] = containers.start(
            f"{self.namespace}/{self.name}/{state.name}",
            settings,
            self._container(state),
            self._logs / f"{state.name}.log",
            network=self._network,
            supervisor=self._place.supervisor,
        )
        now = time.monotonic()
        state.restarts += state.ended is not None
        state.running_since, state.ready = timestamp(), False
        self._probes[state.name] = {
            kind: Probe(
                wanted[kind],
                self.address,
                {port["name"]: port["containerPort"] for port in wanted.get("ports", []) if "name" in port},
                lambda command, timeout: containers.succeeds(self._container(state), command, timeout),
                now + wanted[kind].get("initialDelaySeconds", 0),
                patient=kind != "readinessProbe",
            )
            for kind in ("startupProbe", "readinessProbe", "livenessProbe")
            if kind in wanted
        }
        state.started = "startupProbe" not in self._probes[state.name]
        state.ready = state.started and "readinessProbe" not in self._probes[state.name]
        self._report()

    def _settings(self, wanted: Object, image: Image) -> Settings:
        environment = spec.environment(wanted, self.wanted, self._fields, self._volumes.lookup)
        environment |= {"KUBERNETES_SERVICE_HOST": self._place.api_service, "KUBERNETES_SERVICE_PORT": "443"}
        context = wanted.get("securityContext") or {}
        return Settings(
            spec.command(wanted, image, environment),
            environment,
            wanted.get("workingDir", "/"),
            spec.identity(wanted, self.wanted, image),
            spec.capabilities(wanted),
            no_new_privileges=context.get("allowPrivilegeEscalation") is False,
            read_only=bool(context.get("readOnlyRootFilesystem")),
            mounts=list(self._mounts(wanted, image)),
            hostname=self.name[:63],
        )

    def _mounts(self, wanted: Object, image: Image) -> Iterator[Mount]:
        for target, source in {**images.beside_root(), **image.files}.items():
            yield Mount(source, target, read_only=True)
        for name in ("hosts", "resolv.conf"):
            yield Mount(self.directory / name, f"/etc/{name}", read_only=False)
        for mount in wanted.get("volumeMounts", []):
            source = self._volumes.path(mount["name"]) / mount.get("subPath", "")
            yield Mount(source, mount["mountPath"], read_only=bool(mount.get("readOnly")))

    # Running containers

    def _tend(self) -> None:
        """Look after the containers that were started: their ends, restarts and probes."""
        for state in self._state.containers:
            process = self._processes.get(state.name)
            if process is not None and not process.running:
                self._note_end(state, process)
            elif process is not None:
                self._probe(state)
            elif time.monotonic() > self._restart_at.get(state.name, float("inf")):
                del self._restart_at[state.name]
                self._start(state)
        self._report()

    def _note_end(self, state: ContainerState, process: Process) -> None:
        code = process.exit_code or 0
        code = 128 - code if code < 0 else code
        began, state.running_since = state.running_since, None
        state.ended = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": began,
            "finishedAt": timestamp(),
        }
        state.ready = state.started = False
        state.waiting = ("", "")
        self._place.supervisor.stop(process, grace=0)
        del self._processes[state.name]
        if self._restarts(state, code):
            lasted = time.monotonic() - process.started_at
            backoff = 0.0 if lasted > BACKOFF_RESET else self._backoff.get(state.name, 0.0)
            self._restart_at[state.name] = time.monotonic() + backoff
            self._backoff[state.name] = min(max(2 * backoff, BACKOFF), BACKOFF_LIMIT)
            if backoff:
                why = f"back-off {backoff:.0f}s restarting failed container={state.name}"
                state.waiting = ("CrashLoopBackOff", why)

    def _restarts(self, state: ContainerState, code: int) -> bool:
        policy = "Always" if state.sidecar else self.wanted["spec"].get("restartPolicy", "Always")
        if state.init and not state.sidecar:
            return code != 0 and policy != "Never"
        return policy == "Always" or (policy == "OnFailure" and code != 0)

    def _probe(self, state: ContainerState) -> None:
        probes = self._probes[state.name]
        startup, readiness = probes.get("startupProbe"), probes.get("readinessProbe")
        for kind, probe in probes.items():
            now = time.monotonic()
            if now < probe.due or (kind == "startupProbe") is state.started:
                continue
            probe.ask(now)
            if probe.failed and kind != "readinessProbe":
                # Its end is noted, and it is restarted, like any other.
                self._processes[state.name].end(grace=0)
                return
        if startup is not None and startup.passed:
            state.started = True
        state.ready = state.started and (readiness is None or readiness.passed)

    # The end

    def _tear_down(self) -> None:
        """End the containers, sidecars last, and take away network, files and the Pod itself."""
        self._state.deleting = True
        with contextlib.suppress(ApiError):
            self._report()
        deadline = time.monotonic() + (self._grace or 0)
        lasting = [c for c in self._state.containers if c.name in self._processes]
        for group in ([c for c in lasting if not c.sidecar], [c for c in reversed(lasting) if c.sidecar]):
            self._end(group, deadline)
        if self._network is not None:
            with contextlib.suppress(LabError):
                self._place.network.ip(f"link del {self.interface}")
            self._network.close()
        shutil.rmtree(self.directory, ignore_errors=True)
        self.finished.set()
        self._changed()

    def _end(self, states: list[ContainerState], deadline: float) -> None:
        for state in states:
            if self._grace:
                containers.ask_to_end(self._container(state))
        for state in states:
            process = self._processes[state.name]
            while process.running and time.monotonic() < deadline:
                time.sleep(TICK)
            self._place.supervisor.stop(process, grace=0)

    # Help

    def _container(self, state: ContainerState) -> Path:
        return self.directory / "containers" / state.name

    def _pause(self, seconds: float) -> None:
        self._wake.wait(seconds)
        if self.ending:
            raise _EndingError

    def _retried(self, attempt: Callable[[], T], state: ContainerState | None = None) -> T:
        """Do something as soon as what it needs is there; meanwhile the status says what is missing."""
        while True:
            try:
                return attempt()
            except (NotYetError, ApiError) as missing:
                for waiting in [state] if state is not None else self._state.containers:
                    waiting.waiting = ("ContainerCreating", str(missing))
                self._report()
                self._pause(RETRY)

    def _report(self) -> None:
        report = self._state.report()
        if report == self._reported:
            return
        path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}/status"
        body = {"metadata": {"uid": self.uid}, "status": report}
        try:
            self._place.api.request("PATCH", path, body, "application/merge-patch+json")
        except ApiError as error:
            if error.status in (404, 409):  # it is gone, or another has its name
                self.end(0)
            return  # else reported again at the next look
        self._reported = report
        self._changed()


class _EndingError(Exception):
    """The Pod is to end."""
