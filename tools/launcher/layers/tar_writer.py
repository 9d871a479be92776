# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A tree → the one tar that stands for it. Written by hand: its bytes must not change with Python's tarfile.

POSIX.1-2017, pax, "ustar Interchange Format". A member has an extended header only if it needs one.
"""

from collections.abc import Callable
from typing import BinaryIO

from tools.launcher.layers import rules
from tools.launcher.layers.rules import Attributes, Kind, Path
from tools.launcher.layers.tar_reader import BLOCK
from tools.launcher.layers.tree import Folder, Inode, in_order

Copy = Callable[[Inode, BinaryIO], None]
"""Writes a file's content, which has the promised size."""

_KINDS = {Kind.FILE: b"0", Kind.WHITEOUT: b"0", Kind.SYMLINK: b"2", Kind.FIFO: b"6"}
_OCTAL_7, _OCTAL_11 = 1 << 21, 1 << 33


def write(root: Folder, output: BinaryIO, *, copy: Copy) -> None:
    """Write the archive: folders before what lies in them, names in the order of their bytes, ids as numbers."""
    first: dict[Inode, bytes] = {}
    for path, node in in_order(root):
        name = _name(path, node)
        if isinstance(node, Folder):
            assert node.attributes is not None, "Below.settle() comes first"
            output.write(_header(name, b"5", node.attributes))
            if node.opaque:
                output.write(_header(name + rules.OPAQUE, b"0", rules.PLAIN))
        elif node in first:
            output.write(_header(name, b"1", node.attributes, time=node.time, link=first[node]))
        else:
            first[node] = name
            size, link = node.size, node.target
            output.write(_header(name, _KINDS[node.kind], node.attributes, time=node.time, size=size, link=link))
            if size:
                copy(node, output)
                output.write(bytes(-size % BLOCK))
    output.write(bytes(2 * BLOCK))


def _name(path: Path, node: Folder | Inode) -> bytes:
    if isinstance(node, Folder):
        # The root has an entry of its own: without one its owner would be whoever makes the image.
        return b"./" if not path else b"/".join(path) + b"/"
    if node.kind is Kind.WHITEOUT:
        path = (*path[:-1], rules.WHITEOUT + path[-1])
    return b"/".join(path)


def _header(
    name: bytes, kind: bytes, attributes: Attributes, *, time: int = 0, size: int = 0, link: bytes = b""
) -> bytes:
    extended = {b"SCHILY.xattr." + key: value for key, value in attributes.xattrs.items()} if kind != b"1" else {}
    extended |= {key: text for key, text in ((b"path", name), (b"linkpath", link)) if len(text) > 100}
    numbers = (
        (b"uid", attributes.uid, _OCTAL_7), (b"gid", attributes.gid, _OCTAL_7), (b"size", size, _OCTAL_11),
    )  # fmt: skip
    extended |= {key: b"%d" % number for key, number, end in numbers if number >= end}
    block = _block(name, kind, mode=attributes.mode, ids=(attributes.uid, attributes.gid), time=time, size=size,
                   link=link)  # fmt: skip
    if not extended:
        return block
    records = b"".join(_record(key, value) for key, value in sorted(extended.items()))
    head = _block(b"././@PaxHeader", b"x", mode=0, ids=(0, 0), time=0, size=len(records), link=b"")
    return head + records + bytes(-len(records) % BLOCK) + block


def _block(name: bytes, kind: bytes, *, mode: int, ids: tuple[int, int], time: int, size: int, link: bytes) -> bytes:
    block = bytearray(BLOCK)
    block[0:100] = name[:100].ljust(100, b"\0")
    block[100:108] = b"%07o\0" % mode
    for at, number in ((108, ids[0]), (116, ids[1])):
        block[at : at + 8] = b"%07o\0" % (number if number < _OCTAL_7 else 0)
    block[124:136] = b"%011o\0" % (size if size < _OCTAL_11 else 0)
    block[136:148] = b"%011o\0" % time
    block[148:156] = b" " * 8
    block[156:157] = kind
    block[157:257] = link[:100].ljust(100, b"\0")
    block[257:265] = b"ustar\00000"
    block[329:337] = block[337:345] = b"0000000\0"
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def _record(key: bytes, value: bytes) -> bytes:
    """`LENGTH KEY=VALUE\\n`, whose length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    if len(b"%d" % length) > len(b"%d" % rest):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)
