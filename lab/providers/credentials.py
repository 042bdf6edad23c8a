"""Credentials that are not in the kubeconfig itself: token files and exec plugins.

Source page: "client-go credential plugins" of the Kubernetes documentation.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import threading
from base64 import b64encode
from dataclasses import dataclass

from lab.providers.kubeconfig import Access, ExecPlugin, KubeconfigError
from lab.providers.values import mapping, text

_EXEC_TIMEOUT = 60.0
_LEEWAY = datetime.timedelta(seconds=10)


@dataclass(frozen=True)
class ExecCredential:
    """What an exec plugin printed."""

    token: str | None
    client_certificate: str | None
    client_key: str | None
    expires: datetime.datetime | None

    @property
    def expired(self) -> bool:
        """Whether it must be renewed before the next request."""
        return self.expires is not None and datetime.datetime.now(datetime.UTC) + _LEEWAY >= self.expires


def run(plugin: ExecPlugin) -> ExecCredential:
    """Run an exec plugin.

    Raises:
        KubeconfigError: it is not there, fails, or prints no credential.
    """
    environment = {**os.environ, **dict(plugin.environment)}
    environment["KUBERNETES_EXEC_INFO"] = json.dumps(
        {"apiVersion": plugin.api_version, "kind": "ExecCredential", "spec": {"interactive": False}}
    )
    hint = f" ({plugin.install_hint})" if plugin.install_hint else ""
    try:
        done = subprocess.run(
            [plugin.command, *plugin.arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_EXEC_TIMEOUT,
            check=True,
        )
        status = mapping(json.loads(done.stdout), "status")
    except subprocess.CalledProcessError as error:
        raise KubeconfigError(
            f"credential command {plugin.command} failed with exit status {error.returncode}: {error.stderr.strip()}"
        ) from error
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise KubeconfigError(
            f"credential command {plugin.command} gave no credential: {error}{hint}"
        ) from error
    expires = text(status, "expirationTimestamp")
    return ExecCredential(
        token=text(status, "token") or None,
        client_certificate=text(status, "clientCertificateData") or None,
        client_key=text(status, "clientKeyData") or None,
        expires=datetime.datetime.fromisoformat(expires) if expires else None,
    )


class Credentials:
    """The Authorization header of one user, renewed when it runs out."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._exec: ExecCredential | None = None

    def exec_credential(self, *, renew: bool = False) -> ExecCredential | None:
        """What the exec plugin says, run at most once while its answer holds; None without an exec plugin.

        Raises:
            KubeconfigError: the plugin gives no credential.
        """
        plugin = self._access.exec_plugin
        if plugin is None:
            return None
        with self._lock:
            if self._exec is None or self._exec.expired or renew:
                self._exec = run(plugin)
            return self._exec

    def header(self, *, renew: bool = False) -> str | None:
        """The Authorization header, or None where the connection's certificate says who we are.

        Raises:
            KubeconfigError: an exec plugin gives no credential, or the token file cannot be read.
        """
        access = self._access
        if access.token:
            return f"Bearer {access.token}"
        if access.token_file is not None:
            try:
                return f"Bearer {access.token_file.read_text(encoding='utf-8').strip()}"
            except OSError as error:
                raise KubeconfigError(f"tokenFile cannot be read: {error}") from error
        if access.username is not None:
            return "Basic " + b64encode(f"{access.username}:{access.password or ''}".encode()).decode()
        credential = self.exec_credential(renew=renew)
        return f"Bearer {credential.token}" if credential is not None and credential.token else None
