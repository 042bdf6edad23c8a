"""`adapt_credentials`: credentials in, credentials with the client's endpoints out. Needs neither cluster nor upstream."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from pydantic import TypeAdapter, ValidationError

from broker import credentials, documents, osb
from broker.documents import Document, Json
from broker.errors import BadRequestError, CredentialsError
from broker.store import Binding
from broker.upstream import Call

FINDINGS = "findings"
_mappings = TypeAdapter(tuple[credentials.Mapping, ...])


def adapt(request: Document, refuse: Collection[credentials.Code]) -> Document:
    """The body of an answer to `adapt_credentials`: `credentials`, `endpoints` (the targets) and, where the client may
    trip over something, `metadata.findings`.

    refuse: the findings that are none to live with. Raises BadRequestError for a request that is none, CredentialsError for
    credentials with such a finding.
    """
    found = request.get("credentials")
    if not isinstance(found, dict):
        raise BadRequestError("credentials: must be a JSON object", "InvalidCredentials")
    given = request.get("endpoint_mappings")
    if not given:
        raise BadRequestError(
            "endpoint_mappings: must hold at least one {source, target}", "InvalidEndpointMappings"
        )
    try:
        mappings = _mappings.validate_python(given)
        adapted = credentials.adapt(found, mappings, refuse=refuse)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BadRequestError(
            f"endpoint_mappings.{where}: {first['msg']}", "InvalidEndpointMappings"
        ) from None
    except credentials.RefusedError as error:
        raise CredentialsError(str(error)) from None
    except credentials.AdaptError as error:
        raise BadRequestError(str(error), "InvalidEndpointMappings") from None
    answer: Document = {
        "credentials": adapted.credentials,
        "endpoints": [{"host": e.host, "port": e.port} for e in adapted.endpoints],
    }
    if adapted.findings:
        findings: list[Json] = [dict(finding.as_dict()) for finding in adapted.findings]
        answer["metadata"] = {FINDINGS: findings}
    return answer


def call_for(call: Call, binding: Binding, request: Document) -> Call:
    """The call that asks the next proxy to adapt, on behalf of the call that needs it."""
    of_the_body = {"content-type", "content-length", "content-encoding"}
    headers = [(k, v) for k, v in call.headers if k.lower() not in of_the_body]
    return replace(
        call,
        method="POST",
        base=binding.base,
        path=f"{osb.binding_path(binding.instance_id, binding.binding_id)}/adapt_credentials",
        query="",
        headers=[*headers, ("content-type", "application/json")],
        body=documents.dump(request),
    )


def merged(answer: Document, adapted: Document) -> Document:
    """A bind answer with its credentials, endpoints and findings taken from the adapted ones."""
    result = {**answer, "credentials": adapted["credentials"]}
    if "endpoints" in adapted:
        result["endpoints"] = adapted["endpoints"]
    metadata = adapted.get("metadata")
    if isinstance(metadata, dict) and FINDINGS in metadata:
        there = answer.get("metadata")
        result["metadata"] = {**(there if isinstance(there, dict) else {}), FINDINGS: metadata[FINDINGS]}
    return result
