"""The user's cache of tools: a directory is either complete or not there."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.progress import Progress


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/meshbridge`, by default `~/.cache/meshbridge`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "meshbridge"


def cached(name: str) -> Path | None:
    """The complete directory of that name, or None."""
    directory = cache_root() / name
    return directory if directory.is_dir() else None


def fill(name: str, make: Callable[[Path], None], progress: Progress) -> Path:
    """The directory `name`, filled by `make` if it is not there.

    `make` gets an empty staging directory, which takes its final name in one rename when `make` returns and is
    removed when it raises, Ctrl-C included. Of several processes one works and the others wait for it.
    """
    final = cache_root() / name
    if final.is_dir():
        return final
    final.parent.mkdir(parents=True, exist_ok=True)
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
    """Hold an exclusive lock, which the kernel drops when this process ends in whatever way."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step(f"Waiting: {why_wait}"):
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
