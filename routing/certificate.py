"""Gateways' certificates: the Secrets that Istio reads, and what makes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from config import CertManager, Cluster
from routing.manifest import Json, Manifest

Usage: TypeAlias = Literal["server", "client"]
"""Which side of the public hop presents the certificate."""

MESH_CA = "cacerts"
"""The Secret, in istiod's namespace, out of which it takes what it signs with (Istio's "Plug in CA Certificates")."""

WAIT_FOR = "pulumi.com/waitFor"
"""Annotation that says for what Pulumi's Kubernetes provider waits."""


def secret(name: str, namespace: str, data: Mapping[str, Json]) -> Manifest:
    """The Secret that a gateway's `credentialName` refers to: tls.crt, tls.key, ca.crt, ca.crl (Istio's "Secure
    Gateways", key formats). It must lie in the namespace of the gateway's Pods."""
    return Manifest("v1", "Secret", name, namespace, {"type": "Opaque", "stringData": dict(data)})


def trust_anchor(secret_name: str, namespace: str, ca_certificate: Json, crl: Json | None = None) -> Manifest:
    """The Secret `<secret>-cacert`: the CA that vouches for the other side, and whom it revoked. Istio prefers it to the
    `ca.crt` of the Secret itself, and with it the absence of a `ca.crl`."""
    data = {"ca.crt": ca_certificate} if crl is None else {"ca.crt": ca_certificate, "ca.crl": crl}
    return secret(f"{secret_name}-cacert", namespace, data)


def request(
    secret_name: str, namespace: str, *, name: str, usage: Usage, config: CertManager, cluster: Cluster
) -> Manifest:
    """cert-manager's Certificate, which keeps the Secret (cert-manager's "Certificate resource"). name: the id that the
    other side looks for among the DNS names."""
    spec = {
        "secretName": secret_name,
        "dnsNames": list(dict.fromkeys([name, *config.names])),
        "usages": ["digital signature", f"{usage} auth"],
        "duration": config.duration,
        "renewBefore": config.renew_before,
        "privateKey": {"algorithm": "ECDSA", "size": 256, "rotationPolicy": config.rotation_policy},
        "issuerRef": {
            "name": config.issuer.name,
            "kind": config.issuer.kind,
            "group": config.issuer.group,
        },
    }
    awaited = cluster.await_readiness and not cluster.render
    return Manifest(
        "cert-manager.io/v1",
        "Certificate",
        secret_name,
        namespace,
        {"spec": spec},
        annotations={WAIT_FOR: "condition=Ready"} if awaited else {},
    )
