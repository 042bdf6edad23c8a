"""What a change of the load balancer means for those who connect through it: an interruption, or none.

A change is judged by the inputs before and after it, as the engine's preview has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType

from pydantic import JsonValue

Inputs = Mapping[str, JsonValue]
Judge = Callable[[str, Inputs, Inputs], str | None]

FOLLOWS = (
    "the new one is made first, but the record moves once its targets are registered, not once they are healthy, and the "
    "old one goes in the same run: new connections fail until the first target is healthy, and those of clients that "
    "still have the old address until the record's TTL is over"
)
PROTECTED = "its deletion protection makes AWS refuse to delete it; switch `deletionProtection` off by an `up` of its own before"
ELSEWHERE = "the record leads elsewhere; clients that still have the old address need the old load balancer until its TTL is over"
UNFOUND = "clients no longer find the public hosts once its TTL is over"
GONE = "clients that still use its address are cut"
REMADE = (
    "its load balancer may be taken away before the one in its place has an address (the AWS Load Balancer Controller does "
    "so): clients are cut until they find that one; a key of `loadBalancer` makes the new one first"
)
UNBOUND = (
    "its target group has no targets until the new binding has registered the gateway's pods: new connections fail until the "
    "first of them is healthy"
)
ROLLOUT = "new connections fail until the load balancer and the gateway's pods agree on PROXY protocol again"


def interruption(kind: str, operation: str, old: Inputs, new: Inputs) -> str | None:
    """What the change of a resource interrupts; None where it has nothing to do with the load balancer, or interrupts
    nothing.

    kind: the last part of the resource's type. old, new: its inputs, empty where it does not exist.
    """
    judge = JUDGES.get(kind)
    return judge(operation, old, new) if judge is not None else None


def _load_balancer(operation: str, old: Inputs, _new: Inputs) -> str | None:
    said = {"replace": FOLLOWS, "delete": GONE}.get(operation)
    protected = old.get("enableDeletionProtection") is True
    return f"{said}; {PROTECTED}" if said is not None and protected else said


def _record(operation: str, old: Inputs, new: Inputs) -> str | None:
    moves = operation == "replace" and any(old.get(key) != new.get(key) for key in ("name", "zoneId"))
    if operation == "delete" or moves:
        return UNFOUND
    return ELSEWHERE if operation in ("update", "replace") and _target(old) != _target(new) else None


def _target(record: Inputs) -> list[JsonValue]:
    """Where a record of Route 53 leads, whatever its type."""
    aliases, values = record.get("aliases"), record.get("records")
    named = (
        [alias.get("name") for alias in aliases if isinstance(alias, dict)]
        if isinstance(aliases, list)
        else []
    )
    return [*named, *(values if isinstance(values, list) else [])]


def _endpoint(operation: str, old: Inputs, new: Inputs) -> str | None:
    if operation == "delete":
        return UNFOUND
    before, after = _spec(old).get("endpoints"), _spec(new).get("endpoints")
    return ELSEWHERE if operation == "update" and _targets(before) != _targets(after) else None


def _targets(endpoints: JsonValue) -> list[JsonValue]:
    return (
        [item.get("targets") for item in endpoints if isinstance(item, dict)]
        if isinstance(endpoints, list)
        else []
    )


def _deployment(operation: str, old: Inputs, new: Inputs) -> str | None:
    return ROLLOUT if operation == "update" and _expects(old) != _expects(new) else None


def _expects(deployment: Inputs) -> bool:
    """Whether a gateway's Pods expect PROXY protocol."""
    template = _spec(deployment).get("template")
    said = _annotations(template if isinstance(template, dict) else {}).get(_vocabulary().PROXY_CONFIG)
    return isinstance(said, str) and "proxyProtocol" in said


def _listener(operation: str, old: Inputs, new: Inputs) -> str | None:
    before, after = old.get("port"), new.get("port")
    if operation != "update" or before == after:
        return None
    return _moved(before, after)


def _moved(before: JsonValue, after: JsonValue) -> str:
    return (
        f"the public port moves from {_number(before)} to {_number(after)}; clients are cut until they use it"
    )


def _number(value: JsonValue) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _target_group(operation: str, old: Inputs, new: Inputs) -> str | None:
    if operation == "update" and old.get("proxyProtocolV2") != new.get("proxyProtocolV2"):
        return ROLLOUT
    return None


def _binding(operation: str, old: Inputs, new: Inputs) -> str | None:
    before, after = _spec(old).get("targetGroupARN"), _spec(new).get("targetGroupARN")
    return UNBOUND if operation == "replace" and before == after else None


def _service(operation: str, old: Inputs, new: Inputs) -> str | None:
    before, after = _spec(old).get("type"), _spec(new).get("type")
    if operation == "update" and before == after and before in PUBLIC:
        return "; ".join(_changed_service(old, new)) or None
    if "LoadBalancer" not in (before, after):
        return None
    if operation == "replace":
        same = _metadata(old).get("name") == _metadata(new).get("name")
        return "there is no load balancer until the new one has an address" if same else FOLLOWS
    return GONE if operation in ("update", "delete") and before == "LoadBalancer" else None


PUBLIC = ("LoadBalancer", "NodePort")
"""Types of a Service whose port others than the mesh use."""


DECIDES_SCHEME = re.compile(r"(^|[-/])(internal|scheme)(-|$)|load-?balancer-type$")
"""In annotations of a Service, whichever cloud reads them: `azure-load-balancer-internal`, `aws-load-balancer-scheme`,
`networking.gke.io/load-balancer-type`."""


def _changed_service(old: Inputs, new: Inputs) -> Iterator[str]:
    before, after = _public_port(old), _public_port(new)
    if before != after:
        yield _moved(before, after)
    if _spec(old).get("type") == "LoadBalancer" and _scheme(old) != _scheme(new):
        yield REMADE
    if _sends(old) != _sends(new):
        yield ROLLOUT


def _scheme(service: Inputs) -> Inputs:
    """The annotations by which a cloud decides what kind of load balancer it makes, and where."""
    return {
        key: value
        for key, value in _annotations(service).items()
        if re.search(r"load-?balancer", key) and DECIDES_SCHEME.search(key)
    }


def _spec(inputs: Inputs) -> Inputs:
    spec = inputs.get("spec")
    return spec if isinstance(spec, dict) else {}


def _metadata(inputs: Inputs) -> Inputs:
    metadata = inputs.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _public_port(inputs: Inputs) -> JsonValue:
    ports = _spec(inputs).get("ports")
    first = ports[0] if isinstance(ports, list) and ports else None
    return first.get("port") if isinstance(first, dict) else None


def _sends(inputs: Inputs) -> bool:
    said = {key: text for key, text in _annotations(inputs).items() if isinstance(text, str)}
    vocabulary = _vocabulary()
    return any(vocabulary.enables_proxy_protocol(key, text) for key, text in said.items())


def _annotations(inputs: Inputs) -> Inputs:
    annotations = _metadata(inputs).get("annotations")
    return annotations if isinstance(annotations, dict) else {}


def _vocabulary() -> ModuleType:
    # Only what previews a gateway's change needs the vocabulary, which takes as long to import as the command line.
    from config import edge_checks  # noqa: PLC0415

    return edge_checks


JUDGES: Mapping[str, Judge] = {
    "LoadBalancer": _load_balancer,
    "Listener": _listener,
    "TargetGroup": _target_group,
    "TargetGroupBinding": _binding,
    "Service": _service,
    "Deployment": _deployment,
    "Record": _record,
    "DNSEndpoint": _endpoint,
}
