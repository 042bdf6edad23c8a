"""The lab's networks: an internet, and behind an edge and a node each the Pods of every cluster.

::

    host ── link ── node ── edge ── internet ── edge ── node ── link ── host
                    │  │               │                │  │
                  Pod  Pod           server           Pod  Pod

Everything but the host's ends of the links lies in network namespaces and goes with these. A node does what every
Kubernetes node does: it knows its Pods, cluster IPs and NetworkPolicies. An edge does what the cloud around a cluster does:
it is the load balancers, and hides the Pods behind one address of its own. So clusters reach each other over the internet
alone. The packet rules are `lab.firewall`'s.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab import firewall
from lab.dns import NameServer, internet_arguments
from lab.netns import NetworkNamespace, run
from lab.processes import Process, Supervisor

INTERNETS = ipaddress.IPv4Network("198.18.0.0/15")
"""Where the internets' addresses are from: set apart for tests of networks (RFC 2544). Each lab has a /24."""
BRIDGE = "internet"
BRIDGE_ADDRESS = "02:00:c6:12:00:01"
"""The bridge's own link-layer address. Without one it takes the lowest of its cables', which another cable may change:
whoever knows the old one then loses the name server for about a minute."""
FIRST_HOST = 64
"""Above which the addresses of the internet's own machines begin."""
LINK_PREFIX = "mblab"
"""Beginning of the names of the interfaces that the host sees."""


@dataclass(frozen=True)
class ClusterAddresses:
    """The addresses of one cluster."""

    link: str
    """Name of the host's interface on the link to the node."""
    edge: str
    """The edge's, inside the cluster."""
    node: str
    """The node's own, under which its Pods and the host reach it."""
    host: str
    """The host's end of the link."""
    pods: ipaddress.IPv4Network
    services: str
    outside: str
    """The edge's on the internet, behind which it hides the Pods."""
    balancers: tuple[str, ...]
    """For load-balancer Services."""


def internet(slot: int) -> ipaddress.IPv4Network:
    """The addresses of a lab's internet."""
    return list(INTERNETS.subnets(new_prefix=24))[slot]


def cluster_addresses(slot: int, index: int) -> ClusterAddresses:
    """The addresses of a cluster by its lab's slot and its number in the lab, from 0 on, at most 1."""
    number = 2 * slot + index
    base = f"10.{210 + number}"
    first = 16 * (index + 1)
    public = internet(slot)
    return ClusterAddresses(
        link=f"{LINK_PREFIX}{number}",
        node=f"{base}.0.1",
        edge=f"{base}.0.2",
        host=f"{base}.255.254",
        pods=ipaddress.IPv4Network(f"{base}.1.0/24"),
        services=f"10.{110 + number}.0.0/16",
        outside=str(public[first]),
        balancers=tuple(str(public[first + offset]) for offset in range(1, 16)),
    )


@dataclass(frozen=True)
class InternetHost:
    """A machine on the internet: a service outside every mesh, or an attacker."""

    name: str
    address: str
    network: NetworkNamespace
    _supervisor: Supervisor
    _log: Path

    def start(self, command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> Process:
        """Start a server on it, which ends with the lab."""
        return self._supervisor.start(self.name, [*self.network.prefix, *command], self._log, environment)

    def run(self, *command: str, text: str = "") -> str:
        """Run a command on it to its end, with `text` as its stdin, and return its stdout.

        Raises:
            LabError: it failed.
        """
        return self.network.run(*command, text=text)


class Internet:
    """A bridge that joins the clusters' nodes, with a name server of its own."""

    def __init__(self, slot: int, supervisor: Supervisor, logs: Path) -> None:
        self.addresses = internet(slot)
        self.address = str(self.addresses[1])
        self.network = NetworkNamespace("internet")
        self.network.ip(
            f"link add {BRIDGE} address {BRIDGE_ADDRESS} type bridge",
            f"link set {BRIDGE} up",
            f"addr add {self.address}/{self.addresses.prefixlen} dev {BRIDGE}",
        )
        self._supervisor = supervisor
        self._logs = logs
        self._closing: list[Callable[[], None]] = []
        self._cables = self._hosts = 0
        self._records: dict[str, str] = {}
        self._lock = threading.Lock()
        self._names = NameServer("internet DNS", self.network, logs / "internet-dns.log", supervisor)
        self._names.run(internet_arguments(self.address, self._records))

    def join(self, network: NetworkNamespace, interface: str, address: str) -> None:
        """Give a namespace an interface on the bridge."""
        self._cables += 1
        outside = f"cable{self._cables}"
        self.network.ip(
            f"link add {outside} type veth peer name {interface} netns {network.path}",
            f"link set {outside} master {BRIDGE} up",
        )
        network.ip(
            f"addr add {address}/{self.addresses.prefixlen} dev {interface}", f"link set {interface} up"
        )

    def host(self, name: str) -> InternetHost:
        """A new machine on the internet, reached by this name."""
        self._hosts += 1
        address = str(self.addresses[FIRST_HOST + self._hosts])
        network = NetworkNamespace(name)
        self.join(network, "eth0", address)
        self.name({name: address})
        host = InternetHost(name, address, network, self._supervisor, self._logs / f"internet-{name}.log")
        self._closing.append(network.close)
        return host

    def name(self, records: dict[str, str]) -> None:
        """Add records: IP address by host name, or by `*.domain` for all names below it."""
        with self._lock:
            self._records |= records
            self._names.run(internet_arguments(self.address, self._records))

    def stop_names(self) -> None:
        """Take the name server away."""
        self._names.stop()

    def start_names(self) -> None:
        """Bring the name server back."""
        self._names.run(internet_arguments(self.address, self._records))

    def close(self) -> None:
        """Let go of the namespaces."""
        for close in (*self._closing, self.network.close):
            close()


@dataclass(frozen=True)
class ClusterNetwork:
    """A cluster's node and edge."""

    node: NetworkNamespace
    edge: NetworkNamespace

    def close(self) -> None:
        """Let go of the namespaces."""
        self.node.close()
        self.edge.close()


def cluster_network(
    name: str, addresses: ClusterAddresses, outside: Internet, supervisor: Supervisor
) -> ClusterNetwork:
    """The network of a cluster: its node with a link to the host, and its edge on the internet."""
    network = ClusterNetwork(NetworkNamespace(f"{name} node"), NetworkNamespace(f"{name} edge"))
    node, edge, link = network.node, network.edge, addresses.link
    for router in (node, edge):
        router.write_setting("net/ipv4/ip_forward", "1")
        # A packet of a connection that is not known any more belongs to none, as at a load balancer.
        router.write_setting("net/netfilter/nf_conntrack_tcp_loose", "0")
    if link in {name for _, name in socket.if_nameindex()}:
        # The slot is ours, so it is from a lab that was killed together with its guard.
        run(["ip", "link", "delete", link])
    run(
        ["ip", "-batch", "-"],
        f"link add {link} type veth peer name host netns {node.path}\n"
        f"addr add {addresses.host}/32 dev {link}\n"
        f"link set {link} up\n",
    )
    supervisor.own_interface(link)
    node.ip(
        f"addr add {addresses.node}/32 dev lo",
        "link set host up",
        f"route add {addresses.host}/32 dev host",
        f"link add edge type veth peer name node netns {edge.path}",
        "link set edge up",
        f"route add {addresses.edge}/32 dev edge",
        f"route add default via {addresses.edge}",
        f"route add unreachable {addresses.services}",
    )
    run(["ip", "route", "add", f"{addresses.node}/32", "dev", link, "src", addresses.host])
    outside.join(edge, firewall.OUTSIDE, addresses.outside)
    edge.ip(
        f"addr add {addresses.edge}/32 dev lo",
        "link set node up",
        f"route add {addresses.node}/32 dev node",
        f"route add {addresses.pods} via {addresses.node}",
        f"route add default via {outside.address}",
        *(f"addr add {balancer}/32 dev {firewall.OUTSIDE}" for balancer in addresses.balancers),
    )
    edge.run("iptables-restore", "--wait", text=firewall.edge_table())
    return network
