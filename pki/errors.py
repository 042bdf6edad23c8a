"""What can go wrong with an authority, each with what to do about it."""

from __future__ import annotations


class PkiError(Exception):
    """The operation was refused or failed; nothing was half done. `problem` says what and where, `remedy` what to do."""

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}\n  {remedy}")
        self.problem, self.remedy = problem, remedy


class LockedError(PkiError):
    """Another process writes to the authority's directory."""
