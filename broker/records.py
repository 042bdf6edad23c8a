"""The audit records: of a call, which is written once with what the call did, and of what the proxy does on its own."""

from __future__ import annotations

from http import HTTPStatus

from broker import documents, osb
from broker.documents import NotAnObjectError
from broker.store import Audit, Binding
from broker.store.models import MAX_ID, is_storable
from broker.upstream import Answer, Call


class Record:
    """The audit record of one call."""

    def __init__(self, call: Call, action: str, instance_id: str, binding_id: str = "") -> None:
        """binding_id: empty for a call on a service instance."""
        self._call, self._action = call, action
        self._instance_id, self._binding_id = instance_id, binding_id
        self.written: int | None = None
        """The status in the record that was written."""

    def entry(self, status: int, error: str | None = None) -> Audit:
        """The record of a call that is answered so."""
        return Audit(
            request_id=self._call.request_id,
            user=self._call.user,
            originating_identity=self._call.header(osb.ORIGINATING_IDENTITY),
            action=self._action,
            instance_id=self._instance_id[:MAX_ID],
            binding_id=self._binding_id[:MAX_ID],
            status=int(status),
            error=error,
        )


def own_entry(binding: Binding, action: str, status: int = HTTPStatus.OK, error: str | None = None) -> Audit:
    """The record of something that the proxy did without being called."""
    return Audit(
        request_id="",
        action=action,
        instance_id=binding.instance_id,
        binding_id=binding.binding_id,
        status=int(status),
        error=error,
    )


def error_code(given: Answer) -> str | None:
    """The OSB error code of an answer."""
    if given.status < HTTPStatus.BAD_REQUEST:
        return None
    try:
        found = documents.load(given.body).get("error")
    except NotAnObjectError:
        return None
    return found if isinstance(found, str) and is_storable(found) else None
