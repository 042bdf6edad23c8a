"""The stand-in for Pulumi's Kubernetes plugin: the process that the engine starts.

It handles every object of the Kubernetes API by its `apiVersion` and `kind`. Charts, YAML groups, Kustomize and
functions are the official plugin's alone. States have the official plugin's form, so a stack can move between the two.

Source pages: "Resource provider protocol" of Pulumi's developer documentation and the Kubernetes provider's pages of
Pulumi's registry.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from google.protobuf import empty_pb2
from google.protobuf.message import Message

from lab.providers.configuration import check_config, diff_config
from lab.providers.plugin import Engine, Method, Request, Severity, first_in_run, main
from lab.providers.protocol import plugin_pb2, provider_pb2
from lab.providers.provider import Provider
from lab.providers.settings import Settings, parse
from lab.providers.values import decode, reveal_object

NOTICE: Final = (
    "the Kubernetes provider in use is Meshbridge's stand-in (lab/providers), not Pulumi's official plugin: its folder "
    "comes first on PATH"
)


class Process:
    """A provider process: the parts of the protocol that are about the process, not about a resource."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._provider = Provider(Settings(), engine)

    def methods(self) -> list[Method]:
        """What the process answers to."""
        return [
            Method("Handshake", provider_pb2.ProviderHandshakeRequest, self._handshake),
            Method("Attach", plugin_pb2.PluginAttach, self._attach),
            Method("GetPluginInfo", empty_pb2.Empty, lambda _: plugin_pb2.PluginInfo(version=_version())),
            Method("GetSchema", provider_pb2.GetSchemaRequest, _schema),
            Method("CheckConfig", provider_pb2.CheckRequest, check_config),
            Method("DiffConfig", provider_pb2.DiffRequest, diff_config),
            Method("Configure", provider_pb2.ConfigureRequest, self._configure),
            self._on_resource("Check", provider_pb2.CheckRequest, Provider.check),
            self._on_resource("Diff", provider_pb2.DiffRequest, Provider.diff),
            self._on_resource("Create", provider_pb2.CreateRequest, Provider.create),
            self._on_resource("Read", provider_pb2.ReadRequest, Provider.read),
            self._on_resource("Update", provider_pb2.UpdateRequest, Provider.update),
            self._on_resource("Delete", provider_pb2.DeleteRequest, Provider.delete),
            Method("Cancel", empty_pb2.Empty, self._cancel),
        ]

    def _on_resource(
        self, name: str, request: type[Request], answer: Callable[[Provider, Request], Message]
    ) -> Method:
        """A method of the provider as it is configured at the time of the request."""
        return Method(name, request, lambda message: answer(self._provider, message))

    def _handshake(
        self, request: provider_pb2.ProviderHandshakeRequest
    ) -> provider_pb2.ProviderHandshakeResponse:
        self._engine.attach(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, supports_autonaming_configuration=True
        )

    def _attach(self, request: plugin_pb2.PluginAttach) -> empty_pb2.Empty:
        self._engine.attach(request.address)
        return empty_pb2.Empty()

    def _configure(self, request: provider_pb2.ConfigureRequest) -> provider_pb2.ConfigureResponse:
        if first_in_run("kubernetes"):
            self._engine.log(Severity.INFO, NOTICE)
        self._provider = Provider(parse(reveal_object(decode(request.args))), self._engine)
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    def _cancel(self, _request: empty_pb2.Empty) -> empty_pb2.Empty:
        self._engine.cancelled.set()
        return empty_pb2.Empty()


def _version() -> str:
    """The version of the official plugin that the program's SDK asks for; "" without the SDK.

    Taken from the name of the SDK's metadata folder: `importlib.metadata` costs a tenth of this process's start.
    """
    sdk = importlib.util.find_spec("pulumi_kubernetes")
    if sdk is None or sdk.origin is None:
        return ""
    found = next(Path(sdk.origin).parent.parent.glob("pulumi_kubernetes-*.dist-info"), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else ""


def _schema(_request: provider_pb2.GetSchemaRequest) -> provider_pb2.GetSchemaResponse:
    """The smallest schema: the stand-in is generic, and no SDK is generated from it."""
    return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "kubernetes", "version": _version()}))


def run() -> NoReturn:
    """Serve the engine until it ends."""
    main(lambda engine: Process(engine).methods())
