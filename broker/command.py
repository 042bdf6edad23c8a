"""The Pulumi CLI as the broker runs it: in an environment of its own, and never longer than the broker itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, unquote, urlsplit

from pulumi import automation as auto
from pulumi.automation import errors as auto_errors

from broker.settings import PASSWORD_PARAMETERS


def environment(state: str, home: Path) -> dict[str, str]:
    """What the CLI is told beside its arguments. The state holds no secrets, so its passphrase is empty.

    state: the backend's URL, as the settings have it. home: see `quiet_home`.
    """
    return {
        "PULUMI_HOME": str(home),
        "PULUMI_BACKEND_URL": backend(state),
        "PULUMI_CONFIG_PASSPHRASE": "",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PULUMI_EXPERIMENTAL": "true",
        "PULUMI_SKIP_CHECKPOINTS": "true",
        "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
    }


class OwnFolder:
    """A temporary folder of this process, which holds a lock on it. Folders that nobody holds were left by processes that were
    killed, and whoever makes a further one removes them."""

    def __init__(self, prefix: str) -> None:
        """prefix: begins the name of the folder, and of no other program's."""
        for left in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
            with contextlib.suppress(OSError):  # it is another account's, or no folder
                handle = _locked(left)
                if handle is not None:
                    _remove(left, handle)
        handle = None
        while handle is None:
            self.path = Path(tempfile.mkdtemp(prefix=prefix))
            handle = _locked(self.path)
        self._handle: int | None = handle

    def remove(self) -> None:
        """It is needed no more; again is as good."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _remove(self.path, handle)


def _locked(folder: Path) -> int | None:
    """Locks a folder, for as long as this process holds what is returned; None where another one was faster. Raises
    OSError."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(handle)
    return None


def _remove(folder: Path, handle: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.close(handle)


def quiet_home(folder: Path) -> Path:
    """Makes a `PULUMI_HOME` in the folder in which the CLI keeps no debug log, with the plugins of the usual one.

    The CLI writes all that it does into `$PULUMI_HOME/logs`, every object's properties included: a third of an update's
    CPU time, and nothing that a broker should leave on a disk. No setting turns that off, but it goes without where
    `logs` is no folder (pulumi/pkg, `logging.StartLogging`).
    """
    usual = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    home = folder / "pulumi-home"
    home.mkdir()
    (home / "logs").touch()
    # A home that cannot be written has no plugins either, unless they lie there.
    with contextlib.suppress(OSError):
        (usual / "plugins").mkdir(parents=True, exist_ok=True)
    (home / "plugins").symlink_to(usual.absolute() / "plugins")
    return home


def backend(state: str) -> str:
    """The backend's URL. A file backend's folder is made and spelled absolutely, because each stack works in a folder of
    its own, and keeps no second file beside each: those are not replaced atomically, so that an engine killed between two
    writes would leave a state that no command can read."""
    parts = urlsplit(state)
    if parts.scheme != "file":
        return state
    folder = Path(unquote(parts.netloc + parts.path)).expanduser().absolute()
    folder.mkdir(parents=True, exist_ok=True)
    query = [parts.query] if parts.query else []
    if "metadata" not in parse_qs(parts.query):
        query.append("metadata=skip")
    return f"{folder.as_uri()}?{'&'.join(query)}"


def redacted(text: str, url: str) -> str:
    """The text without the password of a URL, however it is written."""
    parts = urlsplit(url)
    secrets = {value for key, value in parse_qsl(parts.query) if key.lower() in PASSWORD_PARAMETERS}
    secrets |= {parts.password or "", unquote(parts.password or "")}
    for secret in sorted(secrets - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def plain(message: str) -> str:
    """A diagnostic without colour codes."""
    return re.sub(r"<\{%[^%]*%\}>|\x1b\[[0-9;]*m", "", message).strip()


def reason(text: str) -> str:
    """The engine's errors out of all that it wrote."""
    lines = [line.strip() for line in text.splitlines() if "error:" in line]
    return plain("; ".join(dict.fromkeys(lines)))[:2000] or "the engine ended without a result"


class Command(auto.PulumiCommand):
    """The CLI, which ends when this process does, however that happens, and when it is told to: two engines must never
    write one state. A session of its own keeps Ctrl-C from an update that runs."""

    def __init__(self, binary: str, directory: Path) -> None:
        """binary: the CLI's file; directory: where a file may lie by which it is started."""
        super().__init__()
        leash = directory / "pulumi"
        leash.write_text(_LEASH.format(python=sys.executable, parent=os.getpid(), binary=binary))
        leash.chmod(0o700)
        self.command = str(leash)
        self._mutex = threading.Lock()
        self._running: dict[str, list[subprocess.Popen[str]]] = {}
        self._killed: set[str] = set()

    def allow(self, folder: Path) -> None:
        """Commands in this folder may run from now on."""
        with self._mutex:
            self._killed.discard(str(folder))

    def kill(self, folder: Path) -> None:
        """Ends the commands that run in the folder, and lets no other begin."""
        with self._mutex:
            self._killed.add(str(folder))
            for process in self._running.get(str(folder), ()):
                if process.poll() is None:
                    for pid in (process.pid, *_descendants(process.pid)):
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(pid, signal.SIGKILL)

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], object] | None = None,
        on_error: Callable[[str], object] | None = None,
    ) -> auto.CommandResult:
        """See PulumiCommand; the output comes whole, at the end. Raises CommandError."""
        del on_output, on_error
        with self._mutex:
            if cwd in self._killed:
                raise auto_errors.CommandError(auto.CommandResult("", f"error: {_LOST}", -signal.SIGKILL))
            process = subprocess.Popen(
                [self.command, "--non-interactive", *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env={**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"},
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
            self._running.setdefault(cwd, []).append(process)
        with process:
            stdout, stderr = process.communicate()
        with self._mutex:
            self._running[cwd].remove(process)
            if cwd in self._killed:
                stderr = f"error: {_LOST}"
        result = auto.CommandResult(stdout, stderr, process.returncode)
        if process.returncode != 0:
            raise auto_errors.create_command_error(result)
        return result


def _descendants(pid: int) -> list[int]:
    """The processes below a process: plugins have process groups of their own."""
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, children.read_text().split()):
                found += [child, *_descendants(child)]
    return found


_LOST = "this replica lost the shard, so its engine was ended"

_LEASH = """#!{python} -IS
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != {parent}:
    sys.exit("the broker is gone")
os.execv({binary!r}, [{binary!r}, *sys.argv[1:]])
"""
"""PR_SET_PDEATHSIG, and the parent looked at afterwards: it may have died before."""
