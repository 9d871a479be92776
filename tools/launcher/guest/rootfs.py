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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.channel.protocol import RootKind
from tools.launcher.guest.verity import is_erofs

ENTRIES_MAX = 1_000_000
_CHUNK = 1 << 20
_CAPABILITY = "security.capability"
Note = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Rootfs:
    """An image file and its length in bytes."""

    path: Path
    kind: RootKind
    length: int


def prepare(source: Path, *, into: Path, note: Note) -> Rootfs:
    """Return the image for `source`; what has to be made is made in the folder `into`."""
    try:
        source = source.resolve(strict=True)
        status = source.stat()
        if stat.S_ISDIR(status.st_mode):
            target = into / "rootfs.tar"
            pack_directory(source, target, note=note)
            return Rootfs(path=target, kind=RootKind.TAR, length=target.stat().st_size)
        if not stat.S_ISREG(status.st_mode):
            raise UserError("--rootfs takes a directory, a tar or an EROFS image", where=str(source))
        with source.open("rb") as stream:
            head = stream.read(2048)
        return _from_file(source, head, into=into)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(source)
        if error.errno == errno.ENOSPC:
            raise UserError("no room for the root file system", where=str(into), hint="set TMPDIR") from None
        raise UserError(error.strerror or str(error), where=f"--rootfs {where}") from None


def _from_file(source: Path, head: bytes, *, into: Path) -> Rootfs:
    where = str(source)
    if is_erofs(head):
        return Rootfs(path=source, kind=RootKind.EROFS, length=source.stat().st_size)
    if is_tar(head):
        return Rootfs(path=source, kind=RootKind.TAR, length=source.stat().st_size)
    for magic, opener in _COMPRESSED:
        if head.startswith(magic):
            target = into / "rootfs.tar"
            _decompress(source, target, opener=opener)
            with target.open("rb") as stream:
                inner = stream.read(2048)
            if is_erofs(inner):
                return Rootfs(path=target, kind=RootKind.EROFS, length=target.stat().st_size)
            if not is_tar(inner):
                raise UserError("compressed, but no tar inside", where=where)
            return Rootfs(path=target, kind=RootKind.TAR, length=target.stat().st_size)
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        raise UserError("zstd-compressed", where=where, hint="run `zstd -d` on it first and give the result")
    if head.startswith(b"hsqs"):
        raise UserError("a squashfs image", where=where, hint="unpack it and give the directory, or make an EROFS")
    raise UserError("neither a tar nor an EROFS image", where=where)


def is_tar(head: bytes) -> bool:
    """Whether `head` begins with a tar header: its checksum is right, or two zero blocks (an empty tar)."""
    if len(head) < 512:
        return False
    block = head[:512]
    if not any(block):
        return len(head) >= 1024 and not any(head[512:1024])
    field = block[148:156].strip(b" \0")
    if not field or any(byte not in b"01234567" for byte in field):
        return False
    return int(field, 8) == sum(block[:148]) + 8 * 0x20 + sum(block[156:])


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


def _decompress(source: Path, target: Path, *, opener: Callable[[Path], io.BufferedIOBase]) -> None:
    try:
        with opener(source) as stream, target.open("xb") as output:
            while chunk := stream.read(_CHUNK):
                output.write(chunk)
    except (EOFError, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(f"cannot be decompressed: {error}", where=str(source)) from None
    except OSError as error:
        if error.errno is None:  # bz2 raises OSError for bad data
            raise UserError(f"cannot be decompressed: {error}", where=str(source)) from None
        raise


def pack_directory(source: Path, target: Path, *, note: Note) -> None:
    """Write a pax archive of `source`: names in bytewise order, ids and modes kept, one file system only."""
    target_status = target.parent.stat()
    with tarfile.open(target, "x", format=tarfile.PAX_FORMAT) as archive:
        for count, (path, name) in enumerate(_walk(source, note=note)):
            if count >= ENTRIES_MAX:
                raise UserError(f"more than {ENTRIES_MAX} files", where=str(source), hint="make an EROFS image of it")
            status = path.lstat()
            if os.path.samestat(status, target_status):
                raise UserError("contains the launcher's own run folder", where=str(source), hint="set TMPDIR")
            _add(archive, path, name)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    info = archive.gettarinfo(path, arcname=name)
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
