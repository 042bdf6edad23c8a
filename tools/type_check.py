"""`python -m tools.type_check OPTION… PATH…`: mypy, with one cache for all clones of a user.

A clean clone finds what was checked in another one. Paths are given in full: mypy trusts a path whose time in seconds and
size are unchanged, and reads every other file, so a file of one clone never stands for that of another. Runs take turns,
because mypy fails when another process writes to its database for more than five seconds.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.cache import cache_root, locked
from tools.progress import Progress


def check(arguments: Sequence[str], progress: Progress) -> int:
    """Run mypy on `arguments`, its options and paths; returns its exit code."""
    directory = cache_root() / "mypy"
    directory.mkdir(parents=True, exist_ok=True)
    paths = [text if text.startswith("-") else str(Path(text).absolute()) for text in arguments]
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(directory), *paths]
    with locked(directory.with_name(".mypy.lock"), "another process checks types", progress):
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(check(sys.argv[1:], Progress()))
