# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Digests of folders: a Merkle tree of names, executable bits, links and contents.

A folder is encoded as the `Directory` message of the Remote Execution API (build.bazel.remote.execution.v2,
remote_execution.proto) in its canonical form, and its digest is the SHA-256 of that encoding: what is cached under
it here can be given to such a service unchanged. Owners, times and the umask's share of modes do not count,
because no step can see a difference in them.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.pipeline.base.errors import BuildError, UserError

_VARINT, _BYTES = 0, 2  # protobuf wire types
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Digest:
    """SHA-256 in hex, and size in bytes, of a file or of an encoded Directory."""

    sha256: str
    size: int

    @staticmethod
    def of(data: bytes) -> "Digest":
        """The digest of bytes in memory."""
        return Digest(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


@dataclass(frozen=True, kw_only=True)
class File:
    """A regular file."""

    digest: Digest
    executable: bool = False


@dataclass(frozen=True, kw_only=True)
class Link:
    """A symbolic link; `target` is not judged."""

    target: bytes


@dataclass(kw_only=True)
class Folder:
    """A folder while it is put together; digest() may be asked once nothing is added any more."""

    members: dict[bytes, "File | Link | Folder"] = field(default_factory=dict)

    def add(self, path: bytes, node: "File | Link | Folder") -> None:
        """Put a node at a relative path; folders on the way are made. ValueError when something is there."""
        parent, _, name = path.rpartition(b"/")
        folder = self.folder(parent) if parent else self
        if name in folder.members:
            raise ValueError(f"{os.fsdecode(path)!r} is there twice")
        folder.members[name] = node

    def folder(self, path: bytes) -> "Folder":
        """The folder at a relative path, made if it is not there; ValueError when something else is."""
        here = self
        for name in path.split(b"/"):
            match here.members.setdefault(name, Folder()):
                case Folder() as inner:
                    here = inner
                case _:
                    raise ValueError(f"{os.fsdecode(path)!r} runs through a file or link")
        return here

    def digest(self) -> Digest:
        """The digest of the folder and everything in it."""
        return Digest.of(self.encoded())

    def encoded(self) -> bytes:
        """The canonical encoding of the Directory message: each list sorted by name, fields in their order."""
        lists: dict[int, list[bytes]] = {1: [], 2: [], 3: []}
        for name, node in sorted(self.members.items()):
            if isinstance(node, File):
                flag = _field(4, 1) if node.executable else b""
                lists[1].append(_field(1, name) + _field(2, _digest(node.digest)) + flag)
            elif isinstance(node, Folder):
                lists[2].append(_field(1, name) + _field(2, _digest(node.digest())))
            else:
                lists[3].append(_field(1, name) + _field(2, node.target))
        return b"".join(_field(number, item) for number, items in lists.items() for item in items)


def _digest(digest: Digest) -> bytes:
    return _field(1, digest.sha256.encode()) + (_field(2, digest.size) if digest.size else b"")


def _field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3 | _VARINT) + _varint(value)
    return _varint(number << 3 | _BYTES) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def of_files(files: Mapping[str, File]) -> Folder:
    """A folder that holds files at the given relative paths."""
    root = Folder()
    for path, node in files.items():
        root.add(os.fsencode(path), node)
    return root


def read(root: Path) -> Folder:
    """The folder on disk, every file hashed; no link is followed.

    Raises BuildError for a member that is neither file, folder nor link.
    """
    return _read(os.fsencode(root))


def _read(path: bytes) -> Folder:
    folder = Folder()
    for entry in _entries(path):
        mode = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            folder.members[entry.name] = _read(entry.path)
        elif stat.S_ISLNK(mode):
            folder.members[entry.name] = Link(target=os.readlink(entry.path))  # noqa: PTH115 (bytes)
        elif stat.S_ISREG(mode):
            folder.members[entry.name] = File(digest=_hash(entry.path), executable=bool(mode & 0o100))
        else:
            raise BuildError("is neither a file, a folder nor a link", where=os.fsdecode(entry.path))
    return folder


def _entries(path: bytes) -> Iterator["os.DirEntry[bytes]"]:
    with os.scandir(path) as entries:
        # Not sorted: encoding sorts.
        yield from entries


def _hash(path: bytes) -> Digest:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return Digest(sha256=sha256, size=file.tell())


def file(path: Path, *, shown_as: str) -> File:
    """A regular file on disk, hashed; UserError, calling it `shown_as`, when there is none."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            return File(digest=_hash(os.fsencode(path)), executable=bool(mode & 0o100))
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=shown_as) from None
    raise UserError("is no regular file", where=shown_as)


def copy(source: Path, target: Path) -> Digest:
    """Copy a file's bytes to a new file; the digest is that of what was written."""
    total, size = hashlib.sha256(), 0
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as reader, target.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            total.update(chunk)
            size += writer.write(chunk)
    return Digest(sha256=total.hexdigest(), size=size)
