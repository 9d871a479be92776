# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The home of a user, from the /etc/passwd in a root file system that somebody else filled."""

import os
import stat
from pathlib import Path

_SIZE_MAX = 1 << 20


def home_of(root: Path, uid: int) -> str:
    """What HOME is for this user where nobody says it, as runc has it: "/" for one who is not in the file.

    No link is followed: it could lead to a file of the host's.
    """
    data = _read(root, ("etc", "passwd"))
    return in_passwd(data, uid)


def in_passwd(data: bytes, uid: int) -> str:
    """The same, from the file's bytes."""
    for line in data.decode("utf-8", "replace").split("\n"):
        fields = line.strip().split(":")
        if len(fields) > 5 and fields[2] == str(uid) and fields[5].startswith("/"):
            return fields[5]
    return "/"


def _read(root: Path, parts: tuple[str, ...]) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    opened: list[int] = []
    try:
        opened.append(os.open(root, flags & ~os.O_NOFOLLOW | os.O_DIRECTORY))
        for part in parts:
            opened.append(os.open(part, flags, dir_fd=opened[-1]))
        if not stat.S_ISREG(os.fstat(opened[-1]).st_mode):
            return b""
        with os.fdopen(opened.pop(), "rb") as stream:
            return stream.read(_SIZE_MAX)
    except OSError:
        return b""
    finally:
        for descriptor in opened:
            os.close(descriptor)
