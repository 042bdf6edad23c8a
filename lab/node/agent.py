"""The node's own work: it binds Pods, serves Services, enforces NetworkPolicies and answers names."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from lab import dns, firewall
from lab.api import Api, Object
from lab.dns import NameServer
from lab.errors import ApiError, LabError
from lab.firewall import PodPlace
from lab.netns import NetworkNamespace
from lab.network import ClusterAddresses
from lab.node.pod import Place, Pod
from lab.node.spec import NODE_CPU, NODE_MEMORY
from lab.node.status import timestamp
from lab.watch import Watch

HEARTBEAT = 10.0
"""Seconds between two renewals of the node's lease."""
SYNC = 2.0
"""Seconds after which the node looks again, though nothing was said to have changed."""
LEASE_SECONDS = 40
DISCOVERY = "discovery.k8s.io/v1"
NETWORKING = "networking.k8s.io/v1"


class Node:
    """The one node of a cluster."""

    def __init__(
        self, place: Place, addresses: ClusterAddresses, edge: NetworkNamespace, names_from: str
    ) -> None:
        """Prepare it; `start` begins.

        Args:
            place: where Pods run.
            addresses: the cluster's.
            edge: network of the cluster's edge, where the load balancers are.
            names_from: address of the name server for names outside the cluster.
        """
        self.place = place
        self._addresses = addresses
        self._api: Api = place.api
        self._pods: dict[str, Pod] = {}
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._watches: dict[str, Watch] = {}
        self._balancers: dict[str, str] = {}
        """Address of the load balancer by the Service's uid."""
        self._edge = edge
        self._tables: dict[tuple[str, str], str] = {}
        self._hosts = place.directory / "hosts"
        self._names_from = names_from
        self.names = NameServer(f"{place.name} DNS", place.network, place.logs / "dns.log", place.supervisor)
        self._thread = threading.Thread(target=self._run, name=place.name, daemon=True)
        self.error: str | None = None
        """Why the node's last look at the cluster failed; None when it did not."""

    def start(self) -> None:
        """Register the node and begin its work."""
        place = self.place
        place.directory.mkdir(parents=True, exist_ok=True)
        self._hosts.write_text("")
        self.start_names()
        self._register()
        for api_version, kind in (
            ("v1", "Pod"),
            ("v1", "Service"),
            ("v1", "Namespace"),
            (DISCOVERY, "EndpointSlice"),
            (NETWORKING, "NetworkPolicy"),
        ):
            self._watches[kind] = Watch(self._api, api_version, kind, self._wake.set)
        self._thread.start()

    def start_names(self) -> None:
        """Start the cluster's name server."""
        place = self.place
        self.names.run(dns.cluster_arguments(place.address, self._hosts, place.domain, self._names_from))

    def stop(self) -> None:
        """Stop working. Containers are ended by their supervisor; call `join` when the API server is gone too."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()
        for watch in self._watches.values():
            watch.stop()
        for pod in self._pods.values():
            pod.end(0)

    def join(self) -> None:
        """Wait until all threads have ended."""
        for pod in self._pods.values():
            pod.join()
        for watch in self._watches.values():
            watch.join()

    def container(self, namespace: str, pod: str, container: str) -> Path:
        """The directory of a container."""
        return container_directory(self.place.directory, namespace, pod, container)

    def _run(self) -> None:
        self.place.network.enter()
        renew_at = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() > renew_at:
                    self._renew_lease()
                    renew_at = time.monotonic() + HEARTBEAT
                self._sync()
                self.error = None
            except LabError as error:
                self.error = str(error)
            self._wake.wait(SYNC)
            self._wake.clear()

    def _sync(self) -> None:
        pods = self._watches["Pod"].items()
        self._sync_pods(pods)
        services = self._watches["Service"].items()
        self._balance(services)
        slices = self._watches["EndpointSlice"].items()
        self._write_names(services, slices)
        cluster_ips, balancers = firewall.virtuals(services, slices)
        self._load(self.place.network, firewall.nat_table(cluster_ips))
        self._load(self._edge, firewall.nat_table(balancers, hidden=str(self._addresses.pods)))
        labels = {
            item["metadata"]["name"]: item["metadata"].get("labels", {})
            for item in self._watches["Namespace"].items()
        }
        policies = self._watches["NetworkPolicy"].items()
        self._load(self.place.network, firewall.filter_table(policies, self._places(pods), labels))

    def _sync_pods(self, pods: list[Object]) -> None:
        known = {pod["metadata"]["uid"] for pod in pods}
        for uid, running in list(self._pods.items()):
            if running.finished.is_set():
                self._remove(running)
                del self._pods[uid]
            elif uid not in known:
                running.end(0)
        for pod in pods:
            metadata = pod["metadata"]
            running_pod = self._pods.get(metadata["uid"])
            if "deletionTimestamp" in metadata:
                if running_pod is None:
                    self._remove_object(metadata)
                elif not running_pod.ending:
                    running_pod.end(float(metadata.get("deletionGracePeriodSeconds", 30)))
            elif running_pod is None and self._is_ours(pod) and not self._has_same_name(metadata):
                self._take(pod)

    def _is_ours(self, pod: Object) -> bool:
        if pod["spec"].get("nodeName", self.place.name) != self.place.name:
            return False
        return pod.get("status", {}).get("phase", "Pending") in ("Pending", "Running", "Unknown")

    def _has_same_name(self, metadata: Object) -> bool:
        return any(
            (pod.namespace, pod.name) == (metadata["namespace"], metadata["name"])
            for pod in self._pods.values()
        )

    def _take(self, pod: Object) -> None:
        metadata = pod["metadata"]
        if "nodeName" not in pod["spec"]:
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
                "target": {"apiVersion": "v1", "kind": "Node", "name": self.place.name},
            }
            path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
            self._api.request("POST", path, binding)
        running = Pod(pod, self._free_address(), self.place, self._wake.set)
        self._pods[metadata["uid"]] = running
        running.start()

    def _free_address(self) -> str:
        used = {pod.address for pod in self._pods.values()}
        for address in self._addresses.pods.hosts():
            if str(address) not in used:
                return str(address)
        raise LabError(f"{self.place.name} has no address left for a Pod in {self._addresses.pods}")

    def _remove(self, pod: Pod) -> None:
        self._remove_object({"namespace": pod.namespace, "name": pod.name, "uid": pod.uid})

    def _remove_object(self, metadata: Object) -> None:
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        options = {"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}
        try:
            self._api.request("DELETE", path, {**options, "preconditions": {"uid": metadata["uid"]}})
        except ApiError as error:
            if error.status not in (404, 409):
                raise

    def _places(self, pods: list[Object]) -> list[PodPlace]:
        wanted = {pod["metadata"]["uid"]: pod for pod in pods}
        return [
            PodPlace(
                pod.namespace,
                wanted[uid]["metadata"].get("labels", {}),
                pod.address,
                pod.interface,
                {
                    port["name"]: port["containerPort"]
                    for container in pod.wanted["spec"]["containers"]
                    for port in container.get("ports", [])
                    if "name" in port
                },
            )
            for uid, pod in self._pods.items()
            if uid in wanted
        ]

    def _balance(self, services: list[Object]) -> None:
        """Give each load-balancer Service an address on the internet."""
        wanted = {s["metadata"]["uid"]: s for s in services if s["spec"].get("type") == "LoadBalancer"}
        for uid in set(self._balancers) - set(wanted):
            del self._balancers[uid]
        for uid, service in wanted.items():
            given = (service.get("status", {}).get("loadBalancer") or {}).get("ingress")
            if uid not in self._balancers:
                used = set(self._balancers.values())
                free = [address for address in self._addresses.balancers if address not in used]
                if not free:
                    raise LabError(f"{self.place.name} has no address left for load balancers")
                self._balancers[uid] = given[0]["ip"] if given else free[0]
            if not given:
                metadata = service["metadata"]
                path = f"/api/v1/namespaces/{metadata['namespace']}/services/{metadata['name']}/status"
                status = {"status": {"loadBalancer": {"ingress": [{"ip": self._balancers[uid]}]}}}
                self._api.request("PATCH", path, status, "application/merge-patch+json")

    def _write_names(self, services: list[Object], slices: list[Object]) -> None:
        text = dns.service_names(services, slices, self.place.domain)
        if text != self._hosts.read_text():
            self._hosts.write_text(text)
            if self.names.process is not None:
                self.names.process.send(signal.SIGHUP)

    def _load(self, network: NetworkNamespace, table: str) -> None:
        key = (network.name, table.partition("\n")[0])
        if self._tables.get(key) != table:
            network.run("iptables-restore", "--wait", text=table)
            self._tables[key] = table

    def _register(self) -> None:
        place = self.place
        self._api.apply(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": place.name, "labels": {"kubernetes.io/hostname": place.name}},
                "spec": {"podCIDR": str(self._addresses.pods)},
            }
        )
        capacity = {"cpu": str(int(NODE_CPU)), "memory": str(NODE_MEMORY), "pods": "250"}
        now = timestamp()
        condition = {
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }  # fmt: skip
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [condition],
            "addresses": [{"type": "InternalIP", "address": place.address}],
            "nodeInfo": {
                **_NODE_INFO,
                # By it istiod decides whether sidecars may be native.
                "kubeletVersion": self._api.request("GET", "/version")["gitVersion"],
            },
        }
        self._api.request(
            "PATCH", f"/api/v1/nodes/{place.name}/status", {"status": status}, "application/merge-patch+json"
        )

    def _renew_lease(self) -> None:
        now = timestamp().replace("Z", ".000000Z")
        self._api.apply(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": self.place.name, "namespace": "kube-node-lease"},
                "spec": {
                    "holderIdentity": self.place.name,
                    "leaseDurationSeconds": LEASE_SECONDS,
                    "renewTime": now,
                },
            }
        )


def container_directory(node: Path, namespace: str, pod: str, container: str) -> Path:
    """The directory of a container below that of its node."""
    return node / "pods" / f"{namespace}_{pod}" / "containers" / container


_NODE_INFO: Mapping[str, str] = {
    "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "lab://1", "kernelVersion": "", "kubeProxyVersion": "",
    "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
}  # fmt: skip
