# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Unpack the data member of a Debian package below a folder, and nowhere else.

A package is untrusted until its pin says otherwise, and a pinned one may still be wrong: every parent folder
is opened without following links, files are created and never overwritten, devices are refused, set-uid is
dropped, and sizes are bounded. Modes and times come from here, not from the archive, so that the same
packages give the same tree for every user and umask.
"""

import ctypes
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from libarchive import ffi
from libarchive.exception import ArchiveError

from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.merkle import Digest, File, Link

MTIME = 1735689600
"""Seconds; the same instant as SOURCE_DATE_EPOCH in sandbox.py."""
FOLDER_MODE = 0o755
_BUFFER = 256 << 10
_MAX_UNPACKED = 1 << 30  # bytes of one package; the largest of the tool tree has 0.2 GiB
_MAX_MEMBERS = 200_000
_MAX_PATH = 1024
_OPEN_FOLDERS = 64  # descriptors kept per package

_AR_MAGIC = b"!<arch>\n"  # deb(5)
_AR_HEADER = 60


@dataclass(frozen=True, kw_only=True)
class Member:
    """One path in the tree, and what is there: None for a folder."""

    path: bytes
    node: File | Link | None


def data_member(deb: bytes) -> memoryview:
    """The `data.tar…` member of the ar archive (deb(5)); ValueError if there is none."""
    if not deb.startswith(_AR_MAGIC):
        raise ValueError("is no ar archive")
    position = len(_AR_MAGIC)
    while position + _AR_HEADER <= len(deb):
        header = deb[position : position + _AR_HEADER]
        size_text = header[48:58].strip()
        if header[58:60] != b"`\n" or not size_text.isdigit():
            raise ValueError(f"has a broken ar header at byte {position}")
        start, size = position + _AR_HEADER, int(size_text)
        if start + size > len(deb):
            raise ValueError(f"has an ar member that ends after the file, at byte {position}")
        if header[:16].rstrip().removesuffix(b"/").startswith(b"data.tar"):
            return memoryview(deb)[start : start + size]
        position = start + size + size % 2
    raise ValueError("has no data.tar member")


class Unpacker:
    """Unpacks packages below one folder; each worker thread has its own."""

    def __init__(self, root: int, *, merged: tuple[bytes, ...], skip: tuple[bytes, ...]) -> None:
        """`root` is a descriptor of the tree's folder. `merged`: top-level names that live below usr."""
        self._root = root
        self._merged = merged
        self._skip = skip
        self._folders: dict[bytes, int] = {}
        self._members: dict[bytes, Member] = {}
        self._unpacked = 0

    def unpack(self, deb: bytes, *, name: str) -> list[Member]:
        """Unpack one package and return what it brought; BuildError names package and member."""
        self._members, self._unpacked = {}, 0
        try:
            self._read(bytes(data_member(deb)))
        except ValueError as error:
            raise BuildError(str(error), where=name) from None
        except ArchiveError as error:
            raise BuildError(f"is damaged: {error.msg}", where=name) from None
        except OSError as error:
            raise BuildError(f"cannot be unpacked: {error.strerror}", where=name) from None
        finally:
            self._close_folders()
        return list(self._members.values())

    def _read(self, data: bytes) -> None:
        buffer = ctypes.create_string_buffer(_BUFFER)
        with _archive(data) as archive:
            entry = ffi.entry_new()
            try:
                count = 0
                while ffi.read_next_header2(archive, entry) != ffi.ARCHIVE_EOF:
                    count += 1
                    if count > _MAX_MEMBERS:
                        raise ValueError(f"has more than {_MAX_MEMBERS} members")
                    self._member(archive, entry, buffer)
            finally:
                ffi.entry_free(entry)

    # Reading bytes, not text: libarchive's wide-character functions depend on the locale.
    def _member(self, archive: int, entry: int, buffer: "ctypes.Array[ctypes.c_char]") -> None:
        if len(self._folders) > _OPEN_FOLDERS:
            # Only between members, when no descriptor is in use; rare, as archives come folder by folder.
            self._close_folders()
        path = self._clean(ffi.entry_pathname(entry))
        # Before the first byte, a claim is cheaper than what it claims; and what is skipped must be unpacked, too.
        self._unpacked += ffi.entry_size(entry)
        if self._unpacked > _MAX_UNPACKED:
            raise ValueError(f"unpacks to more than {_MAX_UNPACKED} bytes at {_shown(path)}")
        if not path or self._skipped(path):
            return
        hard = ffi.entry_hardlink(entry)
        kind = ffi.entry_filetype(entry)
        if hard is not None:
            self._hard_link(path, self._clean(hard))
        elif kind == stat.S_IFDIR:
            if path not in self._merged:
                self._folder(path)
                self._note(path, None)
        elif kind == stat.S_IFLNK:
            self._link(path, ffi.entry_symlink(entry) or b"")
        elif kind == stat.S_IFREG:
            self._file(path, archive, executable=bool(ffi.entry_perm(entry) & 0o111), buffer=buffer)
        else:
            raise ValueError(f"holds {_shown(path)}, which is neither file, folder nor link")

    def _clean(self, path: bytes | None) -> bytes:
        """The path relative to the tree's root, with merged-/usr folders where they really are."""
        if path is None or path.startswith(b"/") or len(path) > _MAX_PATH:
            raise ValueError(f"holds an absolute, overlong or unreadable path {_shown(path or b'')}")
        parts = [part for part in path.split(b"/") if part not in {b"", b"."}]
        if b".." in parts:
            raise ValueError(f"holds a path with '..': {_shown(path)}")
        if len(parts) > 1 and parts[0] in self._merged:
            parts.insert(0, b"usr")
        return b"/".join(parts)

    def _skipped(self, path: bytes) -> bool:
        return any(path == skip or path.startswith(skip + b"/") for skip in self._skip)

    def _note(self, path: bytes, node: File | Link | None) -> None:
        self._members[path] = Member(path=path, node=node)

    def _folder(self, path: bytes) -> int:
        """A descriptor of the folder, which is made if need be; a link on the way is an error."""
        if not path:
            return self._root
        known = self._folders.get(path)
        if known is not None:
            return known
        parent, _, name = path.rpartition(b"/")
        above = self._folder(parent)
        try:
            os.mkdir(name, FOLDER_MODE, dir_fd=above)
            self._note(path, None)
        except FileExistsError:
            pass
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
        except OSError:
            raise ValueError(f"needs the folder {_shown(path)}, which is a link or a file") from None
        self._folders[path] = descriptor
        return descriptor

    def _close_folders(self) -> None:
        while self._folders:
            os.close(self._folders.popitem()[1])

    def _file(self, path: bytes, archive: int, *, executable: bool, buffer: "ctypes.Array[ctypes.c_char]") -> None:
        parent, _, name = path.rpartition(b"/")
        mode = 0o755 if executable else 0o644
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            file = os.open(name, flags, mode, dir_fd=self._folder(parent))
        except FileExistsError:
            raise ValueError(f"holds {_shown(path)}, which is there already") from None
        content, length = hashlib.sha256(), 0
        try:
            while size := ffi.read_data(archive, buffer, _BUFFER):
                if size < 0:
                    raise ValueError(f"is damaged at {_shown(path)}")
                view = memoryview(buffer)[:size]
                content.update(view)
                length += size
                while view:
                    view = view[os.write(file, view) :]
            os.fchmod(file, mode)
            os.utime(file, (MTIME, MTIME))
        finally:
            os.close(file)
        self._note(path, File(digest=Digest(sha256=content.hexdigest(), size=length), executable=executable))

    def _link(self, path: bytes, target: bytes) -> None:
        # Targets are not judged: nothing here follows a link, and in the sandbox the tree is the root.
        parent, _, name = path.rpartition(b"/")
        if path in self._merged and target == b"usr/" + path:
            return  # base-files brings the merged-/usr links, which are there already
        if not target:
            raise ValueError(f"holds an empty link {_shown(path)}")
        folder = self._folder(parent)
        try:
            os.symlink(target, name, dir_fd=folder)
        except FileExistsError:
            raise ValueError(f"holds {_shown(path)}, which is there already") from None
        os.utime(name, (MTIME, MTIME), dir_fd=folder, follow_symlinks=False)
        self._note(path, Link(target=target))

    def _hard_link(self, path: bytes, target: bytes) -> None:
        source = self._members.get(target)
        # Only to a file that this very package brought: nothing else can be reached through a hard link.
        if source is None or not isinstance(source.node, File):
            raise ValueError(f"holds a hard link {_shown(path)} to {_shown(target)}, which it did not bring")
        source_parent, _, source_name = target.rpartition(b"/")
        parent, _, name = path.rpartition(b"/")
        below = self._folder(parent)
        try:
            os.link(
                source_name,
                name,
                src_dir_fd=self._folder(source_parent),
                dst_dir_fd=below,
                follow_symlinks=False,
            )
        except FileExistsError:
            raise ValueError(f"holds {_shown(path)}, which is there already") from None
        self._note(path, source.node)


def _shown(path: bytes) -> str:
    return repr(path[:200].decode("utf-8", "backslashreplace"))


@contextmanager
def _archive(data: bytes) -> Iterator[int]:
    """A libarchive reader for a tar in memory, in any compression that dpkg-deb writes."""
    archive = ffi.read_new()
    try:
        for name in ("gzip", "xz", "zstd"):
            ffi.get_read_filter_function(name)(archive)
        ffi.get_read_format_function("tar")(archive)
        ffi.read_open_memory(archive, ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p), len(data))
        yield archive
    finally:
        ffi.read_free(archive)
