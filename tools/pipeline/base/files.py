# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""SHA-256 of files and folders, and files that are never half-written."""

import hashlib
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from tools.pipeline.base.errors import BuildError


def of_bytes(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_folder(root: Path) -> str:
    """SHA-256 over every member's path, type, executable bit and content or link target.

    Members are sorted by the bytes of their paths, so directory order does not matter; owners, times and
    the umask's share of the mode do not count, because no build step can see a difference in them.
    """
    total = hashlib.sha256()
    pending = [os.fsencode(root)]
    lines: list[bytes] = []
    while pending:
        folder = pending.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                name = os.path.relpath(entry.path, os.fsencode(root))
                if stat.S_ISDIR(mode):
                    pending.append(entry.path)
                    lines.append(b"d " + name)
                elif stat.S_ISLNK(mode):
                    lines.append(b"l " + name + b"\0" + os.readlink(entry.path))
                elif stat.S_ISREG(mode):
                    with open(entry.path, "rb") as file:
                        content = hashlib.file_digest(file, "sha256").hexdigest().encode()
                    lines.append((b"x " if mode & 0o100 else b"f ") + name + b"\0" + content)
                else:
                    raise BuildError("is neither a file, a folder nor a link", where=os.fsdecode(entry.path))
    for line in sorted(lines):
        total.update(line + b"\0\n")
    return total.hexdigest()


def write_atomically(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Write under a temporary name in the same folder, then rename; a reader sees old or new, never half.

    The mode is explicit, never the umask's.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_once(path: Path, data: bytes, *, mode: int) -> None:
    """Write a file unless it is there; of several that try at once, one wins and none sees half a file."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        temporary.chmod(mode)
        # A link, not a rename: it fails where the name is taken.
        with suppress(FileExistsError):
            path.hardlink_to(temporary)
    finally:
        temporary.unlink(missing_ok=True)


def write_if_changed(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Like write_atomically, but leaves a file with the same bytes alone."""
    if not (path.is_file() and path.read_bytes() == data and stat.S_IMODE(path.stat().st_mode) == mode):
        write_atomically(path, data, mode=mode)
