# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""By what a layer's folder is known again, without reading what is in it.

Engines never change a layer, but may use its path again for another one. The folder is another inode then, or the same
number with another time of change, which nobody can set.
"""

import hashlib
import json
import os
import stat
from pathlib import Path

from tools.launcher.base.errors import UserError

FORM = 1
"""Raised when the same folder is to become another image: another normal form, other options of mkfs.erofs."""


def of_program(mkfs: Path) -> str:
    """SHA-256 of mkfs.erofs: another one may make other bytes."""
    try:
        with mkfs.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=str(mkfs)) from None


def of_layer(folder: Path, *, program: str, userxattr: bool) -> str:
    """Of a layer that an engine keeps."""
    check_owner(folder)
    return _digest(["layer", program, userxattr, str(folder), *_facts(folder.stat())])


def of_tree(folder: Path, *, program: str) -> tuple[str, int]:
    """Of a folder that anything may have happened in, and the latest time of change in it, in nanoseconds."""
    check_owner(folder)
    top = os.fsencode(folder)
    latest = 0
    digest = hashlib.sha256(_digest(["tree", program, str(folder)]).encode())
    stack = [(top, os.stat(top))]  # noqa: PTH116  bytes
    while stack:
        place, status = stack.pop()
        latest = max(latest, status.st_ctime_ns)
        digest.update(repr((place, _facts(status), status.st_size)).encode())
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(place) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
            stack += [(entry.path, entry.stat(follow_symlinks=False)) for entry in found]
    return digest.hexdigest(), latest


def of_image(layers: list[str]) -> str:
    """Of layers by their own, the lowest first."""
    return _digest(["image", *layers])


def check_owner(folder: Path) -> None:
    """UserError when somebody but root, or whoever runs this, could exchange the folder or what is above it.

    The folder itself has the mode that the image says, and is out of others' reach by those above.
    """
    for above in folder.parents:
        status = above.stat()
        open_to_others = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid not in (0, os.geteuid()) or open_to_others:
            raise UserError(f"others than root may change {above}, where it lies", where=str(folder))


def _facts(status: os.stat_result) -> list[int]:
    # The device's number is left out: it may be another after the machine has started again.
    return [status.st_ino, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_ctime_ns]


def _digest(what: list[object]) -> str:
    return hashlib.sha256(json.dumps([FORM, what]).encode()).hexdigest()
