"""What bindings cost a gateway: Envoy's memory, its configuration, and the time until one more binding answers.

The bindings' objects are built by `routing` and applied without the engine; all lead to the same service.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_network

import config
from bench import path
from bench.bindings import consumer_side, provider_side
from bench.table import Section
from bench.world import NAMESPACE, REDIS, REDIS_PORT, further, host, import_of
from config import EgressGateway, IngressGateway
from lab.access import PROXY
from lab.cluster import Cluster
from lab.lab import (
    CLIENT,
    CLIENT_SECRET,
    CONSUMER_ID,
    EGRESS,
    INGRESS,
    PROVIDER_ID,
    SERVER_SECRET,
    TRUST_DOMAINS,
    Lab,
)
from routing import ConsumerEndpoint, Manifest, ProviderEndpoint

PUBLIC_PORT = 9000
APPLIERS = 8
"""Threads that apply objects."""
SETTLE = 600.0
"""Seconds within which the proxies must have all bindings."""
PROXIES = ("egress gateway", "ingress gateway", "sidecar")


@dataclass(frozen=True)
class Size:
    """What a proxy takes: bytes that Envoy has allocated, its resident bytes, and its configuration as compact JSON."""

    allocated: int
    resident: int
    configuration: int


@dataclass
class Level:
    """What was measured with so many bindings."""

    bindings: int
    sizes: dict[str, Size]
    apply: float = 0.0
    """Seconds to apply the objects of the bindings that were added."""
    spread: float = 0.0
    """Seconds after that until all proxies had them."""
    others: int = 0
    """Bindings that the levels before have added for their own measurements."""
    first_byte: dict[str, float] = field(default_factory=dict)
    """Seconds from the beginning of `up`, or from the last object, to the first byte of one more binding."""
    up: float = 0.0
    """Seconds that `up` took."""


def measure(lab: Lab, sizes: Sequence[int]) -> Section:
    """Add bindings up to each of the sizes, and at each one more by `up` and one more by its objects."""
    levels = [Level(0, _sizes(lab))]
    for size in sorted(sizes):
        level = _grow(lab, levels[-1].bindings, size)
        level.others = 2 * (len(levels) - 1)
        _one_more(lab, level)
        levels.append(level)
    rows = [_cells(level, levels[0]) for level in levels]
    text = (
        "Bindings of one application's namespace, nine objects each on the consumer's side and five on the provider's, all of one "
        "egress and one ingress gateway. Memory is what Envoy has allocated (`/memory`), configuration its `/config_dump` as compact "
        "JSON, both per binding above those of the gateways with the stacks' own bindings, which stand in the first line as totals. "
        "First byte: from the beginning of `pulumi up`, which adds one import to a stack of few, or from the last of a binding's "
        "objects applied directly, to the answer to the application's first request. Spread: from the last object to the "
        "configuration in all proxies."
    )
    header = [
        "bindings",
        *(f"{proxy}: {what}" for proxy in PROXIES for what in ("memory", "configuration")),
        "resident, egress gateway",
        "applied in",
        "spread",
        "`up`: first byte",
        "`up`: done",
        "objects: first byte",
    ]
    return Section("Bindings on one gateway", text, header, rows)


def _cells(level: Level, base: Level) -> list[str]:
    cells = [str(level.bindings)]
    for proxy in PROXIES:
        size, start = level.sizes[proxy], base.sizes[proxy]
        for now, before in ((size.allocated, start.allocated), (size.configuration, start.configuration)):
            per = (now - before) / (level.bindings + level.others) if level.bindings else now
            cells.append(f"{per / 1024:.1f} KiB" if level.bindings else f"{per / 2**20:.1f} MiB in all")
    cells.append(f"{level.sizes['egress gateway'].resident / 2**20:.0f} MiB")
    if not level.bindings:
        return [*cells, *[""] * 5]
    times = (level.apply, level.spread, level.first_byte["up"], level.up, level.first_byte["objects"])
    return [*cells, *(f"{seconds:.1f} s" for seconds in times)]


# Bindings


def _grow(lab: Lab, before: int, bindings: int) -> Level:
    """Add bindings until there are so many."""
    began = time.monotonic()
    added = range(before, bindings)
    for cluster, sides in (
        (lab.provider, [_exported(f"bench-{number}") for number in added]),
        (lab.consumer, [_imported(f"bench-{number}") for number in added]),
    ):
        with ThreadPoolExecutor(APPLIERS) as pool:
            list(pool.map(partial(_apply, cluster), sides))
    applied = time.monotonic()
    for proxy, (cluster, pod) in _proxies(lab).items():
        cluster.wait_until(
            partial(_knows, cluster, pod, bindings),
            f"the {proxy} has {bindings} bindings",
            SETTLE,
        )
    spread = time.monotonic()
    return Level(bindings, _sizes(lab), applied - began, spread - applied)


def _imported(name: str) -> list[Manifest]:
    return list(
        consumer_side(
            ConsumerEndpoint(
                slug=f"{name}-main",
                namespace=NAMESPACE,
                cluster=config.Cluster(context="lab", trust_domain=TRUST_DOMAINS["consumer"]),
                gateway=EgressGateway(),
                host=host(name),
                port=PUBLIC_PORT,
                provider_id=PROVIDER_ID,
                client_secret=CLIENT_SECRET,
                service=f"svc-{name}-main",
                service_port=REDIS_PORT,
            )
        )
    )


def _exported(name: str) -> list[Manifest]:
    """Without the NetworkPolicy: the stack's own binding of the service has one that says the same."""
    endpoint = ProviderEndpoint(
        slug=f"{name}-main",
        gateway=IngressGateway(),
        host=host(name),
        port=PUBLIC_PORT,
        server_secret=SERVER_SECRET,
        consumers=(CONSUMER_ID,),
        address=REDIS,
        target_port=REDIS_PORT,
    )
    return [manifest for manifest in provider_side(endpoint) if manifest.kind != "NetworkPolicy"]


def _apply(cluster: Cluster, manifests: Iterable[Manifest]) -> None:
    cluster.apply(*(manifest.as_dict() for manifest in manifests))


# One more


def _one_more(lab: Lab, level: Level) -> None:
    """Measure how long one more binding takes, made by the engine and made of objects alone."""
    stack = lab.stack("consumer")
    name = further(level.bindings, "up")
    configuration = stack.configuration
    address = str(ip_network(lab.consumer.addresses.services)[-2 - level.bindings])
    configuration["consumer"]["imports"].append(import_of(name, clusterIp=address))
    with _first_answer(lab, address) as answer:
        began = time.time()
        lab.up("consumer", configuration)
        level.up = time.time() - began
        level.first_byte["up"] = answer() - began

    name = further(level.bindings, "objects")
    *objects, last = _imported(name)
    _apply(lab.consumer, objects)
    service = lab.consumer.api.get("v1", "Service", f"svc-{name}-main", NAMESPACE)
    assert service is not None
    with _first_answer(lab, service["spec"]["clusterIP"]) as answer:
        _apply(lab.consumer, [last])
        began = time.time()
        level.first_byte["objects"] = answer() - began


@contextmanager
def _first_answer(lab: Lab, address: str) -> Iterator[Callable[[], float]]:
    """A client that asks until it is answered, and a function that waits for when that was."""
    command = [sys.executable, "-c", path.PROGRAM, "first", address, str(REDIS_PORT)]
    with lab.consumer.popen(CLIENT, command) as process:
        yield lambda: float(_output(process))


def _output(process: subprocess.Popen[str]) -> str:
    output, error = process.communicate(timeout=SETTLE)
    if process.returncode != 0:
        raise SystemExit(f"the client failed: {error}")
    return output


# Proxies


def _proxies(lab: Lab) -> dict[str, tuple[Cluster, str]]:
    places = (
        (lab.consumer, EGRESS.partition("/")[2]),
        (lab.provider, INGRESS.partition("/")[2]),
        (lab.consumer, CLIENT),
    )
    return dict(zip(PROXIES, places, strict=True))


def _knows(cluster: Cluster, pod: str, bindings: int) -> bool:
    """Whether a proxy's listeners lead to so many of the bindings. A proxy that does not know them yet is left alone for as
    long as its answer took: with many, it would else do nothing but answer."""
    asked = time.monotonic()
    listeners = cluster.admin(pod, "/config_dump?resource=dynamic_listeners")
    known = len(set(re.findall(r"bench-\d+-main", listeners))) >= bindings
    if not known:
        time.sleep(time.monotonic() - asked)
    return known


def _has_drained(cluster: Cluster, pod: str) -> bool:
    return not any(cluster.stats(pod, "draining").values())


def _sizes(lab: Lab) -> dict[str, Size]:
    found = {}
    for proxy, (cluster, pod) in _proxies(lab).items():
        # What a replaced listener held is free when it has drained.
        cluster.wait_until(
            partial(_has_drained, cluster, pod),
            f"the {proxy} has drained what was replaced",
            SETTLE,
        )
        allocated = int(json.loads(cluster.admin(pod, "/memory"))["allocated"])
        configuration = json.dumps(json.loads(cluster.admin(pod, "/config_dump")), separators=(",", ":"))
        found[proxy] = Size(allocated, _resident(cluster, pod), len(configuration))
    return found


def _resident(cluster: Cluster, pod: str) -> int:
    """Resident bytes of a Pod's Envoy."""
    script = (
        "for each in /proc/[0-9]*; do [ $(cat $each/comm) = envoy ] && grep VmRSS $each/status; done; true"
    )
    said = cluster.exec(pod, ["sh", "-c", script], container=PROXY).expect_success()
    return int(said.split()[1]) * 1024
