"""One cluster of the lab: control plane, node and Istio, with networks of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tools
from lab import istio
from lab.access import PROXY, ClusterAccess
from lab.components import ISTIO_NAMESPACE, Site
from lab.control_plane import ControlPlane
from lab.errors import ApiError
from lab.network import ClusterAddresses, ClusterNetwork, Internet, cluster_network
from lab.node.agent import Node
from lab.node.images import Catalogue
from lab.node.pod import Place
from lab.processes import Supervisor

ADMISSION = "admissionregistration.k8s.io/v1"
DOMAIN = "cluster.local"


@dataclass(frozen=True)
class Machine:
    """What the clusters of a lab share."""

    internet: Internet
    supervisor: Supervisor
    images: Catalogue
    progress: tools.Progress


@dataclass(frozen=True)
class ClusterSettings:
    """What a cluster is made with."""

    name: str
    trust_domain: str
    mesh: Mapping[str, object] = field(default_factory=dict)
    """More of the mesh configuration."""
    pilot: Mapping[str, str] = field(default_factory=dict)
    """More of istiod's environment."""


class Cluster(ClusterAccess):
    """A cluster that runs."""

    def __init__(
        self,
        settings: ClusterSettings,
        addresses: ClusterAddresses,
        directory: Path,
        machine: Machine,
    ) -> None:
        """Make its networks; `start` does the rest.

        Raises:
            LabError: they cannot be made.
        """
        name = settings.name
        self.settings = settings
        self.addresses = addresses
        self.directory = directory
        self._progress = machine.progress
        self.network: ClusterNetwork = cluster_network(name, addresses, machine.internet, machine.supervisor)
        site = Site(addresses.node, self.network.node.prefix, addresses.services)
        self.plane = ControlPlane(name, directory / "control-plane", site=site, progress=machine.progress)
        place = Place(
            name=f"{name}-node",
            address=addresses.node,
            domain=DOMAIN,
            api_service=site.api_service,
            directory=directory / "node",
            logs=directory / "logs",
            network=self.network.node,
            api=self.plane.api,
            supervisor=machine.supervisor,
            images=machine.images,
        )
        self.node = Node(place, addresses, self.network.edge, machine.internet.address)
        super().__init__(name, self.plane.api, self.plane.kubeconfig, place.directory, place.logs)

    def start(self) -> None:
        """Start everything and wait until Pods can be made and are injected.

        Raises:
            LabError: something does not come up.
        """
        (self.directory / "logs").mkdir(parents=True)
        istioctl = tools.ensure("istioctl", self._progress)
        with self._progress.step(f"{self.name}: etcd, API server, controllers"):
            self.plane.start()
        self.node.start()
        with self._progress.step(f"{self.name}: istiod with its webhooks"):
            wanted = istio.installation(
                self.name, self.settings.trust_domain, self.settings.mesh, self.settings.pilot
            )
            for item in istio.manifests(istioctl, wanted, self.directory):
                if item["kind"] != "CustomResourceDefinition":
                    self.api.apply(item)
            self.wait_ready(ISTIO_NAMESPACE, "istiod")
            self.wait_until(self._webhooks_work, "istiod's webhooks answer")

    def stop(self, *, keep_logs: bool = False) -> None:
        """Stop everything."""
        self.node.stop()
        self.plane.stop(keep_logs=keep_logs)
        self.node.join()
        self.network.close()

    def _webhooks_work(self) -> bool:
        kind, name = istio.INJECTOR
        webhooks = [self.api.get(ADMISSION, kind, name)]
        webhooks += [
            self.api.get(ADMISSION, "ValidatingWebhookConfiguration", each) for each in istio.VALIDATORS
        ]
        return (
            all(istio.is_called(hook) for hook in webhooks)
            and self.plane.istiod_refuses()
            and self._injects()
        )

    def _injects(self) -> bool:
        labels = {"sidecar.istio.io/inject": "true"}
        probe = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "injection-probe", "labels": labels},
            "spec": {"containers": [{"name": "app", "image": "client"}]},
        }
        try:
            pod = self.api.request("POST", "/api/v1/namespaces/default/pods", probe, query={"dryRun": "All"})
        except ApiError:
            return False
        spec = pod["spec"]
        return any(c["name"] == PROXY for c in (*spec["containers"], *spec.get("initContainers", [])))
