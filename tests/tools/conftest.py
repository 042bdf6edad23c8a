"""A machine of one's own: empty cache, empty home, and a PATH that holds what the test puts there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tools.progress import Progress


@dataclass
class Machine:
    """Folders that stand for a user's machine."""

    path: Path
    cache: Path
    pulumi_home: Path
    said: StringIO
    progress: Progress

    def program(self, name: str, script: str, folder: Path | None = None) -> Path:
        """Put an executable shell script on PATH, or elsewhere."""
        target = (folder or self.path) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"#!/bin/sh\n{script}\n")
        target.chmod(0o755)
        return target


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    path = tmp_path / "bin"
    path.mkdir()
    home = tmp_path / "home"
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PULUMI_HOME", str(home / ".pulumi"))
    said = StringIO()
    progress = Progress(Console(file=said, soft_wrap=True, highlight=False))
    return Machine(path, tmp_path / "cache" / "meshbridge", home / ".pulumi", said, progress)


@pytest.fixture
def broken_proxy() -> Iterator[str]:
    """The URL of a server that does not speak HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"go away\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/file"
        thread.join()
