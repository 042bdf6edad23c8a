"""What a call can fail with, as the OSB API answers it.

OsbError                 an answer with a status, an error code and a description
├── BadRequestError     400   the caller's request is wrong
├── ConflictError       409   the binding exists with other attributes
├── BusyError           422   another call works on this binding
├── CredentialsError    422   no client could use the adapted credentials
├── UpstreamError  502   the upstream cannot be reached, or answers what it must not
├── UnavailableError    503   the database is away, or this replica stops
└── BrokerError    500   the route could not be made or removed
"""

from __future__ import annotations

from http import HTTPStatus


class OsbError(Exception):
    """An answer other than success. `code` is the OSB `error` field (CamelCase), `description` is for people and
    holds no secrets."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    default_code: str | None = None

    def __init__(self, description: str, code: str | None = None, status: int | None = None) -> None:
        super().__init__(description)
        self.description = description
        self.code = code or self.default_code
        if status is not None:
            self.status = HTTPStatus(status)

    def body(self) -> dict[str, str]:
        """The answer's body (OSB "Service Broker Errors")."""
        body = {"description": self.description}
        return {"error": self.code, **body} if self.code else body


class BadRequestError(OsbError):
    """The caller's request is wrong."""

    status = HTTPStatus.BAD_REQUEST
    default_code = "BadRequest"


class ConflictError(OsbError):
    """The binding exists with other attributes."""

    status = HTTPStatus.CONFLICT
    default_code = "Conflict"


class BusyError(OsbError):
    """Another call works on this binding (OSB "Blocking Operations")."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    default_code = "ConcurrencyError"


class CredentialsError(OsbError):
    """No client could use the adapted credentials."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    default_code = "UnadaptableCredentials"


class UpstreamError(OsbError):
    """The upstream cannot be reached, or answers what it must not."""

    status = HTTPStatus.BAD_GATEWAY
    default_code = "UpstreamError"


class UnavailableError(OsbError):
    """The database is away, or this replica is stopping."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    default_code = "Unavailable"


class BrokerError(OsbError):
    """The broker's own part failed: a route could not be made or removed, or a peer broke the protocol."""

    default_code = "RouteError"
