"""The generated stubs of Pulumi's provider protocol, without the cost of the SDK around them.

`import pulumi.runtime.proto` runs `pulumi/__init__.py` and with it the whole SDK: a quarter of a second that every
preview would pay. The stubs need only each other and protobuf, so their folder is loaded as a package of its own. When
the SDK is already imported (in tests), its modules are used: one process must not register a message type twice.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

_SDK_PACKAGE = "pulumi.runtime.proto"
_PRIVATE_PACKAGE = "lab.providers._pulumi_proto"

if TYPE_CHECKING:
    from pulumi.runtime.proto import (
        engine_pb2,
        engine_pb2_grpc,
        plugin_pb2,
        provider_pb2,
    )
else:

    def _package() -> str:
        if _SDK_PACKAGE in sys.modules:
            return _SDK_PACKAGE
        if _PRIVATE_PACKAGE not in sys.modules:
            sdk = importlib.util.find_spec("pulumi")
            if sdk is None or sdk.origin is None:
                raise ImportError(
                    "the stand-in provider needs the `pulumi` package: run it with the project's virtual environment"
                )
            package = ModuleType(_PRIVATE_PACKAGE)
            package.__path__ = [str(Path(sdk.origin).parent / "runtime" / "proto")]
            sys.modules[_PRIVATE_PACKAGE] = package
        return _PRIVATE_PACKAGE

    def _stub(name: str) -> ModuleType:
        return importlib.import_module(f"{_package()}.{name}")

    engine_pb2 = _stub("engine_pb2")
    engine_pb2_grpc = _stub("engine_pb2_grpc")
    plugin_pb2 = _stub("plugin_pb2")
    provider_pb2 = _stub("provider_pb2")

__all__ = ["engine_pb2", "engine_pb2_grpc", "plugin_pb2", "provider_pb2"]
