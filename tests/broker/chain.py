"""A chain of proxies on real sockets: platform -> consumer's proxy -> provider's proxy -> service broker."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from broker import settings
from broker.app import create_app
from broker.proxy import Proxy
from broker.settings import Settings
from broker.store import Store
from tests.broker import service_broker
from tests.broker.cluster import Cluster
from tests.broker.service_broker import PLAN, SERVICE, ServiceBroker

PROFILE = "urn:local.test:public"
CONSUMER_ID = "client.shop.example"
SYSTEM_DOMAIN = "istio.data.example"
USER, PASSWORD = "platform", "s3cret-of-the-platform"
INSTANCE = "11111111-1111-4111-8111-111111111111"
BINDING = "22222222-2222-4222-8222-222222222222"
PREFIX = "istio-"
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For calls without TLS: it trusts nobody. To read the system's authorities for each client costs more than the calls."""


def write_settings(path: Path, **values: object) -> Path:
    """A settings file."""
    path.write_text(json.dumps(values))
    path.chmod(0o600)
    return path


def common(folder: Path, upstream: str, **more: object) -> dict[str, object]:
    """The settings that all roles share; everything lies in `folder`."""
    return {
        "upstream": upstream,
        "database": f"sqlite:///{folder}/broker.db",
        "state": f"file://{folder}/state",
        "networkProfile": PROFILE,
        "username": USER,
        "password": PASSWORD,
        "upstreamUsername": USER,
        "upstreamPassword": PASSWORD,
        "shards": 2,
        "deployTimeout": 20,
        "upstreamTimeout": 30,
        **more,
    }


def provider_settings(folder: Path, upstream: str, **more: object) -> dict[str, object]:
    return common(
        folder,
        upstream,
        **{
            "role": "provider",
            "upstreamUsername": service_broker.USER,
            "upstreamPassword": service_broker.PASSWORD,
            "stack": "provider",
            "upstreamTimeout": 3,
            "provider": {
                "systemDomain": SYSTEM_DOMAIN,
                "serviceNamePrefix": PREFIX,
                "planMetadata": {"supportedPlatforms": ["kubernetes"]},
                "ingressGateway": {"adopt": True},
            },
            **more,
        },
    )


def consumer_settings(folder: Path, upstream: str, **more: object) -> dict[str, object]:
    return common(
        folder,
        upstream,
        **{
            "role": "consumer",
            "stack": "consumer",
            "consumer": {
                "id": CONSUMER_ID,
                "namespaces": ["shop", "billing"],
                "systemDomains": [SYSTEM_DOMAIN],
                "serviceNamePrefix": PREFIX,
                "egressGateway": {"adopt": True},
            },
            **more,
        },
    )


def load(folder: Path, values: Mapping[str, object]) -> Settings:
    folder.mkdir(parents=True, exist_ok=True)
    return settings.read({}, write_settings(folder / "settings.yaml", **values))


@contextmanager
def served(read: Settings, proxy: Proxy) -> Iterator[str]:
    """The proxy on a socket; its URL."""
    config = uvicorn.Config(
        create_app(read, proxy), port=0, log_config=None, access_log=False, timeout_graceful_shutdown=10
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the proxy serves")
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


class Platform:
    """What a platform does: OSB calls with authentication and version, without TLS."""

    def __init__(self, url: str, base: str = "") -> None:
        self.base = base
        self.client = httpx.Client(
            base_url=url,
            auth=(USER, PASSWORD),
            headers={"X-Broker-API-Version": "2.17"},
            timeout=60,
            verify=PLAIN,
            trust_env=False,
        )

    def path(self, instance: str = INSTANCE, binding: str | None = None, rest: str = "") -> str:
        tail = "" if binding is None else f"/service_bindings/{binding}"
        return f"{self.base}/v2/service_instances/{instance}{tail}{rest}"

    def provision(self, instance: str = INSTANCE, plan: str = PLAN, **more: object) -> httpx.Response:
        body = {"service_id": SERVICE, "plan_id": plan, "organization_guid": "o", "space_guid": "s", **more}
        return self.client.put(self.path(instance), json=body)

    def bind(
        self,
        binding: str = BINDING,
        *,
        instance: str = INSTANCE,
        plan: str = PLAN,
        query: Mapping[str, str] | None = None,
        **more: object,
    ) -> httpx.Response:
        body = {"service_id": SERVICE, "plan_id": plan, **more}
        return self.client.put(self.path(instance, binding), params=dict(query or {}), json=body)

    def unbind(
        self, binding: str = BINDING, *, instance: str = INSTANCE, plan: str = PLAN, **more: str
    ) -> httpx.Response:
        query = {"service_id": SERVICE, "plan_id": plan, **more}
        return self.client.delete(self.path(instance, binding), params=query)

    def fetch(self, binding: str = BINDING, instance: str = INSTANCE) -> httpx.Response:
        return self.client.get(self.path(instance, binding))

    def last_operation(self, binding: str = BINDING, **query: str) -> httpx.Response:
        return self.client.get(self.path(INSTANCE, binding, "/last_operation"), params=query)

    def adapt(self, body: object) -> httpx.Response:
        return self.client.post(self.path(INSTANCE, BINDING, "/adapt_credentials"), json=body)


class Chain:
    """The whole chain, with a cluster on each side that is held in memory."""

    def __init__(self, folder: Path, **consumer_settings_too: object) -> None:
        """consumer_settings_too: settings of the consumer's proxy in place of the usual ones."""
        self._stack = ExitStack()
        self.broker = ServiceBroker().start()
        self._stack.callback(self.broker.stop)
        self.provider_cluster, self.consumer_cluster = Cluster(), Cluster()
        provider = load(folder / "provider", provider_settings(folder / "provider", self.broker.url))
        self.provider = Proxy(provider, deployer=self.provider_cluster)
        self.provider_url = self._stack.enter_context(served(provider, self.provider))
        consumer = load(
            folder / "consumer",
            consumer_settings(folder / "consumer", self.provider_url, **consumer_settings_too),
        )
        self.consumer = Proxy(consumer, deployer=self.consumer_cluster)
        self.consumer_url = self._stack.enter_context(served(consumer, self.consumer))
        self.platform = Platform(self.consumer_url)
        self.direct = Platform(self.provider_url)

    @property
    def stores(self) -> tuple[Store, Store]:
        assert self.provider.store is not None
        assert self.consumer.store is not None
        return self.provider.store, self.consumer.store

    def settled(self) -> bool:
        """Whether nothing is left to do on either side."""
        return all(b.settled and b.phase == "bound" for store in self.stores for b in store.all())

    def close(self) -> None:
        self.platform.client.close()
        self.direct.client.close()
        self._stack.close()


def wait_until(done: Callable[[], Any], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)
