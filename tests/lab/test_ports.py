from __future__ import annotations

import socket
from pathlib import Path

import pytest

from lab import ports
from lab.errors import LabError


def test_ports_differ_and_are_not_those_of_outgoing_connections() -> None:
    found = ports.free_ports(50)

    assert len(set(found)) == 50
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert all(ports.LOWEST <= port < max(ephemeral, ports.LOWEST + 10001) for port in found)


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as server:
        server.bind((ports.LOOPBACK, 0))
        assert not ports._is_free(server.getsockname()[1])


def test_too_few_free_ports_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_is_free", lambda _port: False)

    with pytest.raises(LabError, match="only 0 of 2 free ports"):
        ports.free_ports(2)
