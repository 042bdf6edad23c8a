"""The stand-in for Pulumi's AWS plugin: the process that the engine starts.

Source page: "Resource provider protocol" of Pulumi's developer documentation.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from typing import Final, NoReturn

from botocore.exceptions import BotoCoreError, ClientError
from google.protobuf import empty_pb2, struct_pb2
from google.protobuf.message import Message

from lab.providers.aws import balancing, dns, network
from lab.providers.aws.account import Account
from lab.providers.aws.functions import FUNCTIONS
from lab.providers.aws.resource import Resource
from lab.providers.aws.schema import SCHEMAS, VERSION, changes
from lab.providers.errors import ProviderError
from lab.providers.plugin import Engine, Method, Request, Severity, first_in_run, main
from lab.providers.protocol import plugin_pb2, provider_pb2
from lab.providers.values import Object, decode, encode, has_unknown, reveal_object, text, without_nulls

NOTICE: Final = (
    "the AWS provider in use is Meshbridge's stand-in (lab/providers/aws), not Pulumi's official plugin: it speaks to a "
    "moto server on this machine"
)
_RESOURCES: Final = {**balancing.RESOURCES, **network.RESOURCES, **dns.RESOURCES}


class Process:
    """A provider process, and the requests of the engine about its resources."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._account: Account | None = None

    def methods(self) -> list[Method]:
        """What the process answers to."""
        return [
            Method("Handshake", provider_pb2.ProviderHandshakeRequest, self._handshake),
            Method("Attach", plugin_pb2.PluginAttach, self._attach),
            Method("GetPluginInfo", empty_pb2.Empty, lambda _: plugin_pb2.PluginInfo(version=VERSION)),
            Method("GetSchema", provider_pb2.GetSchemaRequest, _schema),
            Method("CheckConfig", provider_pb2.CheckRequest, _check_config),
            Method("DiffConfig", provider_pb2.DiffRequest, _diff_config),
            Method("Configure", provider_pb2.ConfigureRequest, self._configure),
            Method("Check", provider_pb2.CheckRequest, _check),
            Method("Diff", provider_pb2.DiffRequest, _diff),
            self._translated("Invoke", provider_pb2.InvokeRequest, self._invoke),
            self._translated("Create", provider_pb2.CreateRequest, self._create),
            self._translated("Read", provider_pb2.ReadRequest, self._read),
            self._translated("Update", provider_pb2.UpdateRequest, self._update),
            self._translated("Delete", provider_pb2.DeleteRequest, self._delete),
            Method("Cancel", empty_pb2.Empty, self._cancel),
        ]

    def _translated(self, name: str, request: type[Request], answer: Callable[[Request], Message]) -> Method:
        """A method in which what AWS refuses reaches the engine as an error with AWS's words."""

        def call(message: Request) -> Message:
            try:
                return answer(message)
            except (ClientError, BotoCoreError) as error:
                raise ProviderError(str(error)) from error

        return Method(name, request, call)

    def _handshake(
        self, request: provider_pb2.ProviderHandshakeRequest
    ) -> provider_pb2.ProviderHandshakeResponse:
        self._engine.attach(request.engine_address)
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True)

    def _attach(self, request: plugin_pb2.PluginAttach) -> empty_pb2.Empty:
        self._engine.attach(request.address)
        return empty_pb2.Empty()

    def _configure(self, request: provider_pb2.ConfigureRequest) -> provider_pb2.ConfigureResponse:
        if first_in_run("aws"):
            self._engine.log(Severity.INFO, NOTICE)
        inputs = reveal_object(decode(request.args))
        self._account = Account(text(inputs, "region"))
        allowed = json.loads(text(inputs, "allowedAccountIds") or "[]")
        if allowed:
            actual = self._account.client("sts").get_caller_identity()["Account"]
            if actual not in allowed:
                raise ProviderError(f"AWS account ID not allowed: {actual}")
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    def _cancel(self, _request: empty_pb2.Empty) -> empty_pb2.Empty:
        self._engine.cancelled.set()
        return empty_pb2.Empty()

    @property
    def _configured(self) -> Account:
        if self._account is None:
            raise ProviderError("the provider is not configured")
        return self._account

    def _resource(self, urn: str) -> Resource:
        return _RESOURCES[_token(urn)](self._configured)

    def _invoke(self, request: provider_pb2.InvokeRequest) -> provider_pb2.InvokeResponse:
        function = FUNCTIONS.get(request.tok)
        if function is None:
            raise ProviderError(
                f"{request.tok} needs the official plugin: the stand-in has only {', '.join(FUNCTIONS)}"
            )
        arguments = without_nulls(reveal_object(decode(request.args)))
        return provider_pb2.InvokeResponse(**{"return": encode(function(self._configured, arguments))})

    def _create(self, request: provider_pb2.CreateRequest) -> provider_pb2.CreateResponse:
        inputs = _decoded(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(properties=request.properties)
        resource = self._resource(request.urn)
        identifier = resource.create(inputs)
        state = resource.read(identifier, inputs)
        return provider_pb2.CreateResponse(id=identifier, properties=encode({**state, "id": identifier}))

    def _read(self, request: provider_pb2.ReadRequest) -> provider_pb2.ReadResponse:
        resource, old = self._resource(request.urn), _decoded(request.properties)
        try:
            state = resource.read(request.id, old)
        except LookupError:
            return provider_pb2.ReadResponse()
        except ClientError as error:
            if error.response["Error"]["Code"] in resource.missing:
                return provider_pb2.ReadResponse()
            raise
        inputs = _decoded(request.inputs)
        seen = {key: state[key] for key in inputs if key in state}
        return provider_pb2.ReadResponse(
            id=request.id, properties=encode({**state, "id": request.id}), inputs=encode(seen)
        )

    def _update(self, request: provider_pb2.UpdateRequest) -> provider_pb2.UpdateResponse:
        inputs, state = _decoded(request.news), _decoded(request.olds)
        if request.preview:
            return provider_pb2.UpdateResponse(properties=encode({**state, **inputs}))
        resource = self._resource(request.urn)
        changed = changes(_token(request.urn), _decoded(request.old_inputs), state, inputs)
        resource.update(request.id, frozenset(key for key, _ in changed), inputs, state)
        identifier = resource.new_identifier(inputs) if isinstance(resource, dns.Record) else request.id
        found = resource.read(identifier, inputs)
        return provider_pb2.UpdateResponse(properties=encode({**found, "id": identifier}))

    def _delete(self, request: provider_pb2.DeleteRequest) -> empty_pb2.Empty:
        resource = self._resource(request.urn)
        try:
            resource.delete(request.id, _decoded(request.properties))
        except LookupError:
            pass
        except ClientError as error:
            if error.response["Error"]["Code"] not in resource.missing:
                raise
        return empty_pb2.Empty()


def _decoded(struct: struct_pb2.Struct) -> Object:
    return without_nulls(reveal_object(decode(struct)))


def _token(urn: str) -> str:
    token = urn.split("::")[2].rpartition("$")[2]
    if token not in SCHEMAS:
        raise ProviderError(f"{token} needs the official plugin: the stand-in has only {', '.join(SCHEMAS)}")
    return token


def _check(request: provider_pb2.CheckRequest) -> provider_pb2.CheckResponse:
    """Refuse inputs that the schema does not know, and name what has no name: the name of the resource and eight
    characters more, within AWS's limit."""
    token = _token(request.urn)
    schema, inputs = SCHEMAS[token], _decoded(request.news)
    failures = [
        provider_pb2.CheckFailure(property=key, reason=f"{token} has no such input in the stand-in's schema")
        for key in sorted(inputs.keys() - schema.inputs)
    ] + [
        provider_pb2.CheckFailure(property=key, reason="Missing required property")
        for key in sorted(schema.required - inputs.keys())
    ]
    if schema.name_limit is not None and "name" not in inputs:
        name = text(_decoded(request.olds), "name") or _unique_name(request)
        inputs["name"] = name
        if len(name) > schema.name_limit:
            reason = f"name {name!r} is longer than {schema.name_limit} characters"
            failures.append(provider_pb2.CheckFailure(property="name", reason=reason))
    return provider_pb2.CheckResponse(inputs=encode(inputs), failures=failures)


def _unique_name(request: provider_pb2.CheckRequest) -> str:
    seed = request.randomSeed
    suffix = hashlib.sha256(seed).hexdigest()[:7] if seed else secrets.token_hex(4)[:7]
    return f"{request.urn.rpartition('::')[2]}-{suffix}"


def _diff(request: provider_pb2.DiffRequest) -> provider_pb2.DiffResponse:
    token = _token(request.urn)
    found = list(changes(token, _decoded(request.old_inputs), _decoded(request.olds), _decoded(request.news)))
    ignored = set(request.ignoreChanges)
    found = [(key, replaces) for key, replaces in found if key not in ignored]
    kinds = {
        False: provider_pb2.PropertyDiff.UPDATE,
        True: provider_pb2.PropertyDiff.UPDATE_REPLACE,
    }
    return provider_pb2.DiffResponse(
        changes=provider_pb2.DiffResponse.DIFF_SOME if found else provider_pb2.DiffResponse.DIFF_NONE,
        diffs=[key for key, _ in found],
        replaces=[key for key, replaces in found if replaces],
        detailedDiff={key: provider_pb2.PropertyDiff(kind=kinds[replaces]) for key, replaces in found},
        hasDetailedDiff=True,
    )


def _check_config(request: provider_pb2.CheckRequest) -> provider_pb2.CheckResponse:
    return provider_pb2.CheckResponse(inputs=request.news)


def _diff_config(request: provider_pb2.DiffRequest) -> provider_pb2.DiffResponse:
    """Another region needs every resource anew."""
    olds, news = _decoded(request.olds), _decoded(request.news)
    changed = sorted(key for key in {*olds, *news} if olds.get(key) != news.get(key) and key != "version")
    moved = ["region"] if "region" in changed and not has_unknown(news.get("region")) else []
    kind = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
    return provider_pb2.DiffResponse(changes=kind, diffs=changed, replaces=moved)


def _schema(_request: provider_pb2.GetSchemaRequest) -> provider_pb2.GetSchemaResponse:
    return provider_pb2.GetSchemaResponse(schema=json.dumps({"name": "aws", "version": VERSION}))


def run() -> NoReturn:
    """Serve the engine until it ends."""
    main(lambda engine: Process(engine).methods())
