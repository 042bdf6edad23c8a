"""Name servers: dnsmasq for each cluster's Services, and one for the names of the internet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from lab.api import Object
from lab.netns import NetworkNamespace
from lab.processes import Process, Supervisor

_COMMON = (
    "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--user=root", "--pid-file=", "--conf-file=/dev/null",
    "--no-resolv", "--no-hosts", "--bind-interfaces", "--no-daemon", "--neg-ttl=1",
)  # fmt: skip

TTL = 2
"""Seconds for which an answer of the internet's name server is good. Envoy asks again after them; for an answer that is
good for none, it would after a minute."""


def cluster_arguments(address: str, hosts: Path, domain: str, forward_to: str) -> list[str]:
    """Arguments of a cluster's name server: Services by the hosts file, anything else asked of the internet."""
    return [
        *_COMMON,
        f"--listen-address={address}",
        f"--addn-hosts={hosts}",
        f"--local=/{domain}/",
        f"--server={forward_to}",
    ]


def internet_arguments(address: str, records: Mapping[str, str]) -> list[str]:
    """Arguments of the internet's name server.

    Args:
        address: where it listens.
        records: IP address by host name, or several separated by commas; `*.domain` stands for all names below the domain.
    """
    names = [
        f"--address=/{name.removeprefix('*.')}/{target}"
        if name.startswith("*.")
        else f"--host-record={name},{target}"
        for name, targets in records.items()
        for target in targets.split(",")
    ]
    return [*_COMMON, f"--listen-address={address}", f"--local-ttl={TTL}", "--local=//", *names]


def service_names(services: Iterable[Object], slices: Iterable[Object], domain: str) -> str:
    """A hosts file with the names of Services: their cluster IP, or for headless ones their endpoints."""
    slices = list(slices)
    lines = sorted(set(_lines(services, slices, domain)))
    return "".join(f"{line}\n" for line in lines)


def _lines(services: Iterable[Object], slices: list[Object], domain: str) -> Iterator[str]:
    for service in services:
        metadata = service["metadata"]
        name = f"{metadata['name']}.{metadata['namespace']}.svc.{domain}"
        address = service["spec"].get("clusterIP")
        if address not in (None, "", "None"):
            yield f"{address} {name}"
            continue
        for item in slices:
            labels = item["metadata"].get("labels", {})
            place = (item["metadata"]["namespace"], labels.get("kubernetes.io/service-name"))
            if place == (metadata["namespace"], metadata["name"]):
                for endpoint in item.get("endpoints") or []:
                    if endpoint.get("conditions", {}).get("ready", True):
                        yield f"{endpoint['addresses'][0]} {name}"


class NameServer:
    """A dnsmasq in a network namespace."""

    def __init__(self, name: str, network: NetworkNamespace, log: Path, supervisor: Supervisor) -> None:
        self._name = name
        self._network = network
        self._log = log
        self._supervisor = supervisor
        self._process: Process | None = None

    @property
    def process(self) -> Process | None:
        """The dnsmasq that runs."""
        return self._process

    def run(self, arguments: list[str]) -> None:
        """Start it, or start it anew with other arguments."""
        self.stop()
        command = [*self._network.prefix, *arguments]
        self._process = self._supervisor.start(self._name, command, self._log)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            self._supervisor.stop(self._process, grace=0)
            self._process = None
