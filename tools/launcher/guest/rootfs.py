# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Turn --rootfs (a directory, a tar, an EROFS image) into the image that the guest's disk shows."""

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.launcher.base.errors import UserError
from tools.launcher.channel.protocol import RootKind
from tools.launcher.guest import tar_check
from tools.launcher.guest.verity import is_erofs

ENTRIES_MAX = 1_000_000
_CHUNK = 1 << 20
# What only a write into the run folder can meet: its file system, a quota or the limit of `ulimit -f` is full.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TAR = "rootfs.tar"
# As far as the magic numbers of other formats lie in their files.
_HEAD = 66 << 10
_UNPACK = "mount or unpack it and give the directory, or make an EROFS image of that"
# Offset, magic, what it is, what to do.
_OTHERS = (
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed", "run `zstd -d` on it first and give the result"),
    (0, b"hsqs", "a squashfs image", _UNPACK),
    (0, b"XFSB", "an XFS image", _UNPACK),
    (0, b"QFI\xfb", "a qcow2 disk", _UNPACK),
    (0, b"LUKS\xba\xbe", "an encrypted disk", _UNPACK),
    (0, b"0707", "a cpio archive", "unpack it with `cpio -id` and give the directory"),
    (0, b"PK\x03\x04", "a zip archive", "unpack it and give the directory"),
    (512, b"EFI PART", "a disk with partitions", _UNPACK),
    (1080, b"\x53\xef", "an ext2, ext3 or ext4 image", _UNPACK),
    (32769, b"CD001", "an ISO 9660 image", _UNPACK),
    (65600, b"_BHRfS_M", "a btrfs image", _UNPACK),
)
_CAPABILITY = "security.capability"
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Rootfs:
    """An image file and its length in bytes."""

    path: Path
    kind: RootKind
    length: int


def prepare(source: Path, *, into: Path, memory_mib: int, note: Note, limit_mib: int | None = None) -> Rootfs:
    """Return the image for `source`; what has to be made is made in the folder `into`.

    UserError for what a guest with that much RAM could not use; a pipe is read to its end. What is made may have
    `limit_mib`, None: as much as the RAM.
    """
    limit = (memory_mib if limit_mib is None else limit_mib) << 20
    try:
        mode = source.stat().st_mode
        if stat.S_ISDIR(mode):
            target = into / _TAR
            pack_directory(source.resolve(strict=True), target, note=note, limit=limit)
            return _tar(target, where=str(source), memory_mib=memory_mib)
        if stat.S_ISFIFO(mode):
            # A process substitution, or /dev/stdin: there is no file for QEMU to open.
            path = into / "rootfs.pipe"
            with source.open("rb") as pipe, path.open("xb") as output:
                _copy(pipe, output, limit=limit, where=str(source))
        elif stat.S_ISREG(mode):
            path = source.resolve(strict=True)
        else:
            raise UserError("--rootfs takes a directory, a tar, an EROFS image or a pipe", where=str(source))
        return _from_file(path, where=str(source), into=into, memory_mib=memory_mib, limit=limit)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(source)
        if error.errno in _FULL:
            what = f"no room for the root file system ({error.strerror})"
            raise UserError(what, where=str(into), hint="point TMPDIR to a folder with room") from None
        raise UserError(error.strerror or str(error), where=f"--rootfs {where}") from None


def _from_file(path: Path, *, where: str, into: Path, memory_mib: int, limit: int) -> Rootfs:
    head = _head(path)
    for magic, opener in _COMPRESSED:
        if head.startswith(magic):
            target = into / _TAR
            _decompress(path, target, opener=opener, where=where, limit=limit)
            path, head = target, _head(target)
            where = f"{where} (decompressed)"
            break
    if is_erofs(head):
        return Rootfs(path=path, kind=RootKind.EROFS, length=path.stat().st_size)
    if tar_check.is_header(head[: tar_check.BLOCK]):
        return _tar(path, where=where, memory_mib=memory_mib)
    for at, magic, what, hint in _OTHERS:
        if head[at : at + len(magic)] == magic:
            raise UserError(f"is {what}, neither a tar nor an EROFS image", where=where, hint=hint)
    if head and not any(head[: 2 * tar_check.BLOCK]):
        raise UserError("has no members: an empty archive, or a zeroed file", where=where)
    raise UserError("neither a tar nor an EROFS image" if head else "is empty", where=where)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD)


def _tar(path: Path, *, where: str, memory_mib: int) -> Rootfs:
    tar_check.check(path, where=where, memory_mib=memory_mib)
    return Rootfs(path=path, kind=RootKind.TAR, length=path.stat().st_size)


def _gunzip(path: Path) -> io.BufferedIOBase:
    return gzip.open(path, "rb")


def _unxz(path: Path) -> io.BufferedIOBase:
    return lzma.open(path, "rb")


def _bunzip2(path: Path) -> io.BufferedIOBase:
    return bz2.open(path, "rb")


_COMPRESSED: tuple[tuple[bytes, Callable[[Path], io.BufferedIOBase]], ...] = (
    (b"\x1f\x8b", _gunzip),
    (b"\xfd7zXZ\0", _unxz),
    (b"BZh", _bunzip2),
)


def _copy(source: BinaryIO | io.BufferedIOBase, target: BinaryIO, *, limit: int, where: str) -> None:
    """To its end, which must come before `limit` bytes: a small file may be decompressed to any size."""
    size = 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        _check_size(size, limit=limit, where=where)
        target.write(chunk)


def _check_size(size: int, *, limit: int, where: str) -> None:
    if size > limit:
        hint = "--rootfs-limit SIZE allows more; the default is the guest's RAM (--memory)"
        raise UserError(f"takes more than {limit >> 20} MiB on this host", where=where, hint=hint)


def _decompress(
    source: Path, target: Path, *, opener: Callable[[Path], io.BufferedIOBase], where: str, limit: int
) -> None:
    try:
        with opener(source) as stream, target.open("xb") as output:
            _copy(stream, output, limit=limit, where=f"{where} (decompressed)")
    except (EOFError, ValueError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"cannot be decompressed: {error}", where=where) from None
    except OSError as error:
        if error.errno is None:  # bz2 raises OSError for bad data
            raise UserError(f"cannot be decompressed: {error}", where=where) from None
        raise


def pack_directory(source: Path, target: Path, *, note: Note, limit: int | None = None) -> None:
    """Write a pax archive of `source`: names in bytewise order, ids and modes kept, one file system only.

    `limit` in bytes, for the contents of all files.
    """
    size = 0
    target_status = target.parent.stat()
    # Names are bytes, and their form in the archive must not depend on this host's locale.
    with tarfile.open(target, "x", format=tarfile.PAX_FORMAT, encoding="utf-8", errors="surrogateescape") as archive:
        for count, (path, name) in enumerate(_walk(source, note=note)):
            if count >= ENTRIES_MAX:
                raise UserError(f"more than {ENTRIES_MAX} files", where=str(source), hint="make an EROFS image of it")
            status = path.lstat()
            if os.path.samestat(status, target_status):
                raise UserError("contains the launcher's own run folder", where=str(source), hint="set TMPDIR")
            info = archive.gettarinfo(path, arcname=_utf8(name))
            size += info.size
            if limit is not None:
                _check_size(size, limit=limit, where=str(source))
            _add(archive, path, info)


def _add(archive: tarfile.TarFile, path: Path, info: tarfile.TarInfo) -> None:
    info.linkname = info.linkname if info.islnk() else _utf8(info.linkname)
    # Names of the host's users mean nothing in the guest, and would make the bytes depend on the host.
    info.uname = info.gname = ""
    # Whole seconds: a fraction would cost a pax header of 1 KiB for each file.
    info.mtime = int(info.mtime)
    if not info.isreg():
        archive.addfile(info)
        return
    try:
        capability = os.getxattr(path, _CAPABILITY, follow_symlinks=False)
    except OSError:
        pass
    else:
        info.pax_headers = {f"SCHILY.xattr.{_CAPABILITY}": capability.decode("utf-8", "surrogateescape")}
    with path.open("rb") as stream:
        archive.addfile(info, stream)


def _utf8(name: str) -> str:
    """A name as Python has it, whose bytes depend on the locale, as one whose bytes in UTF-8 are the name's."""
    return os.fsencode(name).decode("utf-8", "surrogateescape")


def _walk(source: Path, *, note: Note) -> Iterator[tuple[Path, str]]:
    device = source.stat().st_dev
    # Depth first on a stack of its own: a deep tree must not exhaust Python's.
    stack = [(source, ".")]
    while stack:
        path, name = stack.pop()
        yield path, name
        if not stat.S_ISDIR(path.lstat().st_mode) and name != ".":
            continue
        with os.scandir(path) as entries:
            children = sorted(entries, key=lambda entry: os.fsencode(entry.name), reverse=True)
        for entry in children:
            child, child_name = Path(entry.path), f"{name}/{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISSOCK(status.st_mode):
                note(f"{child}: socket left out of the root file system")
            elif status.st_dev != device:
                note(f"{child}: another file system is mounted there, left out")
            else:
                stack.append((child, child_name))
