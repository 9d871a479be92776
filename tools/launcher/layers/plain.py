# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What is compressed → what it was, within bounds, by its magic number; never by its name."""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from tools.launcher.base.errors import UserError

LIMIT = 64 << 30
"""Bytes of a decompressed layer, unless said otherwise."""

_CHUNK = 1 << 20
_GZIP, _XZ, _BZIP2, _ZSTD = b"\x1f\x8b", b"\xfd7zXZ\0", b"BZh", b"\x28\xb5\x2f\xfd"
_XZ_MEMORY = 256 << 20


def plain(source: BinaryIO, *, size: int, spool: Path, limit: int = LIMIT, where: str) -> tuple[BinaryIO, int]:
    """The stream itself when it is not compressed, else what it holds, written to the new file `spool`; and its size.

    UserError for more than `limit` bytes, and for what is damaged.
    """
    source.seek(0)
    magic = source.read(6)
    source.seek(0)
    if magic.startswith(_ZSTD):
        with _zstd(source, folder=spool.parent, where=where) as stream:
            return _spooled(stream, spool, limit=limit, where=where)
    if magic.startswith(_GZIP):
        return _spooled(gzip.GzipFile(fileobj=source, mode="rb"), spool, limit=limit, where=where)
    if magic.startswith(_XZ):
        return _spooled(_Xz(source), spool, limit=limit, where=where)
    if magic.startswith(_BZIP2):
        return _spooled(bz2.BZ2File(source, "rb"), spool, limit=limit, where=where)
    if size > limit:
        raise UserError(f"has {size} bytes, more than {limit}", where=where)
    return source, size


class _Xz(io.RawIOBase):
    """lzma.LZMAFile takes as much memory as the file asks for."""

    def __init__(self, source: BinaryIO) -> None:
        super().__init__()
        self._source = source
        self._decoder = lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes; none at the end."""
        while not self._decoder.eof:
            data = self._source.read(_CHUNK) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not data:
                raise EOFError("it ends too soon")
            found = self._decoder.decompress(data, size)
            if found:
                return found
        return b""


def _spooled(
    stream: IO[bytes] | io.BufferedIOBase | _Xz, path: Path, *, limit: int, where: str
) -> tuple[BinaryIO, int]:
    output = path.open("x+b")
    size = 0
    try:
        while data := stream.read(_CHUNK):
            size += len(data)
            if size > limit:
                raise UserError(f"unpacks to more than {limit} bytes", where=where)
            output.write(data)
    except (EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"cannot be decompressed: {error}", where=where) from None
    except OSError as error:
        if error.errno is None:  # what bz2 and gzip raise for bad data
            raise UserError(f"cannot be decompressed: {error}", where=where) from None
        raise
    output.seek(0)
    return output, size


@contextmanager
def _zstd(source: BinaryIO, *, folder: Path, where: str) -> Iterator[IO[bytes]]:
    """By Python itself from 3.14 on, else by the program: what comes out is the same, or the digest is another."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415 (older Pythons have none)

        try:
            with zstd.ZstdFile(source, "rb") as stream:
                yield stream
        except zstd.ZstdError as error:
            raise UserError(f"cannot be decompressed: {error}", where=where) from None
        return
    program = shutil.which("zstd")
    if program is None:
        raise UserError("is compressed with zstd", where=where, hint="install zstd, or use Python 3.14")
    # A file of its own: the source may be a stretch of another.
    with tempfile.TemporaryFile(dir=folder) as copied, tempfile.TemporaryFile(dir=folder) as said:
        shutil.copyfileobj(source, copied, _CHUNK)
        copied.seek(0)
        # By itself it refuses what wants more than 128 MiB of memory.
        argv = [program, "-d", "-c", "-q"]
        with subprocess.Popen(argv, stdin=copied, stdout=subprocess.PIPE, stderr=said) as process:
            assert process.stdout is not None
            yield process.stdout
        if process.returncode != 0:
            said.seek(0)
            reason = said.read(1 << 10).decode("utf-8", "replace").strip() or f"zstd ended with {process.returncode}"
            raise UserError(f"cannot be decompressed: {reason}", where=where)
