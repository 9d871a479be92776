# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where the contents of a tree's files lie, and how they get from there into the archive."""

import errno
import io
import os
import stat
from typing import BinaryIO

from tools.launcher.base.errors import UserError
from tools.launcher.layers.tar_writer import Copy
from tools.launcher.layers.tree import Inode

_CHUNK = 1 << 20


def of_archive(stream: BinaryIO, *, where: str) -> Copy:
    """Contents are stretches of one stream."""

    def copy(inode: Inode, output: BinaryIO) -> None:
        assert isinstance(inode.place, int)
        stream.seek(inode.place)
        _copy(stream, output, inode.size, where=where)

    return copy


def of_folder() -> Copy:
    """Contents are files; one that has become another since it was listed is refused."""

    def copy(inode: Inode, output: BinaryIO) -> None:
        assert isinstance(inode.place, bytes)
        where = os.fsdecode(inode.place)
        try:
            # No link is followed, and a fifo that took the file's place is not waited for.
            descriptor = os.open(inode.place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise UserError("changed while it was read", where=where) from None
            raise
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size != inode.size:
                raise UserError("changed while it was read", where=where)
            _copy(stream, output, inode.size, where=where)

    return copy


def _copy(source: BinaryIO | io.FileIO, output: BinaryIO, size: int, *, where: str) -> None:
    while size:
        data = source.read(min(size, _CHUNK))
        if not data:
            raise UserError("changed while it was read", where=where)
        output.write(data)
        size -= len(data)
