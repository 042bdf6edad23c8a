"""What a preview would change: the engine's JSON, reduced to what a reviewer needs, without secrets.

A `Plan` can be written as JSON (`python -m cli preview --json`), carried from one job to another and rendered later.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cli.errors import CliError
from cli.interruptions import interruption
from cli.project import STACK_NAME
from cli.values import Difference, differences, look_up, mask_object, mask_text, shaped

# What the engine adds when the program itself has said what is wrong.
EXIT = "an unhandled error occurred: program exited with non-zero exit code"
ERRORS = ("error", "info#err")
# Says where on this machine a plugin lies: nothing of the change, and different on every machine.
_plugin_path = re.compile(r"using pulumi-\S+ from \$PATH at ")
FORMAT: Literal["meshbridge-preview/1"] = "meshbridge-preview/1"
STACK_TYPE = "pulumi:pulumi:Stack"

StackName = Annotated[str, Field(pattern=f"^{STACK_NAME}$")]
Operation = Literal["create", "update", "replace", "delete", "import", "forget"]

# The engine's operations. A replacement comes as one step or as its parts; what is not listed changes nothing.
OPERATIONS: Mapping[str, Operation] = {
    "create": "create",
    "update": "update",
    "replace": "replace",
    "create-replacement": "replace",
    "delete-replaced": "replace",
    "import-replacement": "replace",
    "delete": "delete",
    "import": "import",
    "discard": "forget",
    "remove-pending-replace": "forget",
}
COUNTED: tuple[Operation, ...] = ("create", "update", "replace", "delete", "import", "forget")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Property(_Model):
    """A property that changes; `replaces` says that this is why the object is replaced."""

    path: str
    old: str | None
    new: str | None
    replaces: bool = False


class Resource(_Model):
    """An object, or a component (which owns objects), that changes; `formerly` if its name or namespace does too.
    `interruption` says what the change of a load balancer means for its clients."""

    urn: str
    kind: str
    name: str
    formerly: str | None = None
    component: str
    is_component: bool
    operation: Operation
    cut: str | None = None
    interruption: str | None = None
    properties: tuple[Property, ...] = ()


class Diagnostic(_Model):
    """What the engine or the program said."""

    severity: str
    resource: str | None
    message: str


class Plan(_Model):
    """The preview of one stack."""

    format: Literal["meshbridge-preview/1"] = FORMAT
    stack: StackName
    succeeded: bool
    unchanged: int
    resources: tuple[Resource, ...]
    diagnostics: tuple[Diagnostic, ...]

    @property
    def changes(self) -> bool:
        """Whether `up` would change anything."""
        return bool(self.resources)

    def count(self, operation: Operation) -> int:
        """How many objects and components undergo `operation`."""
        return sum(resource.operation == operation for resource in self.resources)


class _State(BaseModel):
    type: str
    custom: bool = True
    parent: str = ""
    inputs: dict[str, JsonValue] = Field(default_factory=dict)
    outputs: dict[str, JsonValue] = Field(default_factory=dict)
    retain: bool = Field(default=False, alias="retainOnDelete")


class _Step(BaseModel):
    op: str
    urn: str
    old: _State | None = Field(default=None, alias="oldState")
    new: _State | None = Field(default=None, alias="newState")
    detailed: dict[str, JsonValue] | None = Field(default=None, alias="detailedDiff")
    reasons: tuple[str, ...] | None = Field(default=None, alias="replaceReasons")
    changed: tuple[str, ...] | None = Field(default=None, alias="diffReasons")

    @property
    def state(self) -> _State:
        state = self.new or self.old
        return state if state is not None else _State(type="unknown")


class _Diagnostic(BaseModel):
    message: str
    severity: str
    urn: str | None = None


class _Preview(BaseModel):
    steps: tuple[_Step, ...] = ()
    diagnostics: tuple[_Diagnostic, ...] = ()
    summary: dict[str, int] = Field(default_factory=dict, alias="changeSummary")


def read_plan(stack: str, preview: JsonValue, *, succeeded: bool) -> Plan:
    """The plan in the engine's `preview --json` of `stack`."""
    try:
        parsed = _Preview.model_validate(preview)
    except ValidationError as error:
        raise CliError(
            f"The preview of {stack} is not what Pulumi 3 writes: {error}", "Report this."
        ) from error
    resources = {
        step.urn: _resource(step)
        for step in parsed.steps
        if step.op in OPERATIONS and not step.state.type.startswith("pulumi:providers:")
    }
    failed = any(diagnostic.severity == "error" for diagnostic in parsed.diagnostics)
    return Plan(
        stack=stack,
        succeeded=succeeded and not failed,
        unchanged=parsed.summary.get("same", 0),
        resources=tuple(
            sorted(resources.values(), key=lambda r: (r.component, not r.is_component, r.kind, r.name))
        ),
        diagnostics=tuple(_diagnostics(parsed.diagnostics)),
    )


def failed_plan(stack: str, reason: str) -> Plan:
    """The plan of a stack whose preview could not even begin."""
    diagnostic = Diagnostic(severity="error", resource=None, message=mask_text(reason))
    return Plan(stack=stack, succeeded=False, unchanged=0, resources=(), diagnostics=(diagnostic,))


def urn_name(urn: str) -> str:
    """The `Kind name` in a URN (`urn:pulumi:STACK::PROJECT::PARENT$TYPE::NAME`)."""
    parts = urn.split("::", 3)
    if len(parts) < 4:
        return urn
    kind = _kind(parts[2].rpartition("$")[2])
    return f"{kind} {parts[3]}"


def _kind(type_token: str) -> str:
    return type_token.rpartition(":")[2]


def _resource(step: _Step) -> Resource:
    state, operation = step.state, OPERATIONS[step.op]
    old = mask_object(step.old.inputs) if step.old is not None else {}
    new = mask_object(step.new.inputs) if step.new is not None else {}
    name, before = _name(new or old, step.urn), _name(old or new, step.urn)
    forgets = operation == "delete" and state.retain
    return Resource(
        urn=step.urn,
        kind=_kind(state.type),
        name=name,
        formerly=before if before != name else None,
        component=_component(step),
        is_component=not state.custom,
        operation="forget" if forgets else operation,
        cut=_cut(_kind(state.type), old) if operation in ("delete", "replace") and not forgets else None,
        interruption=interruption(_kind(state.type), operation, old, new) if state.custom else None,
        properties=tuple(_properties(step, old, new)) if operation in ("update", "replace") else (),
    )


def _name(inputs: Mapping[str, JsonValue], urn: str) -> str:
    metadata = inputs.get("metadata")
    if isinstance(metadata, dict) and isinstance(metadata.get("name"), str):
        namespace = metadata.get("namespace")
        return f"{namespace}/{metadata['name']}" if isinstance(namespace, str) else str(metadata["name"])
    return urn.rpartition("::")[2]


def _component(step: _Step) -> str:
    """The component that the step belongs to: itself, or its parent; empty for the stack."""
    owner = step.state.parent if step.state.custom else step.urn
    return "" if not owner or f"::{STACK_TYPE}::" in owner else urn_name(owner)


def _properties(
    step: _Step, old: Mapping[str, JsonValue], new: Mapping[str, JsonValue]
) -> Iterator[Property]:
    """What changes: by the inputs, or if these are equal (drift) by what is there; and what only the provider tells."""
    outputs = mask_object(step.old.outputs) if step.old is not None else {}
    found = differences(dict(old), dict(new))
    if not found and outputs:
        found = differences(shaped(outputs, dict(new)), dict(new))
    reasons = set(step.reasons or ())
    told = sorted({*(step.detailed or {}), *(step.changed or ()), *reasons})
    rest = (
        Difference(path, look_up(outputs, path), look_up(dict(new), path))
        for path in told
        if not any(_within(difference.path, path) for difference in found)
    )
    for difference in (*found, *rest):
        replaces = any(_within(difference.path, reason) for reason in reasons)
        yield Property(path=difference.path, old=difference.old, new=difference.new, replaces=replaces)


def _within(path: str, outer: str) -> bool:
    return path == outer or path.startswith((f"{outer}.", f"{outer}["))


# What stops when an object of a kind goes away, with the hosts or the address it stands for.
CUTS: Mapping[str, str] = {
    "ServiceEntry": "connections to {} find no way out",
    "VirtualService": "connections to {} are no longer routed",
    "Gateway": "the gateway no longer accepts {}",
    "DestinationRule": "connections to {} lose their TLS and subset settings",
    "Service": "the address of {} goes away and clients that use it are cut",
    "Deployment": "the gateway pods of {} stop and their connections are cut",
    "Secret": "the certificate in {} goes away and handshakes that need it fail",
    "EnvoyFilter": "the proxy settings of {} are lost",
}


def _cut(kind: str, inputs: Mapping[str, JsonValue]) -> str | None:
    sentence = CUTS.get(kind)
    if sentence is None:
        return None
    hosts = sorted(set(_hosts(inputs.get("spec"))))
    return sentence.format(", ".join(hosts) or _name(inputs, kind))


def _hosts(spec: JsonValue) -> Iterator[str]:
    if not isinstance(spec, dict):
        return
    host, hosts, servers = spec.get("host"), spec.get("hosts"), spec.get("servers")
    if isinstance(host, str):
        yield host
    if isinstance(hosts, list):
        yield from (item for item in hosts if isinstance(item, str))
    if isinstance(servers, list):
        for server in servers:
            yield from _hosts(server)


def _diagnostics(diagnostics: tuple[_Diagnostic, ...]) -> Iterator[Diagnostic]:
    """The errors and warnings, and what the program printed if there are errors; each once, in a fixed order."""
    failed = any(diagnostic.severity in ERRORS for diagnostic in diagnostics)
    wanted = {"warning", *(ERRORS if failed else ())}
    shown = {
        Diagnostic(
            severity="error" if diagnostic.severity in ERRORS else "warning",
            resource=urn_name(diagnostic.urn) if diagnostic.urn else None,
            message=mask_text(diagnostic.message.strip()),
        )
        for diagnostic in diagnostics
        if diagnostic.severity in wanted
        and diagnostic.message.strip()
        and not _plugin_path.search(diagnostic.message)
    }
    if sum(diagnostic.severity == "error" for diagnostic in shown) > 1:
        shown = {diagnostic for diagnostic in shown if EXIT not in diagnostic.message}
    yield from sorted(shown, key=lambda d: (d.severity, d.resource or "", d.message))
