"""A provider process's server in this process, and a client of the engine's protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf import empty_pb2
from google.protobuf.message import Message

from lab.providers.kubernetes import Process
from lab.providers.plugin import Engine, Severity, start
from lab.providers.protocol import provider_pb2
from lab.providers.values import Object, decode, encode

URN = "urn:pulumi:stack::project::kubernetes:{token}::{name}"


class Listener(Engine):
    """An engine that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Severity, str]] = []

    def log(self, severity: Severity, message: str, urn: str = "") -> None:
        self.heard.append((severity, message))


class Client:
    """The requests of the engine, in plain data."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, method: str, request: Message, reply: type[Message]) -> Any:
        """One request; raises grpc.RpcError as the engine would see it."""
        rpc = self._channel.unary_unary(
            f"/pulumirpc.ResourceProvider/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=reply.FromString,
        )
        return rpc(request, timeout=10)

    def configure(self, **inputs: Any) -> provider_pb2.ConfigureResponse:
        request = provider_pb2.ConfigureRequest(args=encode(inputs), acceptSecrets=True)
        reply: provider_pb2.ConfigureResponse = self.call(
            "Configure", request, provider_pb2.ConfigureResponse
        )
        return reply

    def check(self, news: Object, olds: Object | None = None, **more: Any) -> tuple[Object, dict[str, str]]:
        request = provider_pb2.CheckRequest(
            urn=urn_of(news), news=encode(news), olds=encode(olds or {}), **more
        )
        reply = self.call("Check", request, provider_pb2.CheckResponse)
        return decode(reply.inputs), {failure.property: failure.reason for failure in reply.failures}

    def diff(self, state: Object, news: Object, *ignored: str) -> provider_pb2.DiffResponse:
        request = provider_pb2.DiffRequest(
            urn=urn_of(news), id="demo/a", olds=encode(state), news=encode(news), ignoreChanges=ignored
        )
        reply: provider_pb2.DiffResponse = self.call("Diff", request, provider_pb2.DiffResponse)
        return reply

    def create(self, inputs: Object, *, preview: bool = False) -> tuple[str, Object]:
        request = provider_pb2.CreateRequest(urn=urn_of(inputs), properties=encode(inputs), preview=preview)
        reply = self.call("Create", request, provider_pb2.CreateResponse)
        return reply.id, decode(reply.properties)

    def update(self, state: Object, inputs: Object, *, preview: bool = False) -> Object:
        request = provider_pb2.UpdateRequest(
            urn=urn_of(inputs), id="demo/a", olds=encode(state), news=encode(inputs), preview=preview
        )
        return decode(self.call("Update", request, provider_pb2.UpdateResponse).properties)

    def read(
        self, identifier: str, state: Object, inputs: Object, urn: str = ""
    ) -> tuple[str, Object, Object]:
        request = provider_pb2.ReadRequest(
            urn=urn or urn_of(inputs), id=identifier, properties=encode(state), inputs=encode(inputs)
        )
        reply = self.call("Read", request, provider_pb2.ReadResponse)
        return reply.id, decode(reply.properties), decode(reply.inputs)

    def delete(self, identifier: str, state: Object) -> None:
        request = provider_pb2.DeleteRequest(urn=urn_of(state), id=identifier, properties=encode(state))
        self.call("Delete", request, empty_pb2.Empty)


def urn_of(obj: Object) -> str:
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    group_version = api_version if "/" in str(api_version) else f"core/{api_version}"
    return URN.format(token=f"{group_version}:{kind}", name="resource")


@pytest.fixture
def engine() -> Listener:
    return Listener()


@pytest.fixture
def client(engine: Listener) -> Iterator[Client]:
    server, port = start(Process(engine).methods())
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel)
    server.stop(grace=None).wait()


Renderer = Callable[[], dict[str, Object]]


@pytest.fixture
def rendered(client: Client, tmp_path: Path) -> Renderer:
    """Configures the client's provider to render, and reads what it has rendered."""
    client.configure(renderYamlToDirectory=str(tmp_path))

    def read() -> dict[str, Object]:
        return {
            str(path.relative_to(tmp_path)): yaml.safe_load(path.read_text())
            for path in tmp_path.rglob("*")
            if path.is_file()
        }

    return read
