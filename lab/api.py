"""A small client of the Kubernetes API, for what the lab and its tests do to a cluster.

It speaks JSON over HTTPS with a bearer token. The official client takes 1.5 s to import and knows no custom kinds.
"""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from lab.errors import ApiError
from lab.kubeconfig import Access

TIMEOUT = 30.0
"""Seconds for one request."""
BUSY = 429
"""The status of a request that a server did not take for now."""
FIELD_MANAGER = "meshbridge-lab"

Object = dict[str, Any]
"""A Kubernetes object as JSON."""


@dataclass(frozen=True)
class Kind:
    """Where the objects of a kind are found."""

    api_version: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The URL path of the collection, or of one object."""
        root = "/api/v1" if self.api_version == "v1" else f"/apis/{self.api_version}"
        scope = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{root}{scope}/{self.plural}" + (f"/{name}" if name else "")


class Api:
    """One user's view of an API server."""

    def __init__(self, access: Access, token: str) -> None:
        self._server = access.server
        self._headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
        tls = ssl.create_default_context(cadata=access.authority.decode())
        # No proxy of the environment may come between the lab and its own address.
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=tls), urllib.request.ProxyHandler({})
        )
        self._kinds: dict[tuple[str, str], Kind] = {}

    @retry(
        retry=retry_if_exception(lambda error: isinstance(error, ApiError) and error.status == BUSY),
        stop=stop_after_delay(TIMEOUT),
        wait=wait_fixed(1),
        reraise=True,
    )
    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        """Send one request and return the answer's JSON; text answers come as `{"text": …}`. One that a server did not take
        for now (429, as of a kind whose storage it is still preparing) is sent again, as Kubernetes' own clients do.

        Raises:
            ApiError: it was refused, or there was no answer.
        """
        url = f"{self._server}{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - https
            url, data, {**self._headers, "Content-Type": content_type}, method=method
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                raw = answer.read()
                is_json = answer.headers.get_content_type() == "application/json"
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(
                    f"{method} {path}: {error.code} {_reason(error.read())}", error.code
                ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{method} {url}: no answer: {error}", 0) from error
        return json.loads(raw) if is_json else {"text": raw.decode()}

    def get(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """One object, or None if there is none of that name."""
        try:
            return self.request("GET", self.kind(api_version, kind).path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def items(self, api_version: str, kind: str, namespace: str | None = None) -> list[Object]:
        """All objects of a kind, in a namespace or in all."""
        return self.listed(api_version, kind, namespace)[0]

    def listed(self, api_version: str, kind: str, namespace: str | None = None) -> tuple[list[Object], str]:
        """All objects of a kind, and the resource version from which a watch misses none of their changes."""
        answer = self.request("GET", self.kind(api_version, kind).path(namespace))
        items = [{"apiVersion": api_version, "kind": kind, **item} for item in answer["items"]]
        return items, answer["metadata"]["resourceVersion"]

    def watch(self, api_version: str, kind: str, resource_version: str, seconds: int) -> Iterator[Object]:
        """The changes of a kind's objects in all namespaces as watch events, until the server ends the watch.

        Raises:
            ApiError: it was refused, or the connection broke.
        """
        query = {"watch": "1", "resourceVersion": resource_version, "timeoutSeconds": str(seconds)}
        url = f"{self._server}{self.kind(api_version, kind).path(None)}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(url, headers=self._headers)  # noqa: S310 - https
        try:
            with self._opener.open(request, timeout=seconds + TIMEOUT) as answer:
                for line in answer:
                    yield json.loads(line)
        except urllib.error.HTTPError as error:
            with error:
                raise ApiError(f"GET {url}: {error.code} {_reason(error.read())}", error.code) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ApiError(f"GET {url}: the watch broke: {error}", 0) from error

    def apply(self, item: Object, *, dry_run: bool = False) -> Object:
        """Create or change an object by server-side apply, taking over fields that others manage."""
        metadata = item["metadata"]
        path = self.kind(item["apiVersion"], item["kind"]).path(metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return self.request("PATCH", path, item, "application/apply-patch+yaml", query)

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Begin to delete an object; none of that name is as good."""
        try:
            self.request("DELETE", self.kind(api_version, kind).path(namespace, name))
        except ApiError as error:
            if error.status != 404:
                raise

    def kinds(self) -> list[Kind]:
        """Every kind whose objects can be listed, each in the first version that has it: the preferred one, then others."""
        versions = [["v1"]]
        for group in self.request("GET", "/apis")["groups"]:
            preferred = group["preferredVersion"]["groupVersion"]
            others = [version["groupVersion"] for version in group["versions"]]
            versions.append([preferred, *(version for version in others if version != preferred)])
        found: dict[tuple[str, str], Kind] = {}
        for group in versions:
            for version in group:
                path = Kind(version, "", namespaced=False).path(None).rstrip("/")
                for resource in self.request("GET", path)["resources"]:
                    if "/" not in resource["name"] and "list" in resource["verbs"]:
                        kind = Kind(version, resource["name"], resource["namespaced"])
                        found.setdefault((group[0], resource["name"]), kind)
        return list(found.values())

    def kind(self, api_version: str, kind: str) -> Kind:
        """Look up a kind, at the server when it is seen for the first time.

        Raises:
            ApiError: the server does not have it.
        """
        key = (api_version, kind)
        if key not in self._kinds:
            answer = self.request("GET", Kind(api_version, "", namespaced=False).path(None).rstrip("/"))
            for found in answer["resources"]:
                if "/" not in found["name"]:
                    known = Kind(api_version, found["name"], found["namespaced"])
                    self._kinds[api_version, found["kind"]] = known
        if key not in self._kinds:
            raise ApiError(f"{self._server} has no kind {kind} in {api_version}", 404)
        return self._kinds[key]


def answers(question: Callable[[], object]) -> bool:
    """Whether a request succeeds; for waiting."""
    try:
        question()
    except ApiError:
        return False
    return True


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace").strip()
