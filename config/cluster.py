"""Where the stack is applied, and what the mesh of that cluster calls itself."""

from __future__ import annotations

from typing import Literal

from config.types import Host, Label, Model, Port, Text, TrustDomain, WarningDays


class IstioCsr(Model):
    """cert-manager's istio-csr, which signs the mesh's certificates in istiod's place."""

    namespace: Label = "cert-manager"
    """Namespace of its Pods."""

    port: Port = 6443
    """Port of its Pods, to which its Service leads."""


class MeshCa(Model):
    """The intermediate authority with which istiod signs the mesh's certificates, as `python -m pki mesh-ca` writes it: the
    Secret `cacerts` in `meshNamespace`. Exactly one of `stackSecret` and `directory` is given."""

    stack_secret: Label | None = None
    """The stack carries it: `python -m pki store` writes it as the secret `meshbridge:certificate-<this name>`."""

    directory: Text | None = None
    """A directory with `ca-cert.pem`, `ca-key.pem`, `cert-chain.pem` and `root-cert.pem`, on the machine that deploys;
    relative to the project's."""

    warning_days: WarningDays = 60
    """Days before its end from which on it draws a warning at preview."""


class Cluster(Model):
    """The stack's cluster. Exactly one way to reach it is chosen: a kubeconfig (a file, a
    secret, or the user's default one by `context`), or `render`."""

    kubeconfig: Text | None = None
    """Path of the kubeconfig file; `~` is the home directory."""

    kubeconfig_secret: bool = False
    """The contents of the kubeconfig are in this file, as the secret `meshbridge:kubeconfig`
    (`cat FILE | pulumi config set --secret kubeconfig`)."""

    context: Text | None = None
    """Context of the kubeconfig; without `kubeconfig`, of the user's default file."""

    render: bool = False
    """Write the objects to `build/<stack>/` instead of applying them to a cluster (for GitOps, or for reading)."""

    trust_domain: TrustDomain = "cluster.local"
    """The mesh's SPIFFE trust domain (meshConfig.trustDomain)."""

    domain: Host = "cluster.local"
    """The cluster's DNS domain."""

    mesh_namespace: Label = "istio-system"
    """Namespace of istiod, which is Istio's root namespace."""

    istio_csr: IstioCsr | None = None
    """Who signs the mesh's certificates, where istiod does not: gateways that the stack creates may then reach it."""

    mesh_ca: MeshCa | None = None
    """What istiod signs the mesh's certificates with, in place of a root that it makes itself. The stack makes the
    Secret, so exactly one stack of a cluster says this."""

    await_readiness: bool = True
    """Whether `up` waits until Deployments are ready and load balancers have an address."""

    ip_family: Literal["IPv4", "IPv6"] = "IPv4"
    """IP family of the virtual IPs that the stack makes."""
