"""Objects of one kind, kept up to date by list and watch (Kubernetes API concepts, "Efficient detection of changes")."""

from __future__ import annotations

import threading
from collections.abc import Callable

from lab.api import Api, Object
from lab.errors import ApiError

RETRY = 0.5
"""Seconds until a server that does not answer is asked again."""
PERIOD = 300
"""Seconds after which the server ends a watch."""


class Watch:
    """What a cluster holds of one kind, in all namespaces. Objects that it returns must not be changed."""

    def __init__(self, api: Api, api_version: str, kind: str, changed: Callable[[], None]) -> None:
        """Begin to watch.

        Args:
            api: the cluster's.
            api_version: of the kind.
            kind: the kind.
            changed: called, from the watch's own thread, after each change.
        """
        self._api = api
        self._api_version = api_version
        self._kind = kind
        self._changed = changed
        self._objects: dict[str, Object] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._listed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"watch {kind}", daemon=True)
        self._thread.start()

    def items(self) -> list[Object]:
        """The objects now; waits for the first list."""
        self._listed.wait()
        with self._lock:
            return list(self._objects.values())

    def stop(self) -> None:
        """Stop watching. The thread ends when its connection does, at the latest with the API server."""
        self._stopping.set()
        self._listed.set()

    def join(self) -> None:
        """Wait until the thread has ended."""
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._follow(self._list())
            except ApiError:
                self._stopping.wait(RETRY)

    def _list(self) -> str:
        items, version = self._api.listed(self._api_version, self._kind)
        with self._lock:
            self._objects = {item["metadata"]["uid"]: item for item in items}
        self._listed.set()
        self._changed()
        return version

    def _follow(self, version: str) -> None:
        """Apply changes until the server ends the watch, which it may at any time."""
        for event in self._api.watch(self._api_version, self._kind, version, PERIOD):
            if self._stopping.is_set() or event["type"] == "ERROR":
                return
            item = {"apiVersion": self._api_version, "kind": self._kind, **event["object"]}
            with self._lock:
                if event["type"] == "DELETED":
                    self._objects.pop(item["metadata"]["uid"], None)
                else:
                    self._objects[item["metadata"]["uid"]] = item
            self._changed()
