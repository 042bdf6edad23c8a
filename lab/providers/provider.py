"""What the stand-in does with each request of the engine about a resource.

Source page: "Resource provider protocol" of Pulumi's developer documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from google.protobuf import empty_pb2, struct_pb2

from lab.providers import diff, objects, render
from lab.providers.api import ApiError, NoMatchError, UnreachableError
from lab.providers.awaits import NotReadyError
from lab.providers.cluster import AlreadyExistsError, Cluster, Operation
from lab.providers.errors import ProviderError
from lab.providers.objects import Kind
from lab.providers.plugin import Engine, Severity
from lab.providers.protocol import provider_pb2
from lab.providers.settings import Settings
from lab.providers.values import (
    Object,
    decode,
    encode,
    has_secret,
    has_unknown,
    reveal_object,
    text,
    without_nulls,
)

_UNREACHABLE: Final = "configured Kubernetes cluster is unreachable"
_REMOVE_HINT: Final = (
    "If the cluster was deleted, you can remove this resource from Pulumi state by rerunning the operation with the "
    'PULUMI_K8S_DELETE_UNREACHABLE environment variable set to "true"'
)
_OFFICIAL_ONLY: Final = frozenset({"helm.sh", "kustomize", "yaml"})
_DIFF_KINDS: Final = {
    (diff.Change.ADD, False): provider_pb2.PropertyDiff.ADD,
    (diff.Change.ADD, True): provider_pb2.PropertyDiff.ADD_REPLACE,
    (diff.Change.DELETE, False): provider_pb2.PropertyDiff.DELETE,
    (diff.Change.DELETE, True): provider_pb2.PropertyDiff.DELETE_REPLACE,
    (diff.Change.UPDATE, False): provider_pb2.PropertyDiff.UPDATE,
    (diff.Change.UPDATE, True): provider_pb2.PropertyDiff.UPDATE_REPLACE,
}

Result = TypeVar("Result")


class Provider:
    """One configured provider."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._cluster = Cluster(settings, engine)

    def check(self, request: provider_pb2.CheckRequest) -> provider_pb2.CheckResponse:
        """Complete and normalize a resource's inputs: its kind, its name, its namespace, what is secret.

        Raises:
            ProviderError: the resource is not an object of the Kubernetes API, or its inputs cannot be one.
        """
        token = _token(request.urn)
        given = _decode(request.news)
        old = objects.from_state(reveal_object(decode(request.olds)))
        inputs = reveal_object(given)
        inputs.setdefault("apiVersion", token.api_version)
        inputs.setdefault("kind", token.kind)
        failures = _shape_failures(inputs)
        if failures:
            return provider_pb2.CheckResponse(inputs=request.news, failures=failures)
        if not has_unknown(inputs):
            inputs = objects.normalize(inputs)
        objects.adopt_autoname(inputs, old)
        if not objects.is_named(inputs):
            failure = _name(inputs, request, patch=objects.is_patch(request.urn, text(inputs, "kind")))
            if failure is not None:
                return provider_pb2.CheckResponse(inputs=request.news, failures=[failure])
        self._default_namespace(inputs)
        return provider_pb2.CheckResponse(inputs=encode(objects.mark_secrets(inputs, given)))

    def _default_namespace(self, inputs: Object) -> None:
        metadata = (
            objects.metadata_of(inputs) if not has_unknown(inputs.get("metadata")) else inputs.get("metadata")
        )
        if not isinstance(metadata, dict) or metadata.get("namespace"):
            return
        kind = objects.kind_of(inputs)
        if self._settings.render_directory is not None:
            if kind.namespaced is not False:
                metadata["namespace"] = self._settings.namespace or "default"
        elif self._attempt(lambda: self._cluster.namespaced(kind)):
            metadata["namespace"] = self._cluster.default_namespace

    def diff(self, request: provider_pb2.DiffRequest) -> provider_pb2.DiffResponse:
        """Compare the stored object with the new inputs.

        What is compared is the live object of the state, reduced to the fields of the old inputs: so a refresh that
        found a changed field makes the next update put it right, and what the server adds is no change.
        """
        inputs = reveal_object(_decode(request.news))
        old_inputs, live = objects.parse_checkpoint(reveal_object(decode(request.olds)))
        old_inputs, inputs = objects.normalize(old_inputs), _normalize(inputs)
        old = objects.prune(live, old_inputs)
        if objects.is_named(inputs):
            old["metadata"] = {**_metadata(old), "name": objects.name_of(live)}
        if not objects.namespace_of(live):
            for side in (old, inputs):
                side["metadata"] = {key: item for key, item in _metadata(side).items() if key != "namespace"}
        patch = objects.is_patch(request.urn, text(inputs, "kind"))
        replace_on: list[diff.Path] = (
            [("metadata", "name"), ("metadata", "namespace")]
            if patch
            else diff.force_new(
                objects.kind_of(inputs),
                inputs,
                secret_mutable=self._settings.secret_mutable,
                config_map_mutable=self._settings.config_map_mutable,
            )
        )
        changes = diff.without_ignored(
            diff.compare(old, inputs, old_inputs, replace_on), request.ignoreChanges
        )
        always = self._settings.render_directory is not None and self._settings.always_render
        replaces = [diff.format_path(change.path) for change in changes if change.replace]
        return provider_pb2.DiffResponse(
            changes=provider_pb2.DiffResponse.DIFF_SOME
            if changes or always
            else provider_pb2.DiffResponse.DIFF_NONE,
            replaces=replaces,
            deleteBeforeReplace=bool(replaces) and diff.must_delete_first(inputs, live),
            detailedDiff={
                diff.format_path(change.path): provider_pb2.PropertyDiff(
                    kind=_DIFF_KINDS[change.change, change.replace],
                    inputDiff=change.change is diff.Change.DELETE,
                )
                for change in changes
            },
            hasDetailedDiff=True,
        )

    def create(self, request: provider_pb2.CreateRequest) -> provider_pb2.CreateResponse:
        """Create an object, or say by a dry run what would come of it.

        A preview that the server cannot answer returns the inputs: something in them is not known yet, or the
        definition, the namespace or the cluster is still to be made.

        Raises:
            ProviderError: it was not created, or it was and is not ready; the latter carries its state.
        """
        given = _decode(request.properties)
        inputs = reveal_object(given)
        operation = self._operation(request.urn, {}, inputs, request.timeout, preview=request.preview)
        as_given = provider_pb2.CreateResponse(properties=request.properties)
        if request.preview and (operation.patch or not self._can_preview(inputs)):
            return as_given
        if self._settings.render_directory is not None:
            state = self._render(inputs, given, request.urn, operation, self._settings.render_directory)
            return provider_pb2.CreateResponse(id=objects.identifier(inputs), properties=state)
        try:
            live = self._attempt(lambda: self._cluster.create(inputs, operation))
        except NotReadyError as error:
            raise self._not_ready(error, inputs, given, operation) from error
        except AlreadyExistsError as error:
            if request.preview:
                return as_given
            raise ProviderError(_not_created(inputs, error)) from error
        except (ApiError, NoMatchError) as error:
            if request.preview and _unpreviewable(error):
                return as_given
            raise ProviderError(_not_created(inputs, error)) from error
        if request.preview:
            live.pop("status", None)
        state = _state(inputs, live, given, text(inputs, "apiVersion"), operation.manager)
        return provider_pb2.CreateResponse(
            id="" if request.preview else objects.identifier(live), properties=state
        )

    def update(self, request: provider_pb2.UpdateRequest) -> provider_pb2.UpdateResponse:
        """Change an object, or say by a dry run what would come of it.

        Raises:
            ProviderError: it was not changed, or it was and is not ready; the latter carries its state.
        """
        given = _decode(request.news)
        inputs = _normalize(reveal_object(given))
        old_state = reveal_object(decode(request.olds))
        old_inputs, old_live = objects.parse_checkpoint(old_state)
        operation = self._operation(request.urn, old_state, inputs, request.timeout, preview=request.preview)
        initial = text(old_state, objects.INITIAL_API_VERSION_KEY) or text(inputs, "apiVersion")
        as_given = provider_pb2.UpdateResponse(properties=request.news)
        if request.preview and not self._can_preview(inputs):
            return as_given
        if self._settings.render_directory is not None:
            state = self._render(inputs, given, request.urn, operation, self._settings.render_directory)
            return provider_pb2.UpdateResponse(properties=state)
        try:
            live = self._attempt(lambda: self._cluster.update(old_live, old_inputs, inputs, operation))
        except NotReadyError as error:
            raise self._not_ready(error, inputs, given, operation, initial) from error
        except (ApiError, NoMatchError) as error:
            if request.preview and _unpreviewable(error):
                return as_given
            raise ProviderError(f"update of {objects.describe(inputs)} failed: {error}") from error
        self._release_former(old_state, live, operation)
        return provider_pb2.UpdateResponse(properties=_state(inputs, live, given, initial, operation.manager))

    def _release_former(self, old_state: Object, live: Object, operation: Operation) -> None:
        """Give up the fields under a former field manager's name."""
        former = text(old_state, objects.FIELD_MANAGER_KEY)
        if (
            self._settings.server_side_apply
            and not operation.preview
            and former not in ("", operation.manager)
        ):
            self._attempt(lambda: self._cluster.release(live, former))

    def read(self, request: provider_pb2.ReadRequest) -> provider_pb2.ReadResponse:
        """Read an object for a refresh, an import or a `.get`.

        In a refresh its inputs are what the live object says of the fields of the old inputs, so a field that somebody
        changed shows, and one that the server added does not. An object that is gone has an empty id.

        Raises:
            ProviderError: the server does not answer, or the object is not ready; the latter carries its state.
        """
        old_state = decode(request.properties)
        if self._settings.render_directory is not None:
            return provider_pb2.ReadResponse(
                id=request.id, properties=request.properties, inputs=request.inputs
            )
        given = _decode(request.inputs)
        old_inputs, old_live = reveal_object(given), objects.parse_checkpoint(reveal_object(old_state))[1]
        imported = not text(old_inputs, "kind") and not text(old_live, "kind")
        kind = (
            _token(request.urn)
            if imported
            else objects.kind_of(old_inputs if text(old_inputs, "kind") else old_live)
        )
        if objects.is_patch(request.urn, kind.kind):
            kind = Kind(kind.group, kind.version, kind.kind.removesuffix("Patch"))
        namespace, name = objects.parse_identifier(request.id)
        try:
            live = self._cluster.read(kind, namespace or self._cluster.default_namespace, name)
        except UnreachableError as error:
            return self._read_unreachable(request, error)
        except ApiError as error:
            raise ProviderError(f"failed to read {kind.kind} {request.id}: {error}") from error
        if live is None:
            return provider_pb2.ReadResponse()
        inputs = _importable(live) if imported else objects.prune(live, objects.normalize(old_inputs))
        initial = text(reveal_object(old_state), objects.INITIAL_API_VERSION_KEY) or kind.api_version
        manager = objects.field_manager(request.urn, reveal_object(old_state), inputs)
        state = _state(inputs, live, given, initial, manager)
        checked = encode(objects.mark_secrets(inputs, given))
        if not imported:
            self._check_ready(live, old_inputs, request.id, state, checked)
        return provider_pb2.ReadResponse(id=request.id, properties=state, inputs=checked)

    def _check_ready(
        self,
        live: Object,
        inputs: Object,
        identifier: str,
        state: struct_pb2.Struct,
        checked: struct_pb2.Struct,
    ) -> None:
        try:
            self._attempt(lambda: self._cluster.check_ready(live, inputs))
        except NotReadyError as error:
            detail = _init_failed(identifier, error, state)
            detail.inputs.CopyFrom(checked)
            raise ProviderError(_with_reasons(error), detail) from error
        except ApiError as error:
            raise ProviderError(
                f"failed to read what belongs to {objects.describe(live)}: {error}"
            ) from error

    def _read_unreachable(
        self, request: provider_pb2.ReadRequest, error: UnreachableError
    ) -> provider_pb2.ReadResponse:
        self._engine.log(Severity.WARNING, f"{_UNREACHABLE}: {error}", request.urn)
        if self._settings.delete_unreachable:
            return provider_pb2.ReadResponse()
        if self._settings.skip_update_unreachable:
            return provider_pb2.ReadResponse(
                id=request.id, properties=request.properties, inputs=request.inputs
            )
        raise ProviderError(
            f"failed to read resource state due to unreachable cluster. {_REMOVE_HINT}"
        ) from error

    def delete(self, request: provider_pb2.DeleteRequest) -> empty_pb2.Empty:
        """Delete an object and wait until it is gone; one that is gone already is a success.

        Raises:
            ProviderError: the server refuses or does not answer, or the object is still there at the end of the timeout.
        """
        state = reveal_object(decode(request.properties))
        old_inputs, live = objects.parse_checkpoint(state)
        if self._settings.render_directory is not None:
            path = self._attempt_file(
                lambda folder: render.remove(live, folder), self._settings.render_directory
            )
            self._engine.status(f"deleted {path}", request.urn)
            return empty_pb2.Empty()
        operation = self._operation(request.urn, state, old_inputs, request.timeout)
        name = objects.parse_identifier(request.id)[1]
        try:
            self._cluster.delete(live, old_inputs, name, operation)
        except UnreachableError as error:
            self._engine.log(Severity.WARNING, f"{_UNREACHABLE}: {error}", request.urn)
            if not self._settings.delete_unreachable:
                raise ProviderError(f"{_UNREACHABLE}: {error}. {_REMOVE_HINT}") from error
        except ApiError as error:
            raise ProviderError(f"{objects.describe(live)} was not deleted: {error}") from error
        except NotReadyError as error:
            last = encode(
                objects.checkpoint(old_inputs, error.live, {}, text(live, "apiVersion"), operation.manager)
            )
            raise ProviderError(_with_reasons(error), _init_failed(request.id, error, last)) from error
        return empty_pb2.Empty()

    def _operation(
        self, urn: str, state: Object, inputs: Object, timeout: float, *, preview: bool = False
    ) -> Operation:
        manager = (
            objects.field_manager(urn, state, inputs)
            if self._settings.server_side_apply
            else "pulumi-kubernetes"
        )
        patch = objects.is_patch(urn, text(inputs, "kind"))
        return Operation(urn=urn, manager=manager, timeout=timeout, preview=preview, patch=patch)

    def _can_preview(self, inputs: Object) -> bool:
        if self._settings.render_directory is not None or has_unknown(inputs):
            return False
        return self._attempt(lambda: self._cluster.can_preview(objects.kind_of(inputs)))

    def _attempt(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except UnreachableError as error:
            raise ProviderError(f"{_UNREACHABLE}: {error}") from error

    def _attempt_file(self, action: Callable[[Path], Path], folder: Path) -> Path:
        try:
            return action(folder)
        except OSError as error:
            raise ProviderError(f"rendering to {folder} failed: {error}") from error

    def _render(
        self, inputs: Object, given: Object, urn: str, operation: Operation, folder: Path
    ) -> struct_pb2.Struct:
        path = self._attempt_file(lambda target: render.write(inputs, target), folder)
        if has_secret(given):
            self._engine.log(
                Severity.WARNING, f"rendered file {path} contains a secret value in plaintext", urn
            )
        self._engine.status(f"rendered {path}", urn)
        return _state(inputs, inputs, given, text(inputs, "apiVersion"), operation.manager)

    def _not_ready(
        self, error: NotReadyError, inputs: Object, given: Object, operation: Operation, initial: str = ""
    ) -> ProviderError:
        state = _state(inputs, error.live, given, initial or text(inputs, "apiVersion"), operation.manager)
        message = (
            f"{objects.describe(error.live)} was accepted by the Kubernetes API server but failed to become ready: "
            f"{_with_reasons(error)}"
        )
        return ProviderError(message, _init_failed(objects.identifier(error.live), error, state))


def _decode(struct: struct_pb2.Struct) -> Object:
    try:
        return objects.from_state(without_nulls(decode(struct)))
    except ValueError as error:
        raise ProviderError(str(error)) from error


def _token(urn: str) -> Kind:
    try:
        kind = objects.kind_of_token(objects.token_of_urn(urn))
    except ValueError as error:
        raise ProviderError(str(error)) from error
    if kind.group in _OFFICIAL_ONLY:
        raise ProviderError(
            f"{objects.token_of_urn(urn)} needs the official plugin: the stand-in handles objects only"
        )
    return kind


def _shape_failures(inputs: Object) -> list[provider_pb2.CheckFailure]:
    metadata = inputs.get("metadata", {})
    if isinstance(metadata, dict) or has_unknown(metadata):
        return []
    return [provider_pb2.CheckFailure(property="metadata", reason="must be an object with a name")]


def _name(
    inputs: Object, request: provider_pb2.CheckRequest, *, patch: bool
) -> provider_pb2.CheckFailure | None:
    """Name an object that the program leaves unnamed, or say why it cannot stay so."""
    reason = ""
    if patch:
        reason = "patch resources require the `.metadata.name` field to be set"
    elif text(inputs, "metadata", "generateName"):
        reason = (
            "the `.metadata.generateName` field is not supported in Server-Side Apply or YAML rendering mode"
        )
    elif request.autonaming.mode == provider_pb2.CheckRequest.AutonamingOptions.DISABLE:
        reason = "autonaming is disabled, resource requires the .metadata.name field to be set"
    if reason:
        return provider_pb2.CheckFailure(property="metadata.name", reason=reason)
    objects.autoname(inputs, request.urn, request.randomSeed, request.autonaming.proposed_name)
    return None


def _normalize(inputs: Object) -> Object:
    return inputs if has_unknown(inputs) else objects.normalize(inputs)


def _metadata(obj: Object) -> Object:
    metadata = obj.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _importable(live: Object) -> Object:
    """The inputs that would make an object that no program has made yet."""
    inputs = {key: value for key, value in objects.normalize(live).items() if key != "status"}
    metadata = {key: value for key, value in _metadata(inputs).items() if key != "selfLink"}
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        server_set = (objects.LAST_APPLIED, "deployment.kubernetes.io/revision")
        metadata["annotations"] = {key: value for key, value in annotations.items() if key not in server_set}
    return {**inputs, "metadata": metadata}


def _state(inputs: Object, live: Object, given: Object, initial: str, manager: str) -> struct_pb2.Struct:
    return encode(objects.checkpoint(inputs, live, given, initial, manager))


def _unpreviewable(error: ApiError | NoMatchError) -> bool:
    """Whether a dry run failed for a reason that need not hold for the real run."""
    if isinstance(error, NoMatchError):
        return True
    return error.status == 403 or error.namespace_not_found or error.dry_run_unsupported


def _not_created(inputs: Object, error: Exception) -> str:
    return f"{objects.describe(inputs)} was not successfully created by the Kubernetes API server: {error}"


def _with_reasons(error: NotReadyError) -> str:
    return "\n".join([str(error), *(f"  - {reason}" for reason in error.missing)])


def _init_failed(
    identifier: str, error: NotReadyError, state: struct_pb2.Struct
) -> provider_pb2.ErrorResourceInitFailed:
    return provider_pb2.ErrorResourceInitFailed(
        id=identifier, properties=state, reasons=[str(error), *error.missing]
    )
