"""Endpoints, their mappings, and the look-up of both."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?")


class AdaptError(ValueError):
    """The credentials are not adapted; nothing of them is in the message."""


class MappingsError(AdaptError):
    """The mappings themselves are at fault: there are none, or two contradict each other (400 at the API)."""


def _bare(text: str) -> str:
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


@functools.lru_cache(maxsize=4096)
def normal(host: str) -> str:
    """The spelling by which hosts are compared: lower case, no trailing dot, no brackets, shortest IPv6."""
    bare = _bare(host)
    if ":" in bare:
        try:
            return str(ipaddress.IPv6Address(bare))
        except ValueError:
            return host
    return bare.lower().removesuffix(".")


def is_address(host: str) -> bool:
    """Whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_host(text: str) -> bool:
    """Whether `text` is one DNS name or IP address (IPv6 with or without brackets) and nothing else."""
    bare = _bare(text)
    return NAME.fullmatch(bare) is not None or (":" in bare and is_address(bare))


def _host(text: str) -> str:
    if is_host(text):
        return _bare(text)
    raise ValueError("must be a DNS name, an IPv4 or an IPv6 address, without scheme, port or path")


def _port(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a number from 1 to 65535")  # noqa: TRY004 (pydantic's way to refuse)
    return value


class Endpoint(BaseModel):
    """Where a service listens: `host` is a DNS name or an IP address (IPv6 with or without brackets), `port`
    1 to 65535, as a number or as digits in a string."""

    model_config = ConfigDict(frozen=True)

    host: Annotated[str, AfterValidator(_host)]
    port: Annotated[int, BeforeValidator(_port), Field(ge=1, le=65535)]

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Mapping(BaseModel):
    """Credentials that name `source` shall name `target` (an item of `endpoint_mappings`)."""

    model_config = ConfigDict(frozen=True)

    source: Endpoint
    target: Endpoint


class Routes:
    """All mappings at once: each source is looked up in what was given, never in what another mapping made."""

    def __init__(self, mappings: Iterable[Mapping]) -> None:
        """Raises MappingsError when there are none or when one source has two targets."""
        self.mappings: Sequence[Mapping] = tuple(mappings)
        if not self.mappings:
            raise MappingsError(
                "endpoint_mappings is empty; give at least one {source: {host, port}, target: {host, port}}"
            )
        self._targets: dict[tuple[str, int], Endpoint] = {}
        self._of_host: dict[str, list[Mapping]] = {}
        for number, mapping in enumerate(self.mappings):
            key = (normal(mapping.source.host), mapping.source.port)
            first = self._targets.setdefault(key, mapping.target)
            if (normal(first.host), first.port) != (normal(mapping.target.host), mapping.target.port):
                raise MappingsError(
                    f"endpoint_mappings[{number}] maps {mapping.source} to {mapping.target}, but an earlier one maps "
                    f"it to {first}; give each source one target"
                )
            self._of_host.setdefault(key[0], []).append(mapping)
        self._mentions = _mentions(self.mappings)

    def target(self, host: str, port: int) -> Endpoint | None:
        """Where `host`:`port` is mapped to."""
        return self._targets.get((normal(host), port))

    def of_host(self, host: str) -> Sequence[Mapping]:
        """The mappings whose source lies on `host`."""
        return self._of_host.get(normal(host), ())

    def below(self, domain: str) -> bool:
        """Whether a source's host is `domain` or lies below it."""
        parent = normal(domain)
        return any(host == parent or host.endswith(f".{parent}") for host in self._of_host)

    def mentioned(self, text: str) -> bool:
        """Whether `text` names a source: `host:port`, or a host with dots or colons, not as a part of a longer
        name."""
        return self._mentions.search(text) is not None


def _mentions(mappings: Iterable[Mapping]) -> re.Pattern[str]:
    alternatives: set[str] = set()
    for mapping in mappings:
        host = re.escape(mapping.source.host.removesuffix("."))
        qualified = "." in mapping.source.host or ":" in mapping.source.host
        alternatives.add(host if qualified else f"{host}:{mapping.source.port}")
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(sorted(alternatives))})(?![\w-]|\.\w)", re.IGNORECASE)
