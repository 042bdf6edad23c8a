"""The index of an authority: its roots and every certificate that it ever issued (`index.json`)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict

from pki.profile import KeyType


class Purpose(StrEnum):
    """What an authority signs. The two never mix: a workload of the mesh must not pass for an organisation."""

    FEDERATION = "federation"
    """Server and client certificates of organisations."""

    MESH = "mesh"
    """Intermediate authorities of meshes (Istio's "Plug in CA Certificates")."""


class RootState(StrEnum):
    """Where a root stands in a rotation."""

    NEXT = "next"
    """Peers learn to trust it; it signs nothing yet."""

    ISSUING = "issuing"
    """It signs."""

    RETIRING = "retiring"
    """It signs revocation lists only; peers still trust it."""

    REMOVED = "removed"
    """Peers forget it; its key is gone."""


class Kind(StrEnum):
    """What a certificate is for."""

    SERVER = "server"
    CLIENT = "client"
    MESH = "mesh"


class Status(StrEnum):
    """What became of a certificate."""

    CURRENT = "current"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


class Reason(StrEnum):
    """Why a certificate was revoked (RFC 5280, section 5.3.1); the values are those of the standard."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION = "cessationOfOperation"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Root(_Entry):
    """One root of the authority: `certificate` is its PEM."""

    number: int
    state: RootState
    certificate: str
    crl_number: int = 0


class Record(_Entry):
    """One certificate: `serial` is hexadecimal, `root` the number of the root that signed it, `fingerprint` its SHA-256.

    trust, trust_crl: PEM of the authorities of its peers, where these are not this one.
    """

    serial: str
    root: int
    kind: Kind
    id: str
    names: tuple[str, ...]
    key_type: KeyType
    not_before: AwareDatetime
    not_after: AwareDatetime
    fingerprint: str
    certificate: str
    status: Status = Status.CURRENT
    revoked_at: AwareDatetime | None = None
    reason: Reason | None = None
    trust: str | None = None
    trust_crl: str | None = None

    def valid_at(self, now: datetime) -> bool:
        """Whether a peer would accept it: neither revoked nor expired."""
        return self.status is not Status.REVOKED and now < self.not_after


class Index(_Entry):
    """All that an authority knows. `crl` says whether revocation lists are handed out: once they are, always."""

    version: Literal[1] = 1
    name: str
    purpose: Purpose
    key_type: KeyType
    lifetime_seconds: int
    crl: bool = False
    crl_lifetime_seconds: int
    roots: tuple[Root, ...]
    records: tuple[Record, ...] = ()

    def issuing(self) -> Root:
        """The root that signs."""
        return next(root for root in self.roots if root.state is RootState.ISSUING)

    def trusted(self) -> tuple[Root, ...]:
        """The roots that peers are to trust."""
        return tuple(root for root in self.roots if root.state is not RootState.REMOVED)

    def removed(self) -> tuple[Root, ...]:
        """The roots whose keys are to be gone."""
        return tuple(root for root in self.roots if root.state is RootState.REMOVED)

    def current(self, kind: Kind, identity: str) -> Record | None:
        """The certificate in use under that id."""
        matching = (r for r in self.records if (r.kind, r.id, r.status) == (kind, identity, Status.CURRENT))
        return next(matching, None)

    def with_record(self, record: Record) -> Index:
        """With `record` in place of the one of its serial, or added."""
        others = [r for r in self.records if r.serial != record.serial]
        if len(others) == len(self.records):
            return self.model_copy(update={"records": (*self.records, record)})
        replaced = tuple(record if r.serial == record.serial else r for r in self.records)
        return self.model_copy(update={"records": replaced})

    def with_root(self, root: Root) -> Index:
        """With `root` in place of the one of its number, or added."""
        kept = tuple(root if r.number == root.number else r for r in self.roots)
        return self.model_copy(update={"roots": kept if root in kept else (*kept, root)})
