# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PTH101, PTH102, PTH123, PTH211  names are bytes, as they are in a file system
"""Layers for tests: described once, then laid out as a tar or as a folder, by code that the launcher shares none of."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.launcher.layers import layer
from tools.launcher.layers.below import Below

ROOT = os.geteuid() == 0
"""Only root can give files to others; anybody else's all belong to him, and are read as root's."""
OWNER = None if ROOT else (0, 0)


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a name stands for. `described`: an archive has an entry for the folder."""

    kind: str = "file"
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    nanoseconds: int = 0
    data: bytes = b""
    target: bytes = b""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)
    children: Mapping[bytes, "Node"] = field(default_factory=dict)
    described: bool = True
    opaque: bool = False
    # further names of a file, made behind it
    links: tuple[bytes, ...] = ()


def folder(children: Mapping[bytes, Node], *, mode: int = 0o755, **more: object) -> Node:
    return Node(kind="folder", mode=mode, children=children, **more)  # type: ignore[arg-type]  # `more`


def entries(node: Node, path: bytes = b"") -> Iterator[tuple[bytes, Node]]:
    """Everything below a folder with its path."""
    for name, child in node.children.items():
        inner = path + name
        yield inner, child
        if child.kind == "folder":
            yield from entries(child, inner + b"/")


def text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


_TYPES = {"file": tarfile.REGTYPE, "symlink": tarfile.SYMTYPE, "fifo": tarfile.FIFOTYPE, "folder": tarfile.DIRTYPE}


def members(root: Node) -> tuple[list[tuple[tarfile.TarInfo, bytes]], list[tuple[tarfile.TarInfo, bytes]]]:
    """An archive's members in any order, and the hard links that have to come behind them."""
    first: list[tuple[tarfile.TarInfo, bytes]] = []
    last: list[tuple[tarfile.TarInfo, bytes]] = []
    for path, node in entries(root):
        head, _, name = path.rpartition(b"/")
        parent = head + b"/" if head else b""
        if node.kind == "whiteout":
            first.append((_info(parent + b".wh." + name, Node(mode=0)), b""))
            continue
        if node.described or not node.children:
            first.append((_info(path, node), node.data))
        if node.opaque:
            first.append((_info(path + b"/.wh..wh..opq", Node(mode=0)), b""))
        for other in node.links:
            info = _info(parent + other, node)
            info.type, info.linkname, info.size = tarfile.LNKTYPE, text(path), 0
            last.append((info, b""))
    return first, last


def _info(path: bytes, node: Node) -> tarfile.TarInfo:
    info = tarfile.TarInfo(text(path))
    info.type = _TYPES[node.kind]
    info.mode, info.uid, info.gid, info.linkname = node.mode, node.uid, node.gid, text(node.target)
    info.size = len(node.data)
    info.uname, info.gname = "somebody", "some"
    info.pax_headers = {f"SCHILY.xattr.{key}": text(value) for key, value in node.xattrs.items()}
    seconds, fraction = divmod(node.nanoseconds, 10**9)
    info.mtime = seconds
    if fraction:
        info.pax_headers = {**info.pax_headers, "mtime": f"{seconds}.{fraction:09}"}
    return info


def pack(chosen: Sequence[tuple[tarfile.TarInfo, bytes]], *, prefix: str = "", form: int = tarfile.PAX_FORMAT) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for info, data in chosen:
            info.name = prefix + info.name
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def tar_of(root: Node) -> bytes:
    first, last = members(root)
    return pack([*first, *last])


def lay_out(root: Node, place: Path, *, overlay: str = "user.overlay.") -> None:
    """The same as overlayfs's upper folder."""
    place.mkdir(mode=0o700)
    top = os.fsencode(place)
    folders: list[tuple[bytes, Node]] = []
    for path, node in entries(root):
        at = top + b"/" + path
        if node.kind == "folder":
            os.mkdir(at)
            folders.append((at, node))
            if node.opaque:
                os.setxattr(at, f"{overlay}opaque", b"y")
        elif node.kind == "whiteout":
            os.mknod(at, stat.S_IFCHR, 0)
        else:
            _lay_out_file(at, node)
    # Last, and from below: what is put into a folder needs its permissions and moves its time.
    for at, node in reversed(folders):
        _describe(at, node if node.described or not node.children else folder({}))


def _lay_out_file(at: bytes, node: Node) -> None:
    if node.kind == "symlink":
        os.symlink(node.target, at)
    elif node.kind == "fifo":
        os.mkfifo(at)
    else:
        with open(at, "xb") as output:
            output.write(node.data)
    _describe(at, node)
    for other in node.links:
        os.link(at, at.rpartition(b"/")[0] + b"/" + other, follow_symlinks=False)


def _describe(at: bytes, node: Node) -> None:
    if ROOT:
        os.chown(at, node.uid, node.gid, follow_symlinks=False)
    for key, value in node.xattrs.items():
        os.setxattr(at, key, value, follow_symlinks=False)
    if node.kind != "symlink":
        os.chmod(at, node.mode)
    os.utime(at, ns=(node.nanoseconds, node.nanoseconds), follow_symlinks=False)


def normal_of_tar(data: bytes, below: Below | None = None, *, where: str = "layer.tar") -> bytes:
    output = io.BytesIO()
    layer.write_tar(layer.of_archive(io.BytesIO(data), size=len(data), where=where), below or Below(), output)
    return output.getvalue()


def normal_of_folder(place: Path, *, upper: bool = True) -> bytes:
    output = io.BytesIO()
    notes: list[str] = []
    layer.write_tar(
        layer.of_folder(place, upper=upper, userxattr=not ROOT, owner=OWNER, note=notes.append), Below(), output
    )
    assert not notes
    return output.getvalue()


def listing(normal: bytes) -> dict[str, tarfile.TarInfo]:
    """What Python's own tarfile sees in a normal form, in its order."""
    with tarfile.open(fileobj=io.BytesIO(normal), encoding="utf-8", errors="surrogateescape") as archive:
        return {info.name + ("/" if info.isdir() else ""): info for info in archive}
