"""What can go wrong in the lab.

::

    LabError
    ├── ProcessError   a process ended or did not become ready; carries the end of its log
    └── ApiError       the API server refused or did not answer
"""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot do what was asked; the message says why and what to do."""


class ProcessError(LabError):
    """A process ended by itself or did not become ready in time."""


class ApiError(LabError):
    """The API server refused a request, or did not answer.

    Attributes:
        status: the HTTP status code; 0 where there was no answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
