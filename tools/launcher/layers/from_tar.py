# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A layer in the form of images, an archive in which whiteouts are files called .wh.NAME → tree."""

from typing import BinaryIO

from tools.launcher.base.errors import UserError
from tools.launcher.layers import rules, tar_reader
from tools.launcher.layers.rules import Attributes, Kind, Owner, Path, shown
from tools.launcher.layers.tar_reader import Member
from tools.launcher.layers.tree import Inode, Tree

_RECORD = 10240
"""What tar pads an archive to. An image's layer may well be empty, a large file of zeros is damaged."""
_DEVICES = {b"3": "a character device", b"4": "a block device"}


def read(stream: BinaryIO, *, end: int, owner: Owner | None = None, where: str) -> Tree:
    """The layer in a plain tar of `end` bytes; each file's `place` is where its content begins in it.

    `owner`: whom all files belong to, where an unprivileged user has packed his own.
    """
    tree = Tree(where=where)
    empty = True
    for member in tar_reader.members(stream, end=end, where=where):
        empty = False
        _add(tree, member, owner=owner, where=where)
    if empty and end > _RECORD:
        raise UserError(f"has no members in its {end} bytes: a zeroed file?", where=where)
    return tree


def _add(tree: Tree, member: Member, *, owner: Owner | None, where: str) -> None:
    path = rules.path(member.name, where=where)
    if any(name.startswith(rules.WHITEOUT) for name in path[:-1]):
        raise UserError(f"{shown(path)} lies below a whiteout", where=where)
    if path and path[-1].startswith(rules.WHITEOUT):
        _add_whiteout(tree, path, where=where)
        return
    if member.kind in _DEVICES:
        # The guest has its own, and whoever may open a device may do more than a file lets him.
        hint = "leave it out; the guest has its own /dev"
        raise UserError(f"{shown(path)} is {_DEVICES[member.kind]}", where=where, hint=hint)
    attributes = Attributes(
        mode=member.mode & rules.MODE_BITS,
        uid=rules.owner(member.uid if owner is None else owner[0], path, where=where),
        gid=rules.owner(member.gid if owner is None else owner[1], path, where=where),
        xattrs=rules.xattrs(
            member.xattrs, path, folder=member.kind == b"5", file=member.kind in b"01", where=where
        ),
    )  # fmt: skip
    if member.kind == b"5":
        tree.add_folder(path, attributes)
    elif member.kind == b"1":
        target = rules.path(member.linkname, where=where)
        tree.link(path, target, attributes, time=rules.time(member.time))
    else:
        tree.add(path, _inode(member, attributes, path, where=where))


def _add_whiteout(tree: Tree, path: Path, *, where: str) -> None:
    *folder, name = path
    if name == rules.OPAQUE:
        tree.opaque(tuple(folder))
        return
    hidden = name.removeprefix(rules.WHITEOUT)
    if not hidden or hidden in (b".", b"..") or hidden.startswith(rules.WHITEOUT):
        # The last is what aufs kept for itself, and some old images carry.
        raise UserError(f"{shown(path)} is no whiteout", where=where)
    tree.whiteout((*folder, hidden))


def _inode(member: Member, attributes: Attributes, path: Path, *, where: str) -> Inode:
    if member.kind == b"2":
        target = rules.target(member.linkname, path, where=where)
        return Inode(kind=Kind.SYMLINK, attributes=_symlink(attributes), target=target)
    if member.kind == b"6":
        return Inode(kind=Kind.FIFO, attributes=attributes)
    time = rules.time(member.time)
    return Inode(kind=Kind.FILE, attributes=attributes, time=time, size=member.size, place=member.place)


def _symlink(attributes: Attributes) -> Attributes:
    return Attributes(mode=rules.SYMLINK_MODE, uid=attributes.uid, gid=attributes.gid)
