"""Access to one Kubernetes API server: requests, the mapping from kinds to paths, and what errors mean.

A thin client over urllib3 instead of the `kubernetes` package: a provider process starts with every preview, importing
that package takes longer than everything else that the process does, and only eight requests are needed. Paths come
from the server's discovery, one group version at a time and only for the group versions in use.

Source pages: "Kubernetes API Concepts", "Server-Side Apply" and "Status" of the Kubernetes documentation.
"""

from __future__ import annotations

import json
import ssl
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, InsecureRequestWarning
from urllib3.util import Retry, Timeout

from lab.providers.credentials import Credentials
from lab.providers.kubeconfig import Access, KubeconfigError
from lab.providers.objects import Kind, describe
from lab.providers.values import Object, mapping, sequence, text

_CONNECTIONS: Final = 32
_TIMEOUT: Final = Timeout(connect=10.0, read=60.0)
_RETRY: Final = Retry(
    total=5,
    connect=0,
    read=0,
    other=0,
    redirect=0,
    status=5,
    status_forcelist={429},
    allowed_methods=None,
    raise_on_status=False,
    backoff_factor=0.2,
)
_ABSENT_KIND_SECONDS: Final = 2.0
_USER_AGENT: Final = "meshbridge-stand-in-provider"

JSON: Final = "application/json"
APPLY: Final = "application/apply-patch+yaml"
JSON_PATCH: Final = "application/json-patch+json"
MERGE_PATCH: Final = "application/merge-patch+json"


class UnreachableError(Exception):
    """The API server cannot be talked to at all: no usable kubeconfig, no connection, no trust."""


class NoMatchError(Exception):
    """The API server has no such kind: for a custom resource, its definition is missing."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        missing = (
            "this server does not serve that version of it"
            if kind.built_in
            else f"the CustomResourceDefinition of {kind.kind}.{kind.group} is missing: install it first"
        )
        super().__init__(f'no matches for kind "{kind.kind}" in version "{kind.api_version}": {missing}')


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, body: Object, subject: str) -> None:
        self.status = status
        self.reason = text(body, "reason") or f"HTTP {status}"
        self.message = text(body, "message") or "the server gave no message"
        self.about = text(body, "details", "kind")
        remedy = _REMEDIES.get(status, "")
        super().__init__(f"{subject}: {self.reason}: {self.message}{remedy}")

    @property
    def not_found(self) -> bool:
        """Whether the object, its namespace or its kind is not there."""
        return self.status == 404

    @property
    def namespace_not_found(self) -> bool:
        """Whether it is the namespace that is not there."""
        return self.not_found and self.about == "namespaces"

    @property
    def already_exists(self) -> bool:
        """Whether an object of that name is there already."""
        return self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        """Whether somebody else owns a field, or changed the object in between."""
        return self.status == 409 and self.reason == "Conflict"

    @property
    def immutable(self) -> bool:
        """Whether a field cannot be changed in place."""
        return self.status == 422 and "field is immutable" in self.message

    @property
    def dry_run_unsupported(self) -> bool:
        """Whether the request was refused only because it was a dry run."""
        return self.status == 400 and ("dry run" in self.message or "dryRun" in self.message)


_REMEDIES: Final = {
    401: " (the credentials in the kubeconfig were not accepted: check that they are this cluster's and have not expired)",
    403: " (the user of the kubeconfig may not do this: grant it with a Role or ClusterRole and a binding)",
}


@dataclass(frozen=True)
class _Resource:
    path: str
    namespaced: bool


class Api:
    """One API server, as one user. Safe to use from many threads."""

    def __init__(self, access: Access) -> None:
        """Prepare the connections; nothing is sent yet.

        Raises:
            UnreachableError: the certificates or the credential command of the kubeconfig cannot be used.
        """
        self._credentials = Credentials(access)
        self._base = urlsplit(access.server).path.rstrip("/")
        self._server = access.server
        self._lock = threading.Lock()
        self._groups: dict[str, tuple[float, dict[str, _Resource]]] = {}
        if not access.verify:
            urllib3.disable_warnings(InsecureRequestWarning)
        try:
            self._pool = _pool(access, self._credentials)
        except (KubeconfigError, ssl.SSLError, ValueError) as error:
            raise UnreachableError(f"{access.server}: {error}") from error

    def namespaced(self, kind: Kind) -> bool:
        """Whether objects of a kind live in a namespace.

        Raises:
            NoMatchError: the server has no such kind.
            UnreachableError: the server cannot be reached.
            ApiError: the server refused to answer.
        """
        known = kind.namespaced
        return self._resource(kind).namespaced if known is None else known

    def serves(self, kind: Kind) -> bool:
        """Whether the server has a kind.

        Raises:
            UnreachableError: the server cannot be reached.
            ApiError: the server refused to answer.
        """
        try:
            self._resource(kind)
        except NoMatchError:
            return False
        return True

    def forget_kinds(self) -> None:
        """Ask the server again which kinds it has, after a definition was created or removed."""
        with self._lock:
            self._groups.clear()

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Read an object.

        Raises:
            NoMatchError, UnreachableError, ApiError: as every request; ApiError with `not_found` where it is not there.
        """
        return self._request("GET", self._path(kind, namespace, name), f"{kind.kind} {namespace}/{name}")

    def find(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Read an object that may not be there.

        Raises:
            NoMatchError, UnreachableError, ApiError: as every request.
        """
        try:
            return self.get(kind, namespace, name)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    def items(self, kind: Kind, namespace: str) -> list[Object]:
        """All objects of a kind in a namespace.

        Raises:
            NoMatchError, UnreachableError, ApiError: as every request.
        """
        found = self._request("GET", self._path(kind, namespace), f"{kind.kind} objects of {namespace}")
        return [item for item in sequence(found, "items") if isinstance(item, dict)]

    def create(self, kind: Kind, obj: Object, manager: str, *, dry_run: bool) -> Object:
        """Create an object that must not exist yet.

        Raises:
            NoMatchError, UnreachableError, ApiError: as every request.
        """
        path = self._path(kind, text(obj, "metadata", "namespace"))
        return self._request("POST", path, describe(obj), obj, query=_write(manager, dry_run))

    def apply(self, kind: Kind, obj: Object, manager: str, *, force: bool, dry_run: bool) -> Object:
        """Server-side apply: make the object's fields so, and this manager their owner.

        Raises:
            NoMatchError, UnreachableError, ApiError: as every request; ApiError with `conflict` where somebody else owns
                a field and `force` is off.
        """
        query = {**_write(manager, dry_run), "force": "true" if force else "false"}
        return self._request(
            "PATCH", self._path_of(kind, obj), describe(obj), obj, query=query, content_type=APPLY
        )

    def replace(self, kind: Kind, obj: Object, manager: str, *, dry_run: bool) -> Object:
        """Replace an object as a whole.

        Raises:
            NoMatchError, UnreachableError, ApiError: as every request.
        """
        return self._request(
            "PUT", self._path_of(kind, obj), describe(obj), obj, query=_write(manager, dry_run)
        )

    def patch(
        self,
        kind: Kind,
        obj: Object,
        patch: Object | list[Object],
        content_type: str,
        manager: str,
        *,
        dry_run: bool,
    ) -> Object:
        """Patch the object that `obj` names with a JSON patch or a merge patch.

        Raises:
            NoMatchError, UnreachableError, ApiError: as every request.
        """
        return self._request(
            "PATCH",
            self._path_of(kind, obj),
            describe(obj),
            patch,
            query=_write(manager, dry_run),
            content_type=content_type,
        )

    def delete(self, kind: Kind, namespace: str, name: str, propagation: str) -> None:
        """Ask for an object's deletion, which may end later than this call.

        Raises:
            NoMatchError, UnreachableError, ApiError: as every request; ApiError with `not_found` where it is not there.
        """
        path = self._path(kind, namespace, name)
        self._request("DELETE", path, f"{kind.kind} {namespace}/{name}", {"propagationPolicy": propagation})

    def _path_of(self, kind: Kind, obj: Object) -> str:
        return self._path(kind, text(obj, "metadata", "namespace"), text(obj, "metadata", "name"))

    def _path(self, kind: Kind, namespace: str, name: str = "") -> str:
        resource = self._resource(kind)
        prefix = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        scope = f"/namespaces/{quote(namespace or 'default', safe='')}" if resource.namespaced else ""
        return f"{prefix}{scope}/{resource.path}" + (f"/{quote(name, safe='')}" if name else "")

    def _resource(self, kind: Kind) -> _Resource:
        with self._lock:
            asked, resources = self._groups.get(kind.api_version, (0.0, {}))
        if kind.kind in resources:
            return resources[kind.kind]
        if time.monotonic() - asked > _ABSENT_KIND_SECONDS:
            resources = self._discover(kind)
            with self._lock:
                self._groups[kind.api_version] = (time.monotonic(), resources)
        if kind.kind not in resources:
            raise NoMatchError(kind)
        return resources[kind.kind]

    def _discover(self, kind: Kind) -> dict[str, _Resource]:
        path = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.version}"
        try:
            found = self._request("GET", path, f"discovery of {kind.api_version}")
        except ApiError as error:
            if error.not_found:
                return {}
            raise
        resources: dict[str, _Resource] = {}
        for item in sequence(found, "resources"):
            name = text(item, "name")
            if "/" not in name:
                resources[text(item, "kind")] = _Resource(name, mapping(item).get("namespaced") is True)
        return resources

    def _request(
        self,
        method: str,
        path: str,
        subject: str,
        body: Object | list[Object] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = JSON,
    ) -> Object:
        url = self._base + path + (f"?{urlencode(query)}" if query else "")
        content = None if body is None else json.dumps(body).encode()
        response = self._send(method, url, content, content_type)
        if response.status == 401 and self._credentials.exec_credential() is not None:
            response = self._send(method, url, content, content_type, renew=True)
        try:
            answer: object = json.loads(response.data) if response.data else {}
        except ValueError:
            answer = {"message": response.data[:500].decode(errors="replace").strip()}
        answered = answer if isinstance(answer, dict) else {}
        if response.status >= 400:
            raise ApiError(response.status, answered, subject)
        return answered

    def _send(
        self, method: str, url: str, content: bytes | None, content_type: str, *, renew: bool = False
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": JSON, "Content-Type": content_type, "User-Agent": _USER_AGENT}
        try:
            authorization = self._credentials.header(renew=renew)
            if authorization is not None:
                headers["Authorization"] = authorization
            return self._pool.request(method, url, body=content, headers=headers, retries=_RETRY)
        except (HTTPError, KubeconfigError) as error:
            raise UnreachableError(f"{self._server}: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    """What went wrong underneath urllib3's layers, without its object addresses."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, Exception):
        return _cause(reason)
    return str(error).rpartition(">: ")[2] or type(error).__name__


def _write(manager: str, dry_run: bool) -> dict[str, str]:
    query = {"fieldManager": manager, "fieldValidation": "Strict"}
    if dry_run:
        query["dryRun"] = "All"
    return query


def _pool(access: Access, credentials: Credentials) -> urllib3.HTTPConnectionPool:
    address = urlsplit(access.server if "://" in access.server else f"https://{access.server}")
    if not address.hostname:
        raise KubeconfigError(f"server {access.server!r} is not a URL")
    if address.scheme == "http":
        return urllib3.HTTPConnectionPool(
            address.hostname, address.port or 80, maxsize=_CONNECTIONS, timeout=_TIMEOUT
        )
    context = ssl.create_default_context(cadata=access.ca)
    if not access.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate, key = access.client_certificate, access.client_key
    executed = credentials.exec_credential() if certificate is None else None
    if executed is not None:
        certificate, key = executed.client_certificate, executed.client_key
    if certificate and key:
        _load_certificate(context, certificate, key)
    return urllib3.HTTPSConnectionPool(
        address.hostname,
        address.port or 443,
        maxsize=_CONNECTIONS,
        timeout=_TIMEOUT,
        ssl_context=context,
        server_hostname=access.server_name,
        assert_hostname=None if access.verify else False,
    )


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Hand a client certificate to OpenSSL, which reads it from a file only; the file is gone at once."""
    with tempfile.TemporaryDirectory(prefix="meshbridge-") as folder:
        path = Path(folder) / "client.pem"
        path.touch(mode=0o600)
        path.write_text(f"{certificate}\n{key}\n", encoding="utf-8")
        context.load_cert_chain(path)
