"""What can go wrong when a tool is looked for or made.

::

    ToolError
    ├── UnknownToolError   the name is none of ours
    ├── GoMissingError     a build is needed and there is no Go
    ├── BuildError         the Go compiler or its downloads failed
    └── DownloadError      Pulumi's own download could not be had or trusted
"""

from __future__ import annotations


class ToolError(Exception):
    """A tool cannot be had; the message says why and what to do."""


class UnknownToolError(ToolError):
    """The name is not that of a tool or group."""


class GoMissingError(ToolError):
    """A tool has to be built and no Go is on PATH."""


class BuildError(ToolError):
    """`go` failed; the message carries the end of what it printed."""


class DownloadError(ToolError):
    """A download failed, timed out, or did not match its checksum."""
