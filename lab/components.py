"""The command lines and settings of a control plane's parts. Pure."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from lab.api import Object
from lab.ports import LOOPBACK

ISTIO_NAMESPACE = "istio-system"
REVISION = "default"
VALIDATION_NAME = "istio-validator-istio-system"
"""Name of istiod's ValidatingWebhookConfiguration, as `istioctl` installs it."""
ISTIO_GROUPS = ("security.istio.io", "networking.istio.io", "telemetry.istio.io", "extensions.istio.io")


@dataclass(frozen=True)
class Ports:
    """The TCP ports of one control plane, all on the loopback interface."""

    etcd: int
    etcd_peer: int
    api_server: int
    istiod_http: int
    istiod_https: int
    istiod_grpc: int
    istiod_secure_grpc: int
    istiod_monitoring: int
    istiod_control: int


@dataclass(frozen=True)
class Site:
    """Where a control plane runs: by default on the loopback interface of this machine, out of reach of Pods."""

    address: str = LOOPBACK
    """Of the API server."""
    prefix: tuple[str, ...] = ()
    """Words before each command that put it in the site's network namespace."""
    service_range: str = "10.96.0.0/16"
    """Network of the Services' cluster IPs."""

    @property
    def for_pods(self) -> bool:
        """Whether Pods can reach it."""
        return self.address != LOOPBACK

    @property
    def api_service(self) -> str:
        """Cluster IP of the Service `kubernetes`."""
        return str(ipaddress.ip_network(self.service_range)[1])


@dataclass(frozen=True)
class Layout:
    """Where a control plane's files lie."""

    root: Path

    @property
    def logs(self) -> Path:
        """Folder of the parts' logs; all that is kept after a failure."""
        return self.root / "logs"

    @property
    def data(self) -> Path:
        """Folder of everything else."""
        return self.root / "data"

    @property
    def etcd(self) -> Path:
        """Folder of etcd's data."""
        return self.data / "etcd"

    @property
    def authority(self) -> Path:
        """Certificate of the cluster's authority."""
        return self.data / "ca.crt"

    @property
    def certificate(self) -> Path:
        """Serving certificate of the API server."""
        return self.data / "api-server.crt"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.data / "api-server.key"

    @property
    def account_key(self) -> Path:
        """Key that signs service-account tokens."""
        return self.data / "service-accounts.key"

    @property
    def tokens(self) -> Path:
        """The API server's static tokens."""
        return self.data / "tokens.csv"

    @property
    def mesh(self) -> Path:
        """Istio's mesh configuration."""
        return self.data / "mesh.yaml"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.data / "kubeconfig"


def etcd(layout: Layout, ports: Ports) -> list[str]:
    """Arguments of etcd; it may lose data in a power cut."""
    client, peer = f"http://{LOOPBACK}:{ports.etcd}", f"http://{LOOPBACK}:{ports.etcd_peer}"
    return [
        f"--data-dir={layout.etcd}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def api_server(layout: Layout, ports: Ports, site: Site) -> list[str]:
    """Arguments of kube-apiserver.

    On the loopback interface it publishes no endpoint of its own: such an address is not allowed as one. Elsewhere it
    calls webhooks at their Services' endpoints, since no cluster IP leads anywhere from where it runs.
    """
    reach = ["--enable-aggregator-routing=true"] if site.for_pods else ["--endpoint-reconciler-type=none"]
    return [
        f"--etcd-servers=http://{LOOPBACK}:{ports.etcd}",
        f"--bind-address={site.address}",
        f"--secure-port={ports.api_server}",
        *reach,
        f"--tls-cert-file={layout.certificate}",
        f"--tls-private-key-file={layout.key}",
        f"--token-auth-file={layout.tokens}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={layout.account_key}",
        f"--service-account-signing-key-file={layout.account_key}",
        f"--service-cluster-ip-range={site.service_range}",
        "--profiling=false",
    ]


def controller_manager(layout: Layout) -> list[str]:
    """Arguments of kube-controller-manager; it serves nothing."""
    return [
        f"--kubeconfig={layout.kubeconfig}",
        "--leader-elect=false",
        "--secure-port=0",
        f"--service-account-private-key-file={layout.account_key}",
        f"--root-ca-file={layout.authority}",
        "--profiling=false",
        # Its default of 20 requests a second is what a deleted stack would wait for.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def istiod(layout: Layout, ports: Ports) -> list[str]:
    """Arguments of pilot-discovery."""
    return [
        "discovery",
        f"--kubeconfig={layout.kubeconfig}",
        f"--meshConfig={layout.mesh}",
        "--networksConfig=/dev/null",
        f"--httpAddr={LOOPBACK}:{ports.istiod_http}",
        f"--httpsAddr={LOOPBACK}:{ports.istiod_https}",
        f"--grpcAddr={LOOPBACK}:{ports.istiod_grpc}",
        f"--secureGRPCAddr={LOOPBACK}:{ports.istiod_secure_grpc}",
        f"--monitoringAddr={LOOPBACK}:{ports.istiod_monitoring}",
        f"--ctrlz_port={ports.istiod_control}",
        "--log_output_level=default:warn",
    ]


def istiod_environment(cluster: str) -> dict[str, str]:
    """Environment of pilot-discovery.

    The upstream Envoy of the lab has none of Istio's own extensions, hence the last four.
    """
    return {
        "POD_NAME": "istiod",
        "POD_NAMESPACE": ISTIO_NAMESPACE,
        "CLUSTER_ID": cluster,
        "REVISION": REVISION,
        "PILOT_CERT_PROVIDER": "istiod",
        "ISTIOD_CUSTOM_HOST": "localhost",
        "ENABLE_LEADER_ELECTION": "false",
        "PILOT_ENABLE_ALPN_FILTER": "false",
        "PILOT_ENABLE_METADATA_EXCHANGE": "false",
        "PILOT_DISABLE_MX_ALPN": "true",
        "PILOT_ENABLE_AMBIENT": "false",
    }


def validation_webhook(ports: Ports, authority_base64: str) -> Object:
    """The ValidatingWebhookConfiguration that has istiod check every Istio object, or else it is refused.

    It names istiod by URL: nothing routes to a Service's address here.
    """
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": VALIDATION_NAME},
        "webhooks": [
            {
                "name": "rev.validation.istio.io",
                "clientConfig": {
                    "url": f"https://localhost:{ports.istiod_https}/validate",
                    "caBundle": authority_base64,
                },
                "rules": [
                    {
                        "operations": ["CREATE", "UPDATE"],
                        "apiGroups": list(ISTIO_GROUPS),
                        "apiVersions": ["*"],
                        "resources": ["*"],
                    }
                ],
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
        ],
    }
