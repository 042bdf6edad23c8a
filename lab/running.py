"""The lab that runs, looked at from another process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lab.access import ClusterAccess
from lab.api import Api
from lab.errors import ApiError, LabError
from lab.kubeconfig import read_kubeconfig
from lab.processes import POLL
from lab.registry import Description

READY = "The lab is ready. `python -m lab status` shows it, `python -m lab down` ends it."
"""The last line of a start that succeeded."""


def follow(process: subprocess.Popen[bytes], log: Path) -> int | None:
    """Show a starting lab's log until it is ready; then None, or the exit code if it ended before."""
    with log.open() as lines:
        while True:
            line = lines.readline()
            if line:
                sys.stderr.write(line)
                sys.stderr.flush()
                if line.startswith(READY):
                    return None
            elif process.poll() is not None:
                sys.stderr.write(lines.read())
                if process.returncode < 0:
                    name = signal.Signals(-process.returncode).name
                    raise LabError(
                        f"the starting lab was ended by {name}; `python -m lab down` removes its files"
                    )
                return process.returncode or 1
            else:
                time.sleep(POLL)


def cluster(description: Description, name: str) -> ClusterAccess:
    """A cluster of the lab.

    Raises:
        LabError: it has none of that name, or it is not there yet.
    """
    known = description.clusters.get(name)
    if known is None:
        raise LabError(f"the lab has no cluster {name!r}, but: {', '.join(description.clusters)}")
    kubeconfig = Path(known["kubeconfig"])
    if not kubeconfig.exists():
        raise LabError(f"the lab is still starting: {name} has no API server yet")
    access, token = read_kubeconfig(kubeconfig)
    return ClusterAccess(name, Api(access, token), kubeconfig, Path(known["node"]), Path(known["logs"]))


def find(description: Description, pod: str) -> tuple[ClusterAccess, str]:
    """The cluster of `cluster/namespace/pod`, and `namespace/pod`.

    Raises:
        LabError: it is not of that form, or there is no such cluster.
    """
    name, _, reference = pod.partition("/")
    if reference.count("/") != 1:
        raise LabError(f"{pod!r} is not of the form cluster/namespace/pod, e.g. consumer/shop/orders-api")
    return cluster(description, name), reference


def report(description: Description) -> dict[str, Any]:
    """What there is to say about the lab, as JSON."""
    return {
        "process": description.pid,
        "phase": description.phase,
        "seconds": round(time.time() - description.since),
        "directory": description.directory,
        "clusters": {name: _cluster(description, name) for name in description.clusters},
    }


def show(shown: dict[str, Any]) -> None:
    """Print a report for people."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        f"{shown['phase']}, for {shown['seconds']} s, process {shown['process']}, files in {shown['directory']}"
    )
    table = Table("cluster", "namespace", "pod", "address", "ready", "restarts", box=None, pad_edge=False)
    for name, found in shown["clusters"].items():
        if "error" in found:
            table.add_row(name, found["error"])
        for pod in found.get("pods", []):
            ready = f"{pod['ready']}/{pod['containers']}"
            table.add_row(name, pod["namespace"], pod["name"], pod["address"], ready, str(pod["restarts"]))
    console.print(table)


def _cluster(description: Description, name: str) -> dict[str, Any]:
    try:
        found = cluster(description, name)
        pods = found.pods()
    except (ApiError, LabError) as error:
        return {"error": str(error)}
    return {
        "kubeconfig": str(found.kubeconfig),
        "pods": [
            {
                "namespace": pod["metadata"]["namespace"],
                "name": pod["metadata"]["name"],
                "address": pod["status"].get("podIP", ""),
                "ready": sum(status["ready"] for status in statuses),
                "containers": len(statuses),
                "restarts": sum(status["restartCount"] for status in statuses),
            }
            for pod in pods
            for statuses in [_lasting(pod)]
        ],
    }


def _lasting(pod: dict[str, Any]) -> list[dict[str, Any]]:
    """The statuses of the containers that are to keep running."""
    sidecars = {
        c["name"] for c in pod["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"
    }
    status = pod["status"]
    first = [each for each in status.get("initContainerStatuses", []) if each["name"] in sidecars]
    return first + list(status.get("containerStatuses", []))
