"""The life of a provider process: its port, its log, and its end.

The engine starts a plugin with its own address as the last argument and reads the plugin's port from the first line of
standard output. At the end it interrupts the process; when the engine itself is killed nobody does, so the process
watches its parent.

Source pages: "Resource provider plugins" and "The engine's gRPC service" of Pulumi's developer documentation.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import status_pb2

from lab.providers.errors import ProviderError
from lab.providers.protocol import engine_pb2, engine_pb2_grpc

_MESSAGE_BYTES: Final = 400 * 1024 * 1024
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_BYTES),
)
_WORKERS: Final = 64
"""More than the engine's usual parallelism: a resource that is waited for holds one of them."""
_PARENT_CHECK_SECONDS: Final = 0.5
_LOG_TIMEOUT_SECONDS: Final = 5.0


class Severity(Enum):
    """How the engine shows a message."""

    INFO = "INFO"
    WARNING = "WARNING"


class Engine:
    """The engine that started this process, as far as a provider needs it: somewhere to report to.

    A provider may be started without one (by hand, in tests); messages then go nowhere.
    """

    def __init__(self, address: str = "") -> None:
        self._address = address
        self._lock = threading.Lock()
        self._stub: engine_pb2_grpc.EngineStub | None = None
        self.cancelled = threading.Event()
        """Set when waiting must end: the user interrupted the engine, or the process has to go."""

    def attach(self, address: str) -> None:
        """Report to the engine at `address` from now on."""
        with self._lock:
            if address and address != self._address:
                self._address, self._stub = address, None

    def log(self, severity: Severity, message: str, urn: str = "") -> None:
        """Show a message to the user, beside the resource where one is named."""
        self._send(severity, message, urn, ephemeral=False)

    def status(self, message: str, urn: str) -> None:
        """Show what is being waited for; the next message takes its place."""
        self._send(Severity.INFO, message, urn, ephemeral=True)

    def _send(self, severity: Severity, message: str, urn: str, *, ephemeral: bool) -> None:
        stub = self._connect()
        if stub is None:
            return
        request = engine_pb2.LogRequest(
            severity=engine_pb2.LogSeverity.Value(severity.value),
            message=message,
            urn=urn,
            ephemeral=ephemeral,
        )
        try:
            stub.Log(request, timeout=_LOG_TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            sys.stderr.write(f"message not delivered to the engine ({error}): {message}\n")

    def _connect(self) -> engine_pb2_grpc.EngineStub | None:
        with self._lock:
            if self._stub is None and self._address:
                channel = grpc.insecure_channel(self._address, options=_OPTIONS)
                self._stub = engine_pb2_grpc.EngineStub(channel)
            return self._stub


Request = TypeVar("Request", bound=Message)


class Method:
    """One method of the provider protocol and the function that answers it.

    A `ProviderError` of the function reaches the engine as a status with its message and detail. Methods that a provider
    does not list are unimplemented, which the engine knows how to handle.
    """

    def __init__(self, name: str, request: type[Request], answer: Callable[[Request], Message]) -> None:
        self.name = name

        def call(message: Request, context: grpc.ServicerContext) -> Message:
            try:
                return answer(message)
            except ProviderError as error:
                _refuse(context, error)

        self.handler = grpc.unary_unary_rpc_method_handler(
            call,
            request_deserializer=request.FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )


def _refuse(context: grpc.ServicerContext, error: ProviderError) -> NoReturn:
    if error.detail is not None:
        status = status_pb2.Status(code=grpc.StatusCode.UNKNOWN.value[0], message=str(error))
        status.details.add().Pack(error.detail)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(grpc.StatusCode.UNKNOWN, str(error))
    raise error


def start(methods: Sequence[Method]) -> tuple[grpc.Server, int]:
    """Serve a provider on a free port of the loopback interface; returns the server and the port."""
    server = grpc.server(ThreadPoolExecutor(max_workers=_WORKERS), options=_OPTIONS)
    handlers = {method.name: method.handler for method in methods}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("pulumirpc.ResourceProvider", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def main(build: Callable[[Engine], Sequence[Method]]) -> NoReturn:
    """Run a provider process until the engine ends it or is gone. Does not return."""
    parent = os.getppid()
    positional = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    engine = Engine(positional[-1] if positional else "")
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        engine.cancelled.set()
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    server, port = start(build(engine))
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    while not stop.wait(_PARENT_CHECK_SECONDS):
        if os.getppid() != parent:
            break
    engine.cancelled.set()
    server.stop(grace=1.0).wait()
    os._exit(0)


def first_in_run(plugin: str, process: int | None = None) -> bool:
    """Whether this is the first process of `plugin` that an engine has started.

    One engine starts a plugin several times: for the preview, for the update, for each provider in the program. What is
    to be said once per run is said by the first of them.

    Args:
        plugin: the plugin's name.
        process: the engine's process id, in place of this process's parent.
    """
    engine = os.getppid() if process is None else process
    folder = Path(tempfile.gettempdir()) / f"meshbridge-stand-in-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        for marker in folder.iterdir():
            if not Path("/proc", marker.name.split("-")[-2]).exists():
                marker.unlink(missing_ok=True)
        (folder / f"{plugin}-{engine}-{_started(engine)}").touch(exist_ok=False)
    except (OSError, IndexError):
        return False
    return True


def _started(process: int) -> str:
    """When a process started, in the kernel's ticks: tells it from an earlier one with the same id."""
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except OSError:
        return "0"
