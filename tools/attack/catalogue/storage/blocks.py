# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Blocks of a disk under dm-verity that are not the owner's: changed, exchanged, old, cut.

The program on the disk says what it reads. Against an agent whose dm-verity ignores corruption it says what the host
wants.
"""

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Undefended
from tools.attack.base.target import Target
from tools.attack.guests import bound, disks
from tools.attack.guests.disks import LIST, Disk
from tools.attack.guests.roots import MOTD
from tools.attack.undefended.agent import ignoring_corruption
from tools.pipeline.base.errors import BuildError

BLOCK = 4096
Change = Callable[[Lab, bytearray, Disk], None]
_CONTROL = Undefended(what="an agent whose dm-verity ignores corruption", target=ignoring_corruption)


def attempt(lab: Lab, target: Target, folder: Path, *, change: Change, ran: bool = False) -> Outcome:
    """Hand out the changed disk. `ran`: it is enough for the host that the program does not notice."""
    disk = disks.hashed(lab)
    bound.honest(lab, target, folder, disk)
    data = bytearray(disk.data)
    change(lab, data, disk)
    if data == disk.data:
        raise BuildError("the payload changes nothing")
    with bound.guest(lab, target, folder, disk=bytes(data), document=disk.document) as guest:
        told = disks.bound(guest, disk.document)
    if ran:
        return Outcome(succeeded=told.exited, guest=told.words)
    return bound.outcome(told)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, (host, change) in _CHANGES.items():
        yield Attack(
            name=name,
            host=host,
            attempt=partial(attempt, change=change, ran=name in _UNSEEN),
            control=_CONTROL,
            parts=frozenset({Part.KERNEL, Part.AGENT}),
            short=name in {"file-bit", "tree-bit"},
        )


def where(data: bytes | bytearray, text: bytes) -> int:
    """Where the only copy of `text` begins."""
    if data.count(text) != 1:
        raise BuildError(f"{text[:40]!r} is {data.count(text)} times on the disk, not once")
    return data.index(text)


def the_list(data: bytes | bytearray) -> int:
    """Where the list of who is denied begins: blocks of its own."""
    return where(data, LIST[: len(LIST) // BLOCK * BLOCK])


def _file_bit(_: Lab, data: bytearray, __: Disk) -> None:
    at = where(data, MOTD)
    data[at] ^= 0x20


def _list_entry(_: Lab, data: bytearray, __: Disk) -> None:
    data[where(data, b"mallory\n")] ^= 1


def _name(_: Lab, data: bytearray, __: Disk) -> None:
    """The folder's entry for the list: no list, nobody in it. The superblock's checksum covers it, and is switched off
    (feature_compat, bit 0; fs/erofs/erofs_fs.h)."""
    data[1024 + 8] &= ~1
    data[where(data, b"deniedmotd")] ^= 1


def _size(_: Lab, data: bytearray, __: Disk) -> None:
    """The compact inode of the list (fs/erofs/erofs_fs.h): a regular file of that size."""
    at = where(data, struct.pack("<HHI", 0o100644, 1, len(LIST)))
    struct.pack_into("<I", data, at + 4, len(LIST) - 8)


def _exchanged(_: Lab, data: bytearray, __: Disk) -> None:
    """Two blocks with right content, each in the other's place: the list's last and one of its others."""
    one, other = the_list(data), where(data, b"mallory\n") // BLOCK * BLOCK
    data[one : one + BLOCK], data[other : other + BLOCK] = data[other : other + BLOCK], data[one : one + BLOCK]


def _zeroed(_: Lab, data: bytearray, __: Disk) -> None:
    at = where(data, b"mallory\n")
    data[at : at + 8] = bytes(8)


def _old(lab: Lab, data: bytearray, _: Disk) -> None:
    """The owner's disk of last week, on which nobody was denied, with the tree that belonged to it."""
    old = disks.other(lab, "of last week", {"etc/denied": LIST[:-8] + b"nobody__"})
    if len(old.data) != len(data):
        raise BuildError("the disks differ in size")
    data[:] = old.data


def _old_data(lab: Lab, data: bytearray, disk: Disk) -> None:
    """The same under today's tree."""
    _old(lab, data, disk)
    data[disk.tree :] = disk.data[disk.tree :]


def _tree_bit(_: Lab, data: bytearray, disk: Disk) -> None:
    """In the hash of the block that the program reads first: behind superblock and root block come the leaves."""
    leaf = disk.tree + 2 * BLOCK
    data[leaf + where(data[: disk.tree], MOTD) // BLOCK * 32] ^= 1


def _tree_root(_: Lab, data: bytearray, disk: Disk) -> None:
    data[disk.tree + BLOCK] ^= 1


def _tree_zeroed(_: Lab, data: bytearray, disk: Disk) -> None:
    data[disk.tree + BLOCK :] = bytes(len(data) - disk.tree - BLOCK)


_CHANGES: dict[str, tuple[str, Change]] = {
    "file-bit": ("flips a bit of a file", _file_bit),
    "list-entry": ("flips a bit in the list of who is denied", _list_entry),
    "name": ("renames that list by a bit in its folder, and switches the superblock's checksum off", _name),
    "inode": ("cuts the list, by the size in its inode", _size),
    "exchanged": ("exchanges two blocks of the list", _exchanged),
    "zeroed": ("returns zeros for what it does not like", _zeroed),
    "old-disk": ("hands out the owner's disk of last week, with its own hash tree", _old),
    "old-data": ("hands out last week's data under today's hash tree", _old_data),
    "tree-bit": ("flips a bit in a leaf of the hash tree", _tree_bit),
    "tree-root": ("flips a bit in the hash tree's top", _tree_root),
    "tree-zeroed": ("returns zeros for the whole hash tree", _tree_zeroed),
}
_UNSEEN = {"tree-bit", "tree-root", "tree-zeroed", "exchanged"}
