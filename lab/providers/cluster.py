"""Creating, changing, reading and deleting objects on an API server, the way the official plugin does.

A new object is POSTed, so that one that is there already is an error and never taken over silently; a change is
server-side applied. With `upsertExistingObjects` a new object is applied too: that is how a run that was killed before
it saved its state takes its own objects up again. Previews are dry runs on the server.

Source pages: "Server-Side Apply" and "Garbage Collection" of the Kubernetes documentation; "Managing resources with
server-side apply" of Pulumi's Kubernetes guides.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lab.providers import awaits
from lab.providers.api import JSON_PATCH, MERGE_PATCH, Api, ApiError, NoMatchError, UnreachableError
from lab.providers.errors import ProviderError
from lab.providers.kubeconfig import Access, KubeconfigError, load
from lab.providers.objects import (
    CRD_KIND,
    DELETION_PROPAGATION,
    PATCH_FORCE,
    Kind,
    annotation,
    describe,
    is_true,
    kind_of,
    name_of,
    namespace_of,
)
from lab.providers.plugin import Engine
from lab.providers.settings import Settings
from lab.providers.values import Object, Value, mapping, sequence, text

_CREATE_MANAGER: Final = "pulumi-kubernetes"
_TAKEN_OVER: Final = frozenset(
    {
        ("kubectl", "Apply"),
        ("kubectl", "Update"),
        ("before-first-apply", "Update"),
        ("pulumi-kubernetes", "Update"),
        ("pulumi-kubernetes.exe", "Update"),
        ("pulumi-resource-kubernetes", "Update"),
    }
)
_CREATE_RETRIES: Final = 5
_FIRST_RETRY_SECONDS: Final = 1.0

_ALREADY_EXISTS: Final = """

The object is in the cluster already, but not in the stack's state. Either
  - a run was interrupted before it saved its state, or the object is meant to be taken over: run again with \
PULUMI_K8S_UPSERT_EXISTING_OBJECTS=true, or set upsertExistingObjects on the provider;
  - or somebody else made it: take it into the state with `pulumi import`, manage single fields of it with a Patch \
resource, or choose another name."""


class AlreadyExistsError(Exception):
    """An object to be created is there already."""


@dataclass(frozen=True)
class Operation:
    """What one request of the engine is about."""

    urn: str
    manager: str
    timeout: float = 0.0
    preview: bool = False
    patch: bool = False
    """Whether the resource is a patch of an object that somebody else owns."""


class Cluster:
    """The cluster of one configured provider. It is contacted only when an operation needs it."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings = settings
        self._engine = engine
        self._lock = threading.Lock()
        self._api: Api | None = None
        self._access: Access | None = None
        self._problem = ""
        try:
            self._access = load(settings.kubeconfig, context=settings.context, cluster=settings.cluster)
        except KubeconfigError as error:
            self._problem = str(error)

    @property
    def default_namespace(self) -> str:
        """The namespace of objects that name none."""
        in_context = self._access.namespace if self._access is not None else "default"
        return self._settings.namespace or in_context

    def api(self) -> Api:
        """The API server.

        Raises:
            UnreachableError: there is no usable kubeconfig.
        """
        with self._lock:
            if self._access is None:
                raise UnreachableError(self._problem)
            if self._api is None:
                self._api = Api(self._access)
            return self._api

    def namespaced(self, kind: Kind) -> bool:
        """Whether objects of a kind live in a namespace; assumed of a kind that the server does not (yet) have."""
        known = kind.namespaced
        if known is not None:
            return known
        try:
            return self.api().namespaced(kind)
        except (NoMatchError, UnreachableError):
            return True

    def can_preview(self, kind: Kind) -> bool:
        """Whether a dry run of an object of this kind can succeed: the server answers and has the kind."""
        try:
            return self._settings.server_side_apply and self.api().serves(kind)
        except UnreachableError:
            return False

    def create(self, inputs: Object, operation: Operation) -> Object:
        """Create an object and wait until it is ready; returns it as it is then.

        Raises:
            AlreadyExistsError, ApiError, NoMatchError, UnreachableError, ProviderError: it was not created.
            NotReadyError: it was created but did not become ready.
        """
        api, kind = self.api(), kind_of(inputs)
        upsert = self._settings.server_side_apply and (self._settings.upsert or operation.patch)
        if upsert:
            live = self._retrying(lambda: self._upsert(api, kind, inputs, operation), operation)
        else:
            live = self._retrying(
                lambda: api.create(kind, inputs, _CREATE_MANAGER, dry_run=operation.preview), operation
            )
        if operation.preview:
            return live
        if kind.kind == CRD_KIND:
            api.forget_kinds()
        return awaits.wait_ready(api, live, inputs, None, self._waiting(operation))

    def _upsert(self, api: Api, kind: Kind, inputs: Object, operation: Operation) -> Object:
        force = operation.preview or self._settings.patch_force or is_true(inputs, PATCH_FORCE)
        try:
            return self._apply(api, kind, inputs, operation, force=force)
        except ApiError as error:
            if not (operation.preview and error.immutable):
                raise
        renamed = copy.deepcopy(inputs)
        mapping(renamed, "metadata")["name"] = f"{name_of(inputs)[:240]}-preview"
        live = self._apply(api, kind, renamed, operation, force=force)
        mapping(live, "metadata")["name"] = name_of(inputs)
        return live

    def _retrying(self, attempt: Callable[[], Object], operation: Operation) -> Object:
        """Repeat a creation that fails because its namespace or its definition is not there yet."""
        pause = _FIRST_RETRY_SECONDS
        for retry in range(_CREATE_RETRIES):
            try:
                return attempt()
            except (ApiError, NoMatchError) as error:
                if isinstance(error, ApiError) and error.already_exists:
                    raise AlreadyExistsError(f"{error}{_ALREADY_EXISTS}") from error
                missing = isinstance(error, NoMatchError) or error.not_found
                if isinstance(error, NoMatchError):
                    self.api().forget_kinds()
                if operation.preview or not missing:
                    raise
                self._engine.status(f"Retry #{retry}; creation failed: {error}", operation.urn)
                if self._engine.cancelled.wait(pause):
                    raise
                pause *= 2
        return attempt()

    def _apply(self, api: Api, kind: Kind, inputs: Object, operation: Operation, *, force: bool) -> Object:
        try:
            return api.apply(kind, inputs, operation.manager, force=force, dry_run=operation.preview)
        except ApiError as error:
            if not error.conflict:
                raise
            raise ProviderError(
                "server-side apply field conflict detected\n"
                f"The resource managed by field manager {operation.manager!r} had an apply conflict: {error}\n"
                f'To take the fields over, set the annotation {PATCH_FORCE}: "true" on the resource; to leave them to '
                "their owner, remove them from the program."
            ) from error

    def update(self, old_live: Object, old_inputs: Object, inputs: Object, operation: Operation) -> Object:
        """Change an object and wait until it is ready; returns it as it is then.

        Raises:
            ApiError, NoMatchError, UnreachableError, ProviderError: it was not changed.
            NotReadyError: it was changed but did not become ready.
        """
        api, kind = self.api(), kind_of(inputs)
        before = self._before(api, kind, old_live, inputs)
        if kind.kind == CRD_KIND:
            replacement = copy.deepcopy(inputs)
            mapping(replacement, "metadata")["resourceVersion"] = text(before, "metadata", "resourceVersion")
            live = api.replace(kind, replacement, operation.manager, dry_run=operation.preview)
            if not operation.preview:
                api.forget_kinds()
        elif self._settings.server_side_apply:
            if not operation.preview and not operation.patch:
                before = _take_over(api, kind, before, operation.manager)
            force = self._force(inputs, before, operation)
            live = self._apply(api, kind, inputs, operation, force=force)
        else:
            patch = merge_patch(old_inputs, inputs)
            live = api.patch(kind, inputs, patch, MERGE_PATCH, _CREATE_MANAGER, dry_run=operation.preview)
        if operation.preview:
            return live
        return awaits.wait_ready(api, live, inputs, before, self._waiting(operation))

    def _waiting(self, operation: Operation) -> awaits.Waiting:
        return awaits.Waiting(self._engine, operation.urn, operation.timeout)

    def _before(self, api: Api, kind: Kind, old_live: Object, inputs: Object) -> Object:
        before = api.find(kind, namespace_of(inputs), name_of(old_live))
        if before is None:
            raise ProviderError(
                f"{describe(inputs)} is in the stack's state but no longer in the cluster: somebody deleted it. Run "
                "`pulumi refresh` (or `pulumi up --refresh`) to have it made anew"
            )
        return before

    def _force(self, inputs: Object, before: Object, operation: Operation) -> bool:
        owned = [mapping(item) for item in sequence(before, "metadata", "managedFields")]
        to_be_taken_over = operation.preview and any(
            text(item, "operation") == "Update" and (text(item, "manager"), "Update") in _TAKEN_OVER
            for item in owned
        )
        return is_true(inputs, PATCH_FORCE) or self._settings.patch_force or to_be_taken_over or not owned

    def read(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """An object as it is now, or None where it, or its kind, is gone.

        Raises:
            ApiError, UnreachableError: the server does not answer.
        """
        try:
            return self.api().find(kind, namespace, name)
        except NoMatchError:
            return None

    def check_ready(self, live: Object, inputs: Object) -> None:
        """Look once whether an object is ready.

        Raises:
            NotReadyError: it is not.
            ApiError, UnreachableError: the server does not answer.
        """
        awaits.check_ready(self.api(), live, inputs)

    def release(self, live: Object, manager: str) -> None:
        """Give up the fields that `manager` owns in an object; those that nobody else owns go.

        Raises:
            ApiError, UnreachableError: the server refuses.
        """
        empty: Object = {
            "apiVersion": text(live, "apiVersion"),
            "kind": text(live, "kind"),
            "metadata": {"name": name_of(live), "namespace": namespace_of(live)},
        }
        self.api().apply(kind_of(live), empty, manager, force=True, dry_run=False)

    def delete(self, live: Object, inputs: Object, name: str, operation: Operation) -> None:
        """Delete an object and wait until it is gone; one that is gone already is a success.

        Raises:
            ApiError, UnreachableError: the server refuses.
            NotReadyError: it is still there at the end of the timeout.
        """
        kind = kind_of(live)
        policy = annotation(inputs, DELETION_PROPAGATION).capitalize()
        propagation = policy if policy in ("Orphan", "Background") else "Foreground"
        try:
            api = self.api()
            if operation.patch:
                if api.find(kind, namespace_of(live), name_of(live)) is not None:
                    self.release(live, operation.manager)
                return
            api.delete(kind, namespace_of(live), name, propagation)
            if kind.kind == CRD_KIND:
                api.forget_kinds()
            awaits.wait_gone(api, kind, live, inputs, self._waiting(operation))
        except NoMatchError:
            return
        except ApiError as error:
            if not error.not_found:
                raise


def _take_over(api: Api, kind: Kind, live: Object, manager: str) -> Object:
    """Make `manager` the owner of the fields that this provider (by POST) or kubectl has set.

    Without this, a field that leaves the program would stay in the object, since its creator still owns it.
    """
    entries = [mapping(item) for item in sequence(live, "metadata", "managedFields")]
    moved = managed_by(entries, manager)
    if moved is None:
        return live
    version = text(live, "metadata", "resourceVersion")
    patch: list[Object] = [
        {"op": "replace", "path": "/metadata/managedFields", "value": moved},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": version},
    ]
    return api.patch(kind, live, patch, JSON_PATCH, manager, dry_run=False)


def managed_by(entries: list[Object], manager: str) -> list[Value] | None:
    """`managedFields` after `manager` has taken the fields of this provider's and kubectl's entries over.

    None where there is nothing to take over. Entries of subresources stay.
    """
    taken = [
        entry
        for entry in entries
        if (text(entry, "manager"), text(entry, "operation")) in _TAKEN_OVER
        and not text(entry, "subresource")
    ]
    if not taken:
        return None
    own = [
        entry
        for entry in entries
        if text(entry, "manager") == manager and text(entry, "operation") == "Apply"
    ]
    fields: Object = {}
    for entry in [*own, *taken]:
        fields = _union(fields, mapping(entry, "fieldsV1"))
    merged: Object = {**taken[-1], "manager": manager, "operation": "Apply", "fieldsV1": fields}
    return [*(entry for entry in entries if entry not in taken and entry not in own), merged]


def _union(left: Object, right: Object) -> Object:
    result = dict(left)
    for key, value in right.items():
        mine = result.get(key)
        result[key] = _union(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return result


def merge_patch(old: Object, new: Object) -> Object:
    """The JSON merge patch that turns `old` into `new`."""
    patch: Object = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            inner = merge_patch(before, value)
            if inner:
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch
