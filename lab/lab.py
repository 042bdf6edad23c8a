"""The whole lab: a consumer's and a provider's cluster, an internet between them, and the project's own stacks on them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import yaml

import tools
from lab import applications, packages
from lab.cluster import Cluster, ClusterSettings, Machine
from lab.engine import Project, Stack
from lab.errors import LabError
from lab.federation import Authority
from lab.network import Internet, cluster_addresses
from lab.node import images
from lab.processes import Supervisor
from lab.registry import NAME, Registration

HERE = Path(__file__).parent
CONSUMER, PROVIDER = "consumer", "provider"
TRUST_DOMAINS = {CONSUMER: "shop.example", PROVIDER: "data.example"}
CONSUMER_ID = "client.shop.example"
PROVIDER_ID = SYSTEM_DOMAIN = "istio.data.example"
EGRESS_NAMESPACE, INGRESS_NAMESPACE = "mesh-egress", "mesh-ingress"
CLIENT_SECRET, SERVER_SECRET = "consumer-client", "provider-server"
AUTHORITIES = "authorities"
"""Folder, in the lab's, of the federation's authorities; `lab/stacks` refer to it."""
DATABASES = "databases"
"""Namespace of the provider's services, which have no sidecars."""
CLIENT_POD = ("shop", "orders-api")
CLIENT = "/".join(CLIENT_POD)
EGRESS = f"{CONSUMER}/{EGRESS_NAMESPACE}/istio-egressgateway"
INGRESS = f"{PROVIDER}/{INGRESS_NAMESPACE}/provider-ingress"
HOPS = (f"{CONSUMER}/{CLIENT}", EGRESS, INGRESS)
"""The proxies between the application and the service."""
SERVICE = "svc-orders-primary.shop.svc.cluster.local"
QUERY = "SELECT 'PostgreSQL ' || current_setting('server_version') || ' at ' || host(inet_server_addr())"
ANSWER_TIMEOUT = 60.0
"""Seconds within which the first query must be answered once the stacks are up."""


class Lab:
    """Two clusters that know of each other nothing but a name and a certificate authority. A context manager."""

    def __init__(
        self,
        *,
        name: str = NAME,
        settings: Mapping[str, ClusterSettings] | None = None,
        progress: tools.Progress | None = None,
    ) -> None:
        """Prepare a lab; nothing is started yet.

        Args:
            name: of the lab.
            settings: of the clusters by name, where they are not the usual ones.
            progress: where it is said what goes on; by default stderr.
        """
        self.name = name
        self._progress = progress or tools.Progress()
        self._settings = {
            name: ClusterSettings(name, domain) for name, domain in TRUST_DOMAINS.items()
        } | dict(settings or {})
        self.directory = Path()
        self._registration: Registration | None = None
        self._supervisor: Supervisor | None = None
        self._closing: list[Callable[[], None]] = []
        self.internet: Internet
        self.consumer_authority: Authority
        """Signs the client certificates of consumers."""
        self.provider_authority: Authority
        """Signs the server certificates of providers."""
        self.consumer: Cluster
        self.provider: Cluster
        self.project: Project

    def start(self) -> None:
        """Start both clusters, with an application in each, and found the authorities; there is no stack yet.

        Raises:
            LabError: a lab of this name runs, or something does not come up; then nothing is left but the logs.
            tools.ToolError: a program cannot be had.
        """
        if os.geteuid() != 0:
            raise LabError(
                "the lab makes network namespaces and mounts, which only root may: run it with sudo"
            )
        self._registration = registration = Registration.take(self.name)
        try:
            self._prepare(registration)
            self._start_clusters()
        except BaseException as error:
            self.stop(keep_logs=isinstance(error, Exception))
            raise

    def _prepare(self, registration: Registration) -> None:
        progress = self._progress
        absent = packages.missing()
        if absent:
            with progress.step(f"Installing {', '.join(absent)}"):
                packages.install()
        catalogue = images.catalogue(progress)
        self.directory = registration.directory
        self._supervisor = supervisor = Supervisor(self.name)
        supervisor.own_directory(self.directory)
        logs = self.directory / "logs"
        logs.mkdir(parents=True)
        self.internet = Internet(registration.slot, supervisor, logs)
        self._closing.append(self.internet.close)
        machine = Machine(self.internet, supervisor, catalogue, progress)
        clusters = []
        for index, name in enumerate(TRUST_DOMAINS):
            addresses, directory = cluster_addresses(registration.slot, index), self.directory / name
            cluster = Cluster(self._settings[name], addresses, directory, machine)
            clusters.append(cluster)
            registration.clusters[name] = {
                "kubeconfig": str(cluster.kubeconfig),
                "node": str(cluster.node.place.directory),
                "logs": str(cluster.logs),
            }
        self.consumer, self.provider = clusters
        registration.write("starting")
        self.project = Project(self.directory / "project", supervisor, progress)

    def _start_clusters(self) -> None:
        """Start both at once, and the federation; when one fails or Ctrl-C comes, do not wait for the other."""
        clusters = (self.consumer, self.provider)
        with ThreadPoolExecutor(len(clusters) + 1) as pool:
            try:
                begun = [pool.submit(self._start_cluster, cluster) for cluster in clusters]
                for done in [pool.submit(self._found_federation), *begun]:
                    done.result()
            except BaseException:
                for cluster in clusters:
                    cluster.cancelled.set()
                raise

    def _found_federation(self) -> None:
        """The authorities, and a certificate of each for the gateways of `lab/stacks`."""
        place = self.directory / AUTHORITIES
        self.consumer_authority = Authority.create(place / "consumers", "meshbridge-lab consumers")
        self.provider_authority = Authority.create(place / "providers", "meshbridge-lab providers")
        self.consumer_authority.issue("client", CONSUMER_ID, self.provider_authority)
        self.provider_authority.issue("server", PROVIDER_ID, self.consumer_authority)

    def _start_cluster(self, cluster: Cluster) -> None:
        cluster.start()
        if cluster is self.provider:
            cluster.plane.create_namespace(INGRESS_NAMESPACE)
            cluster.apply(*applications.postgres(DATABASES, "postgres"))
        else:
            cluster.plane.create_namespace(EGRESS_NAMESPACE)
            cluster.apply(*applications.client(*CLIENT_POD, service_account="orders-api"))

    def up(self, name: str, configuration: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Apply a stack with Pulumi's engine and return its outputs; the internet knows the record that it exports.

        Args:
            name: of the stack; it is one of this cluster unless the configuration names another kubeconfig.
            configuration: by default `lab/stacks/<name>.yaml`, or what the stack had before.

        Raises:
            LabError: the engine failed.
        """
        stack = self.project.stack(name)
        if configuration is None:
            configuration = stack.configuration if stack.exists else self.usual(name)
        with self._progress.step(f"pulumi up: stack {name}"):
            outputs = stack.up(configuration)
        record = outputs.get("wildcardRecord")
        if record is not None and record["value"] is not None:
            if record["type"] != "A":
                raise LabError(f"the lab's load balancers have addresses, but stack {name} exports {record}")
            self.internet.name({record["name"]: record["value"]})
        return outputs

    def usual(self, name: str) -> dict[str, Any]:
        """The configuration of the stack `consumer` or `provider` as `lab/stacks` has it, for this lab's clusters."""
        configuration: dict[str, Any] = yaml.safe_load((HERE / "stacks" / f"{name}.yaml").read_text())
        cluster, authority = {
            CONSUMER: (self.consumer, self.consumer_authority),
            PROVIDER: (self.provider, self.provider_authority),
        }[name]
        configuration["cluster"]["kubeconfig"] = str(cluster.kubeconfig)
        configuration[name]["caCertificate"] = authority.pem.decode()
        return configuration

    def stack(self, name: str) -> Stack:
        """A stack of this lab."""
        return self.project.stack(name)

    def up_together(self, stacks: Mapping[str, Mapping[str, Any]]) -> None:
        """Apply several stacks at once, by name; none may refer to another of them. See `up`."""
        with ThreadPoolExecutor(len(stacks)) as pool:
            try:
                for done in [pool.submit(self.up, name, wanted) for name, wanted in stacks.items()]:
                    done.result()
            except BaseException:
                self.project.cancel()
                raise

    def connect(
        self,
        providers: Mapping[str, Mapping[str, Any]] | None = None,
        consumers: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> str:
        """Apply the stacks of providers, then those of consumers, and return the first query's answer.

        Args:
            providers: configurations by stack; by default the usual one.
            consumers: the same.

        Raises:
            LabError: a stack fails, or the query is not answered.
        """
        self.up_together(providers or {PROVIDER: self.usual(PROVIDER)})
        self.up_together(consumers or {CONSUMER: self.usual(CONSUMER)})
        with self._progress.step("Waiting for the applications"):
            self.consumer.wait_ready(*CLIENT_POD)
            self.provider.wait_ready(DATABASES, "postgres")
        with self._progress.step("The first query"):
            answer = self._first_answer()
        self._registered_ready()
        return answer

    def _registered_ready(self) -> None:
        assert self._registration is not None  # noqa: S101 - set by start
        self._registration.write("ready")

    def query(self, sql: str, *, host: str = SERVICE, pod: str = CLIENT, timeout: float = 30) -> str:
        """What PostgreSQL answers to the consumer's application.

        Raises:
            LabError: psql failed.
        """
        address = f"host={host} port=5432 user=postgres password={applications.PASSWORD} dbname=postgres connect_timeout=10"
        command = ["psql", address, "--no-psqlrc", "--tuples-only", "--no-align", "--command", sql]
        return self.consumer.exec(pod, command, timeout=timeout).expect_success().strip()

    def _first_answer(self) -> str:
        deadline = time.monotonic() + ANSWER_TIMEOUT
        while True:
            try:
                return self.query(QUERY)
            except LabError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"{error}\n{self._last_seen()}") from None
                time.sleep(0.2)

    def _last_seen(self) -> str:
        """What the hops between the application and the service have logged last, for an error."""
        lines = []
        for hop in HOPS:
            cluster, reference = self._found(hop)
            lines.append(f"The end of the log of {hop}:")
            try:
                lines += [f"  {line}" for line in cluster.last_logged(reference)] or ["  (empty)"]
            except (LabError, OSError) as error:
                lines.append(f"  (there is none: {error})")
        return "\n".join(lines)

    def access_log(self, gateway: str) -> list[dict[str, Any]]:
        """The access-log lines of the proxy of `cluster/namespace/pod`, such as `EGRESS` or `INGRESS`, oldest first."""
        cluster, reference = self._found(gateway)
        return cluster.access_log(reference)

    def _found(self, proxy: str) -> tuple[Cluster, str]:
        """The cluster of `cluster/namespace/pod`, and `namespace/pod`."""
        name, _, reference = proxy.partition("/")
        return {CONSUMER: self.consumer, PROVIDER: self.provider}[name], reference

    def stop(self, *, keep_logs: bool = False) -> None:
        """Stop everything and leave nothing, but for the logs if asked. Stopping twice is as good."""
        for cluster in self._clusters():
            cluster.stop(keep_logs=keep_logs)
        for close in self._closing:
            close()
        self._closing.clear()
        if self._supervisor is not None:
            self._supervisor.close()
            self._supervisor = None
            if not keep_logs:
                shutil.rmtree(self.directory, ignore_errors=True)
        if self._registration is not None:
            self._registration.release()
            self._registration = None

    def _clusters(self) -> list[Cluster]:
        return (
            [getattr(self, name) for name in (CONSUMER, PROVIDER) if hasattr(self, name)]
            if self._closing
            else []
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_rest: object) -> None:
        self.stop(keep_logs=kind is not None and issubclass(kind, Exception))
