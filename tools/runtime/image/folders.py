# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A folder or file of the host's, to be read in a guest → a tar, which the agent unpacks into a tmpfs.

Whoever owns the folder may change it meanwhile, and need not be root. So every name is opened below the descriptor of
the folder that it was found in, and no link is followed but at the very top, as mount(2) does.
"""

import os
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.launcher.base.errors import UserError
from tools.launcher.layers.from_folder import Note
from tools.launcher.layers.rules import shown

TOP = b"data"
"""What the archive has at its top: initramfs/agent/src/root/folders.rs."""
DEPTH_MAX = 200
_PAGE = 4096
_BYTES_PER_ENTRY, _FEW_ENTRIES = 1024, 8
"""What the agent's tmpfs has room for, and fewer: the same file."""
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TYPES = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFREG: tarfile.REGTYPE, stat.S_IFLNK: tarfile.SYMTYPE}
_OTHERS = {stat.S_IFSOCK: "socket", stat.S_IFIFO: "fifo", stat.S_IFCHR: "device", stat.S_IFBLK: "device"}


@dataclass(frozen=True, kw_only=True)
class Copied:
    """An archive of `entries` files, folders and links, which take `size` bytes in a tmpfs."""

    path: Path
    entries: int
    size: int


def folder_tar(source: Path, target: Path, *, limit: int, note: Note) -> Copied:
    """Write the new file `target`, to be unpacked into a tmpfs of `limit` bytes.

    Kept are contents, modes, owners, whole seconds of the last change, hard and symbolic links; extended attributes are
    not. Sockets, devices, fifos and what is mounted inside are left out with a note. UserError when it is more than
    the limit holds, when it changes while it is read, and for a source that is neither folder nor file.
    """
    try:
        with target.open("xb") as output:
            target.chmod(0o600)
            packer = _Packer(output, source, limit=limit, note=note)
            packer.pack()
    except OSError as error:
        target.unlink(missing_ok=True)
        where = error.filename if isinstance(error.filename, str) else str(source)
        raise UserError(error.strerror or str(error), where=where) from None
    except UserError:
        target.unlink(missing_ok=True)
        raise
    return Copied(path=target, entries=packer.entries, size=packer.size)


class _Packer:
    """`entries` and `size` are what was packed so far."""

    def __init__(self, output: BinaryIO, source: Path, *, limit: int, note: Note) -> None:
        # Names are bytes, and their form in the archive must not depend on this host's locale.
        self._archive = tarfile.open(  # noqa: SIM115  closed by pack()
            fileobj=output, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape"
        )
        self._source = source
        self._limit = limit
        self._note = note
        self._linked: dict[int, str] = {}
        self._device = 0
        self.entries = 0
        self.size = 0

    def pack(self) -> None:
        """All of it, and the archive's end."""
        with self._archive:
            descriptor = os.open(self._source.resolve(), _OPEN)
            try:
                status = os.fstat(descriptor)
                self._device = status.st_dev
                if stat.S_ISDIR(status.st_mode):
                    self._add(TOP, status, None)
                    self._fill(TOP, descriptor, depth=1)
                elif stat.S_ISREG(status.st_mode):
                    self._add(TOP, status, descriptor)
                else:
                    what = f"is a {_kind(status)}, for which no copy can stand"
                    raise UserError(what, where=str(self._source), hint="mount a folder or a file")
            finally:
                os.close(descriptor)

    def _fill(self, path: bytes, folder: int, *, depth: int) -> None:
        if depth > DEPTH_MAX:
            raise UserError(f"has folders more than {DEPTH_MAX} deep", where=str(self._source))
        for text in sorted(os.listdir(folder)):
            name = os.fsencode(text)
            inner = path + b"/" + name
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            mode = status.st_mode
            if status.st_dev != self._device:
                self._leave_out(inner, "another file system is mounted there")
            elif stat.S_ISLNK(mode):
                self._add(inner, status, None, link=os.readlink(name, dir_fd=folder))
            elif stat.S_ISDIR(mode) or stat.S_ISREG(mode):
                self._enter(inner, name, folder, status, depth=depth)
            else:
                self._leave_out(inner, _kind(status))

    def _enter(self, path: bytes, name: bytes, folder: int, status: os.stat_result, *, depth: int) -> None:
        descriptor = os.open(name, _OPEN, dir_fd=folder)
        try:
            opened = os.fstat(descriptor)
            if not os.path.samestat(opened, status) or stat.S_IFMT(opened.st_mode) != stat.S_IFMT(status.st_mode):
                raise self._changed(path)
            if stat.S_ISDIR(opened.st_mode):
                self._add(path, opened, None)
                self._fill(path, descriptor, depth=depth + 1)
            else:
                self._add(path, opened, descriptor)
        finally:
            os.close(descriptor)

    def _add(self, path: bytes, status: os.stat_result, content: int | None, *, link: bytes = b"") -> None:
        info = tarfile.TarInfo(_text(path))
        info.mode, info.uid, info.gid = stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        info.mtime = max(0, int(status.st_mtime))
        info.type, info.linkname = _TYPES[stat.S_IFMT(status.st_mode)], _text(link)
        if content is not None and status.st_nlink > 1:
            first = self._linked.setdefault(status.st_ino, info.name)
            if first != info.name:
                info.type, info.linkname, content = tarfile.LNKTYPE, first, None
        if content is None:
            self._count(len(link))
            self._archive.addfile(info)
            return
        info.size = status.st_size
        self._count(info.size)
        with open(content, "rb", buffering=0, closefd=False) as stream:
            try:
                self._archive.addfile(info, stream)
            except OSError as error:
                # tarfile's own, without a number: fewer bytes than there were.
                raise self._changed(path) if error.errno is None else error from None

    def _count(self, size: int) -> None:
        self.entries += 1
        self.size += -(-size // _PAGE) * _PAGE
        if self.size > self._limit or self.entries > self._limit // _BYTES_PER_ENTRY + _FEW_ENTRIES:
            what = f"more than fits into {self._limit} bytes: {self.entries} entries, {self.size} bytes so far"
            raise UserError(what, where=str(self._source), hint="allow more for copied folders, or mount less")

    def _leave_out(self, path: bytes, why: str) -> None:
        self._note(f"{self._source}: {_shown(path)} left out: {why}")

    def _changed(self, path: bytes) -> UserError:
        return UserError(f"{_shown(path)} changed while it was read", where=str(self._source), hint="try again")


def _kind(status: os.stat_result) -> str:
    return _OTHERS.get(stat.S_IFMT(status.st_mode), "file of an unknown type")


def _shown(path: bytes) -> str:
    return shown(path.removeprefix(TOP + b"/"))


def _text(name: bytes) -> str:
    """A name whose bytes in the archive are these."""
    return name.decode("utf-8", "surrogateescape")
