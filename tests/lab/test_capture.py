"""Captures: TCP streams put together from packets, and what in them is TLS 1.3."""

from __future__ import annotations

import contextlib
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import capture, pki
from lab.errors import LabError

CLIENT, SERVER = ("198.18.0.16", 40000), ("198.18.0.33", 9000)
FIRST = 2**32 - 3
"""Sequence number of a stream's SYN, near enough to the end that it wraps."""


def packet(
    source: tuple[str, int], target: tuple[str, int], sequence: int, payload: bytes, flags: int
) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", source[1], target[1], sequence % 2**32, 0, 5 << 4, flags, 0, 0, 0)
    ends = b"".join(bytes(map(int, address.split("."))) for address, _ in (source, target))
    ip = struct.pack("!BBHIBBH", 0x45, 0, 40 + len(payload), 0, 64, capture.TCP, 0) + ends
    padding = b"\0" * 6  # as an Ethernet driver may add
    return bytes(12) + struct.pack("!H", capture.IPV4) + ip + tcp + payload + padding


def stream(payloads: list[bytes], *, from_client: bool = True) -> list[bytes]:
    source, target = (CLIENT, SERVER) if from_client else (SERVER, CLIENT)
    flags = capture.SYN if from_client else capture.SYN | capture.ACK
    packets = [packet(source, target, FIRST, b"", flags)]
    place = FIRST + 1
    for payload in payloads:
        packets.append(packet(source, target, place, payload, capture.ACK))
        place += len(payload)
    return packets


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def traffic(packets: list[bytes]) -> capture.Traffic:
    return capture.Traffic(list(capture.streams(packets)), packets)


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def conversation(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[ssl.TLSVersion, bytes, bytes]]:
    """What client and server of a real TLS connection send: its version, and all bytes of each."""
    authority = pki.Authority.create("test")
    pair = authority.serving(["server.example"])
    file = tmp_path / "pair.pem"
    file.write_bytes(pair.certificate + pair.key)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    serving.maximum_version = request.param
    calling = ssl.create_default_context(cadata=authority.pem.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = calling.wrap_bio(down, up, server_hostname="server.example")
    server = serving.wrap_bio(up, down, server_side=True)
    said = {"client": b"", "server": b""}

    def step(side: str, work: Callable[[], object]) -> None:
        out = up if side == "client" else down
        with contextlib.suppress(ssl.SSLWantReadError):
            work()
        text = out.read()
        said[side] += text
        out.write(text)

    for _ in range(3):
        step("client", client.do_handshake)
        step("server", server.do_handshake)
    step("client", lambda: client.write(b"canary"))
    step("server", lambda: server.read(6))
    step("server", lambda: server.write(b"canary"))
    yield request.param, said["client"], said["server"]


def test_only_tls_1_3_is_as_it_must_be(conversation: tuple[ssl.TLSVersion, bytes, bytes]) -> None:
    version, client, server = conversation
    seen = traffic([*stream(pieces(client, 100)), *stream(pieces(server, 100), from_client=False)])

    assert seen.encrypted() == 2
    assert not seen.holds(b"canary")
    assert (seen.findings() == []) is (version is ssl.TLSVersion.TLSv1_3)


def test_plain_text_is_found_at_any_place(conversation: tuple[ssl.TLSVersion, bytes, bytes]) -> None:
    version, client, _ = conversation
    for data in (b"*2\r\n$4\r\nECHO", client + b"canary"):
        (finding,) = traffic(stream([data])).findings()
        assert "plain text" in finding or version is ssl.TLSVersion.TLSv1_2
        assert finding.startswith("198.18.0.16:40000 -> 198.18.0.33:9000")


@pytest.mark.parametrize(
    "data",
    [
        b"\x15\x03\x03\x00\x06canary",
        b"\x14\x03\x03\x00\x06canary",
        b"\x16\x03\x03\x00\x06\x01canar",
        b"\x16\x03\x03\x00\x28\x01" + b"x" * 39,
    ],
    ids=["an alert", "a change of ciphers", "a Hello that is cut", "a Hello of nonsense"],
)
def test_plain_text_is_found_behind_the_header_of_a_record(data: bytes) -> None:
    assert len(traffic(stream([data])).findings()) == 1


def test_an_alert_and_a_change_of_ciphers_may_be_seen() -> None:
    seen = traffic(stream([b"\x15\x03\x03\x00\x02\x02\x2a", b"\x14\x03\x03\x00\x01\x01"]))
    assert seen.findings() == []


def test_repeated_and_reordered_segments_are_one_stream() -> None:
    opening, *segments = stream(pieces(bytes(range(100)), 7))

    (found,) = traffic([opening, *reversed(segments), opening, *segments[3:5]]).streams

    assert found.data() == bytes(range(100))


def test_a_segment_that_was_not_captured_is_an_error() -> None:
    opening, first, _, third = stream([b"abc", b"def", b"ghi"])

    with pytest.raises(LabError, match="bytes 3 to 6 were not captured"):
        traffic([opening, first, third]).findings()


def test_a_port_that_is_used_again_is_another_stream() -> None:
    again = packet(CLIENT, SERVER, 77, b"", capture.SYN)
    more = packet(CLIENT, SERVER, 78, b"second", capture.ACK)

    found = traffic([*stream([b"first"]), again, more]).streams

    assert [each.data() for each in found] == [b"first", b"second"]
