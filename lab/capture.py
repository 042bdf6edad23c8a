"""What went over a network: packets captured with tcpdump, put together to TCP streams and held against TLS 1.3.

TLS 1.3 shows an observer the two Hellos and nothing else: after them there are encrypted records, and before them at most
an alert. So a stream that shows anything else carries plain text or an older TLS. Source: RFC 8446, sections 4.1 and 5.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from lab.errors import LabError
from lab.netns import NetworkNamespace
from lab.processes import POLL

CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
_KINDS = tuple(bytes([kind]) for kind in (CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA))
CLIENT_HELLO, SERVER_HELLO = 1, 2
SUPPORTED_VERSIONS, TLS_1_3 = 43, b"\x03\x04"
MAX_RECORD = 2**14 + 256
SYN, ACK = 0x02, 0x10
ETHERNET_HEADER, IPV4 = 14, 0x0800
TCP = 6
DISCARD_PORT = 9
READY_TIMEOUT = 30.0
ENDS_WITH_ITS_STARTER = ("setpriv", "--pdeathsig", "KILL", "--")
"""Words before a command that ends when the thread that started it does."""


@dataclass
class Stream:
    """One direction of a TCP connection."""

    source: str
    target: str
    from_client: bool
    first: int
    """Sequence number of its first byte."""
    segments: list[tuple[int, bytes]] = field(default_factory=list)
    """Bytes by their place in the stream."""

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"

    def data(self) -> bytes:
        """Its bytes.

        Raises:
            LabError: some were not captured, so that nothing is known about them.
        """
        result = bytearray()
        for place, payload in sorted(self.segments):
            if place > len(result):
                raise LabError(f"{self}: bytes {len(result)} to {place} were not captured")
            result[place:] = payload if place + len(payload) >= len(result) else result[place:]
        return bytes(result)


@dataclass(frozen=True)
class Traffic:
    """All that was captured."""

    streams: Sequence[Stream]
    packets: Sequence[bytes]

    def findings(self) -> list[str]:
        """What contradicts TLS 1.3, one line a stream."""
        found = ((stream, why_not_tls(stream.data(), stream.from_client)) for stream in self.streams)
        return [f"{stream}: {why}" for stream, why in found if why is not None]

    def encrypted(self) -> int:
        """In how many directions of connections application data went encrypted."""
        return sum(any(kind == APPLICATION_DATA for kind, _ in records(s.data())) for s in self.streams)

    def holds(self, text: bytes) -> bool:
        """Whether a packet of any protocol shows a text."""
        return any(text in packet for packet in self.packets)


class Capture:
    """Captures all IP packets of a network interface, as a context manager; read `traffic` when it has ended."""

    def __init__(self, network: NetworkNamespace, interface: str, file: Path) -> None:
        self._network = network
        self._interface = interface
        self._file = file
        self._command = [
            *(*network.prefix, *ENDS_WITH_ITS_STARTER, "tcpdump", "-i", interface, "-Z", "root"),
            *("--buffer-size=65536", "-s", "0", "-U", "-w", str(file), "ip"),
        ]
        self._process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stderr=subprocess.PIPE, text=True)
        assert self._process.stderr is not None  # noqa: S101 - a pipe
        line = self._process.stderr.readline()
        while line and "listening on" not in line:
            line = self._process.stderr.readline()
        if not line:
            self._process.wait()
            self._process.stderr.close()
            raise LabError("tcpdump does not capture")
        return self

    def __exit__(self, *_exception: object) -> None:
        with ThreadPoolExecutor(1, initializer=self._network.enter) as inside:
            mark = inside.submit(self._send_mark).result()
        deadline = time.monotonic() + READY_TIMEOUT
        while mark not in self._file.read_bytes() and time.monotonic() < deadline:
            time.sleep(POLL)
        self._process.send_signal(signal.SIGINT)
        _, said = self._process.communicate(timeout=READY_TIMEOUT)
        dropped = re.search(r"(\d+) packets? dropped by kernel", said)
        if dropped is None or int(dropped[1]) or mark not in self._file.read_bytes():
            raise LabError(f"tcpdump did not see everything: {said.strip()}")

    def _send_mark(self) -> bytes:
        """Send a packet after all others: when it is in the file, so are they."""
        mark = secrets.token_bytes(16)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode())
            sender.sendto(mark, ("255.255.255.255", DISCARD_PORT))
        return mark

    def traffic(self) -> Traffic:
        """What was captured."""
        packets = list(read(self._file.read_bytes()))
        return Traffic(list(streams(packets)), packets)


def read(pcap: bytes) -> Iterator[bytes]:
    """The packets of a capture file. Source: pcap-savefile(5)."""
    magic = struct.unpack_from("<I", pcap)[0]
    if magic not in (0xA1B2C3D4, 0xA1B23C4D):
        raise LabError(f"no capture file of this machine: it begins with {pcap[:4].hex()}")
    place = 24
    while place + 16 <= len(pcap):
        captured, original = struct.unpack_from("<II", pcap, place + 8)
        if captured != original:
            raise LabError(f"a packet of {original} bytes was captured up to byte {captured}")
        yield pcap[place + 16 : place + 16 + captured]
        place += 16 + captured


def streams(packets: Sequence[bytes]) -> Iterator[Stream]:
    """The TCP streams in Ethernet frames that hold IPv4.

    A connection whose beginning was not captured is left out: it was opened before the capture began.
    """
    found: dict[tuple[str, str], Stream] = {}
    for packet in packets:
        if struct.unpack_from("!H", packet, 12)[0] != IPV4 or packet[ETHERNET_HEADER + 9] != TCP:
            continue
        header = ETHERNET_HEADER + 4 * (packet[ETHERNET_HEADER] & 15)
        end = ETHERNET_HEADER + struct.unpack_from("!H", packet, ETHERNET_HEADER + 2)[0]
        ports = struct.unpack_from("!HH", packet, header)
        source, target = (
            f"{ipaddress.IPv4Address(packet[at : at + 4])}:{port}"
            for at, port in zip((ETHERNET_HEADER + 12, ETHERNET_HEADER + 16), ports, strict=True)
        )
        (sequence,) = struct.unpack_from("!I", packet, header + 4)
        flags = packet[header + 13]
        payload = packet[header + 4 * (packet[header + 12] >> 4) : end]
        stream = found.get((source, target))
        if flags & SYN:
            first = (sequence + 1) % 2**32
            if stream is None or stream.first != first:
                if stream is not None:
                    yield stream
                found[source, target] = stream = Stream(source, target, not flags & ACK, first)
        if stream is not None and payload:
            stream.segments.append(((sequence - stream.first) % 2**32, payload))
    yield from found.values()


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole TLS records at the beginning of a stream: type and content."""
    place = 0
    while place + 5 <= len(data):
        kind, _, length = struct.unpack_from("!BHH", data, place)
        if place + 5 + length > len(data):
            return
        yield kind, data[place + 5 : place + 5 + length]
        place += 5 + length


def why_not_tls(data: bytes, from_client: bool) -> str | None:
    """Why a stream is not TLS 1.3 of one side; None if it is, or is empty."""
    place, greeted = 0, False
    while place < len(data):
        header = data[place : place + 5]
        if header[:1] not in _KINDS:
            return f"plain text at byte {place}: {data[place : place + 40]!r}"
        if len(header) < 5:
            break  # the rest was never sent
        kind, version, length = struct.unpack("!BHH", header)
        content = data[place + 5 : place + 5 + length]
        if version not in (0x0301, 0x0303) or not 0 < length <= MAX_RECORD:
            return f"no TLS record at byte {place}: {data[place : place + 40]!r}"
        if len(content) < length:
            break
        if kind == HANDSHAKE and not _is_hello(content, from_client):
            return f"handshake message {content[:1].hex()} in the clear, or a Hello without TLS 1.3"
        if (kind == ALERT and length != 2) or (kind == CHANGE_CIPHER_SPEC and content != b"\x01"):
            return f"more than a record of type {kind} holds, at byte {place}: {content[:40]!r}"
        if kind == APPLICATION_DATA and not greeted:
            return "encrypted data before a Hello"
        greeted = greeted or kind == HANDSHAKE
        place += 5 + length
    return None


def _is_hello(message: bytes, from_client: bool) -> bool:
    """Whether a handshake message is this side's Hello and of TLS 1.3."""
    kind = CLIENT_HELLO if from_client else SERVER_HELLO
    try:
        return message[:1] == bytes([kind]) and _is_tls_1_3(message)
    except (IndexError, struct.error):  # too short for what it says of itself
        return False


def _is_tls_1_3(hello: bytes) -> bool:
    """Whether a Hello's extension supported_versions offers or chooses TLS 1.3."""
    place = 4 + 2 + 32
    place += 1 + hello[place]
    if hello[0] == CLIENT_HELLO:
        place += 2 + struct.unpack_from("!H", hello, place)[0]
        place += 1 + hello[place]
    else:
        place += 3
    end = place + 2 + struct.unpack_from("!H", hello, place)[0]
    place += 2
    while place + 4 <= end:
        kind, length = struct.unpack_from("!HH", hello, place)
        if kind == SUPPORTED_VERSIONS:
            return TLS_1_3 in hello[place + 4 : place + 4 + length]
        place += 4 + length
    return False
