"""One lab for all packet tests: two clusters, the stacks of `stacks.py`, their services and their clients.

A test that changes a stack, a Secret or an object puts it back.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

import pytest

from lab import applications, pki
from lab.cluster import Cluster, ClusterSettings
from lab.lab import DATABASES, TRUST_DOMAINS, Lab
from lab.network import InternetHost
from tests.lab.packets import stacks
from tests.lab.packets.rejections import Rejections
from tests.quiet import quiet_engine  # noqa: F401 - a fixture

DESK = ("desk", "desk-app")
"""The application of the second consumer."""
REPORTER = (stacks.REPORTS, stacks.REPORTER)
"""The upstreams' further client."""

SETTINGS = {
    name: ClusterSettings(name, domain, pilot={"PILOT_DEBOUNCE_AFTER": "10ms"})
    for name, domain in TRUST_DOMAINS.items()
}
"""So that proxies get every state between two changes, which istiod would otherwise gather for 0.1 s."""


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab that has answered its first query."""
    with started("tests") as world:
        yield world


@contextlib.contextmanager
def started(name: str) -> Iterator[Lab]:
    """A lab that has answered its first query, named after its purpose and this process."""
    with Lab(name=f"{name}-{os.getpid()}", settings=SETTINGS) as world:
        _prepare_provider(world)
        _prepare_consumer(world)
        _prepare_internet(world)
        world.connect(stacks.providers(world), stacks.consumers(world))
        for server in ("mariadb", "redis", "echo", "replica", "archive"):
            world.provider.wait_ready(DATABASES, server)
        world.consumer.wait_ready(*DESK)
        world.consumer.wait_ready(*REPORTER)
        yield world


@pytest.fixture
def consumer(lab: Lab) -> Cluster:
    """The consumer's cluster."""
    return lab.consumer


@pytest.fixture
def provider(lab: Lab) -> Cluster:
    """The provider's cluster."""
    return lab.provider


def _prepare_provider(lab: Lab) -> None:
    """The services of the provider's cluster, and the namespace and certificate of the second provider."""
    lab.provider.apply(
        *applications.mariadb(DATABASES, "mariadb"),
        *applications.redis(DATABASES, "redis"),
        *applications.echo(DATABASES, "echo"),
        *applications.postgres(DATABASES, "replica"),
        *applications.postgres(DATABASES, "archive"),
    )
    lab.provider.plane.create_namespace("mail-ingress")
    lab.provider_authority.issue("server", stacks.MAIL_DOMAIN, lab.consumer_authority)


def _prepare_consumer(lab: Lab) -> None:
    """Further applications, and the second consumer's namespace and certificate."""
    lab.consumer.apply(
        *applications.client(*DESK), *applications.client(*REPORTER, service_account=stacks.REPORTER)
    )
    lab.consumer.plane.create_namespace("desk-egress")
    lab.consumer_authority.issue("client", stacks.DESK_ID, lab.provider_authority)


def _prepare_internet(lab: Lab) -> None:
    """The upstreams' servers, and an ingress gateway of the consumer's platform."""
    authority = pki.Authority.create("meshbridge-lab internet CA")
    api = lab.internet.host(stacks.API_ADDRESS)
    _serve_https(lab, api, authority)
    ledger = lab.internet.host(stacks.LEDGER_ADDRESS)
    ledger.start(["redis-server", "--save", "", "--protected-mode", "no", "--dir", str(lab.directory)])
    for namespace in ("egress-api", "egress-ledger"):
        lab.consumer.plane.create_namespace(namespace)
    lab.consumer.put_secret("egress-api", "api-ca", {"ca.crt": authority.pem})
    lab.consumer.apply(*applications.ingress_gateway("istio-ingress", "front"))
    pair = authority.serving([stacks.API_HOST])
    lab.consumer.put_secret("istio-ingress", "api-server", {"tls.crt": pair.certificate, "tls.key": pair.key})
    lab.consumer.wait_ready("istio-ingress", "front")
    lab.internet.name({stacks.API_HOST: lab.consumer.balancer("istio-ingress", "front")})
    (lab.directory / "internet-ca.crt").write_bytes(authority.pem)


def _serve_https(lab: Lab, host: InternetHost, authority: pki.Authority) -> None:
    pair = authority.serving([host.name])
    files = {"TLS_CERTIFICATE": lab.directory / "api.crt", "TLS_KEY": lab.directory / "api.key"}
    files["TLS_CERTIFICATE"].write_bytes(pair.certificate)
    files["TLS_KEY"].write_bytes(pair.key)
    echo = applications.__file__.replace("applications.py", "images/echo.py")
    host.start([sys.executable, echo], {key: str(path) for key, path in files.items()})


@pytest.fixture(scope="session")
def rejections(lab: Lab) -> Rejections:
    """What Envoy has refused of what istiod sent; see `no_rejected_update`."""
    return Rejections(lab)


@pytest.fixture(scope="module", autouse=True)
def no_rejected_update(rejections: Rejections) -> Iterator[None]:
    """No proxy refuses an update while the tests of a module run, but for those that a test accepts."""
    yield
    rejections.check()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the tests have measured."""
    measured = [
        f"{report.nodeid.rpartition('::')[2]}: {value}"
        for report in terminalreporter.getreports("")
        for name, value in report.user_properties
        if name == "measured" and report.when == "teardown"
    ]
    if measured:
        terminalreporter.write_sep("-", "measured")
        terminalreporter.write_line("\n".join(measured))
