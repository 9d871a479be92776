# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an engine puts into a container's own layer before the start: places to mount at, and nothing else.

The guest never sees that layer. What else lies there (`docker cp`, a restart of a container that has written) would be
missing without a word, and mixed in it would be the host's under the image's name: it is refused.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.layers.rules import shown

_FILES = frozenset({
    b".dockerenv", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf", b"dev/console", b"run/.containerenv",
})  # fmt: skip
"""Empty ones: the engine mounts its own there, which the host supplies (docs/runtime-image.md)."""
_LINKS = {b"etc/mtab": b"/proc/mounts"}
_FOLDERS = frozenset({b"dev", b"dev/pts", b"dev/shm", b"dev/mqueue", b"proc", b"sys", b"run/secrets"})
_HINT = "a container starts from its image alone; make an image of what was put in, and a new container of that"
# What podman does for a user that the image does not know.
_ACCOUNTS = ("'etc/passwd'", "'etc/group'")
_HINT_ACCOUNTS = "`podman run --passwd=false` leaves the image's own"
_SHOWN_MAX = 3


def check(own: Iterable[Path], lower: tuple[Path, ...], *, made: Iterable[str], where: str) -> None:
    """UserError unless the folders `own`, the engine's layers of this one container, hold its inventions alone.

    `lower`: the image's layers, the uppermost first. `made`: paths in the container that the engine may have made as
    empty folders or files, such as the working directory and what is mounted at.
    """
    places = {os.fsencode(path).strip(b"/") for path in made} - {b""}
    found = [entry for folder in own for entry in _strange(os.fsencode(folder), lower, places)]
    if found:
        more = f" and {len(found) - _SHOWN_MAX} more" if len(found) > _SHOWN_MAX else ""
        what = f"the container's own layer has {', '.join(found[:_SHOWN_MAX])}{more}, which no image brought"
        accounts = all(entry.startswith(_ACCOUNTS) for entry in found)
        raise UserError(what, where=where, hint=_HINT_ACCOUNTS if accounts else _HINT)


def _strange(top: bytes, lower: tuple[Path, ...], places: set[bytes]) -> Iterator[str]:
    """What is neither on the list nor a folder as the image has it on the way to something on the list."""
    ways = {way for path in _FILES | _FOLDERS | set(_LINKS) | places for way in _above(path)}
    stack = [b""]
    while stack:
        path = stack.pop()
        place = os.path.join(top, path)  # noqa: PTH118  bytes
        status = os.lstat(place)
        if not _is_invention(path, place, status, places):
            known = path in ways or path in _FOLDERS or path in places
            if not (stat.S_ISDIR(status.st_mode) and known and _is_as_below(path, place, status, lower, places)):
                yield f"{shown(path or b'/')} ({_kind(status)})"
                continue
            stack += [
                os.path.join(path, name)  # noqa: PTH118  bytes
                for name in sorted(os.listdir(place), reverse=True)  # noqa: PTH208  bytes
            ]


def _above(path: bytes) -> Iterator[bytes]:
    yield b""
    parts = path.split(b"/")
    yield from (b"/".join(parts[:depth]) for depth in range(1, len(parts)))


def _is_invention(path: bytes, place: bytes, status: os.stat_result, places: set[bytes]) -> bool:
    if stat.S_ISLNK(status.st_mode):
        return _LINKS.get(path) == os.readlink(place)  # noqa: PTH115  bytes
    return stat.S_ISREG(status.st_mode) and status.st_size == 0 and path in _FILES | places


def _is_as_below(
    path: bytes, place: bytes, status: os.stat_result, lower: tuple[Path, ...], places: set[bytes]
) -> bool:
    """Whether a folder says nothing that the image's own does not say."""
    if any(name.endswith("overlay.opaque") for name in os.listxattr(place)):
        return False
    for layer in lower:
        try:
            below = os.lstat(os.path.join(os.fsencode(layer), path))  # noqa: PTH118  bytes
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISDIR(below.st_mode):
            return (below.st_mode, below.st_uid, below.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
        break
    # The engine made it. A working directory may be its user's.
    return path in places or (status.st_uid, status.st_gid) == (0, 0)


def _kind(status: os.stat_result) -> str:
    mode = status.st_mode
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISREG(mode):
        return f"file of {status.st_size} bytes"
    if stat.S_ISCHR(mode) and status.st_rdev == 0:
        return "taken away"
    return "symbolic link" if stat.S_ISLNK(mode) else "special file"
