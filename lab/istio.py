"""Istio as `istioctl` installs it, for the lab's Envoy and with access logs that tell why a connection was refused."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from lab.api import Object
from lab.errors import LabError

ACCESS_LOG_FORMAT = {
    "start": "%START_TIME%",
    "duration_ms": "%DURATION%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "sni": "%REQUESTED_SERVER_NAME%",
    "peer_uris": "%DOWNSTREAM_PEER_URI_SAN%",
    "peer_names": "%DOWNSTREAM_PEER_DNS_SAN%",
    "peer_serial": "%DOWNSTREAM_PEER_SERIAL%",
    "tls": "%DOWNSTREAM_TLS_VERSION%",
    "filter_chain": "%FILTER_CHAIN_NAME%",
    "cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream": "%UPSTREAM_HOST%",
    "upstream_tls": "%UPSTREAM_TLS_VERSION%",
    "upstream_peer_uris": "%UPSTREAM_PEER_URI_SAN%",
    "upstream_peer_names": "%UPSTREAM_PEER_DNS_SAN%",
    "flags": "%RESPONSE_FLAGS%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "termination": "%CONNECTION_TERMINATION_DETAILS%",
    "downstream_failure": "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%",
    "upstream_failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "method": "%REQ(:METHOD)%",
    "authority": "%REQ(:AUTHORITY)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
}
"""Fields of one access-log line. Source: Envoy's "Access logging", command operators."""

DNS_RETRY = "5s"
"""After which a proxy asks again for a name that was not resolved; by default Istio has it wait a minute, in which the
name's clients are refused. Source: Istio's "Global Mesh Options", `dnsRefreshRate`."""

UPSTREAM_ENVOY = {
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_DISABLE_MX_ALPN": "true",
    "PILOT_ENABLE_AMBIENT": "false",
}
"""Settings of istiod for an Envoy without Istio's own extensions."""


def installation(
    cluster: str,
    trust_domain: str,
    mesh: Mapping[str, object] | None = None,
    pilot: Mapping[str, str] | None = None,
) -> Object:
    """The IstioOperator of a cluster.

    Args:
        cluster: its name.
        trust_domain: its mesh's.
        mesh: more of the mesh configuration.
        pilot: more of istiod's environment.
    """
    return {
        "apiVersion": "install.istio.io/v1alpha1",
        "kind": "IstioOperator",
        "spec": {
            "profile": "minimal",
            "meshConfig": {
                "trustDomain": trust_domain,
                "accessLogFile": "/dev/stdout",
                "accessLogEncoding": "JSON",
                "accessLogFormat": json.dumps(ACCESS_LOG_FORMAT),
                "dnsRefreshRate": DNS_RETRY,
                **(mesh or {}),
            },
            "values": {
                # Validate objects without a revision label too, as `istioctl install` does.
                "defaultRevision": "default",
                "global": {"multiCluster": {"clusterName": cluster}},
                "telemetry": {"enabled": False},
                "pilot": {"autoscaleEnabled": False, "env": {**UPSTREAM_ENVOY, **(pilot or {})}},
            },
        },
    }


def manifests(istioctl: Path, wanted: Object, directory: Path) -> list[Object]:
    """The objects that `istioctl` would install, webhooks last.

    Raises:
        LabError: it refuses the installation.
    """
    file = directory / "istio-operator.yaml"
    file.write_text(yaml.safe_dump(wanted))
    done = subprocess.run(
        [istioctl, "manifest", "generate", "--filename", file],
        capture_output=True,
        check=False,
        cwd=directory,
    )
    if done.returncode != 0:
        raise LabError(f"istioctl manifest generate failed: {done.stderr.decode().strip()}")
    objects = [item for item in yaml.load_all(done.stdout, Loader=yaml.CSafeLoader) if item]
    return sorted(objects, key=lambda item: _ORDER.get(item["kind"], len(_ORDER) - 1))


def is_called(webhooks: Object | None) -> bool:
    """Whether istiod has put its certificate into a webhook configuration, so that the API server can call it."""
    return webhooks is not None and all(hook["clientConfig"].get("caBundle") for hook in webhooks["webhooks"])


_ORDER = {
    kind: place
    for place, kind in enumerate(
        (
            "Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "Role", "ClusterRoleBinding",
            "RoleBinding", "ConfigMap", "Secret", "Service", "other",
            "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
        )
    )
}  # fmt: skip

INJECTOR = ("MutatingWebhookConfiguration", "istio-sidecar-injector")
VALIDATORS = ("istio-validator-istio-system", "istiod-default-validator")
