"""Programs on the internet between the clusters: what a stranger there sees, tries, and is told."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self, TypeVar

from lab import pki
from lab.lab import Lab

T = TypeVar("T")
PUBLIC_PORT, STATUS_PORT = 9000, 15021
TIMEOUT = 10.0
"""Seconds that a stranger waits for an answer."""


def on_internet(lab: Lab, work: Callable[[], T]) -> T:
    """Do something in a thread that is on the internet."""
    with ThreadPoolExecutor(1, initializer=lab.internet.network.enter) as thread:
        return thread.submit(work).result()


def public_address(lab: Lab) -> str:
    """The provider's load balancer."""
    return str(lab.stack("provider").outputs()["provider"]["address"])


def served_certificate(lab: Lab, address: str, host: str) -> bytes:
    """The certificate, PEM, that the provider's gateway presents for a host."""
    context = _trusting_anyone()

    def look() -> bytes:
        with (
            socket.create_connection((address, PUBLIC_PORT), TIMEOUT) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            return tls.getpeercert(binary_form=True) or b""

    return ssl.DER_cert_to_PEM_cert(on_internet(lab, look)).encode()


def echo(
    lab: Lab, address: str, host: str, pair: pki.KeyPair, directory: Path, *, header: bytes = b""
) -> bytes:
    """What the Redis behind a host answers to ECHO; nothing when the connection is refused. header: sent before all else."""
    context = _presenting(pair, directory)
    return on_internet(lab, lambda: _echo(context, address, host, header))


def says_ready(lab: Lab, address: str, *, header: bytes = b"") -> bool:
    """Whether a gateway says that it is ready, when asked as load balancers do. header: sent before all else."""

    def ask() -> bytes:
        with socket.create_connection((address, STATUS_PORT), TIMEOUT) as plain:
            plain.sendall(
                header + b"GET /healthz/ready HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
            )
            return plain.recv(1024)

    return on_internet(lab, ask).startswith(b"HTTP/1.1 200 ")


def proxy_header(client: str, port: int) -> bytes:
    """A PROXY protocol header, version 2, for a client's connection, with a field as AWS's load balancers add it.

    Sources: HAProxy's "The PROXY protocol", 2.2; AWS's "Target groups for your Network Load Balancers", Proxy protocol.
    """
    endpoint = b"\x01vpce-0123456789abcdef0"
    said = b"".join(
        (
            *(IPv4Address(address).packed for address in (client, "203.0.113.1")),
            struct.pack("!HH", port, PUBLIC_PORT),
            struct.pack("!BH", 0xEA, len(endpoint)),
            endpoint,
        )
    )
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", 0x21, 0x11, len(said)) + said


class Stranger:
    """A thread on the internet that tries something again and again. A context manager."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.refused = 0
        """How often it was refused."""
        self.admitted: list[bytes] = []
        """What it was told when it was not."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        self._lab.internet.network.enter()
        for heard in self._tries():
            if heard is not None:
                self.admitted.append(heard)
            if self._ended.is_set():
                return

    def _tries(self) -> Iterator[bytes | None]:
        """Tries without end; what was heard, None when refused or when nobody came."""
        raise NotImplementedError


class Intruder(Stranger):
    """Calls the provider's gateway with a certificate that is not for the host."""

    def __init__(self, lab: Lab, address: str, host: str, pair: pki.KeyPair, directory: Path) -> None:
        super().__init__(lab)
        self._address, self._host = address, host
        self._context = _presenting(pair, directory)

    def _tries(self) -> Iterator[bytes | None]:
        while not self._ended.wait(0.05):
            heard = _echo(self._context, self._address, self._host)
            self.refused += not heard
            yield heard or None


class Impostor(Stranger):
    """Answers in the provider's place with a certificate that is not the provider's."""

    def __init__(self, lab: Lab, address: str, pair: pki.KeyPair, directory: Path) -> None:
        super().__init__(lab)
        self._address = address
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _load(self._context, pair, directory)
        self._context.load_verify_locations(cadata=lab.consumer_authority.pem.decode())
        self._context.verify_mode = ssl.CERT_REQUIRED

    def _tries(self) -> Iterator[bytes | None]:
        with socket.create_server((self._address, PUBLIC_PORT), backlog=256) as server:
            server.settimeout(0.1)
            while True:
                try:
                    plain, _ = server.accept()
                except TimeoutError:
                    yield None
                    continue
                yield self._answer(plain)

    def _answer(self, plain: socket.socket) -> bytes | None:
        plain.settimeout(TIMEOUT)
        with plain, contextlib.suppress(OSError):
            tls = self._context.wrap_socket(plain, server_side=True)
            with tls:
                return b"handshake done, and: " + tls.recv(1024)
        self.refused += 1
        return None


def _echo(context: ssl.SSLContext, address: str, host: str, header: bytes = b"") -> bytes:
    try:
        with socket.create_connection((address, PUBLIC_PORT), TIMEOUT) as plain:
            plain.sendall(header)
            with context.wrap_socket(plain, server_hostname=host) as tls:
                tls.sendall(b"*2\r\n$4\r\nECHO\r\n$8\r\nstranger\r\n")
                return tls.recv(1024)
    except OSError:
        return b""


def _presenting(pair: pki.KeyPair, directory: Path) -> ssl.SSLContext:
    context = _trusting_anyone()
    _load(context, pair, directory)
    return context


def _trusting_anyone() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def _load(context: ssl.SSLContext, pair: pki.KeyPair, directory: Path) -> None:
    file = directory / "pair.pem"
    file.write_bytes(pair.certificate + pair.key)
    context.load_cert_chain(file)
    file.unlink()
