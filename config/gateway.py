"""Gateways: Envoy deployments at the edge of a mesh, created by the stack or adopted from elsewhere."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from config.types import (
    Annotations,
    Bytes,
    Cidr,
    Cpu,
    Label,
    Listener,
    LoadBalancerClass,
    Model,
    NodeLabels,
    NonEmpty,
    Percent,
    PodLabels,
    Positive,
    ServiceName,
)

NAMESPACE_LABEL = "meshbridge.io/namespace"
"""Label of the Pods of a gateway that a stack creates: their namespace. It tells them from those of a gateway of the same name
elsewhere, for Istio looks for a server's Pods in all namespaces."""


class Workload(Model):
    """Size and placement of a gateway Deployment that the stack creates."""

    min_replicas: Positive = 2
    """Fewest replicas; the PodDisruptionBudget keeps all but one of them up."""

    max_replicas: Positive = 5
    """Most replicas of the HorizontalPodAutoscaler."""

    target_cpu_percent: Percent = 70
    """CPU utilisation, in per cent of the request, that the autoscaler aims at."""

    cpu_request: Cpu = "100m"
    """CPU that each replica reserves."""

    memory_request: Bytes = "256Mi"
    """Memory that each replica reserves; an endpoint costs Envoy 60 to 80 KiB, or 200 to 220
    on an egress gateway (see the README)."""

    memory_limit: Bytes = "2Gi"
    """Memory at which a replica is ended."""

    drain_seconds: Positive = 45
    """Seconds that open connections have to finish when a replica stops."""

    revision: Label | None = None
    """Istio revision (`istio.io/rev`) whose injector makes the proxy; none: the default revision."""

    node_selector: NodeLabels = Field(default_factory=dict)
    """Node labels that the replicas need."""

    pod_annotations: Annotations = Field(default_factory=dict)
    """Further annotations of the Pods. `proxy.istio.io/config` takes the place of the stack's own, which says `drainSeconds`,
    so it must say `terminationDrainDuration` itself."""


class Gateway(Model):
    """A shared gateway. `adopt: true` uses one that exists; otherwise the stack creates it."""

    name: ServiceName
    """Name of the gateway's Service (and, when created, of its Deployment)."""

    namespace: Label
    """Namespace of the gateway's Pods; the certificate Secret must lie there too."""

    formerly: Label | None = None
    """Name that the gateway had before, so that a rename keeps what stands before it: the load balancer with its fixed
    addresses, and the wildcard record."""

    adopt: bool = False
    """Use a gateway that exists and is owned elsewhere."""

    labels: PodLabels | None = None
    """Labels that select the gateway's Pods and no others: of a gateway that is adopted, in all namespaces. Default:
    `istio: <name>`."""

    service_account: Label | None = None
    """Service account of the gateway's Pods: its identity in the mesh. Default: the name."""

    create_namespace: bool = False
    """Whether the stack makes the namespace of a gateway that it creates, and owns it: `destroy` then deletes the
    namespace with all that is in it."""

    guard_upstream_connections: bool = True
    """Open the upstream connection only after the client's TLS handshake, so that a client without a valid
    certificate opens nothing upstream. Switch it off for proxies older than Envoy 1.37, which refuse the field."""

    workload: Workload = Workload()
    """Size and placement, when the stack creates the gateway."""

    @property
    def selector(self) -> dict[str, str]:
        """The labels that select the gateway's Pods."""
        return self.labels or {"istio": self.name}

    @property
    def server_selector(self) -> dict[str, str]:
        """The labels by which Istio finds the Pods of the gateway's servers."""
        return self.selector if self.adopt else {**self.selector, NAMESPACE_LABEL: self.namespace}

    @property
    def identity(self) -> str:
        """Name of the service account of the gateway's Pods."""
        return self.service_account or self.name


class EgressGateway(Gateway):
    """The consumer's shared egress gateway, which presents the consumer's certificate to providers."""

    name: ServiceName = "istio-egressgateway"
    """Name of the gateway's Service (and, when created, of its Deployment)."""

    namespace: Label = "mesh-egress"
    """Namespace of the gateway's Pods; the client certificate's Secret must lie there too."""

    port: Listener = 443
    """Port of the gateway's Service on which sidecars reach it."""

    egress_cidrs: NonEmpty[Cidr] = ("0.0.0.0/0", "::/0")
    """Networks to which the gateway's Pods may connect on the providers' ports, when the stack creates the gateway."""


class PublicService(Model):
    """How the ingress gateway's Service is reached from the internet."""

    type: Literal["LoadBalancer", "NodePort", "ClusterIP"] = "LoadBalancer"
    """Type of the Service."""

    load_balancer_class: LoadBalancerClass | None = None
    """Implementation that serves the load balancer, for example `service.k8s.aws/nlb`."""

    annotations: Annotations = Field(default_factory=dict)
    """Annotations of the Service, which load-balancer controllers read."""

    source_ranges: tuple[Cidr, ...] = ()
    """Client networks that the load balancer admits; none: all."""

    external_traffic_policy: Literal["Cluster", "Local"] = "Local"
    """`Local` keeps the client's address and the hop inside a node; `Cluster` spreads over all nodes."""


class IngressGateway(Gateway):
    """The provider's shared ingress gateway, which asks every client for its certificate."""

    name: ServiceName = "provider-ingress"
    """Name of the gateway's Service (and, when created, of its Deployment)."""

    namespace: Label = "mesh-ingress"
    """Namespace of the gateway's Pods; the server certificate's Secret must lie there too."""

    service: PublicService = PublicService()
    """How the gateway's Service is reached, when the stack creates it."""
