"""The lab that the benches measure in: its usual stacks, with Redis exported and imported, and no access logs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lab import applications
from lab.cluster import ClusterSettings
from lab.lab import CLIENT_POD, CONSUMER, CONSUMER_ID, DATABASES, PROVIDER, SYSTEM_DOMAIN, TRUST_DOMAINS, Lab

REDIS_PORT = 6379
MESH = {"accessLogFile": "", "defaultConfig": {"proxyMetadata": {"ECC_SIGNATURE_ALGORITHM": "ECDSA"}}}
"""Mesh configuration: no access logs, and workload certificates with P-256 keys, as those of the public hop."""
NAMESPACE = CLIENT_POD[0]
"""Of the application."""
REDIS = f"redis.{DATABASES}.svc.cluster.local"


def further(bindings: int, way: str) -> str:
    """Name of the service that is imported when the gateway has so many bindings, by `up` or by objects alone."""
    return f"further-{bindings}-{way}"


def import_of(name: str, **more: object) -> dict[str, Any]:
    """An import of one of the services, which are all Redis."""
    endpoint = {"name": "main", "port": REDIS_PORT, **more}
    return {"name": name, "provider": "data", "namespace": NAMESPACE, "endpoints": [endpoint]}


def service(name: str) -> str:
    """Where the application addresses an import."""
    return f"svc-{name}-main.{NAMESPACE}.svc.cluster.local"


@contextmanager
def world(sizes: Sequence[int]) -> Iterator[Lab]:
    """The lab, in which the provider exports what `further` names for each of the sizes."""
    settings = {name: ClusterSettings(name, domain, mesh=MESH) for name, domain in TRUST_DOMAINS.items()}
    with Lab(name=f"bench-{os.getpid()}", settings=settings) as lab:
        lab.provider.apply(*applications.redis(DATABASES, "redis"))
        provider, consumer = lab.usual(PROVIDER), lab.usual(CONSUMER)
        names = ["redis", *(further(size, way) for size in sizes for way in ("up", "objects"))]
        provider["provider"]["exports"] += [_export(name) for name in names]
        consumer["consumer"]["imports"].append(import_of("redis"))
        lab.connect({PROVIDER: provider}, {CONSUMER: consumer})
        lab.provider.wait_ready(DATABASES, "redis")
        yield lab


def _export(name: str) -> dict[str, Any]:
    endpoint = {"name": "main", "host": host(name), "address": REDIS, "port": REDIS_PORT}
    return {"name": name, "consumers": [CONSUMER_ID], "endpoints": [endpoint]}


def host(name: str) -> str:
    """Public host of a service."""
    return f"{name}.{SYSTEM_DOMAIN}"
