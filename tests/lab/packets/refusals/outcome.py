"""What became of a connection, in words: the same for the tests and for the table of guards.

It says `answered` as soon as one byte of the far end came back, whatever the logs say. Otherwise it says which hop
ended the connection and for what reason, as that hop's access log has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.lab.packets.refusals.world import Reply, World

INNERMOST = re.compile(r":(?!//)")
"""Divides the causes of a failure, but not a SPIFFE ID."""
Line = Mapping[str, Any]
Fits = Callable[[Line], bool]


@dataclass(frozen=True)
class Probe:
    """Something that must not get through.

    name: what is tried. run: tries it, and says what became of it. expected: what it says while every guard stands.
    """

    name: str
    run: Callable[[World], str]
    expected: str


def answered(received: bytes) -> str:
    """A far end spoke."""
    return f"answered: {received[:16]!r}"


def refused(hop: str, line: Line) -> str:
    """A hop ended the connection and logged why; or let it through to a later one that did."""
    why = reason(line)
    return f"refused by {hop}: {why}" if why else f"let through by {hop}"


def reason(line: Line) -> str:
    """Why a proxy ended a connection, out of the line of its access log; nothing where the other side did."""
    for side in ("downstream_failure", "upstream_failure"):
        if _says(line[side]):
            return _readable(line[side])
    return "; ".join(line[name] for name in ("flags", "details", "termination") if _says(line[name]))


def _says(value: str | None) -> bool:
    return value not in (None, "", "-")


def _readable(failure: str) -> str:
    """The innermost cause of a TLS failure, or the text as it is."""
    return INNERMOST.split(failure.removesuffix(":TLS_error_end"))[-1].strip("_").replace("_", " ")


def is_client(reply: Reply) -> Fits:
    """Whether a line is of the caller's connection."""
    return lambda line: line["client"] == reply.client


def is_from(address: str, **fields: str | None) -> Fits:
    """Whether a line is of a connection from a Pod's address, through whichever proxy, with these fields."""
    return lambda line: (
        str(line["client"]).rpartition(":")[0] == address
        and all(line[name] == value for name, value in fields.items())
    )
