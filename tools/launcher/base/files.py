# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Files that somebody named, read up to a limit."""

import os
import stat
from pathlib import Path

from tools.launcher.base.errors import UserError

_MIB = 1 << 20


def read(
    path: Path,
    limit: int,
    *,
    where: str | None = None,
    hint: str | None = None,
    most: str | None = None,
    regular: bool = False,
) -> bytes:
    """All of the file, at most `limit` bytes; UserError names it, or `where`. `most` is what it calls the limit."""
    data = beginning(path, limit + 1, where=where, hint=hint, regular=regular)
    if len(data) > limit:
        size = f"{limit >> 20} MiB" if limit % _MIB == 0 else f"{limit} bytes"
        raise UserError(f"larger than {most or size}", where=where or str(path), hint=hint)
    return data


def beginning(
    path: Path, count: int, *, where: str | None = None, hint: str | None = None, regular: bool = False
) -> bytes:
    """The file's first bytes, at most `count`; UserError as read().

    `regular`: whoever wrote the name may have put anything in the file's place, so a fifo is not waited for, and a
    device not read. Otherwise it may be a pipe, as with a shell's `<(…)`.
    """
    where = where or str(path)
    try:
        with open(path, "rb", opener=_without_waiting if regular else None) as stream:
            if regular and not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise UserError("no regular file", where=where, hint=hint)
            return stream.read(count)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else "cannot be read"
        raise UserError(what, where=where, hint=hint) from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
