"""An application that answers over HTTP/1.1 on port 8080, or over HTTPS if TLS_CERTIFICATE and TLS_KEY name files, and over
gRPC on port 9090.

HTTP: any method and path; the answer is JSON: who answered, the request's line, headers, and the body's SHA-256 and
length. `GET /bytes/N` answers with the first N bytes of `content`. gRPC: `/lab.Echo/Say` answers with the request's bytes behind
this server's name and a colon; `/lab.Echo/Chat` does so for each message of a stream.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

HTTP_PORT, GRPC_PORT = 8080, 9090
NAME = socket.gethostname()
BLOCK_SIZE = 2**16
FILLER = hashlib.shake_128(b"lab").digest(BLOCK_SIZE - 8)


def content(count: int) -> Iterator[bytes]:
    """So many bytes in blocks, each of which begins with its number, so that none is lost, doubled or moved unseen."""
    for number in range(-(-count // BLOCK_SIZE)):
        yield (number.to_bytes(8, "big") + FILLER)[: count - number * BLOCK_SIZE]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers every request with what it was."""

    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        digest, length = hashlib.sha256(), int(self.headers.get("Content-Length", 0))
        for begin in range(0, length, BLOCK_SIZE):
            digest.update(self.rfile.read(min(BLOCK_SIZE, length - begin)))
        if self.path.startswith("/bytes/"):
            self._bytes(int(self.path.removeprefix("/bytes/")))
            return
        answer = json.dumps(
            {
                "server": NAME,
                "method": self.command,
                "path": self.path,
                "headers": {key.lower(): value for key, value in self.headers.items()},
                "length": length,
                "sha256": digest.hexdigest(),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815 - the base class's names

    def _bytes(self, count: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(count))
        self.end_headers()
        for block in content(count):
            self.wfile.write(block)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """One line a request."""
        print(self.address_string(), format % args, flush=True)


class Server(http.server.ThreadingHTTPServer):
    """The HTTP server; many may connect at once."""

    request_queue_size = 1024
    daemon_threads = True


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """The gRPC service, without generated code: its messages are bytes."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a method."""
        if details.method == "/lab.Echo/Say":
            return grpc.unary_unary_rpc_method_handler(lambda message, _context: _named(message))
        if details.method == "/lab.Echo/Chat":
            return grpc.stream_stream_rpc_method_handler(_chat)
        return None


def _named(message: bytes) -> bytes:
    return NAME.encode() + b":" + message


def _chat(messages: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    for message in messages:
        yield _named(message)


def main() -> None:
    """Serve until the process ends."""
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=[Echo()])
    server.add_insecure_port(f"0.0.0.0:{GRPC_PORT}")
    server.start()
    web = Server(("0.0.0.0", HTTP_PORT), Handler)  # noqa: S104 - the container's
    if "TLS_CERTIFICATE" in os.environ:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(os.environ["TLS_CERTIFICATE"], os.environ["TLS_KEY"])
        web.socket = tls.wrap_socket(web.socket, server_side=True)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    print(f"{NAME} serves HTTP on {HTTP_PORT} and gRPC on {GRPC_PORT}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
