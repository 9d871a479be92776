# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Small source archives, and what is in the ones that steps make."""

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import libarchive


def tar(members: Mapping[str, bytes], *, compress: str = "gz", mode: int = 0o644, mtime: int = 0) -> bytes:
    """An archive in the order of the mapping."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compress}") as archive:  # type: ignore[call-overload]  # mode is one of several literals
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), mode, mtime
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def contents(archive: bytes) -> dict[str, bytes]:
    """Path → bytes of the regular files in an archive, whatever its compression."""
    with _members(archive) as members:
        return {m.pathname.removeprefix("./"): b"".join(m.get_blocks()) for m in members if m.isfile}


def metadata(archive: bytes) -> list[tuple[str, int, int, int, int]]:
    """Path, mode, owner, group and time of each member, in order."""
    with _members(archive) as members:
        return [(m.pathname, m.mode & 0o7777, m.uid, m.gid, m.mtime) for m in members]


@contextmanager
def _members(archive: bytes) -> Iterator[libarchive.read.ArchiveRead]:
    with libarchive.memory_reader(archive) as members:
        yield members
