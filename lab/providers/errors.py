"""Failures that the engine is told about."""

from __future__ import annotations

from google.protobuf.message import Message


class ProviderError(Exception):
    """A request that failed; the message is the user's.

    `detail` goes to the engine with it, where the protocol has a message for what happened.
    """

    def __init__(self, message: str, detail: Message | None = None) -> None:
        self.detail = detail
        super().__init__(message)
