"""Writes kubeconfig files."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Access:
    """How to reach one API server."""

    cluster: str
    """Name of the cluster; also the context's name."""
    server: str
    """URL."""
    authority: bytes
    """The certificate, PEM, that the server's must descend from."""


def kubeconfig(access: Access, token: str) -> str:
    """The text of a kubeconfig with one cluster, one user and one current context."""
    name = access.cluster
    authority = base64.b64encode(access.authority).decode()
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": name, "cluster": {"server": access.server, "certificate-authority-data": authority}}
            ],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        },
        sort_keys=False,
    )


def write_kubeconfig(path: Path, access: Access, token: str) -> Path:
    """Write a kubeconfig that only its owner can read; returns `path`."""
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(kubeconfig(access, token))
    return path


def read_kubeconfig(path: Path) -> tuple[Access, str]:
    """The access and the token of a kubeconfig that `write_kubeconfig` wrote."""
    config = yaml.safe_load(path.read_text())
    cluster = config["clusters"][0]
    authority = base64.b64decode(cluster["cluster"]["certificate-authority-data"])
    return Access(cluster["name"], cluster["cluster"]["server"], authority), config["users"][0]["user"][
        "token"
    ]
