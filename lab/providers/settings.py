"""The provider's own inputs: which cluster, which folder to render to, and which habits.

The engine sends each input as a string, or as JSON where it is not one; some fall back to an environment variable.

Source page: the Kubernetes provider's "Installation & configuration" page of Pulumi's registry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.providers.values import Object, Value


@dataclass(frozen=True)
class Settings:
    """A configured provider."""

    kubeconfig: str = ""
    context: str = ""
    cluster: str = ""
    namespace: str = ""
    render_directory: Path | None = None
    always_render: bool = False
    server_side_apply: bool = True
    patch_force: bool = False
    upsert: bool = False
    config_map_mutable: bool = False
    secret_mutable: bool = False
    delete_unreachable: bool = False
    skip_update_unreachable: bool = False


def parse(inputs: Object, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the provider's inputs (secrets already revealed).

    Args:
        inputs: the inputs by name; those that do not concern the stand-in are ignored.
        environment: in place of the process's environment.
    """
    variables = os.environ if environment is None else environment

    def flag(name: str, variable: str, *, default: bool = False) -> bool:
        if name in inputs:
            return is_true(inputs[name])
        return variables[variable] == "true" if variable in variables else default

    directory = plain(inputs.get("renderYamlToDirectory"))
    return Settings(
        kubeconfig=plain(inputs.get("kubeconfig")),
        context=plain(inputs.get("context")),
        cluster=plain(inputs.get("cluster")),
        namespace=plain(inputs.get("namespace")),
        render_directory=Path(directory) if directory else None,
        always_render=is_true(inputs.get("alwaysRender")),
        server_side_apply=flag("enableServerSideApply", "PULUMI_K8S_ENABLE_SERVER_SIDE_APPLY", default=True),
        patch_force=flag("enablePatchForce", "PULUMI_K8S_ENABLE_PATCH_FORCE"),
        upsert=flag("upsertExistingObjects", "PULUMI_K8S_UPSERT_EXISTING_OBJECTS"),
        config_map_mutable=flag("enableConfigMapMutable", "PULUMI_K8S_ENABLE_CONFIGMAP_MUTABLE"),
        secret_mutable=flag("enableSecretMutable", "PULUMI_K8S_ENABLE_SECRET_MUTABLE"),
        delete_unreachable=flag("deleteUnreachable", "PULUMI_K8S_DELETE_UNREACHABLE"),
        skip_update_unreachable=flag("skipUpdateUnreachable", "PULUMI_K8S_SKIP_UPDATE_UNREACHABLE"),
    )


def plain(value: Value) -> str:
    """An input as text; an object (a kubeconfig may be one) as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def is_true(value: Value) -> bool:
    """Whether an input is on: true, or the string "true"."""
    return value is True or value == "true"
