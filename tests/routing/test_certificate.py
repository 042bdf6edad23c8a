"""The objects that bring a gateway its certificate."""

from __future__ import annotations

import pytest

from config import CertManager, Cluster, EgressGateway, IngressGateway, Issuer
from routing import Manifest, certificate, consumer, provider

PCA = CertManager(issuer=Issuer(name="pca", kind="AWSPCAIssuer", group="awspca.cert-manager.io"))


def test_a_secret_holds_what_it_is_given_under_istio_s_keys() -> None:
    made = certificate.secret("provider-server", "mesh-ingress", {"tls.crt": "C", "tls.key": "K"})
    assert made.as_dict() == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "provider-server",
            "namespace": "mesh-ingress",
            "labels": {"app.kubernetes.io/managed-by": "meshbridge"},
        },
        "type": "Opaque",
        "stringData": {"tls.crt": "C", "tls.key": "K"},
    }


@pytest.mark.parametrize(
    ("anchor", "place"),
    [
        (consumer.trust_anchor(EgressGateway(), "client", "PEM"), ("client-cacert", "mesh-egress")),
        (provider.trust_anchor(IngressGateway(), "server", "PEM"), ("server-cacert", "mesh-ingress")),
    ],
)
def test_an_anchor_stands_beside_its_secret_without_a_key(anchor: object, place: tuple[str, str]) -> None:
    assert isinstance(anchor, Manifest)
    assert (anchor.name, anchor.namespace) == place
    assert anchor.body["stringData"] == {"ca.crt": "PEM"}


@pytest.mark.parametrize("usage", ["server", "client"])
def test_any_issuer_may_sign(usage: certificate.Usage) -> None:
    made = certificate.request(
        "s", "n", name="id.example", usage=usage, config=PCA, cluster=Cluster(context="c")
    )
    assert made.spec["issuerRef"] == {
        "name": "pca",
        "kind": "AWSPCAIssuer",
        "group": "awspca.cert-manager.io",
    }
    assert made.spec["usages"] == ["digital signature", f"{usage} auth"]
    assert (made.name, made.namespace, made.spec["secretName"]) == ("s", "n", "s")


def test_the_id_is_named_once_and_first() -> None:
    config = PCA.model_copy(update={"names": ("b.example", "id.example", "a.example")})
    made = certificate.request("s", "n", name="id.example", usage="server", config=config, cluster=Cluster())
    assert made.spec["dnsNames"] == ["id.example", "b.example", "a.example"]


@pytest.mark.parametrize(
    ("cluster", "waits"),
    [
        (Cluster(context="c"), True),
        (Cluster(context="c", await_readiness=False), False),
        (Cluster(render=True), False),
    ],
)
def test_up_waits_for_the_certificate_unless_told_otherwise(cluster: Cluster, waits: bool) -> None:
    made = certificate.request("s", "n", name="id.example", usage="server", config=PCA, cluster=cluster)
    assert (made.annotations.get("pulumi.com/waitFor") == "condition=Ready") is waits
