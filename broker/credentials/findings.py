"""What is said about adapted credentials: a code for programs, a place, a message and a remedy for people."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from broker.credentials.endpoints import AdaptError


class Code(StrEnum):
    """The kinds of findings."""

    TLS_NAME = "tls-name"
    HTTP_HOST = "http-host"
    DISCOVERY = "member-discovery"
    DNS_SRV = "dns-srv"
    CONFLICT = "conflict"
    SHARED_HOST = "host-shared"
    NOT_MAPPED = "endpoint-not-mapped"
    NO_PORT = "port-not-stated"
    NOT_UNDERSTOOD = "not-understood"
    UNUSED = "mapping-unused"


REMEDIES = {
    Code.TLS_NAME: "issue the service's certificate for the target's host too, or give the client the name to check "
    "apart from the address (libpq: host and hostaddr; others: a server name option), or check only the CA",
    Code.HTTP_HOST: "let the service answer under the target's host, or send the source's host in the Host header",
    Code.DISCOVERY: "map every member, and let the members announce the targets to this client",
    Code.DNS_SRV: "offer a URL that lists the members and map each of them",
    Code.CONFLICT: "give each endpoint its own host and port, or map these sources to one host or port",
    Code.SHARED_HOST: "take this endpoint's address from the answer's endpoints, or let the provider state it with a host "
    "of its own",
    Code.NOT_MAPPED: "let the provider offer this endpoint, so that it gets a mapping, or do not hand it out",
    Code.NO_PORT: "state the port beside the host, or map the source to its own port number",
    Code.NOT_UNDERSTOOD: "state the endpoint as a URL, as host:port or as host and port",
    Code.UNUSED: "check that the mapping's source is spelt as in the credentials",
}

REFUSED_BY_DEFAULT = frozenset({Code.CONFLICT, Code.DNS_SRV})
"""What no client could use, whatever its environment."""


@dataclass(frozen=True)
class Finding:
    """One thing that the client may trip over. `path` is where in the credentials (`credentials.nodes[0].host`) or
    the mappings (`endpoint_mappings[0]`); no text holds a value of the credentials, apart from mapped endpoints."""

    code: Code
    path: str
    message: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.code]

    def as_dict(self) -> dict[str, str]:
        """For an answer's metadata: code, path, message and remedy."""
        return {"code": self.code, "path": self.path, "message": self.message, "remedy": self.remedy}

    def __str__(self) -> str:
        return f"{self.path}: {self.message} ({self.code}); {self.remedy}"


class RefusedError(AdaptError):
    """The policy refuses what was found. `findings` holds everything that was found, `refused` what led to this."""

    def __init__(self, findings: Iterable[Finding], codes: Collection[Code]) -> None:
        self.findings = tuple(findings)
        self.refused = tuple(finding for finding in self.findings if finding.code in codes)
        lines = "\n".join(f"  {number}. {finding}" for number, finding in enumerate(self.refused, 1))
        super().__init__(f"the credentials cannot be adapted to their endpoint mappings:\n{lines}")
