"""One cluster's control plane: etcd, kube-apiserver, kube-controller-manager, Istio's kinds and, if wanted, istiod."""

from __future__ import annotations

import base64
import csv
import io
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

import yaml

import tools
from lab import components, pki
from lab.api import Api, Object, answers
from lab.components import ISTIO_NAMESPACE, Layout, Ports, Site
from lab.errors import ApiError, LabError
from lab.kubeconfig import Access, write_kubeconfig
from lab.ports import LOOPBACK, free_ports
from lab.processes import POLL, Process, Supervisor

ADMINISTRATOR = "admin"
ADMINISTRATORS = "system:masters"
"""The group that may do everything, whatever RBAC says."""
START_TIMEOUT = 120.0
"""Seconds within which each part must be ready: 4 on an idle machine, 20 on one with four times its load."""
WAIT_TIMEOUT = 60.0
"""Seconds within which the API server and the controllers must do what they were asked."""

_NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager")
_PROBE: Object = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "Gateway",
    "metadata": {"name": "meshbridge-lab-probe", "namespace": "default"},
    "spec": {"servers": []},
}
"""An object that istiod refuses and nothing else does."""


class ControlPlane:
    """A real control plane of one cluster.

    Use it as a context manager, or `start` and `stop` it. When it stops, neither a process nor a file is left, but for the
    logs if something failed.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        istiod: bool = False,
        users: Mapping[str, tuple[str, ...]] | None = None,
        site: Site | None = None,
        progress: tools.Progress | None = None,
    ) -> None:
        """Prepare a control plane; nothing is started or written yet.

        Args:
            name: of the cluster; a DNS label.
            directory: for its files; must not exist yet or be empty, and is removed by `stop`.
            istiod: also run istiod, with its validating webhook on and failing closed.
            users: more users by name, each with its groups; without RBAC objects they may do nothing.
            site: where it runs; by default on the loopback interface.
            progress: where the building of binaries is shown; by default stderr.
        """
        self.name = name
        self.has_istiod = istiod
        self._layout = Layout(directory)
        self._site = site or Site()
        self._users = {ADMINISTRATOR: (ADMINISTRATORS,), **(users or {})}
        self._tokens = {user: secrets.token_hex(16) for user in self._users}
        self._progress = progress or tools.Progress()
        self._authority = pki.Authority.create(f"meshbridge-lab-{name}")
        self._ports = Ports(*free_ports(len(Ports.__dataclass_fields__)))
        self._access = Access(
            name, f"https://{self._site.address}:{self._ports.api_server}", self._authority.pem
        )
        self.api = Api(self._access, self._tokens[ADMINISTRATOR])
        self._supervisor: Supervisor | None = None
        self._api_server: Process | None = None
        self._istiod: Process | None = None

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig; there while the control plane runs."""
        return self._layout.kubeconfig

    @property
    def server(self) -> str:
        """URL of the API server; the same for the control plane's whole life."""
        return self._access.server

    @property
    def logs(self) -> Path:
        """Folder of the parts' logs."""
        return self._layout.logs

    @property
    def processes(self) -> tuple[Process, ...]:
        """The parts that run."""
        return self._supervisor.running if self._supervisor is not None else ()

    def token(self, user: str = ADMINISTRATOR) -> str:
        """The token of a user.

        Raises:
            LabError: there is no such user.
        """
        try:
            return self._tokens[user]
        except KeyError:
            raise LabError(
                f"{self.name} has no user {user!r}; there are: {', '.join(self._tokens)}"
            ) from None

    def kubeconfig_for(self, token: str, path: Path | None = None) -> Path:
        """Write a kubeconfig with any token, a wrong or a service account's one too.

        Args:
            token: see `token` for the users' own.
            path: where to; by default a new file that is gone with the control plane.
        """
        target = path or self._layout.data / f"kubeconfig-{secrets.token_hex(4)}"
        return write_kubeconfig(target, self._access, token)

    def api_for(self, token: str) -> Api:
        """A client with any token."""
        return Api(self._access, token)

    def start(self) -> None:
        """Start everything and wait until it is ready, building binaries that are not there yet.

        Raises:
            LabError: a part does not come up; the message shows the end of its log. Everything is stopped again and
                the logs are kept.
            tools.ToolError: a binary cannot be had.
        """
        if self._supervisor is not None:
            raise LabError(f"the control plane {self.name} is running already; stop it first")
        wanted = (*_NEEDED, *(("pilot-discovery",) if self.has_istiod else ()))
        binaries = {tool: tools.ensure(tool, self._progress) for tool in wanted}
        crds = _istio_crds()
        self._supervisor = Supervisor(self.name)
        try:
            self._prepare_directory(self._supervisor)
            self._start_parts(binaries, crds)
        except BaseException:
            self.stop(keep_logs=True)
            raise

    def stop(self, *, keep_logs: bool = False) -> None:
        """End all processes and remove all files. Stopping twice is as good.

        The logs are kept if asked, or if a part had ended by itself.
        """
        if self._supervisor is None:
            return
        keep_logs = keep_logs or not all(process.running for process in self.processes)
        self._supervisor.close()
        self._supervisor = self._api_server = self._istiod = None
        shutil.rmtree(self._layout.data if keep_logs else self._layout.root, ignore_errors=True)

    def stop_api_server(self) -> None:
        """Kill the API server; the rest goes on without it.

        Asked kindly, it would wait for its clients' watches.
        """
        supervisor, process = self._running(self._api_server, "API server")
        supervisor.stop(process, grace=0)
        self._api_server = None

    def start_api_server(self) -> None:
        """Start the API server again, with the same address, users and data, and wait until it is ready.

        Raises:
            LabError: it does not come up.
        """
        if self._supervisor is None or self._api_server is not None:
            raise LabError(f"{self.name}: the API server can only be started again after stop_api_server")
        self._run_api_server(tools.ensure("kube-apiserver", self._progress))

    def stop_istiod(self) -> None:
        """End istiod; from now on every change of an Istio object is refused."""
        supervisor, process = self._running(self._istiod, "istiod")
        supervisor.stop(process)
        self._istiod = None

    def start_istiod(self) -> None:
        """Start istiod again, and wait until its webhook answers.

        Raises:
            LabError: it does not come up.
        """
        if self._supervisor is None or self._istiod is not None or not self.has_istiod:
            raise LabError(f"{self.name}: istiod can only be started again after stop_istiod")
        self._run_istiod(tools.ensure("pilot-discovery", self._progress))

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Make a namespace and wait for its default service account, as Pods in it need it."""
        self.api.apply(_namespace(name, labels or {}))
        _wait(
            lambda: self._has_account(name),
            lambda: f"namespace {name} of {self.name} has no default service account",
        )

    def delete_namespace(self, name: str) -> None:
        """Delete a namespace with all that is in it, and wait until it is gone.

        Raises:
            LabError: it is not gone in time; the message shows what it waits for.
        """
        self.api.delete("v1", "Namespace", name)
        _wait(
            lambda: self.api.get("v1", "Namespace", name) is None,
            lambda: f"namespace {name} of {self.name} is not gone: {self._why_not_gone(name)}",
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self.stop(keep_logs=kind is not None and issubclass(kind, Exception))

    def _running(self, process: Process | None, what: str) -> tuple[Supervisor, Process]:
        if self._supervisor is None or process is None:
            raise LabError(f"{self.name}: the {what} does not run")
        return self._supervisor, process

    def _prepare_directory(self, supervisor: Supervisor) -> None:
        layout = self._layout
        if layout.root.exists() and any(layout.root.iterdir()):
            raise LabError(
                f"{layout.root} is not empty: it may belong to another control plane or hold the logs of one that "
                "failed. Remove it or name another directory."
            )
        layout.logs.mkdir(parents=True)
        layout.data.mkdir(mode=0o700)
        supervisor.own_directory(layout.root)
        serving = self._authority.serving(
            [self._site.address, self._site.api_service, LOOPBACK, "localhost", "kubernetes.default.svc"]
        )
        layout.authority.write_bytes(self._authority.pem)
        layout.certificate.write_bytes(serving.certificate)
        layout.key.write_bytes(serving.key)
        layout.account_key.write_bytes(pki.signing_key())
        layout.tokens.write_text(_token_file(self._tokens, self._users))
        layout.mesh.write_text("{}\n")
        write_kubeconfig(layout.kubeconfig, self._access, self._tokens[ADMINISTRATOR])

    def _start_parts(self, binaries: Mapping[str, Path], crds: list[Object]) -> None:
        self._run("etcd", binaries["etcd"], components.etcd(self._layout, self._ports))
        self._run_api_server(binaries["kube-apiserver"])
        for crd in crds:
            self.api.apply(crd)
        manager = self._run(
            "kube-controller-manager",
            binaries["kube-controller-manager"],
            components.controller_manager(self._layout),
        )
        self.api.apply(_namespace(ISTIO_NAMESPACE, {}))
        manager.wait_until(
            lambda: self._has_account(ISTIO_NAMESPACE), "making service accounts", timeout=START_TIMEOUT
        )
        _wait(
            lambda: all(_is_served(self.api, crd) for crd in crds),
            lambda: f"{self.name} does not serve Istio's kinds",
        )
        if self.has_istiod:
            self._run_istiod(binaries["pilot-discovery"])

    def _run_api_server(self, binary: Path) -> None:
        arguments = components.api_server(self._layout, self._ports, self._site)
        self._api_server = self._run("kube-apiserver", binary, arguments)
        self._api_server.wait_until(
            lambda: answers(lambda: self.api.request("GET", "/readyz")), "ready", timeout=START_TIMEOUT
        )

    def _run_istiod(self, binary: Path) -> None:
        arguments = components.istiod(self._layout, self._ports)
        self._istiod = self._run("istiod", binary, arguments, components.istiod_environment(self.name))
        self._istiod.wait_until(
            lambda: self._mesh_authority() is not None,
            "publishing its root certificate",
            timeout=START_TIMEOUT,
        )
        authority = base64.b64encode((self._mesh_authority() or "").encode()).decode()
        self.api.apply(components.validation_webhook(self._ports, authority))
        self._istiod.wait_until(self.istiod_refuses, "validating", timeout=START_TIMEOUT)

    def _run(
        self, name: str, binary: Path, arguments: list[str], environment: Mapping[str, str] | None = None
    ) -> Process:
        assert self._supervisor is not None  # noqa: S101 - set by start
        log = self._layout.logs / f"{name}.log"
        return self._supervisor.start(
            name, [*self._site.prefix, binary, *arguments], log, environment, self._layout.data
        )

    def _mesh_authority(self) -> str | None:
        """istiod's root certificate, PEM; None until it has published it."""
        found = self.api.get("v1", "ConfigMap", "istio-ca-root-cert", ISTIO_NAMESPACE)
        return str(found["data"]["root-cert.pem"]) if found is not None else None

    def istiod_refuses(self) -> bool:
        """Whether the API server has learnt of the webhook and istiod answers it."""
        try:
            self.api.apply(_PROBE, dry_run=True)
        except ApiError as error:
            return error.status == 400 and "admission webhook" in str(error)
        return False

    def _why_not_gone(self, namespace: str) -> str:
        found = self.api.get("v1", "Namespace", namespace) or {}
        conditions = found.get("status", {}).get("conditions", [])
        messages = [condition["message"] for condition in conditions if condition["status"] == "True"]
        return "; ".join(messages) or "no reason given"

    def _has_account(self, namespace: str) -> bool:
        return self.api.get("v1", "ServiceAccount", "default", namespace) is not None


def _namespace(name: str, labels: Mapping[str, str]) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": dict(labels)}}


def _token_file(tokens: Mapping[str, str], users: Mapping[str, tuple[str, ...]]) -> str:
    """The API server's static token file: token, user, user id, groups."""
    text = io.StringIO()
    csv.writer(text).writerows([token, user, user, ",".join(users[user])] for user, token in tokens.items())
    return text.getvalue()


def _istio_crds() -> list[Object]:
    """The definitions of Istio's kinds, from the source of the pinned version."""
    path = tools.istio_source() / "manifests" / "charts" / "base" / "files" / "crd-all.gen.yaml"
    return [document for document in yaml.load_all(path.read_bytes(), Loader=yaml.CSafeLoader) if document]


def _is_served(api: Api, crd: Object) -> bool:
    """Whether the server answers for a defined kind, in its stored version."""
    spec = crd["spec"]
    stored = next(version["name"] for version in spec["versions"] if version["storage"])
    return answers(lambda: api.items(f"{spec['group']}/{stored}", spec["names"]["kind"]))


def _wait(done: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + WAIT_TIMEOUT
    while not done():
        if time.monotonic() > deadline:
            raise LabError(f"{what()} after {WAIT_TIMEOUT:.0f} s")
        time.sleep(POLL)
