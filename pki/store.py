"""Files that hold keys: private to their owner, written whole or not at all, by one writer at a time.

A folder of related files (a certificate and its key) is a symbolic link to a hidden folder, so that one rename replaces
all of them together.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pki.errors import LockedError, PkiError

PRIVATE = 0o600
PRIVATE_DIRECTORY = 0o700
LOCK = ".lock"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the lock of `directory`; it ends with the process that holds it. Raises LockedError when another does."""
    handle = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            raise LockedError(
                f"{directory} is being written to by another process (id {holder}).",
                "Run the command again when that one has ended.",
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def write(file: Path, content: bytes) -> None:
    """Write a private file: a reader sees the old content or the new one, also after a crash."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(file.parent)


def write_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write a folder with exactly these private files; they change together. What is no such folder is refused."""
    if folder.exists() and not folder.is_symlink():
        raise PkiError(f"{folder} exists and was not written by `python -m pki`.", "Move it away.")
    version = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    for name, content in files.items():
        write(version / name, content)
    link = version.with_name(f"{version.name}.link")
    link.symlink_to(version.name)
    link.replace(folder)
    _sync(folder.parent)
    remove_leftovers(folder.parent)


def remove_leftovers(directory: Path) -> None:
    """Remove hidden folders and links that no folder leads to: old versions, and what a crash left."""
    used = {
        entry.readlink().name for entry in directory.iterdir() if entry.is_symlink() and not _hidden(entry)
    }
    for entry in directory.iterdir():
        if _hidden(entry) and entry.name not in used:
            if entry.is_symlink():
                entry.unlink()
            elif entry.is_dir():
                shutil.rmtree(entry)


def require_private(path: Path) -> None:
    """Refuse a path that others than its owner may read. Raises PkiError."""
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        wanted = PRIVATE_DIRECTORY if path.is_dir() else PRIVATE
        raise PkiError(
            f"{path} has mode {mode:o}, so that others than its owner can get at the private keys.",
            f"Replace the keys if others use this machine, then: chmod {wanted:o} {path}",
        )


def _hidden(entry: Path) -> bool:
    return entry.name.startswith(".")


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
