"""Reading a kubeconfig: which server to talk to, whom to trust, and who we are.

Only what a connection needs is read. Certificates and keys that are inline are kept as PEM text; those that are named by
path are read at once, with relative paths resolved against the kubeconfig's folder. PyYAML is imported only when the
content is not JSON.

Source pages: "Organizing Cluster Access Using kubeconfig Files", "kubeconfig (v1)" and "client-go credential plugins"
of the Kubernetes documentation.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.providers.values import Object, Value, mapping, sequence, text

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a Pod has the token of its service account."""


class KubeconfigError(Exception):
    """A kubeconfig that cannot be used; the message says what to correct."""


@dataclass(frozen=True)
class ExecPlugin:
    """A command that prints credentials."""

    command: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    api_version: str
    install_hint: str


@dataclass(frozen=True)
class Access:
    """How to reach one cluster as one user in one context."""

    server: str
    namespace: str
    ca: str | None = None
    verify: bool = True
    server_name: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None
    token: str | None = None
    token_file: Path | None = None
    username: str | None = None
    password: str | None = None
    exec_plugin: ExecPlugin | None = None


def load(
    given: str,
    *,
    context: str = "",
    cluster: str = "",
    environment: Mapping[str, str] | None = None,
    service_account: Path = SERVICE_ACCOUNT,
) -> Access:
    """Find and read the kubeconfig; a Pod that has none has its service account.

    Args:
        given: a path or the contents; when empty, `KUBECONFIG` of `environment`, else `~/.kube/config`.
        context: the context to use instead of the current one.
        cluster: the cluster to use instead of the context's.
        service_account: where a Pod has its token.
        environment: in place of the process's environment.

    Raises:
        KubeconfigError: there is none, it cannot be parsed, or it names something that it does not hold.
    """
    variables = os.environ if environment is None else environment
    if not (given or context or cluster or _files(variables)) and "KUBERNETES_SERVICE_HOST" in variables:
        return _in_cluster(variables, service_account)
    config, folder = _read(given, variables)
    return _access(config, folder, context, cluster)


def _in_cluster(environment: Mapping[str, str], folder: Path) -> Access:
    """The API server as a Pod reaches it. Source page: "Accessing the Kubernetes API from a Pod"."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    try:
        ca, namespace = ((folder / name).read_text(encoding="utf-8") for name in ("ca.crt", "namespace"))
    except OSError as error:
        raise KubeconfigError(f"the Pod has no service account: {error}") from error
    address = f"[{host}]" if ":" in host else host
    return Access(f"https://{address}:{port}", namespace.strip(), ca=ca, token_file=folder / "token")


def _files(environment: Mapping[str, str]) -> list[Path]:
    """The kubeconfigs of the environment that exist, those of `KUBECONFIG` or the user's default one."""
    return [path for path in _paths(environment) if path.is_file()]


def _paths(environment: Mapping[str, str]) -> list[Path]:
    listed = [Path(item).expanduser() for item in environment.get("KUBECONFIG", "").split(os.pathsep) if item]
    return listed or [Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"]


def _read(given: str, environment: Mapping[str, str]) -> tuple[Object, Path]:
    if given:
        path = Path(given).expanduser() if "\n" not in given else None
        if path is not None and _is_file(path):
            return _parse(path.read_text(encoding="utf-8"), str(path)), path.parent
        config = _parse(given, "the provider's kubeconfig argument")
        return config, Path.cwd()
    found = _files(environment)
    if not found:
        looked_at = ", ".join(str(path) for path in _paths(environment))
        raise KubeconfigError(
            f"no kubeconfig found ({looked_at}): set `kubeconfig` on the provider, kubernetes:kubeconfig in the stack, "
            "or KUBECONFIG; or set `renderYamlToDirectory` to render objects without a cluster"
        )
    merged: Object = {}
    for path in reversed(found):
        layer = _parse(path.read_text(encoding="utf-8"), str(path))
        merged = {**merged, **layer, **{key: _merge_named(merged, layer, key) for key in _NAMED}}
    return merged, found[0].parent


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # longer than a file's name can be: it was not meant as one
        return False


_NAMED = ("clusters", "contexts", "users")


def _merge_named(lower: Object, upper: Object, key: str) -> list[Value]:
    mine = sequence(upper, key)
    names = {text(item, "name") for item in mine}
    return [*mine, *(item for item in sequence(lower, key) if text(item, "name") not in names)]


def _parse(content: str, origin: str) -> Object:
    try:
        parsed: object = json.loads(content)
    except ValueError:
        import yaml  # noqa: PLC0415 - see the module's docstring

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            parsed = yaml.load(content, Loader=loader)  # noqa: S506 - both are safe loaders
        except yaml.YAMLError as error:
            raise KubeconfigError(f"{origin} is neither YAML nor JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise KubeconfigError(
            f"{origin} is neither the path of a file that exists nor the contents of a kubeconfig"
        )
    return parsed


def _named(config: Object, key: str, name: str, inner: str) -> Object:
    for item in sequence(config, key):
        if text(item, "name") == name:
            return mapping(item, inner)
    known = ", ".join(sorted(text(item, "name") for item in sequence(config, key))) or "none"
    raise KubeconfigError(f"{inner} {name!r} is not in the kubeconfig; it has: {known}")


def _access(config: Object, folder: Path, context_name: str, cluster_name: str) -> Access:
    context_name = context_name or text(config, "current-context")
    context: Object = {}
    if context_name:
        context = _named(config, "contexts", context_name, "context")
    cluster_name = cluster_name or text(context, "cluster")
    if not cluster_name:
        raise KubeconfigError("the kubeconfig has no current-context: set one, or `context` on the provider")
    cluster = _named(config, "clusters", cluster_name, "cluster")
    user_name = text(context, "user")
    user = _named(config, "users", user_name, "user") if user_name else {}
    server = text(cluster, "server")
    if not server:
        raise KubeconfigError(f"cluster {cluster_name!r} has no server")
    for unsupported, holder in (("proxy-url", cluster), ("auth-provider", user)):
        if unsupported in holder:
            raise KubeconfigError(
                f"the stand-in provider does not support {unsupported}: use the official plugin"
            )
    token_file = text(user, "tokenFile")
    return Access(
        server=server.rstrip("/"),
        namespace=text(context, "namespace") or "default",
        ca=_pem(cluster, "certificate-authority", folder),
        verify=cluster.get("insecure-skip-tls-verify") is not True,
        server_name=text(cluster, "tls-server-name") or None,
        client_certificate=_pem(user, "client-certificate", folder),
        client_key=_pem(user, "client-key", folder),
        token=text(user, "token") or None,
        token_file=folder / token_file if token_file else None,
        username=text(user, "username") or None,
        password=text(user, "password") or None,
        exec_plugin=_exec_plugin(mapping(user, "exec")),
    )


def _pem(holder: Object, key: str, folder: Path) -> str | None:
    inline = text(holder, f"{key}-data")
    if inline:
        try:
            return base64.b64decode(inline, validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise KubeconfigError(f"{key}-data is not base64 of a PEM text: {error}") from error
    named = text(holder, key)
    if not named:
        return None
    try:
        return (folder / named).read_text(encoding="utf-8")
    except OSError as error:
        raise KubeconfigError(f"{key} cannot be read: {error}") from error


def _exec_plugin(exec_: Object) -> ExecPlugin | None:
    if not exec_:
        return None
    return ExecPlugin(
        command=text(exec_, "command"),
        arguments=tuple(str(argument) for argument in sequence(exec_, "args")),
        environment=tuple((text(item, "name"), text(item, "value")) for item in sequence(exec_, "env")),
        api_version=text(exec_, "apiVersion"),
        install_hint=text(exec_, "installHint"),
    )
