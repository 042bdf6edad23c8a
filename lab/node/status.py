"""The status that the node reports of a Pod. Pure. Source: the Kubernetes page "Pod Lifecycle"."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field

from lab.api import Object


def timestamp() -> str:
    """Now, as Kubernetes writes it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class ContainerState:
    """What is known of one container."""

    name: str
    image: str
    init: bool
    """It must end successfully before the next is started."""
    sidecar: bool = False
    """An init container that keeps running (`restartPolicy: Always`)."""
    running_since: str | None = None
    started: bool = False
    """Its startup probe has passed, or there is none."""
    ready: bool = False
    waiting: tuple[str, str] = ("PodInitializing", "")
    """Reason and message while it neither runs nor has ended."""
    ended: Object | None = None
    """How its last run ended, as `terminated` says it."""
    restarts: int = 0

    @property
    def done(self) -> bool:
        """Whether it has ended successfully and does not run."""
        return self.running_since is None and self.ended is not None and self.ended["exitCode"] == 0

    def report(self, pod_uid: str) -> Object:
        """Its `containerStatuses` entry."""
        if self.running_since is not None:
            state: Object = {"running": {"startedAt": self.running_since}}
        elif self.ended is not None and self.waiting[0] in ("", "PodInitializing"):
            state = {"terminated": self.ended}
        else:
            state = {"waiting": {"reason": self.waiting[0], "message": self.waiting[1]}}
        last = {"terminated": self.ended} if self.ended is not None and "terminated" not in state else {}
        return {
            "name": self.name,
            "image": self.image,
            "imageID": f"lab://{self.image}",
            "containerID": f"lab://{pod_uid}/{self.name}",
            "ready": self.ready or (self.init and not self.sidecar and self.done),
            "started": self.started,
            "restartCount": self.restarts,
            "state": state,
            "lastState": last,
        }


@dataclass
class PodState:
    """What is known of one Pod."""

    uid: str
    host_ip: str
    containers: Sequence[ContainerState]
    start: str = field(default_factory=timestamp)
    ip: str | None = None
    """Its address, when its network is there."""
    deleting: bool = False
    restarts_always: bool = True
    _since: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Status and time of its last change by condition."""

    @property
    def initialized(self) -> bool:
        """Whether all init containers have done their part."""
        return all(c.done or (c.sidecar and c.started) for c in self.containers if c.init)

    @property
    def ready(self) -> bool:
        """Whether all containers are ready."""
        lasting = [c for c in self.containers if not c.init or c.sidecar]
        return self.initialized and not self.deleting and all(c.ready for c in lasting)

    @property
    def phase(self) -> str:
        """Pending, Running, Succeeded or Failed."""
        main = [c for c in self.containers if not c.init]
        if not self.restarts_always and all(c.ended is not None and c.running_since is None for c in main):
            return "Succeeded" if all(c.done for c in main) else "Failed"
        if self.initialized and any(c.running_since or c.ended for c in main):
            return "Running"
        return "Pending"

    def report(self) -> Object:
        """The Pod's `status`."""
        unready = [c.name for c in self.containers if not c.ready and (not c.init or c.sidecar)]
        why = f"containers with unready status: {' '.join(unready)}" if unready else ""
        conditions = [
            self._condition("PodReadyToStartContainers", self.ip is not None),
            self._condition("Initialized", self.initialized),
            self._condition("ContainersReady", self.ready, "ContainersNotReady", why),
            self._condition("Ready", self.ready, "ContainersNotReady", why),
            self._condition("PodScheduled", holds=True),
        ]
        return {
            "phase": self.phase,
            "conditions": conditions,
            "hostIP": self.host_ip,
            "hostIPs": [{"ip": self.host_ip}],
            **({"podIP": self.ip, "podIPs": [{"ip": self.ip}]} if self.ip is not None else {}),
            "startTime": self.start,
            "containerStatuses": [c.report(self.uid) for c in self.containers if not c.init],
            "initContainerStatuses": [c.report(self.uid) for c in self.containers if c.init],
        }

    def _condition(self, kind: str, holds: bool, reason: str = "", message: str = "") -> Object:
        value = "True" if holds else "False"
        if self._since.get(kind, ("", ""))[0] != value:
            self._since[kind] = (value, timestamp())
        why = (
            {"reason": reason, "message": message}
            if not holds and reason
            else {"reason": None, "message": None}
        )
        return {"type": kind, "status": value, "lastTransitionTime": self._since[kind][1], **why}
