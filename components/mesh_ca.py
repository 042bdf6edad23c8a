"""MeshCa: the Secret with whose authority istiod signs, checked before anything is touched."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pulumi

from components.certificate import read_files, refuse
from components.component import Component
from components.resources import owner
from config import Cluster, ConfigError
from config import MeshCa as MeshCaConfig
from routing import certificate
from routing.manifest import claim

if TYPE_CHECKING:
    from certificates import Problem

KEY = "cluster.meshCa"
"""Where it stands in the configuration, for messages."""


@dataclass(frozen=True)
class MeshCaArgs:
    """The authority of one cluster's mesh. data: what the Secret is to hold."""

    config: MeshCaConfig
    cluster: Cluster
    data: Mapping[str, str] = field(repr=False)


class MeshCa(Component):
    """The Secret `cacerts`. The private key is a secret Output. The claim comes first, so that a second stack does not
    replace the root of the whole mesh."""

    def __init__(self, name: str, args: MeshCaArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(name, opts)
        refuse_unfit_mesh_ca(args)
        data = {key: pulumi.Output.secret(text) for key, text in args.data.items()}
        namespace = args.cluster.mesh_namespace
        owned = self.child("claim", claim(certificate.MESH_CA, namespace, owner()))
        self.child("secret", certificate.secret(certificate.MESH_CA, namespace, data), owned)
        self.register_outputs({})


def mesh_ca(cluster: Cluster, secrets: Mapping[str, Mapping[str, str]]) -> MeshCaArgs | None:
    """The authority that the stack carries, None where it carries none.

    secrets: those of the stack, by name. Raises pulumi.RunError when it cannot be read, others may read its key, or it
    will not do.
    """
    config = cluster.mesh_ca
    if config is None:
        return None
    if config.stack_secret is not None:
        data = secrets[config.stack_secret]
    else:
        # Only a stack that carries certificates pays for the import of `cryptography`.
        from certificates import MESH_CA_KEY, MESH_KEYS  # noqa: PLC0415

        try:
            data = read_files(KEY, Path(config.directory or ""), MESH_KEYS, MESH_KEYS, private=MESH_CA_KEY)
        except ConfigError as error:
            raise pulumi.RunError(str(error)) from error
    args = MeshCaArgs(config, cluster, data)
    refuse_unfit_mesh_ca(args)
    return args


def refuse_unfit_mesh_ca(args: MeshCaArgs) -> None:
    """Judge the authority. Raises pulumi.RunError with every finding; warns of what will fail soon."""
    refuse(((f"{KEY}: {problem.key}", problem) for problem in _problems(args)), "the mesh's authority")


def _problems(args: MeshCaArgs) -> Iterable[Problem]:
    from certificates import check_mesh  # noqa: PLC0415

    now = datetime.datetime.now(datetime.UTC)
    return check_mesh(args.data, now, datetime.timedelta(days=args.config.warning_days))
