"""The user's cache of tools: a directory is either complete or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.errors import ToolError
from tools.progress import Progress


def home() -> Path:
    """The user's home directory, `$HOME` or what the system knows of the user.

    Raises:
        ToolError: there is none.
    """
    try:
        return Path.home()
    except RuntimeError as error:
        raise ToolError(
            "this user has no home directory; set HOME to a folder that can be written"
        ) from error


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/meshbridge`, by default `~/.cache/meshbridge`.

    Raises:
        ToolError: there is no home directory.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else home() / ".cache") / "meshbridge"


def cached(name: str) -> Path | None:
    """The complete directory of that name, or None."""
    directory = cache_root() / name
    return directory if directory.is_dir() else None


def fill(name: str, make: Callable[[Path], None], progress: Progress) -> Path:
    """The directory `name`, filled by `make` if it is not there.

    `make` gets an empty staging directory, which takes its final name in one rename when `make` returns and is
    removed when it raises, Ctrl-C included. Of several processes one works and the others wait for it.

    Raises:
        ToolError: the cache cannot be written.
    """
    final = cache_root() / name
    if final.is_dir():
        return final
    with locked(final.with_name(f".{name}.lock"), f"another process is making {name}", progress):
        if final.is_dir():
            return final
        staging = final.with_name(f".{name}.partial")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
        try:
            make(staging)
            staging.rename(final)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return final


@contextmanager
def locked(path: Path, why_wait: str, progress: Progress) -> Iterator[None]:
    """Hold an exclusive lock, which the kernel drops when this process ends in whatever way.

    Raises:
        ToolError: the cache, in which it lies, cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = path.open("w")
    except OSError as error:
        raise ToolError(
            f"{path} cannot be written ({error.strerror}); make that folder writable, or set XDG_CACHE_HOME to one that is"
        ) from error
    with opened as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step(f"Waiting: {why_wait}"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
