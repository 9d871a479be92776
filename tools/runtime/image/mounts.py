# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What overlayfs is mounted at a container's root, and of which folders, by /proc/self/mountinfo.

Linux: Documentation/filesystems/proc.rst (mountinfo), overlayfs.rst (colons), fs/overlayfs/params.c (options).
Engines keep their options under a page by naming folders relative to a working directory that nobody tells.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import LauncherError, UserError

_MOUNTINFO = Path("/proc/self/mountinfo")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_COLON = re.compile(rb"(?:[^:\\]|\\.)*", re.DOTALL)
_CONTAINERD = b"/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots"


@dataclass(frozen=True, kw_only=True)
class Overlay:
    """Real paths. `lower`: the uppermost first, as overlayfs has them. `upper` is None for a read-only view."""

    lower: tuple[Path, ...]
    upper: Path | None
    userxattr: bool


@dataclass(frozen=True, kw_only=True)
class _Mount:
    point: bytes
    inside: bytes
    kind: bytes
    options: tuple[bytes, ...]

    def values(self, name: bytes) -> list[bytes]:
        """Of every option of that name, in order."""
        return [value for key, equals, value in (o.partition(b"=") for o in self.options) if equals and key == name]


def overlay_at(root: Path) -> Overlay | None:
    """The overlayfs that is mounted at `root`; None where something else is, or nothing.

    UserError for one whose folders cannot be told.
    """
    top = os.fsencode(os.path.realpath(root))
    mounts = list(_mounts(_MOUNTINFO.read_bytes()))
    # Of several at one place the last one is seen. A bind mount of a folder of one is a plain folder.
    mount = next((m for m in reversed(mounts) if m.point == top), None)
    if mount is None or mount.kind != b"overlay" or mount.inside != b"/":
        return None
    where = str(root)
    lower = _lower(mount, where=where)
    upper = next(iter(mount.values(b"upperdir")), None)
    names = lower if upper is None else [*lower, upper]
    if not all(name.startswith(b"/") for name in names):
        base = _base(top, names, upper=upper, mounts=mounts, where=where)
        lower = [os.path.join(base, name) for name in lower]  # noqa: PTH118  bytes
        upper = None if upper is None else os.path.join(base, upper)  # noqa: PTH118  bytes
    found = tuple(_real(name, where=where) for name in lower)
    return Overlay(
        lower=found,
        upper=None if upper is None else _real(upper, where=where),
        userxattr=b"userxattr" in mount.options,
    )


def _mounts(data: bytes) -> Iterator[_Mount]:
    for line in data.splitlines():
        before, dash, after = line.partition(b" - ")
        fields, rest = before.split(b" "), after.split(b" ")
        if not dash or len(fields) < 6 or len(rest) < 3:
            raise LauncherError("a line that is none", where=str(_MOUNTINFO))
        # Options are split before they are unescaped: Linux writes their own commas as \054.
        options = tuple(_plain(option) for option in b" ".join(rest[2:]).split(b","))
        yield _Mount(point=_plain(fields[4]), inside=_plain(fields[3]), kind=rest[0], options=options)


def _plain(text: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), text)


def _lower(mount: _Mount, *, where: str) -> list[bytes]:
    """In both of Linux's forms: lowerdir=A:B, colons in names escaped; or lowerdir+=A, one option each."""
    single = mount.values(b"lowerdir+")
    if mount.values(b"datadir+"):
        raise UserError("is an overlayfs with layers of data alone", where=where)
    if single:
        return single
    text = next(iter(mount.values(b"lowerdir")), b"")
    parts: list[bytes] = []
    at = 0
    while at <= len(text):
        match = _COLON.match(text, at)
        assert match is not None
        parts.append(_ESCAPED.sub(rb"\1", match[0]))
        at = match.end() + 1
    if not all(parts):
        raise UserError("is an overlayfs whose layers cannot be told", where=where)
    return parts


def _base(top: bytes, names: list[bytes], *, upper: bytes | None, mounts: list[_Mount], where: str) -> bytes:
    """The folder that relative names start from.

    Tried are the folders above the root, those of other overlays, containerd's own. On one file system the root of an
    overlayfs has its upper folder's inode number: that tells two engines with layers of the same names apart.
    """
    candidates: dict[bytes, None] = dict.fromkeys(_above(top))
    for mount in mounts:
        if mount.kind == b"overlay":
            for folder in (v for key in (b"upperdir", b"workdir") for v in mount.values(key) if v.startswith(b"/")):
                candidates |= dict.fromkeys(_above(folder))
    candidates[_CONTAINERD] = None
    fitting = {os.path.realpath(base) for base in candidates if _fits(base, names, upper=upper, top=top)}
    if len(fitting) != 1:
        doubt = "and nobody tells from where" if not fitting else "which fit two folders"
        what = f"its layers have relative names, {doubt}"
        hint = "fewer layers keep names absolute"
        raise UserError(what, where=where, hint=hint)
    return fitting.pop()


def _above(path: bytes) -> Iterator[bytes]:
    while path != b"/":
        path = os.path.dirname(path)  # noqa: PTH120  bytes
        yield path


def _fits(base: bytes, names: list[bytes], *, upper: bytes | None, top: bytes) -> bool:
    paths = [os.path.join(base, name) for name in names]  # noqa: PTH118  bytes
    if not all(os.path.isdir(path) for path in paths):  # noqa: PTH112  bytes
        return False
    if upper is None:
        return True
    return os.stat(os.path.join(base, upper)).st_ino == os.stat(top).st_ino  # noqa: PTH116, PTH118  bytes


def _real(name: bytes, *, where: str) -> Path:
    path = os.path.realpath(name)
    if not os.path.isdir(path):  # noqa: PTH112  bytes
        raise UserError(f"its layer {os.fsdecode(name)[:200]!r} is no folder here", where=where)
    return Path(os.fsdecode(path))
