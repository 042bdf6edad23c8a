"""What a command can end with: its exit codes and the one error that becomes a message.

The codes are part of the interface: scripts and the workflows depend on them.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command of `python -m cli` ended."""

    OK = 0
    FAILED = 1
    DRIFT = 2
    USAGE = 64
    LOCKED = 75
    INTERRUPTED = 130


class CliError(Exception):
    """A command cannot go on. `problem` says what is wrong and where, `remedy` what to do about it."""

    def __init__(self, problem: str, remedy: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(f"{problem}\n  {remedy}")
        self.code = code
