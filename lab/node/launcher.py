"""Turns the process that runs it into a container's: its own root, mounts and rights. Then it runs the program.

It is run by `unshare --mount --pid --fork` (see `lab.node.containers`) in the Pod's network namespace, as process 1 of
the container, with the path of a JSON file:

- pid_file: where its process id, as the machine counts, is written when everything is ready for the program;
- scratch: an empty directory on which the container's writable layer (in memory) is mounted;
- mounts: list of {source, target, read_only}, in this order;
- read_only: whether the root is;
- hostname, command, environment, directory;
- user, group, groups: numbers;
- capabilities: the numbers that remain; no_new_privileges.

What the program sees is the machine's own files below a writable layer in memory, and the mounts. All of it lies in a
mount namespace of its own, which ends with the process. Imports the standard library only: it runs without the package.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 0x1, 0x20, 0x1000, 0x2000, 0x4000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
_libc = ctypes.CDLL(None, use_errno=True)


def main(spec_file: str) -> None:
    """Become the container that the file describes."""
    spec = json.loads(Path(spec_file).read_text())
    # /proc still counts as the machine does.
    pid = str(Path("/proc/self").readlink())
    pid_file = os.open(spec["pid_file"], os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    root = _make_root(Path(spec["scratch"]))
    for mount in spec["mounts"]:
        _bind(Path(mount["source"]), _inside(root, mount["target"]), read_only=mount["read_only"])
    if spec["read_only"]:
        _mount("", root, "", MS_REMOUNT | MS_BIND | MS_RDONLY)
    os.chdir(root)
    _mount(".", Path("/"), "", MS_MOVE)
    os.chroot(".")
    os.chdir(spec["directory"])
    socket.sethostname(spec["hostname"])
    for capability in range(_last_capability() + 1):
        if capability not in spec["capabilities"]:
            _call("prctl", PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups(spec["groups"])
    os.setgid(spec["group"])
    os.setuid(spec["user"])
    # The change of user has cleared it: the program must not outlive `unshare`, its parent.
    _call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if spec["no_new_privileges"]:
        _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.umask(0o022)
    os.write(pid_file, pid.encode())
    os.execvpe(spec["command"][0], spec["command"], spec["environment"])  # noqa: S606 - it becomes the program


def _make_root(scratch: Path) -> Path:
    """A root that shows the machine's files below a layer in memory, with its own /proc, /dev/shm and /run."""
    _mount("tmpfs", scratch, "tmpfs", 0, "mode=0755")
    layer, work, root = scratch / "layer", scratch / "work", scratch / "root"
    for directory in (layer, work, root):
        directory.mkdir()
    _mount("overlay", root, "overlay", 0, f"lowerdir=/,upperdir={layer},workdir={work}")
    _mount("/dev", root / "dev", "", MS_BIND | MS_REC)
    _mount("tmpfs", root / "dev/shm", "tmpfs", 0, "mode=1777")
    _mount("/sys", root / "sys", "", MS_BIND | MS_REC)
    _mount("tmpfs", root / "run", "tmpfs", 0, "mode=0755")
    _mount("proc", root / "proc", "proc", 0)
    return root


def _inside(root: Path, target: str) -> Path:
    """Where a target lies below the root; symbolic links on the way (`/var/run`) are followed inside it."""
    place = root
    for part in Path(target).parts[1:]:
        place /= part
        if place.is_symlink():
            link = place.readlink()
            place = _inside(root, str(link)) if link.is_absolute() else place.parent / link
    return place


def _bind(source: Path, target: Path, *, read_only: bool) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(str(source), target, "", MS_BIND)
    if read_only:
        _mount("", target, "", MS_REMOUNT | MS_BIND | MS_RDONLY)


def _mount(source: str, target: Path, kind: str, flags: int, options: str = "") -> None:
    words = [word.encode() or None for word in (source, str(target), kind)]
    if _libc.mount(*words, ctypes.c_ulong(flags), options.encode() or None) != 0:
        raise OSError(
            ctypes.get_errno(), f"{os.strerror(ctypes.get_errno())}: mount {source or kind}", str(target)
        )


def _call(name: str, *arguments: int) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}{arguments}: {os.strerror(ctypes.get_errno())}")


def _last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


if __name__ == "__main__":
    main(sys.argv[1])
