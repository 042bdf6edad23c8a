"""One connection, made where the caller is: in a Pod, or on the internet. Told by JSON on stdin, it answers in JSON.

In: `host`, `port`, `say` (what to send, hexadecimal), `tls` (or plain text), `sni`, `certificate` and `key` (PEM), `newest`
(newest version of TLS), `whole` (listen until the far end closes, not once), `times`, `hold`, `linger`. Each but the first
three may be left out.
Out: `client` (its own address and port), `server` (SHA-256 of the server's certificate), `received` (hexadecimal), `error`; a list of them, one for each of the `times`.

With `hold` it sends no more than a ClientHello, waits for the server's first bytes of each, prints `held`, and keeps the
connections until its stdin ends. With `linger` it prints, in hexadecimal, what came back, says what it reads from each further
line, and so on; behind an empty line it only listens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import ssl
import sys
from typing import Any

TIMEOUT = 10.0
"""Seconds to wait for anything."""

Order = dict[str, Any]


def context(order: Order) -> ssl.SSLContext:
    """The TLS of a client that takes any server for the right one."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if "newest" in order:
        made.maximum_version = ssl.TLSVersion[order["newest"]]
    if "certificate" in order:
        files = [_file(order[part]) for part in ("certificate", "key")]
        made.load_cert_chain(*(f"/proc/self/fd/{file}" for file in files))
    return made


def _file(text: str) -> int:
    file = os.memfd_create("pem")
    os.write(file, text.encode())
    return file


def call(order: Order) -> dict[str, str]:
    """Connect, speak, and listen."""
    answer = {"client": "", "server": "", "received": "", "error": ""}
    try:
        with socket.create_connection((order["host"], order["port"]), TIMEOUT) as plain:
            address, port = plain.getsockname()[:2]
            answer["client"] = f"{address}:{port}"
            if not order.get("tls"):
                answer["received"] = _exchange(plain, order)
                return answer
            with context(order).wrap_socket(plain, server_hostname=order.get("sni")) as secured:
                answer["server"] = hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
                answer["received"] = _exchange(secured, order)
    except OSError as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    return answer


def _exchange(connection: socket.socket, order: Order) -> str:
    connection.sendall(bytes.fromhex(order["say"]))
    received = connection.recv(65536)
    while order.get("whole") and (more := connection.recv(65536)):
        received += more
    return received.hex()


def hold(order: Order) -> None:
    """Stall handshakes."""
    held = []
    for _ in range(order["times"]):
        connection = socket.create_connection((order["host"], order["port"]), TIMEOUT)
        outgoing = ssl.MemoryBIO()
        handshake = context(order).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=order.get("sni"))
        try:
            handshake.do_handshake()
        except ssl.SSLWantReadError:
            connection.sendall(outgoing.read())
        held.append(connection)
    for connection in held:
        # Where the server closes one instead, it has decided about that one too.
        with contextlib.suppress(ConnectionError):
            connection.recv(1)
    print("held", flush=True)
    sys.stdin.read()


def linger(order: Order) -> None:
    """Keep a plain connection."""
    with socket.create_connection((order["host"], order["port"]), TIMEOUT) as connection:
        address, port = connection.getsockname()[:2]
        print(f"{address}:{port}", _exchange(connection, order), flush=True)
        for line in sys.stdin:
            connection.settimeout(TIMEOUT if line.strip() else None)
            try:
                print(_exchange(connection, {"say": line.strip()}), flush=True)
            except OSError:
                print(flush=True)


if __name__ == "__main__":
    told: Order = json.loads(sys.stdin.readline())
    if told.get("hold"):
        hold(told)
    elif told.get("linger"):
        linger(told)
    else:
        print(json.dumps([call(told) for _ in range(told.get("times", 1))]))
