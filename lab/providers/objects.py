"""What the stand-in knows about any Kubernetes object: its kind, its name, its inputs and its checkpoint.

Source pages: "Kubernetes API Concepts" and "Object Names and IDs" of the Kubernetes documentation, "Resource names" of
Pulumi's documentation.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import dataclass

from lab.providers.values import UNKNOWN, Object, Secret, Value, has_secret, mapping, pluck, rename_keys, text

PREFIX = "pulumi.com/"
AUTONAMED = PREFIX + "autonamed"
DELETION_PROPAGATION = PREFIX + "deletionPropagationPolicy"
PATCH_FIELD_MANAGER = PREFIX + "patchFieldManager"
PATCH_FORCE = PREFIX + "patchForce"
SKIP_AWAIT = PREFIX + "skipAwait"
TIMEOUT_SECONDS = PREFIX + "timeoutSeconds"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

INPUTS_KEY = "__inputs"
INITIAL_API_VERSION_KEY = "__initialApiVersion"
FIELD_MANAGER_KEY = "__fieldManager"

_SERVER_METADATA = (
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "resourceVersion",
    "uid",
)
_BUILT_IN_GROUPS = frozenset({"", "apps", "autoscaling", "batch", "extensions", "policy"})
_CLUSTER_SCOPED = frozenset(
    {
        "APIService",
        "CSIDriver",
        "CSINode",
        "CertificateSigningRequest",
        "ClusterRole",
        "ClusterRoleBinding",
        "CustomResourceDefinition",
        "FlowSchema",
        "IngressClass",
        "MutatingWebhookConfiguration",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PriorityClass",
        "PriorityLevelConfiguration",
        "RuntimeClass",
        "StorageClass",
        "ValidatingWebhookConfiguration",
        "VolumeAttachment",
    }
)
_NAMESPACED = frozenset(
    {
        "CSIStorageCapacity",
        "ConfigMap",
        "ControllerRevision",
        "CronJob",
        "DaemonSet",
        "Deployment",
        "EndpointSlice",
        "Endpoints",
        "Event",
        "HorizontalPodAutoscaler",
        "Ingress",
        "Job",
        "Lease",
        "LimitRange",
        "NetworkPolicy",
        "PersistentVolumeClaim",
        "Pod",
        "PodDisruptionBudget",
        "PodTemplate",
        "ReplicaSet",
        "ReplicationController",
        "ResourceQuota",
        "Role",
        "RoleBinding",
        "Secret",
        "Service",
        "ServiceAccount",
        "StatefulSet",
    }
)
_LINE_BREAKS = str.maketrans("", "", "\r\n")
_SCHEMA_EXTENSIONS = (
    "x-kubernetes-embedded-resource",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
_TO_DASHES = {name.replace("-", "_"): name for name in _SCHEMA_EXTENSIONS}
_TO_UNDERSCORES = {name: name.replace("-", "_") for name in _SCHEMA_EXTENSIONS}


@dataclass(frozen=True)
class Kind:
    """Group, version and kind of an object."""

    group: str
    version: str
    kind: str

    @property
    def api_version(self) -> str:
        """As an object's `apiVersion` says it: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def built_in(self) -> bool:
        """Whether the API server itself defines the kind, so that no CustomResourceDefinition is needed."""
        return self.group in _BUILT_IN_GROUPS or (
            self.group.endswith(".k8s.io") and self.group != "gateway.networking.k8s.io"
        )

    @property
    def namespaced(self) -> bool | None:
        """Whether objects of the kind live in a namespace; None where only the API server can tell."""
        if self.built_in and self.kind in _NAMESPACED:
            return True
        if self.built_in and self.kind in _CLUSTER_SCOPED:
            return False
        return None

    def __str__(self) -> str:
        return f"{self.api_version}/{self.kind}"


CRD_KIND = "CustomResourceDefinition"


def kind_of_token(token: str) -> Kind:
    """The kind that a type token such as `kubernetes:core/v1:Service` names.

    Raises:
        ValueError: the token is not of the form `kubernetes:GROUP/VERSION:KIND`.
    """
    package, _, rest = token.partition(":")
    group_version, _, kind = rest.rpartition(":")
    group, slash, version = group_version.partition("/")
    if package != "kubernetes" or not slash or not kind:
        raise ValueError(
            f"resource type {token!r} is not an object of the Kubernetes API: the stand-in provider handles types of "
            "the form kubernetes:GROUP/VERSION:KIND; charts and YAML groups need the official plugin"
        )
    return Kind("" if group == "core" else group, version, kind)


def kind_of(obj: Object) -> Kind:
    """The kind that an object's own `apiVersion` and `kind` name."""
    group, _, version = text(obj, "apiVersion").rpartition("/")
    return Kind("" if group == "core" else group, version, text(obj, "kind"))


def token_of_urn(urn: str) -> str:
    """The type token in a URN: of `urn:pulumi:stack::project::parent$type::name`, the `type`."""
    return urn.split("::")[2].rpartition("$")[2]


def name_of_urn(urn: str) -> str:
    """The resource's name in a URN."""
    return urn.split("::", 3)[3]


def is_patch(urn: str, kind: str) -> bool:
    """Whether the resource is a patch of an object that somebody else owns, such as a `ServicePatch`."""
    token_kind = kind_of_token(token_of_urn(urn)).kind
    return token_kind.endswith("Patch") and token_kind in (kind, kind + "Patch")


def name_of(obj: Object) -> str:
    """`metadata.name`, or "" where it is absent or not yet known."""
    return text(obj, "metadata", "name")


def namespace_of(obj: Object) -> str:
    """`metadata.namespace`, or "" where it is absent or not yet known."""
    return text(obj, "metadata", "namespace")


def annotation(obj: Object, key: str) -> str:
    """The value of an annotation, or ""."""
    return text(obj, "metadata", "annotations", key)


def is_true(obj: Object, key: str) -> bool:
    """Whether an annotation is set to "true"."""
    return annotation(obj, key) == "true"


def identifier(obj: Object) -> str:
    """The resource id: `namespace/name`, or `name` for an object without a namespace."""
    namespace = namespace_of(obj)
    return f"{namespace}/{name_of(obj)}" if namespace else name_of(obj)


def parse_identifier(identifier_: str) -> tuple[str, str]:
    """Namespace and name of a resource id."""
    namespace, _, name = identifier_.rpartition("/")
    return namespace, name


def describe(obj: Object) -> str:
    """How messages name an object: `Service istio-system/gateway`."""
    return f"{text(obj, 'kind') or 'object'} {identifier(obj)}"


def metadata_of(obj: Object) -> Object:
    """The object's `metadata`, created where it is absent."""
    found = obj.setdefault("metadata", {})
    if not isinstance(found, dict):
        raise TypeError("metadata must be an object")
    return found


def set_annotation(obj: Object, key: str, value: str) -> None:
    """Set an annotation."""
    metadata = metadata_of(obj)
    annotations = metadata.setdefault("annotations", {})
    if isinstance(annotations, dict):
        annotations[key] = value


def is_named(obj: Object) -> bool:
    """Whether the program gives the object a name, be it one that is known only after the update."""
    metadata = obj.get("metadata")
    if metadata is UNKNOWN:
        return True
    name = pluck(metadata, "name")
    return name is UNKNOWN or (isinstance(name, str) and name != "")


def autoname(obj: Object, urn: str, seed: bytes, proposed: str) -> None:
    """Give an unnamed object a name, and mark it so that a later change may choose another one."""
    suffix = hashlib.sha256(seed).hexdigest()[:8] if seed else secrets.token_hex(4)
    metadata_of(obj)["name"] = proposed or f"{name_of_urn(urn)}-{suffix}"
    set_annotation(obj, AUTONAMED, "true")


def adopt_autoname(obj: Object, old: Object) -> None:
    """Keep the name that an earlier run chose for an object that the program leaves unnamed."""
    if not is_named(obj) and is_true(old, AUTONAMED):
        metadata_of(obj)["name"] = name_of(old)
        set_annotation(obj, AUTONAMED, "true")


def field_manager(urn: str, state: Object, inputs: Object) -> str:
    """The name under which the object's fields are owned in server-side apply.

    An annotation decides, then the state, then the URN. The official plugin draws a random name in the last case; one
    that follows from the URN lets a run that was killed before it saved its state take its objects up again.
    """
    digest = hashlib.sha256(urn.encode()).hexdigest()[:8]
    return (
        annotation(inputs, PATCH_FIELD_MANAGER)
        or text(state, FIELD_MANAGER_KEY)
        or f"pulumi-kubernetes-{digest}"
    )


def normalize(obj: Object) -> Object:
    """Bring an object's inputs into the form in which the API server returns them, where the two differ.

    A Secret's `stringData` becomes base64 in `data`, base64 in `data` is re-encoded, a CustomResourceDefinition loses
    what the server drops, and no object keeps metadata that only the server sets.
    """
    kind = text(obj, "kind")
    result = dict(obj)
    if kind == "Secret" and text(obj, "apiVersion") == "v1":
        _normalize_secret(result)
    elif kind == CRD_KIND:
        result.pop("status", None)
        spec = mapping(result, "spec")
        if spec.get("preserveUnknownFields") is False:
            result["spec"] = {key: value for key, value in spec.items() if key != "preserveUnknownFields"}
    metadata = result.get("metadata")
    if isinstance(metadata, dict):
        result["metadata"] = {key: value for key, value in metadata.items() if key not in _SERVER_METADATA}
    return result


def _normalize_secret(secret: Object) -> None:
    plain, encoded = secret.get("stringData"), secret.get("data")
    data: Object = {}
    if isinstance(encoded, dict):
        data = {key: _reencode(value) for key, value in encoded.items()}
        secret["data"] = data
    if isinstance(plain, dict) and plain and all(isinstance(value, str) for value in plain.values()):
        for key, value in plain.items():
            data[key] = base64.b64encode(str(value).encode()).decode()
        secret["data"] = data
        del secret["stringData"]


def _reencode(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    try:
        decoded = base64.b64decode(value.translate(_LINE_BREAKS), validate=True)
    except (binascii.Error, ValueError):
        return value
    return base64.b64encode(decoded).decode()


def prune(live: Object, shape: Object) -> Object:
    """What a live object says of the fields that `shape` has, and no others."""
    result: Object = {}
    for key, value in live.items():
        if key in shape:
            result[key] = _prune(value, shape[key])
    return result


def _prune(live: Value, shape: Value) -> Value:
    if isinstance(live, dict) and isinstance(shape, dict):
        return prune(live, shape)
    if isinstance(live, list) and isinstance(shape, list):
        if live and shape and type(live[0]) is not type(shape[0]):
            return live
        return [_prune(item, wanted) for item, wanted in zip(live, shape, strict=False)]
    return live


def from_state(properties: Object) -> Object:
    """Rename the keys that a state spells with underscores to what Kubernetes calls them."""
    renamed = rename_keys(properties, lambda key: _TO_DASHES.get(key, key))
    return renamed if isinstance(renamed, dict) else {}


def to_state(properties: Object) -> Object:
    """The reverse of `from_state`."""
    renamed = rename_keys(properties, lambda key: _TO_UNDERSCORES.get(key, key))
    return renamed if isinstance(renamed, dict) else {}


def checkpoint(
    inputs: Object, live: Object, secrets_of: Object, initial_api_version: str, manager: str
) -> Object:
    """The state to store for a resource: the live object, the inputs that made it, and who owns its fields.

    It has the form that the official plugin stores, so a stack can move between the two. What is secret in
    `secrets_of` is secret in both parts.
    """
    state = mark_secrets(to_state(live), secrets_of)
    state[INPUTS_KEY] = mark_secrets(to_state(inputs), secrets_of)
    state[INITIAL_API_VERSION_KEY] = initial_api_version
    state[FIELD_MANAGER_KEY] = manager
    return state


def parse_checkpoint(state: Object) -> tuple[Object, Object]:
    """The inputs and the live object of a stored state (secrets already revealed)."""
    live = from_state(state)
    inputs = live.pop(INPUTS_KEY, None)
    return (inputs if isinstance(inputs, dict) else {}), live


def mark_secrets(outputs: Object, inputs: Object) -> Object:
    """A copy of `outputs` in which everything that is secret in `inputs` is secret, and a Secret's data always.

    Objects are followed key by key, so that one secret leaf does not hide its siblings. A list with a secret in it is
    secret as a whole, since the server may reorder it.
    """
    result = dict(outputs)
    if result.get("kind") == "Secret":
        for key in ("data", "stringData"):
            if key in result and not isinstance(result[key], Secret):
                result[key] = Secret(result[key])
        return result
    for key, value in inputs.items():
        if key not in result:
            continue
        output = result[key]
        if isinstance(output, dict) and isinstance(value, dict):
            result[key] = mark_secrets(output, value)
        elif not isinstance(output, Secret) and has_secret(value):
            result[key] = Secret(output)
    return result
