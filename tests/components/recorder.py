"""Runs a program against a monitor that records what the engine would be asked to register.

`pulumi.runtime.Mocks` sees types, names and inputs only. The monitor here reads the requests themselves: parents,
dependencies, providers, aliases, what is secret and what is unknown. Like the engine it refuses a URN that it has seen.

A program is run to its end, every output awaited, and only then does a test assert: no assertion stands in an
`apply`, where one that fails could be lost.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import pulumi
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime import mocks as pulumi_mocks
from pulumi.runtime.proto import provider_pb2, resource_pb2, source_pb2
from pulumi.runtime.rpc import UNKNOWN as UNKNOWN_TEXT
from pulumi.runtime.rpc import _special_secret_sig, _special_sig_key

PROJECT = "meshbridge"
STACK = "unit"
UNKNOWN = "(unknown)"
"""Stands for a value that is not known at preview."""


@dataclass(frozen=True)
class Secret:
    """A value that is marked as secret."""

    value: Any


@dataclass(frozen=True)
class Registration:
    """What one request said. Inputs hold `Secret` and `UNKNOWN` where a value is secret or unknown."""

    type: str
    name: str
    urn: str
    parent: str
    custom: bool
    inputs: Mapping[str, Any]
    dependencies: frozenset[str]
    provider: str
    providers: Mapping[str, str]
    aliases: frozenset[str]
    version: str
    options: Mapping[str, Any]
    """What else the request said that changes how the engine treats the resource."""
    replaced_with: frozenset[str] = frozenset()
    """URNs of the resources with which it is replaced."""
    trigger: Any = None
    """A value whose change replaces it."""

    @property
    def kind(self) -> str:
        """The last part of the type: `VirtualService`."""
        return self.type.rsplit(":", 1)[-1]

    @property
    def provider_urn(self) -> str:
        """URN of the provider's resource."""
        return self.provider.rsplit("::", 1)[0]

    @property
    def object(self) -> tuple[str, str, str]:
        """Kind, namespace and name of the Kubernetes object."""
        metadata = self.inputs["metadata"]
        return self.kind, metadata.get("namespace", ""), metadata["name"]


class Plugin:
    """The Kubernetes plugin and the engine's state, as far as a program sees them."""

    def stack_outputs(self, name: str) -> Mapping[str, Any]:
        """Outputs of another stack; a `Secret` among them is secret there. Raises LookupError for an unknown one."""
        raise LookupError(f"unknown stack {name!r}")

    def invoked(self, token: str, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """What a function of a plugin returns. Raises LookupError for an unknown one."""
        raise LookupError(f"call of {token} with {arguments} is not mocked")

    def created(self, registration: Registration) -> tuple[str, Mapping[str, Any]]:
        """Id and state of what is registered: here, of an object that the API server has accepted."""
        state = dict(registration.inputs)
        if registration.kind == "Service" and "spec" in state:
            state["spec"] = {"clusterIP": "10.96.0.7", **state["spec"]}
        return f"id-{registration.name}", state


@dataclass
class Stacks(Plugin):
    """A plugin beside stacks whose outputs can be referred to."""

    outputs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def stack_outputs(self, name: str) -> Mapping[str, Any]:
        return self.outputs[name]


class Previewed(Stacks):
    """A preview of what does not exist yet: no ids, and nothing that only the API server decides."""

    def created(self, registration: Registration) -> tuple[str, Mapping[str, Any]]:
        return "", {key: value for key, value in registration.inputs.items() if key not in {"spec", "status"}}


class Unanswered(Stacks):
    """A preview that the API server cannot answer, because the namespace is missing: the inputs come back."""

    def created(self, registration: Registration) -> tuple[str, Mapping[str, Any]]:
        return "", registration.inputs


class DryRun(Stacks):
    """A preview by dry run: the API server fills in a cluster IP, but never the one that it allocates later."""

    def created(self, registration: Registration) -> tuple[str, Mapping[str, Any]]:
        return "", super().created(registration)[1]


class Existing(Stacks):
    """A preview of what exists already."""


@dataclass(frozen=True)
class Run:
    """One run of a program. `result` is what it returned, with every output awaited."""

    registrations: Mapping[str, Registration]
    registered_outputs: Mapping[str, Mapping[str, Any]]
    result: Any
    invocations: tuple[tuple[str, Mapping[str, Any], str], ...] = ()
    """Token, arguments and provider's URN of every function that was called."""

    def __iter__(self) -> Iterator[Registration]:
        return iter(self.registrations.values())

    @property
    def objects(self) -> list[Registration]:
        """The Kubernetes objects."""
        return [r for r in self if r.type.startswith("kubernetes:")]

    @property
    def components(self) -> list[Registration]:
        """The components."""
        return [r for r in self if r.type.startswith("meshbridge:")]

    def named(self, name: str) -> Registration:
        """The one registration of that name."""
        (found,) = [r for r in self if r.name == name]
        return found

    def children(self, component: str) -> dict[str, Registration]:
        """The children of a component, by what follows its name in theirs, or in a former name of theirs."""
        (parent,) = [c for c in self.components if c.name == component]
        return {_suffix(r, component): r for r in self if r.parent == parent.urn}

    def formerly(self, registration: Registration) -> set[str]:
        """URNs under which the engine looks for a resource in the state: its aliases, and by the engine's rule those
        that it inherits from its parent, whose name in front of its own it exchanges."""
        found = set(registration.aliases)
        parent = self.registrations.get(registration.parent)
        for alias in self.formerly(parent) if parent is not None else ():
            path, _, former = alias.rpartition("::")
            name = registration.name
            if parent is not None and name.startswith(parent.name):
                name = former + name.removeprefix(parent.name)
            found.add(f"{path}${registration.type}::{name}")
        return found

    def direct(self, registration: Registration) -> set[str]:
        """Names of what a registration depends on."""
        return {self.registrations[urn].name for urn in registration.dependencies}

    def ancestors(self, registration: Registration) -> set[str]:
        """Names of what a registration depends on, directly or not: what exists before it, and longer."""
        found: set[str] = set()
        open_ = list(registration.dependencies)
        while open_:
            current = self.registrations[open_.pop()]
            if current.name not in found:
                found.add(current.name)
                open_ += current.dependencies
        return found


def unlocated() -> AbstractContextManager[object]:
    """Registrations within do not say where in the source their resource stands, which takes up to a third of their time."""
    return patch("pulumi.runtime.resource._get_stack_trace", source_pb2.StackTrace)


def run(
    program: Callable[[], Any], *, plugin: Plugin | None = None, preview: bool = False, stack: str = STACK
) -> Run:
    """Runs `program` to its end. What it raises, also in an `apply`, is raised here."""

    def isolated() -> Run:
        monitor = _Monitor(plugin or Plugin(), stack)
        pulumi.runtime.set_mocks(_Refused(), PROJECT, stack, preview, monitor=monitor)
        results: list[Any] = []

        def whole() -> Awaitable[None]:
            declared = program()

            async def finish() -> None:
                results.append(await _awaited(declared))

            return finish()

        with unlocated():
            pulumi.runtime.test(whole)()  # type: ignore[no-untyped-call]
        return Run(dict(monitor.registrations), dict(monitor.outputs), results[0], tuple(monitor.invocations))

    return contextvars.copy_context().run(isolated)


def _suffix(child: Registration, component: str) -> str:
    names = [child.name, *(alias.rpartition("::")[2] for alias in sorted(child.aliases))]
    return next((n for n in names if n.startswith(f"{component}-")), child.name).removeprefix(f"{component}-")


class _Refused(pulumi.runtime.Mocks):
    """What goes past the recorder."""

    def call(self, args: pulumi.runtime.MockCallArgs) -> tuple[dict[Any, Any], None]:
        raise AssertionError(f"call of {args.token} is not mocked")

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[Any, Any]]:
        raise AssertionError(f"{args.typ} {args.name} went past the recorder")


class _Monitor(pulumi_mocks.MockMonitor):
    def __init__(self, plugin: Plugin, stack: str) -> None:
        super().__init__(_Refused())
        self._stack = stack
        self.registrations: dict[str, Registration] = {}
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.invocations: list[tuple[str, Mapping[str, Any], str]] = []
        self._plugin = plugin
        self._lock = threading.Lock()

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        # Requests come in on threads that do not know the settings of the run, by which the base class would go.
        qualified = f"{parent.split('::')[2]}$" if parent and "pulumi:pulumi:Stack" not in parent else ""
        return f"urn:pulumi:{self._stack}::{PROJECT}::{qualified}{type_}::{name}"

    def SupportsFeature(self, request: resource_pb2.SupportsFeatureRequest) -> Any:  # noqa: N802
        # Without alias specs the SDK itself works out the URNs that aliases stand for, those of children too.
        supported = request.id not in {"outputValues", "aliasSpecs"}
        return resource_pb2.SupportsFeatureResponse(hasSupport=supported)

    def Invoke(  # noqa: N802
        self, request: resource_pb2.ResourceInvokeRequest
    ) -> provider_pb2.InvokeResponse:
        arguments = _decoded(request.args)
        with self._lock:
            self.invocations.append((request.tok, arguments, request.provider.rsplit("::", 1)[0]))
        return provider_pb2.InvokeResponse(
            **{"return": _encoded(self._plugin.invoked(request.tok, arguments))}
        )

    def RegisterResource(  # noqa: N802
        self, request: resource_pb2.RegisterResourceRequest
    ) -> resource_pb2.RegisterResourceResponse:
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == "pulumi:pulumi:Stack":
            return resource_pb2.RegisterResourceResponse(urn=urn)
        registration = Registration(
            type=request.type,
            name=request.name,
            urn=urn,
            parent=request.parent,
            custom=request.custom,
            inputs=_decoded(request.object),
            dependencies=frozenset(request.dependencies),
            provider=request.provider,
            providers=dict(request.providers),
            aliases=frozenset(request.aliasURNs),
            version=request.version,
            options={
                "protect": request.protect,
                "deleteBeforeReplace": request.deleteBeforeReplace,
                "ignoreChanges": list(request.ignoreChanges),
                "retainOnDelete": request.retainOnDelete,
                "import": request.importId,
            },
            replaced_with=frozenset(request.replace_with),
            trigger=_decoded_value(json_format.MessageToDict(request.replacement_trigger))
            if request.HasField("replacement_trigger")
            else None,
        )
        self._record(registration)
        if not registration.custom:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        identifier, state = self._plugin.created(registration)
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identifier, object=_encoded(state))

    def ReadResource(  # noqa: N802
        self, request: resource_pb2.ReadResourceRequest
    ) -> resource_pb2.ReadResourceResponse:
        if request.type != "pulumi:pulumi:StackReference":
            raise AssertionError(f"reading {request.type} {request.name} is not mocked")
        urn = self.make_urn(request.parent, request.type, request.name)
        inputs = {**_decoded(request.properties), "id": request.id}
        self._record(
            Registration(
                type=request.type,
                name=request.name,
                urn=urn,
                parent=request.parent,
                custom=True,
                inputs=inputs,
                dependencies=frozenset(request.dependencies),
                provider=request.provider,
                providers={},
                aliases=frozenset(),
                version=request.version,
                options={},
            )
        )
        outputs = self._plugin.stack_outputs(request.id)
        secret = [name for name, value in outputs.items() if isinstance(value, Secret)]
        state = {"name": request.id, "outputs": dict(outputs), "secretOutputNames": secret}
        return resource_pb2.ReadResourceResponse(urn=urn, properties=_encoded(state))

    def RegisterResourceOutputs(  # noqa: N802
        self, request: resource_pb2.RegisterResourceOutputsRequest
    ) -> empty_pb2.Empty:
        with self._lock:
            if request.urn in self.outputs:
                raise AssertionError(f"outputs of {request.urn} are registered twice")
            self.outputs[request.urn] = _decoded(request.outputs)
        return empty_pb2.Empty()

    def _record(self, registration: Registration) -> None:
        with self._lock:
            if registration.urn in self.registrations:
                raise AssertionError(f"duplicate resource URN {registration.urn}")
            self.registrations[registration.urn] = registration


def _decoded(struct: struct_pb2.Struct) -> dict[str, Any]:
    return {key: _decoded_value(value) for key, value in json_format.MessageToDict(struct).items()}


def _decoded_value(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get(_special_sig_key) == _special_secret_sig:
            return Secret(_decoded_value(value["value"]))
        return {key: _decoded_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_decoded_value(item) for item in value]
    return UNKNOWN if value == UNKNOWN_TEXT else value


def _encoded(state: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(
        {key: _encoded_value(value) for key, value in state.items()}, struct_pb2.Struct()
    )


def _encoded_value(value: Any) -> Any:
    if isinstance(value, Secret):
        return {_special_sig_key: _special_secret_sig, "value": _encoded_value(value.value)}
    if isinstance(value, Mapping):
        return {key: _encoded_value(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_encoded_value(item) for item in value]
    return UNKNOWN_TEXT if value == UNKNOWN else value


async def _awaited(value: Any) -> Any:
    """`value` with every output, however deep, replaced by what it holds."""
    if isinstance(value, pulumi.Output):
        known, secret = await value.is_known(), await value.is_secret()
        inner = await _awaited(await value.future(with_unknowns=True)) if known else UNKNOWN
        return Secret(inner) if secret else inner
    if isinstance(value, Mapping):
        return {key: await _awaited(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [await _awaited(item) for item in value]
    return value


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of nested mappings and lists, with its path: `spec.hosts[0]`."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def unknown_leaves(run: Run) -> dict[str, list[str]]:
    """Paths of the unknown inputs of a run's Kubernetes objects, by the objects' names."""
    found = {r.name: [path for path, leaf in leaves(r.inputs) if leaf == UNKNOWN] for r in run.objects}
    return {name: paths for name, paths in found.items() if paths}
