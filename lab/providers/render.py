"""Rendering objects to YAML files instead of applying them (`renderYamlToDirectory`).

Files are named as the official plugin names them: definitions of custom resources under `0-crd`, all else under
`1-manifest`, each `<apiVersion>-<kind>-<namespace>-<name>.yaml`. A file is written aside and renamed into place, so a
reader never sees half of one. PyYAML is imported only when something is rendered.

Source page: the `renderYamlToDirectory` input of the Kubernetes provider's API reference.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Final

from lab.providers.objects import CRD_KIND, kind_of, name_of, namespace_of
from lab.providers.values import Object, text

_SANITIZED: Final = str.maketrans({"/": "_", ":": "_"})


def path_of(obj: Object, directory: Path) -> Path:
    """The file that `obj` is rendered to under `directory`."""
    file_name = "-".join(
        (
            text(obj, "apiVersion").translate(_SANITIZED),
            text(obj, "kind").lower(),
            namespace_of(obj) or "default",
            name_of(obj),
        )
    )
    crd = text(obj, "kind") == CRD_KIND and kind_of(obj).built_in
    return directory / ("0-crd" if crd else "1-manifest") / f"{file_name}.yaml"


def write(obj: Object, directory: Path) -> Path:
    """Render `obj` and return its file.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    import yaml  # noqa: PLC0415 - see the module's docstring

    path = path_of(obj, directory)
    for folder in ("0-crd", "1-manifest"):
        (directory / folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    content = yaml.dump(
        obj, Dumper=dumper, default_flow_style=False, sort_keys=True, allow_unicode=True, width=2**16
    )
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


def remove(obj: Object, directory: Path) -> Path:
    """Remove the file of `obj`, if it is still there, and return its path.

    Raises:
        OSError: the file is there and cannot be removed.
    """
    path = path_of(obj, directory)
    path.unlink(missing_ok=True)
    return path
