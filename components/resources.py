"""Thin resources: one class a kind, each an object of the Kubernetes provider with the type token of Pulumi's SDK.

They take a Manifest whole. Pulumi's generated classes would do the same, but importing those of `core.v1` alone
takes twice as long as the rest of the program (see bench/).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, ClassVar

import pulumi

from routing import Manifest

PLUGIN_VERSION = version("pulumi_kubernetes")


def owner() -> str:
    """Fully qualified name of the stack that runs."""
    return f"{pulumi.get_organization()}/{pulumi.get_project()}/{pulumi.get_stack()}"


class KubernetesObject(pulumi.CustomResource):
    """An object of the cluster. Outputs: `metadata`, `spec`, `status` as the API server returns them."""

    api_version: ClassVar[str]
    kind: ClassVar[str]
    _classes: ClassVar[dict[tuple[str, str], type[KubernetesObject]]] = {}

    metadata: pulumi.Output[Mapping[str, Any]]
    spec: pulumi.Output[Mapping[str, Any]]
    status: pulumi.Output[Mapping[str, Any] | None]

    def __init_subclass__(cls, api_version: str, kind: str) -> None:
        cls.api_version, cls.kind = api_version, kind
        KubernetesObject._classes[api_version, kind] = cls

    def __init__(self, name: str, manifest: Manifest, opts: pulumi.ResourceOptions) -> None:
        group = f"core/{self.api_version}" if self.api_version == "v1" else self.api_version
        super().__init__(
            f"kubernetes:{group}:{self.kind}", name, {**manifest.as_dict(owner()), "status": None}, opts
        )


class KubernetesProvider(pulumi.ProviderResource):
    """The plugin's configuration for one cluster, or for a folder.

    Source: https://www.pulumi.com/registry/packages/kubernetes/api-docs/provider/. Numbers and truth values travel as
    JSON texts, as Pulumi's own class sends them.
    """

    def __init__(
        self,
        name: str,
        *,
        kubeconfig: pulumi.Input[str] | None,
        context: str | None,
        rendered_to: str | None,
    ) -> None:
        """kubeconfig: contents or path. rendered_to: folder that gets the objects, instead of a cluster."""
        applied = None if rendered_to is not None else "true"
        super().__init__(
            "kubernetes",
            name,
            {
                "kubeconfig": kubeconfig,
                "context": context,
                "renderYamlToDirectory": rendered_to,
                "enableServerSideApply": applied,
                "upsertExistingObjects": applied,
                # A certificate is renewed in its Secret: a replacement would take the Secret away for a while.
                "enableSecretMutable": applied,
            },
            pulumi.ResourceOptions(version=PLUGIN_VERSION),
        )


def declare(
    name: str,
    manifest: Manifest,
    *,
    parent: pulumi.Resource | None = None,
    provider: pulumi.ProviderResource | None = None,
    after: Sequence[pulumi.Resource] = (),
    formerly: Sequence[str] = (),
    delete_first: bool = False,
) -> KubernetesObject:
    """Declares `manifest` as a resource of its kind's class, after the resources that it needs.

    A child has its parent's provider; without a parent, `provider` says which. formerly: names that the resource had
    before. delete_first: where it is replaced, the old object goes before the new one comes.

    Raises KeyError for a kind that has no class here.
    """
    opts = pulumi.ResourceOptions(
        parent=parent,
        provider=provider,
        depends_on=list(after),
        aliases=[pulumi.Alias(name=name) for name in formerly],
        delete_before_replace=delete_first or None,
        version=PLUGIN_VERSION,
    )
    return KubernetesObject._classes[manifest.api_version, manifest.kind](name, manifest, opts)


class Namespace(KubernetesObject, api_version="v1", kind="Namespace"):
    """A namespace."""


class Service(KubernetesObject, api_version="v1", kind="Service"):
    """A Service: a virtual IP, or the address of a gateway or the broker."""


class ServiceAccount(KubernetesObject, api_version="v1", kind="ServiceAccount"):
    """The identity of Pods."""


class ConfigMap(KubernetesObject, api_version="v1", kind="ConfigMap"):
    """A ConfigMap."""


class Secret(KubernetesObject, api_version="v1", kind="Secret"):
    """A Secret."""


class PersistentVolumeClaim(KubernetesObject, api_version="v1", kind="PersistentVolumeClaim"):
    """A volume that outlives Pods."""


class Role(KubernetesObject, api_version="rbac.authorization.k8s.io/v1", kind="Role"):
    """Rights in a namespace."""


class RoleBinding(KubernetesObject, api_version="rbac.authorization.k8s.io/v1", kind="RoleBinding"):
    """Grants a Role."""


class Deployment(KubernetesObject, api_version="apps/v1", kind="Deployment"):
    """A gateway's Pods, or the broker's."""


class PodDisruptionBudget(KubernetesObject, api_version="policy/v1", kind="PodDisruptionBudget"):
    """How many of a workload's Pods may be away."""


class HorizontalPodAutoscaler(KubernetesObject, api_version="autoscaling/v2", kind="HorizontalPodAutoscaler"):
    """A gateway's size."""


class NetworkPolicy(KubernetesObject, api_version="networking.k8s.io/v1", kind="NetworkPolicy"):
    """What Pods may reach and be reached by."""


class CertificateRequest(KubernetesObject, api_version="cert-manager.io/v1", kind="Certificate"):
    """A Secret that cert-manager keeps."""


class Gateway(KubernetesObject, api_version="networking.istio.io/v1", kind="Gateway"):
    """Servers of a gateway's listeners."""


class VirtualService(KubernetesObject, api_version="networking.istio.io/v1", kind="VirtualService"):
    """Routes."""


class DestinationRule(KubernetesObject, api_version="networking.istio.io/v1", kind="DestinationRule"):
    """Policy towards a host: TLS, connection pool."""


class ServiceEntry(KubernetesObject, api_version="networking.istio.io/v1", kind="ServiceEntry"):
    """A host that the mesh's registry does not know by itself."""


class EnvoyFilter(KubernetesObject, api_version="networking.istio.io/v1alpha3", kind="EnvoyFilter"):
    """A patch of Envoy's configuration."""


class PeerAuthentication(KubernetesObject, api_version="security.istio.io/v1", kind="PeerAuthentication"):
    """Mutual TLS that workloads demand."""


class AuthorizationPolicy(KubernetesObject, api_version="security.istio.io/v1", kind="AuthorizationPolicy"):
    """Who may do what."""


class TargetGroupBinding(KubernetesObject, api_version="elbv2.k8s.aws/v1beta1", kind="TargetGroupBinding"):
    """Registers Pods with a target group of AWS."""


class DNSEndpoint(KubernetesObject, api_version="externaldns.k8s.io/v1alpha1", kind="DNSEndpoint"):
    """A record for external-dns to make."""
