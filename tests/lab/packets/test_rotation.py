"""Every certificate on the path is replaced under load: new connections take the new one, and none is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from lab import applications
from lab.cluster import Cluster
from lab.errors import LabError
from lab.lab import CLIENT, CONSUMER_ID, EGRESS_NAMESPACE, PROVIDER_ID, SYSTEM_DOMAIN, Lab
from lab.load import Load, Progress
from tests.lab.packets import certificates, outside
from tests.lab.packets.access import EGRESS_POD, INGRESS_POD, AccessLog, Line

Record = Callable[[str, object], None]
HOST = f"redis.{SYSTEM_DOMAIN}"
REDIS = ("svc-redis-main.shop.svc.cluster.local", 6379)
RATE, HELD = 200, 20
"""Short connections a second, and long ones."""
SECOND_OF_LOAD = RATE
ENOUGH, LEAST = 0.9, 0.25
"""Parts of the rate that make it the load of which these tests speak: over all of a test, and while certificates change."""
SETTLED = 90
"""Seconds within which what was deployed has reached the proxies."""
PATIENCE = 300
"""Seconds within which a load that is behind its rate has made up for it."""
ROTATIONS = 2
WORKLOAD_LIFE = 16
"""Seconds that a workload's certificate lives in the test of its rotation; it is replaced after half of them."""


@pytest.fixture
def federation(lab: Lab) -> Iterator[None]:
    """Certificates and authorities may be changed: the gateways hold those in use, and trust them, afterwards."""
    yield
    certificates.end_rotation(lab)
    if not _in_use(lab):
        certificates.renew_and_deploy(lab)
    lab.provider.wait_until(lambda: _in_use(lab), "the gateways hold the certificates in use", 60)


def _in_use(lab: Lab) -> bool:
    """Whether a connection shows the certificates that the authorities know to be in use, on both sides."""
    ingress = AccessLog(lab.provider, INGRESS_POD)
    address = outside.public_address(lab)
    if certificates.serial(outside.served_certificate(lab, address, HOST)) != certificates.server(lab):
        return False
    if _ping(lab.consumer) != "PONG":
        return False
    try:
        ingress.wait(_presents(certificates.client(lab)), "the consumer's certificate is presented", 10)
    except LabError:
        return False
    return True


@pytest.fixture
def load(consumer: Cluster, record_property: Record) -> Iterator[Load]:
    """200 connections a second, and 20 long ones."""
    with Load(consumer, CLIENT, REDIS, rate=RATE, held=HELD) as running:
        running.attempts(SECOND_OF_LOAD)
        running.kept_up(PATIENCE)
        yield running
        _report(record_property, running.stop())


def _report(record: Record, done: Progress) -> None:
    record(
        "measured",
        f"{done.rate:.0f} connections/s of {RATE}, {done.answered} answered, {done.failed} failed; "
        f"{done.held} long, {done.lost} lost",
    )


@contextmanager
def _nothing_is_lost(load: Load) -> Iterator[None]:
    """What happens meanwhile does so under the load, and no connection fails; afterwards the load has ended.

    Where something else takes the machine's time, connections that are late are made up for before the end.
    """
    before = load.now
    yield
    _check_load("while it went on", before, load.now, LEAST)
    load.attempts(SECOND_OF_LOAD)
    load.exchanges(2)
    load.kept_up(PATIENCE)
    done = load.stop()
    assert (done.failed, done.lost, done.held) == (0, 0, HELD), done
    _check_load("in all", before, done, ENOUGH)


def _check_load(when: str, before: Progress, after: Progress, least: float) -> None:
    rate = after.opened_since(before)
    assert rate >= least * RATE, (
        f"{when}, {rate:.0f} connections a second were opened over {after.seconds - before.seconds:.0f} s, and not "
        f"{RATE}: this machine does not carry the load, so that nothing is known of the rotation"
    )


@pytest.mark.usefixtures("federation")
def test_consumer_certificate(lab: Lab, load: Load) -> None:
    with _nothing_is_lost(load):
        for _ in range(ROTATIONS):
            ingress = AccessLog(lab.provider, INGRESS_POD)
            serial = certificates.renew_client(lab)
            ingress.wait(_presents(serial), "the new certificate is presented")


@pytest.mark.usefixtures("federation")
def test_provider_certificate(lab: Lab, load: Load) -> None:
    with _nothing_is_lost(load):
        for _ in range(ROTATIONS):
            _wait_served(lab, certificates.renew_server(lab))
            load.attempts(SECOND_OF_LOAD)


@pytest.mark.usefixtures("federation")
def test_a_replaced_certificate_is_revoked(lab: Lab, load: Load, tmp_path: Path) -> None:
    """The consumer takes a new certificate, the old one is revoked, and the list of revocations is renewed."""
    address = outside.public_address(lab)
    old = lab.consumer_authority.pair("client", CONSUMER_ID)

    def admitted() -> bool:
        return bool(outside.echo(lab, address, HOST, old, tmp_path))

    with _nothing_is_lost(load):
        ingress = AccessLog(lab.provider, INGRESS_POD)
        new = certificates.renew_client(lab)
        ingress.wait(_presents(new), "the new certificate is presented")
        load.exchanges(1)
        assert admitted(), "what is only superseded is refused"
        lab.consumer_authority.revoke(old)
        certificates.renew_server(lab)
        lab.provider.wait_until(lambda: not admitted(), "the revoked certificate is refused", SETTLED)
        load.attempts(SECOND_OF_LOAD)
        lab.consumer_authority.run("crl")
        _wait_served(lab, certificates.renew_server(lab))
        load.attempts(SECOND_OF_LOAD)
        assert not admitted()


@pytest.mark.usefixtures("federation")
def test_authorities_of_both_sides(lab: Lab, load: Load, tmp_path: Path) -> None:
    """Add the new roots beside the old ones, rotate the leaves, remove the old ones; each deployed to both sides."""
    address = outside.public_address(lab)
    (old_consumers,), (old_providers,) = lab.consumer_authority.signers(), lab.provider_authority.signers()
    probes = {"old": old_consumers.serving([CONSUMER_ID])}

    def admitted(name: str) -> bool:
        return bool(outside.echo(lab, address, HOST, probes[name], tmp_path))

    with _nothing_is_lost(load):
        assert admitted("old")
        certificates.rotate(lab, "add")
        new_consumers, new_providers = (
            authority.signers()[-1] for authority in (lab.consumer_authority, lab.provider_authority)
        )
        probes["new"] = new_consumers.serving([CONSUMER_ID])
        lab.provider.wait_until(lambda: admitted("new"), "the provider trusts the new root", SETTLED)
        lab.consumer.wait_until(
            lambda: certificates.trusts(lab.consumer, new_providers.pem), "so does the consumer", SETTLED
        )
        assert admitted("old")

        ingress = AccessLog(lab.provider, INGRESS_POD)
        certificates.rotate(lab, "leaves")
        _wait_served(lab, certificates.server(lab))
        ingress.wait(_presents(certificates.client(lab)), "the consumer's new leaf is presented")
        load.attempts(SECOND_OF_LOAD)

        certificates.rotate(lab, "remove")
        lab.provider.wait_until(
            lambda: not admitted("old"), "the provider no longer trusts the old root", SETTLED
        )
        lab.consumer.wait_until(
            lambda: not certificates.trusts(lab.consumer, old_providers.pem), "nor does the consumer", SETTLED
        )
        assert admitted("new")
        served = x509.load_pem_x509_certificate(outside.served_certificate(lab, address, HOST))
        served.verify_directly_issued_by(new_providers.certificate)

    egress, pair = AccessLog(lab.consumer, EGRESS_POD), old_providers.serving([PROVIDER_ID])
    with certificates.server_replaced(lab, pair):
        _wait_served(lab, certificates.serial(pair.certificate))
        assert _ping(lab.consumer) != "PONG"
        refused = egress.wait(
            lambda line: bool(line["upstream_failure"]), "the consumer refuses the old root"
        )
    assert "CERTIFICATE_VERIFY_FAILED" in refused["upstream_failure"]


def test_workload_certificates(
    lab: Lab,
    consumer: Cluster,
    short_lived: str,
    record_property: Record,
) -> None:
    """Both ends of the hop inside the mesh rotate, and long connections outlive the certificates they began with."""
    egress = AccessLog(consumer, EGRESS_POD)
    with Load(consumer, short_lived, REDIS, rate=RATE, held=HELD) as load:
        first = _gateway_certificate(consumer, short_lived)
        seen = {first.serial_number}

        def gateway_has_rotated_twice() -> bool:
            seen.add(_gateway_certificate(consumer, short_lived).serial_number)
            return len(seen) > 2

        clients: set[str] = set()

        def client_has_rotated_twice() -> bool:
            clients.update(line["peer_serial"] for line in egress.read() if line["peer_serial"])
            return len(clients) > 2

        with _nothing_is_lost(load):
            consumer.wait_until(gateway_has_rotated_twice, "the gateway's certificate has rotated", 120)
            consumer.wait_until(client_has_rotated_twice, "the application's certificate has rotated", 120)
            load.wait(lambda now: now.seconds > 2 * WORKLOAD_LIFE, "the first certificates have expired")
        _report(record_property, load.now)


@pytest.mark.usefixtures("federation")
def test_consumer_certificate_with_another_name(lab: Lab, load: Load) -> None:
    ingress = AccessLog(lab.provider, INGRESS_POD)
    (root,) = lab.consumer_authority.signers()

    with certificates.client_replaced(lab, root.serving(["other.shop.example"])):
        refused = load.refused()
        load.exchanges(3)
        line = ingress.wait(lambda line: bool(line["downstream_failure"]), "the provider says why")
        assert load.now.answered == refused.answered, "a connection with the wrong name was served"
    assert "CERTIFICATE_VERIFY_FAILED" in line["downstream_failure"]
    load.recovered()
    assert load.stop().lost == 0


@pytest.mark.usefixtures("federation")
def test_provider_certificate_with_another_name(lab: Lab, load: Load) -> None:
    egress = AccessLog(lab.consumer, EGRESS_POD)
    (root,) = lab.provider_authority.signers()

    with certificates.server_replaced(lab, root.serving(["istio.other.example"])):
        refused = load.refused()
        load.exchanges(3)
        line = egress.wait(lambda line: bool(line["upstream_failure"]), "the consumer says why")
        assert load.now.answered == refused.answered, "a connection to the wrong provider was served"
    assert "CERTIFICATE_VERIFY_FAILED" in line["upstream_failure"]
    load.recovered()
    assert load.stop().lost == 0


@pytest.fixture
def short_lived(consumer: Cluster) -> Iterator[str]:
    """An application and the egress gateway whose workload certificates live for seconds; the application's Pod."""
    key, lives = "proxy.istio.io/config", f"proxyMetadata: {{SECRET_TTL: {WORKLOAD_LIFE}s}}"
    name = "short-lived"
    *others, deployment = applications.client("shop", name, service_account="orders-api")
    deployment["spec"]["template"]["metadata"]["annotations"] = {key: lives}
    consumer.apply(*others, deployment)
    before = _annotate_gateway(consumer, {key: lives})
    consumer.wait_ready("shop", name)
    yield f"shop/{name}"
    consumer.api.delete("apps/v1", "Deployment", name, "shop")
    _annotate_gateway(consumer, {key: before[key]})
    consumer.wait_until(lambda: not consumer.pods("shop", name), "the application is gone")


def _annotate_gateway(consumer: Cluster, annotations: dict[str, str]) -> dict[str, str]:
    """Change the annotations of the egress gateway's Pods, and wait until there are only new ones. Returns those before."""
    namespace, name = EGRESS_POD.split("/")
    deployed = consumer.api.get("apps/v1", "Deployment", name, namespace) or {}
    before: dict[str, str] = deployed["spec"]["template"]["metadata"]["annotations"]
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{name}"
    patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    consumer.api.request("PATCH", path, patch, "application/merge-patch+json")

    def rolled_out() -> bool:
        found = consumer.api.get("apps/v1", "Deployment", name, namespace) or {}
        status = found["status"]
        return (
            status.get("observedGeneration") == found["metadata"]["generation"]
            and status.get("updatedReplicas")
            == status.get("replicas")
            == status.get("availableReplicas")
            == 1
            and len(consumer.pods(namespace, name)) == 1
        )

    consumer.wait_until(rolled_out, "the egress gateway's new Pod serves")
    consumer.wait_until(lambda: _ping(consumer) == "PONG", "and is used", 60)
    return before


def _presents(serial: str) -> Callable[[Line], bool]:
    return lambda line: bool(line["peer_serial"] == serial)


def _ping(consumer: Cluster) -> str:
    return consumer.exec(CLIENT, ["redis-cli", "-h", REDIS[0], "PING"]).stdout.strip()


def _wait_served(lab: Lab, serial: str) -> None:
    address = outside.public_address(lab)
    lab.provider.wait_until(
        lambda: certificates.serial(outside.served_certificate(lab, address, HOST)) == serial,
        "the provider presents the new certificate",
        SETTLED,
    )


def _gateway_certificate(consumer: Cluster, pod: str) -> x509.Certificate:
    """What the egress gateway presents to an application's sidecar."""
    address = f"istio-egressgateway.{EGRESS_NAMESPACE}.svc.cluster.local:443"
    command = ["openssl", "s_client", "-connect", address, "-servername", HOST]
    said = consumer.exec(pod, command, container="istio-proxy").stdout
    return x509.load_pem_x509_certificate(said.encode())
