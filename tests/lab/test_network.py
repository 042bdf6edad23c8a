from __future__ import annotations

import ipaddress
from itertools import combinations

from lab.network import ClusterAddresses, cluster_addresses, internet
from lab.registry import SLOTS


def networks(addresses: ClusterAddresses) -> list[ipaddress.IPv4Network]:
    single = [addresses.node, addresses.edge, addresses.host]
    return [*map(ipaddress.IPv4Network, single), addresses.pods, ipaddress.IPv4Network(addresses.services)]


def test_no_two_clusters_of_any_two_labs_share_an_address_or_a_link() -> None:
    clusters = [cluster_addresses(slot, index) for slot in range(SLOTS) for index in (0, 1)]

    for one, other in combinations(clusters, 2):
        assert not any(a.overlaps(b) for a in networks(one) for b in networks(other))
        assert not {one.outside, *one.balancers} & {other.outside, *other.balancers}
        assert one.link != other.link


def test_a_cluster_s_public_addresses_are_of_its_lab_s_internet() -> None:
    for slot in range(SLOTS):
        for index in (0, 1):
            addresses = cluster_addresses(slot, index)
            public = [addresses.outside, *addresses.balancers]
            assert all(ipaddress.ip_address(address) in internet(slot) for address in public)
            assert len(set(public)) == len(public)
