# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A layer as a tree in memory, whatever it was read from; what contradicts itself is refused."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tools.launcher.base.errors import UserError
from tools.launcher.layers import rules
from tools.launcher.layers.rules import Attributes, Kind, Path, shown

ENTRIES_MAX = 1_000_000
TEXT_MAX = 512 << 20
"""Bytes of all names, link targets and extended attributes together: they are kept in memory."""


@dataclass(kw_only=True, slots=True, eq=False)
class Inode:
    """What one or more names stand for. `place` is where its source keeps the content of `size` bytes."""

    kind: Kind
    attributes: Attributes = rules.PLAIN
    time: int = 0
    size: int = 0
    place: int | bytes = 0
    target: bytes = b""


@dataclass(kw_only=True, slots=True, eq=False)
class Folder:
    """`attributes` are None for one that is only there because something lies in it."""

    attributes: Attributes | None = None
    opaque: bool = False
    children: dict[bytes, "Folder | Inode"] = field(default_factory=dict)


class Tree:
    """A layer. `where` names its source in errors."""

    def __init__(self, *, where: str) -> None:
        self.root = Folder(attributes=rules.FOLDER)
        self._where = where
        self._entries = 0
        self._text = 0

    def add_folder(self, path: Path, attributes: Attributes) -> None:
        """A folder; one that is there already gets these attributes. The root keeps its own."""
        self._count(path, attributes)
        if not path:
            return
        there = self._parent(path).children.get(path[-1])
        if isinstance(there, Inode) and there.kind is not Kind.WHITEOUT:
            raise self._error(path, "stands twice, as a folder and as something else")
        self._folder(self._parent(path), path[-1]).attributes = attributes

    def add(self, path: Path, inode: Inode) -> None:
        """A file, symbolic link or fifo, in place of one of that name that came before."""
        self._count(path, inode.attributes, inode.target)
        self._slot(path)[path[-1]] = inode

    def link(self, path: Path, target: Path, attributes: Attributes, *, time: int) -> None:
        """A hard link: a further name of what `target` stands for, which gets these attributes as well."""
        self._count(path, attributes)
        inode = self._find(target)
        if not isinstance(inode, Inode) or inode.kind is Kind.WHITEOUT:
            what = f"is a hard link to {shown(target)}, which is no file of this layer before it"
            raise self._error(path, what)
        # What engines do with the later header; a change of owner takes capabilities away.
        kept = {key: value for key, value in inode.attributes.xattrs.items() if key != rules.CAPABILITY}
        merged = dict(sorted({**kept, **attributes.xattrs}.items()))
        rules.check_size(merged, path, where=self._where)
        mode = attributes.mode if inode.kind is not Kind.SYMLINK else inode.attributes.mode
        inode.attributes = Attributes(mode=mode, uid=attributes.uid, gid=attributes.gid, xattrs=merged)
        if inode.kind is Kind.FILE:
            inode.time = time
        self._slot(path)[path[-1]] = inode

    def whiteout(self, path: Path) -> None:
        """The name is gone from the layers below. What this layer itself has under it stays."""
        self._count(path)
        children = self._parent(path).children
        there = children.get(path[-1])
        if isinstance(there, Folder):
            there.opaque = True
        elif there is None:
            children[path[-1]] = Inode(kind=Kind.WHITEOUT)

    def opaque(self, path: Path) -> None:
        """Everything in the folder is gone from the layers below."""
        self._count(path)
        if not path:
            raise UserError("hides everything below it: its root is opaque", where=self._where)
        self._parent((*path, b"")).opaque = True

    def _count(self, path: Path, attributes: Attributes = rules.PLAIN, text: bytes = b"") -> None:
        self._count_one()
        self._text += sum(map(len, path)) + len(text) + sum(len(k) + len(v) for k, v in attributes.xattrs.items())
        if self._text > TEXT_MAX:
            raise UserError(f"more than {TEXT_MAX >> 20} MiB of names and attributes", where=self._where)

    def _count_one(self) -> None:
        self._entries += 1
        if self._entries > ENTRIES_MAX:
            raise UserError(f"more than {ENTRIES_MAX} files", where=self._where)

    def _slot(self, path: Path) -> dict[bytes, Folder | Inode]:
        """Where a name that is no folder is put."""
        if not path:
            raise UserError("has a root that is no folder", where=self._where)
        children = self._parent(path).children
        if isinstance(children.get(path[-1]), Folder):
            raise self._error(path, "stands twice, as a folder and as something else")
        return children

    def _parent(self, path: Path) -> Folder:
        folder = self.root
        for depth, name in enumerate(path[:-1]):
            there = folder.children.get(name)
            if isinstance(there, Inode) and there.kind is not Kind.WHITEOUT:
                what = "a symbolic link" if there.kind is Kind.SYMLINK else "no folder"
                raise self._error(path, f"lies below {shown(path[: depth + 1])}, which is {what}")
            if not isinstance(there, Folder):
                # One member's name may stand for two thousand folders.
                self._count_one()
            folder = self._folder(folder, name)
        return folder

    @staticmethod
    def _folder(parent: Folder, name: bytes) -> Folder:
        """The folder of that name, made if need be: one that a whiteout stands before hides what is below."""
        there = parent.children.get(name)
        if isinstance(there, Folder):
            return there
        parent.children[name] = made = Folder(opaque=there is not None)
        return made

    def _find(self, path: Path) -> Folder | Inode | None:
        found: Folder | Inode | None = self.root
        for name in path:
            found = found.children.get(name) if isinstance(found, Folder) else None
        return found

    def _error(self, path: Path, what: str) -> UserError:
        return UserError(f"{shown(path)} {what}", where=self._where)


def in_order(root: Folder) -> Iterator[tuple[Path, Folder | Inode]]:
    """Everything, each folder before what lies in it, names in the order of their bytes."""
    # On a stack of its own: a deep tree must not exhaust Python's.
    stack: list[tuple[Path, Folder | Inode]] = [((), root)]
    while stack:
        path, node = stack.pop()
        yield path, node
        if isinstance(node, Folder):
            stack += [((*path, name), child) for name, child in sorted(node.children.items(), reverse=True)]
