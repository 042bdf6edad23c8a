"""Mutual TLS 1.3 through memory, by OpenSSL, between the holders of two issued folders."""

from __future__ import annotations

import ssl
from pathlib import Path


def handshake(server: Path, client: Path, name: str) -> str:
    """Let `client` connect to `server` as `name`, send one message and read the answer; the answer.

    Both folders hold tls.crt, tls.key, ca.crt and optionally ca.crl. Raises ssl.SSLError as OpenSSL does.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    accepting = _context(ssl.PROTOCOL_TLS_SERVER, server).wrap_bio(to_server, to_client, server_side=True)
    connecting = _context(ssl.PROTOCOL_TLS_CLIENT, client).wrap_bio(
        to_client, to_server, server_hostname=name
    )
    done: dict[ssl.SSLObject, bool] = {connecting: False, accepting: False}
    while not all(done.values()):
        for side in done:
            try:
                side.do_handshake()
                done[side] = True
            except ssl.SSLWantReadError:
                continue
    connecting.write(b"hello")
    received = accepting.read(16)
    accepting.write(b"and " + received)
    return connecting.read(16).decode()


def _context(protocol: int, folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    context.load_verify_locations(folder / "ca.crt")
    if (folder / "ca.crl").exists():
        context.load_verify_locations(folder / "ca.crl")
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    return context
