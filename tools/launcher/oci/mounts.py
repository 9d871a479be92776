# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an engine mounts, and what becomes of it in a guest.

/proc, /sys, /dev, /dev/pts, /dev/mqueue, /sys/fs/cgroup ── the guest's own; the engine may ask for no more than these
tmpfs, an engine's /dev/shm, anonymous volumes ──────────── memory of the guest
/etc/hosts, /etc/hostname, /etc/resolv.conf … ───────────── files that the host supplies
the engine's init ───────────────────────────────────────── nothing: the agent is the init
other binds ─────────────────────────────────────────────── read-only: folders that the host supplies; writable: shared,
                                                            where the configuration allows it by name
"""

import contextlib
import json
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.oci import tmpfs
from tools.launcher.oci.container import Container, Mount
from tools.sev.workload import document
from tools.sev.workload.document import SuppliedFile

SHM = "/dev/shm"  # noqa: S108  in the guest
DOCKERS_SHM, PODMANS_SHM = 64 << 20, 65_536_000
"""Bytes of /dev/shm by default; podman reads its own "65536k" with decimal units."""
FILE_BYTES = 64 << 10
"""The most that a file of the short list may have."""
SUPPLIED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/run/.containerenv")
"""What engines invent for each container: where a bind mount of it lies, the host supplies a file."""
DOCKERENV = "/.dockerenv"
"""Empty; docker puts it into the root file system."""
_OWN = {
    ("/proc", "proc"): (),
    ("/sys", "sysfs"): ("ro",),
    ("/dev", "tmpfs"): (),
    ("/dev/pts", "devpts"): (),
    ("/dev/mqueue", "mqueue"): (),
    ("/sys/fs/cgroup", "cgroup"): ("ro",),
    ("/sys/fs/cgroup", "cgroup2"): ("ro",),
}
"""Mounts that the agent makes by itself, or that a guest has no use for, and options that they must have."""
_INITS = ("/sbin/docker-init", "/run/podman-init", "/dev/init")
_RESERVED = ("/proc", "/sys", "/dev")
_ANONYMOUS = re.compile(r".*/volumes/[0-9a-f]{64}/_data")
_VOLUME = re.compile(r".*/volumes/([^/]+)/_data")
_DOCKERS = re.compile(r".*/containers/[0-9a-f]{64}/hostname")
_SHARED_MOUNTS = ("shared", "rshared", "slave", "rslave")
_PASSED_OVER = frozenset({
    "bind", "rbind", "ro", "rro", "rw", "private", "rprivate", "nosuid", "suid", "nodev", "dev", "noexec", "exec",
    "noatime", "atime", "nodiratime", "diratime", "relatime", "norelatime", "strictatime", "nostrictatime", "defaults",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder or file of the host's; `length`: what it may have in the guest, in bytes, where it is not shared."""

    source: Path
    target: str
    write: bool
    length: int


@dataclass(frozen=True, kw_only=True)
class Mounted:
    """All of it: `supplied` are the sources of `files`, None for an empty one; `init` is where the engine's lies."""

    memory: tuple[document.Mount, ...]
    files: tuple[SuppliedFile, ...]
    supplied: tuple[Path | None, ...]
    folders: tuple[Folder, ...]
    init: str | None
    notes: tuple[str, ...]


class _Sorter:
    """Puts each mount where it belongs."""

    def __init__(self, *, program: str, writable: Sequence[str], folder_bytes: int, memory: int) -> None:
        self._program = program
        self._memory = memory
        self._writable = writable
        self._folder_bytes = folder_bytes
        self.memory: list[document.Mount] = []
        self.files: dict[str, Path | None] = {}
        self.folders: list[Folder] = []
        self.init: str | None = None
        self.notes: list[str] = []

    def take(self, mount: Mount) -> None:
        """UserError for what a guest cannot have."""
        bind = mount.kind in ("bind", "none", "") and not {"bind", "rbind"}.isdisjoint(mount.options)
        if bind and mount.target in _INITS and mount.target == self._program:
            self.init = mount.target
        elif mount.target == SHM and (bind or mount.kind == "tmpfs"):
            self._shared_memory(mount)
        elif (mount.target, mount.kind) in _OWN:
            _check_own(mount)
        elif mount.target in _RESERVED or mount.target.startswith(tuple(f"{one}/" for one in _RESERVED)):
            raise _refused(mount, f"it lies in {', '.join(_RESERVED)}, which are the guest's own")
        elif mount.kind == "tmpfs":
            self.memory.append(tmpfs.read(mount, memory=self._memory))
            if "tmpcopyup" in mount.options:
                self.notes.append(f"{mount.target}: is empty, whatever the image has there")
        elif bind and mount.target in SUPPLIED:
            self.files[mount.target] = Path(mount.source)
        elif bind:
            self._folder(mount)
        else:
            raise _refused(mount, f"the guest has no file system {mount.kind[:40]!r}")

    def _shared_memory(self, mount: Mount) -> None:
        if mount.kind == "tmpfs":
            self.memory.append(tmpfs.read(mount, memory=self._memory))
        elif mount.source == SHM:
            raise _refused(mount, "a guest cannot have the host's shared memory", option="--ipc host")
        else:
            # podman mounts it by itself, and says its size nowhere else.
            size = _size_of(Path(mount.source)) or PODMANS_SHM
            self.memory.append(document.Mount(target=SHM, length=size, mode="1777", executable=False))

    def _folder(self, mount: Mount) -> None:
        for option in mount.options:
            if option in _SHARED_MOUNTS:
                raise _refused(mount, "mounts go neither into the guest nor out of it", option=f"--volume …:{option}")
            if option not in _PASSED_OVER:
                raise _refused(mount, f"the guest does not know its option {option[:40]!r}")
        if not mount.source.startswith("/"):
            raise _refused(mount, f"its source {mount.source[:100]!r} is no absolute path")
        write = not {"ro", "rro"} & set(mount.options)
        if write and _ANONYMOUS.fullmatch(mount.source):
            self.notes.append(
                f"{mount.target}: a volume without a name lies in the guest's memory; what is written to it is gone "
                "when the container stops"
            )
            self.memory.append(tmpfs.of_volume(mount, memory=self._memory))
            return
        # Where it leads: a link, or "..", would be a way out of the folders that the configuration names.
        source = os.path.realpath(mount.source) if write else mount.source
        if write and not self._may_write(mount.source, source):
            raise _refused(
                mount,
                f"the host would read and change {mount.target} while the guest runs; mount it read-only (:ro), or "
                f"name it in sev-runtime.toml: writable = [{json.dumps(_name_of(mount.source))}]",
                option="--volume or --mount",
            )
        length = 0 if write else self._folder_bytes
        self.folders.append(Folder(source=Path(source), target=mount.target, write=write, length=length))

    def _may_write(self, given: str, source: str) -> bool:
        name = _name_of(given)
        if name != given and name in self._writable and _name_of(source) == name and _is_roots(source):
            return True
        allowed = [os.path.realpath(one) for one in self._writable if one.startswith("/")]
        return any(os.path.commonpath([one, source]) == one for one in allowed)


def sort(container: Container, *, writable: Sequence[str], folder_bytes: int, memory: int) -> Mounted:
    """Where each mount of the container belongs, in a guest with so many bytes of RAM.

    `writable`: paths of the host and names of volumes.
    """
    sorter = _Sorter(program=container.process.argv[0], writable=writable, folder_bytes=folder_bytes, memory=memory)
    _check_order(container.mounts)
    for mount in sorted(container.mounts, key=lambda mount: (mount.target.count("/"), mount.target)):
        sorter.take(mount)
    if is_dockers(container):
        sorter.files[DOCKERENV] = None
    for inner in sorter.memory:
        for folder in sorter.folders:
            if inner.target.startswith(f"{folder.target}/"):
                raise UserError(f"refused: {inner.target} lies in {folder.target}, which is the host's", where="mounts")
    for folder in sorter.folders:
        # The agent would not follow there: the host could move it while the guest starts.
        for target in (*sorter.files, *(other.target for other in sorter.folders)):
            if folder.write and target.startswith(f"{folder.target}/"):
                what = f"refused: {target} lies in {folder.target}, which is shared with the host"
                raise UserError(what, where="mounts")
    targets = sorted(sorter.files)
    return Mounted(
        memory=tuple(sorter.memory),
        files=tuple(SuppliedFile(target=target, length=0 if target == DOCKERENV else FILE_BYTES) for target in targets),
        supplied=tuple(sorter.files[target] for target in targets),
        folders=tuple(sorter.folders),
        init=sorter.init,
        notes=tuple(sorter.notes),
    )


def is_dockers(container: Container) -> bool:
    """Whether docker made the container: its files lie where docker has them."""
    return any(mount.target == "/etc/hostname" and _DOCKERS.fullmatch(mount.source) for mount in container.mounts)


def _check_order(mounts: Sequence[Mount]) -> None:
    seen: list[str] = []
    for mount in mounts:
        for other in seen:
            if other == mount.target or other.startswith(f"{mount.target}/"):
                raise _refused(mount, f"it would hide {other}, which is mounted before it")
        seen.append(mount.target)


def _check_own(mount: Mount) -> None:
    for option in _OWN[mount.target, mount.kind]:
        if option not in mount.options:
            raise _refused(mount, f"in a guest {mount.target} is {option!r}", option="--privileged or the like")


def _size_of(folder: Path) -> int:
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    # The mount point itself, before podman mounts, is a folder of a disk.
    return status.f_blocks * status.f_frsize if folder.is_mount() else 0


def _name_of(source: str) -> str:
    volume = _VOLUME.fullmatch(source)
    return volume[1] if volume else source


def _is_roots(source: str) -> bool:
    """Whether nobody but root, or whoever runs this, can have put a folder there that is called like a volume."""
    for above in Path(source).parents:
        with contextlib.suppress(FileNotFoundError):
            status = above.stat()
            open_to_others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
            if status.st_uid not in (0, os.geteuid()) or open_to_others:
                return False
    return True


def _refused(mount: Mount, reason: str, *, option: str = "") -> UserError:
    shown = f" (from {option})" if option else ""
    return UserError(f"refused{shown}: {reason}", where=f"{mount.where}: {mount.target}")
