# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A folder of unpacked files → tree: a root file system, or one layer as overlayfs keeps it.

In an upper folder of overlayfs a whiteout is a character device 0/0, and a folder that hides what is below has an
attribute. Other attributes of overlayfs that change what a file means are refused.
"""

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.layers import rules
from tools.launcher.layers.rules import Attributes, Kind, Owner, shown
from tools.launcher.layers.tree import Inode, Tree

Note = Callable[[str], None]

_CAP_SYS_ADMIN = 21
_PREFIXES = (b"trusted.overlay.", b"user.overlay.")
# Where a file came from, what it once had below it: overlayfs's own memory, without which a layer means the same.
_MEMORY = {b"origin", b"impure", b"nlink", b"uuid"}


def read(folder: Path, *, upper: bool, userxattr: bool = False, owner: Owner | None = None, note: Note) -> Tree:
    """The layer in a folder; each file's `place` is its path.

    `upper`: it is one of overlayfs. `userxattr`: overlayfs was mounted with the option of that name, as rootless
    engines do. `owner`: whom all files belong to, where an unprivileged user has unpacked them.
    """
    if upper and not userxattr and not _sees_trusted():
        what = "only root sees which folders of an overlayfs layer are opaque"
        raise UserError(what, where=str(folder), hint="read it as root, outside of user namespaces")
    return _Reader(folder, upper=upper, owner=owner, note=note).read()


def _sees_trusted() -> bool:
    """Whether Linux shows attributes called trusted.*; it says of none that it is hidden."""
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    ids = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1) and ids == ["0", "0", "4294967295"]


class _Reader:
    def __init__(self, folder: Path, *, upper: bool, owner: Owner | None, note: Note) -> None:
        self._top = os.fsencode(folder)
        self._where = str(folder)
        self._upper = upper
        self._owner = owner
        self._note = note
        self._linked: dict[tuple[int, int], Inode] = {}

    def read(self) -> Tree:
        tree = Tree(where=self._where)
        for path, place, status in self._walk():
            self._add(tree, path, place, status)
        return tree

    def _walk(self) -> Iterator[tuple[rules.Path, bytes, os.stat_result]]:
        top = os.stat(self._top)  # noqa: PTH116  names are bytes
        stack: list[tuple[rules.Path, bytes, os.stat_result]] = [((), self._top, top)]
        while stack:
            path, place, status = stack.pop()
            yield path, place, status
            if not stat.S_ISDIR(status.st_mode):
                continue
            with os.scandir(place) as entries:
                # Sorted, so that of several things to refuse the same one is named everywhere.
                children = sorted(entries, key=lambda entry: entry.name, reverse=True)
            for entry in children:
                child = entry.stat(follow_symlinks=False)
                if child.st_dev != top.st_dev and not self._upper:
                    self._note(f"{os.fsdecode(entry.path)}: another file system is mounted there, left out")
                elif stat.S_ISSOCK(child.st_mode):
                    self._note(f"{os.fsdecode(entry.path)}: socket left out")
                else:
                    stack.append(((*path, entry.name), entry.path, child))

    def _add(self, tree: Tree, path: rules.Path, place: bytes, status: os.stat_result) -> None:
        mode = status.st_mode
        if path and path[-1].startswith(rules.WHITEOUT):
            raise self._error(path, "has the name of a whiteout, which a folder shows otherwise")
        if stat.S_ISCHR(mode) and status.st_rdev == 0 and self._upper:
            tree.whiteout(path)
            return
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise self._error(path, "is a device", hint="leave it out; the guest has its own /dev")
        found, opaque = self._xattrs(path, place, folder=stat.S_ISDIR(mode))
        attributes = Attributes(
            mode=rules.SYMLINK_MODE if stat.S_ISLNK(mode) else mode & rules.MODE_BITS,
            uid=rules.owner(status.st_uid if self._owner is None else self._owner[0], path, where=self._where),
            gid=rules.owner(status.st_gid if self._owner is None else self._owner[1], path, where=self._where),
            xattrs=rules.xattrs(
                found, path, folder=stat.S_ISDIR(mode), file=stat.S_ISREG(mode), where=self._where
            ),
        )  # fmt: skip
        if stat.S_ISDIR(mode):
            tree.add_folder(path, attributes)
            if opaque:
                tree.opaque(path)
        else:
            tree.add(path, self._inode(path, place, status, attributes))

    def _inode(self, path: rules.Path, place: bytes, status: os.stat_result, attributes: Attributes) -> Inode:
        known = self._linked.get((status.st_dev, status.st_ino))
        if known is not None:
            return known
        mode = status.st_mode
        if stat.S_ISLNK(mode):
            target = rules.target(os.readlink(place), path, where=self._where)  # noqa: PTH115  bytes
            inode = Inode(kind=Kind.SYMLINK, attributes=attributes, target=target)
        elif stat.S_ISFIFO(mode):
            inode = Inode(kind=Kind.FIFO, attributes=attributes)
        elif stat.S_ISREG(mode):
            time = rules.time(status.st_mtime_ns // 1_000_000_000)
            inode = Inode(kind=Kind.FILE, attributes=attributes, time=time, size=status.st_size, place=place)
        else:
            raise self._error(path, f"is of an unknown type, {stat.S_IFMT(mode):o}")
        if status.st_nlink > 1:
            self._linked[status.st_dev, status.st_ino] = inode
        return inode

    def _xattrs(self, path: rules.Path, place: bytes, *, folder: bool) -> tuple[dict[bytes, bytes], bool]:
        """Those that a rule has to be found for, and whether the folder hides what is below it."""
        found: dict[bytes, bytes] = {}
        opaque = False
        for name in os.listxattr(place, follow_symlinks=False):
            key = os.fsencode(name)
            value = os.getxattr(place, key, follow_symlinks=False)
            own = next((key.removeprefix(prefix) for prefix in _PREFIXES if key.startswith(prefix)), None)
            if own is None or not self._upper:
                found[key] = value
            elif own == b"opaque" and value == b"y" and folder:
                opaque = True
            elif own not in _MEMORY:
                hint = "mount overlayfs with redirect_dir=off and metacopy=off"
                raise self._error(path, f"has overlayfs's attribute {shown(key)}", hint=hint)
        return found, opaque

    def _error(self, path: rules.Path, what: str, *, hint: str | None = None) -> UserError:
        return UserError(f"{shown(path)} {what}", where=self._where, hint=hint)
