"""Packet rules of a cluster's node and edge: Services and NetworkPolicies as input of `iptables-restore`. Pure.

Sources: the Kubernetes pages "Virtual IPs and Service Proxies" and "Network Policies"; iptables-extensions(8).
What a NetworkPolicy refuses is rejected at once, where most network plugins let it time out.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab.api import Object

OUTSIDE = "eth0"
"""The edge's interface on the internet bridge."""
_SETTLED = "-m conntrack --ctstate ESTABLISHED,RELATED"


@dataclass(frozen=True)
class PodPlace:
    """A Pod as the rules see it."""

    namespace: str
    labels: Mapping[str, str]
    address: str
    interface: str
    """The node's end of its cable."""
    ports: Mapping[str, int]
    """Container ports by name."""


@dataclass(frozen=True)
class Virtual:
    """One port of an address that stands for endpoints: a cluster IP or a load balancer's address."""

    address: str
    protocol: str
    port: int
    endpoints: tuple[tuple[str, int], ...]
    """Address and port of each ready endpoint."""
    sources: tuple[str, ...] = ("0.0.0.0/0",)
    """Networks that may use it."""


def virtuals(services: Iterable[Object], slices: Iterable[Object]) -> tuple[list[Virtual], list[Virtual]]:
    """The cluster IPs and the load balancers' addresses of all Services, with their ready endpoints."""
    by_service: dict[tuple[str, str], list[Object]] = {}
    for item in slices:
        owner = item["metadata"].get("labels", {}).get("kubernetes.io/service-name")
        if owner is not None and item["addressType"] == "IPv4":
            by_service.setdefault((item["metadata"]["namespace"], owner), []).append(item)
    cluster_ips, balancers = [], []
    for service in services:
        metadata, spec = service["metadata"], service["spec"]
        own = by_service.get((metadata["namespace"], metadata["name"]), [])
        balancer = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or []
        for port in spec.get("ports", []):
            protocol, endpoints = (
                port.get("protocol", "TCP").lower(),
                tuple(_ready(own, port.get("name", ""))),
            )
            if spec.get("clusterIP", "None") != "None" and ":" not in spec["clusterIP"]:
                cluster_ips.append(Virtual(spec["clusterIP"], protocol, port["port"], endpoints))
            ranges = tuple(spec.get("loadBalancerSourceRanges") or Virtual.sources)
            balancers += [
                Virtual(entry["ip"], protocol, port["port"], endpoints, ranges)
                for entry in balancer
                if "ip" in entry
            ]
    return cluster_ips, balancers


def nat_table(addresses: Sequence[Virtual], *, hidden: str | None = None) -> str:
    """The table `nat`: each connection to a virtual address goes to one of its endpoints by chance.

    Args:
        addresses: the virtual addresses.
        hidden: the network whose addresses are not shown to the internet, nor to itself when it comes back from a
            load balancer.
    """
    rules = []
    for virtual in addresses:
        count = len(virtual.endpoints)
        for index, (address, port) in enumerate(virtual.endpoints):
            chance = (
                f"-m statistic --mode random --probability {1 / (count - index):.8f} "
                if index < count - 1
                else ""
            )
            rules += [
                f"-A SERVICES -s {source} -d {virtual.address}/32 -p {virtual.protocol} --dport {virtual.port} "
                f"{chance}-j DNAT --to-destination {address}:{port}"
                for source in virtual.sources
            ]
    endpoints = sorted({address for virtual in addresses for address, _ in virtual.endpoints})
    to_itself = [f"-A POSTROUTING -s {address}/32 -d {address}/32 -j MASQUERADE" for address in endpoints]
    return _table(
        "nat",
        [":PREROUTING ACCEPT", ":OUTPUT ACCEPT", ":POSTROUTING ACCEPT", ":SERVICES -"],
        [
            "-A PREROUTING -j SERVICES",
            "-A OUTPUT -j SERVICES",
            *rules,
            *to_itself,
            *(
                [
                    f"-A POSTROUTING -o {OUTSIDE} -j MASQUERADE",
                    f"-A POSTROUTING -s {hidden} -d {hidden} -j MASQUERADE",
                ]
                if hidden is not None
                else []
            ),
        ],
    )


def filter_table(
    policies: Sequence[Object], pods: Sequence[PodPlace], namespaces: Mapping[str, Mapping[str, str]]
) -> str:
    """The node's table `filter`: what NetworkPolicies allow.

    Args:
        policies: the cluster's NetworkPolicies.
        pods: all Pods with an address.
        namespaces: labels by namespace.
    """
    chains, rules, jumps = [], [], []
    for pod in pods:
        own = [
            p
            for p in policies
            if p["metadata"]["namespace"] == pod.namespace
            and _selects(p["spec"].get("podSelector"), pod.labels)
        ]
        for direction, option in (("Egress", "-i"), ("Ingress", "-o")):
            deciding = [p for p in own if direction in _types(p["spec"])]
            if not deciding:
                continue
            chain = f"{direction.upper()}-{pod.interface}"
            chains.append(f":{chain} -")
            jumps.append(f"-A POLICIES {option} {pod.interface} -j {chain}")
            for policy in deciding:
                for match in _allowed(policy, direction, pod, pods, namespaces):
                    rules.append(f"-A {chain} {match}-j RETURN")
            rules.append(f"-A {chain} -j REJECT --reject-with icmp-admin-prohibited")
    return _table(
        "filter",
        [":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT", ":POLICIES -", *chains],
        [
            f"-A INPUT {_SETTLED} -j ACCEPT",
            "-A INPUT -j POLICIES",
            f"-A FORWARD {_SETTLED} -j ACCEPT",
            "-A FORWARD -j POLICIES",
            *jumps,
            *rules,
        ],
    )


def edge_table() -> str:
    """The edge's table `filter`: from outside nothing but what was sent to a load balancer."""
    return _table(
        "filter",
        [":INPUT ACCEPT", ":FORWARD ACCEPT", ":OUTPUT ACCEPT"],
        [
            f"-A INPUT {_SETTLED} -j ACCEPT",
            f"-A INPUT -i {OUTSIDE} -p tcp -j REJECT --reject-with tcp-reset",
            f"-A INPUT -i {OUTSIDE} -p udp -j REJECT",
            f"-A FORWARD {_SETTLED} -j ACCEPT",
            f"-A FORWARD -i {OUTSIDE} -m conntrack ! --ctstate DNAT -j REJECT --reject-with icmp-admin-prohibited",
        ],
    )


def _table(name: str, chains: Iterable[str], rules: Iterable[str]) -> str:
    return "\n".join([f"*{name}", *(f"{chain} [0:0]" for chain in chains), *rules, "COMMIT", ""])


def _ready(slices: Iterable[Object], port_name: str) -> Iterator[tuple[str, int]]:
    for item in slices:
        numbers = [port["port"] for port in item.get("ports") or [] if (port.get("name") or "") == port_name]
        for endpoint in item.get("endpoints") or []:
            if endpoint.get("conditions", {}).get("ready", True):
                yield from ((endpoint["addresses"][0], number) for number in numbers)


def _types(spec: Object) -> Sequence[str]:
    return spec.get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in spec else [])]


def _allowed(
    policy: Object,
    direction: str,
    pod: PodPlace,
    pods: Sequence[PodPlace],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[str]:
    """The matches of all connections that a policy allows a Pod in one direction; each ends with a space."""
    peers_key, option = ("to", "-d") if direction == "Egress" else ("from", "-s")
    for rule in policy["spec"].get(direction.lower()) or []:
        peers = rule.get(peers_key)
        places: list[tuple[str, PodPlace | None]] = [("", None)]
        if peers:
            places = [p for peer in peers for p in _peer(peer, option, pod.namespace, pods, namespaces)]
        for match, peer_pod in places:
            served = pod if direction == "Ingress" else peer_pod
            for port in rule.get("ports") or [None]:
                port_match = _port(port, served)
                if port_match is not None:
                    yield f"{match}{port_match}"


def _peer(
    peer: Object,
    option: str,
    namespace: str,
    pods: Sequence[PodPlace],
    namespaces: Mapping[str, Mapping[str, str]],
) -> Iterator[tuple[str, PodPlace | None]]:
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        if ipaddress.ip_network(block["cidr"]).version == 4:
            for network in _without(block["cidr"], block.get("except") or []):
                yield f"{option} {network} ", None
        return
    for pod in pods:
        selector = peer.get("namespaceSelector")
        near = (
            pod.namespace == namespace
            if selector is None
            else _selects(selector, namespaces.get(pod.namespace, {}))
        )
        if near and _selects(peer.get("podSelector"), pod.labels):
            yield f"{option} {pod.address}/32 ", pod


def _without(cidr: str, excepted: Iterable[str]) -> list[str]:
    """A network without parts of it, as networks."""
    left = [ipaddress.IPv4Network(cidr)]
    for part in map(ipaddress.IPv4Network, excepted):
        left = [
            piece
            for network in left
            for piece in (network.address_exclude(part) if part.subnet_of(network) else [network])
        ]
    return [str(network) for network in left]


def _port(port: Object | None, served: PodPlace | None) -> str | None:
    """The match of a policy's port; None if it names a port that the serving Pod does not have."""
    if port is None:
        return ""
    protocol, number = port.get("protocol", "TCP").lower(), port.get("port")
    if number is None:
        return f"-p {protocol} "
    if isinstance(number, str):
        number = served.ports.get(number) if served is not None else None
        if number is None:
            return None
    last = f":{port['endPort']}" if "endPort" in port else ""
    return f"-p {protocol} --dport {number}{last} "


def _selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; none or an empty one matches everything."""
    selector = selector or {}
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_holds(expression, labels) for expression in selector.get("matchExpressions") or [])


def _holds(expression: Object, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    return {
        "In": value in expression.get("values", []),
        "NotIn": value not in expression.get("values", []),
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[expression["operator"]]
