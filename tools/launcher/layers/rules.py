# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What becomes of a file's properties in the normal form; docs/bundle.md has the table and the reasons.

Everything that enters a tree goes through here, whether it was read from a tar or from a folder.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from tools.launcher.base.errors import UserError

Path = tuple[bytes, ...]
"""Names from the root of a layer; the root itself is ()."""

Owner = tuple[int, int]
"""Ids of a user and of a group."""

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
NAME_MAX = 255
"""Of Linux and of EROFS."""
PATH_MAX = 4095
MODE_BITS = 0o7777
SYMLINK_MODE = 0o777
"""Linux has no other."""
ID_MAX = (1 << 32) - 2
"""The last one means "none" to Linux."""
TIME_END = 1 << 33
"""Seconds; what eleven octal digits hold, to the year 2242."""
XATTRS_MAX = 1 << 16
"""Bytes of all attributes of one file."""

CAPABILITY = b"security.capability"
_CAPABILITY_V2 = (0x02000000, 0x02000001)  # VFS_CAP_REVISION_2, without and with the effective bit
_CAPABILITY_V2_SIZE = 20
_OVERLAY = (b"trusted.overlay.", b"user.overlay.")
# They hold owner and mode in place of the file's own.
_ELSEWHERE = (b"user.fuseoverlayfs.", b"user.containers.override_stat", b"user.rootlesscontainers")
_ACL = (b"system.posix_acl_access", b"system.posix_acl_default")


class Kind(Enum):
    """What a name that is no folder stands for."""

    FILE = auto()
    SYMLINK = auto()
    FIFO = auto()
    WHITEOUT = auto()


@dataclass(frozen=True, kw_only=True, slots=True)
class Attributes:
    """Permissions, owner, extended attributes."""

    mode: int
    uid: int
    gid: int
    xattrs: Mapping[bytes, bytes] = field(default_factory=dict)


FOLDER = Attributes(mode=0o755, uid=0, gid=0)
"""A folder that no source describes; and every layer's root."""
PLAIN = Attributes(mode=0, uid=0, gid=0)
"""A whiteout."""


def shown(name: bytes | Path) -> str:
    """A name for an error's line."""
    text = b"/".join(name) if isinstance(name, tuple) else name
    return repr(text.decode("utf-8", "backslashreplace")[:100])


def path(name: bytes, *, where: str) -> Path:
    """The names in a path from an archive; UserError for one that leads out of the layer."""
    if b"\0" in name:
        raise UserError(f"{shown(name)}: a name with a NUL byte", where=where)
    if not name:
        raise UserError("a member without a name", where=where)
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise UserError(f"{shown(name)} leads out of the layer", where=where)
    if len(name) > PATH_MAX:
        raise UserError(f"{shown(name)}…: a path of {len(name)} bytes, more than {PATH_MAX}", where=where)
    for part in parts:
        if len(part.removeprefix(WHITEOUT)) > NAME_MAX:
            raise UserError(f"{shown(part)}…: a name of {len(part)} bytes, more than {NAME_MAX}", where=where)
    return parts


def target(text: bytes, name: Path, *, where: str) -> bytes:
    """What a symbolic link says: any bytes that Linux takes; it is followed in the guest, and never here."""
    if not text or b"\0" in text or len(text) > PATH_MAX:
        raise UserError(f"{shown(name)}: a symbolic link to {shown(text)}, which Linux cannot hold", where=where)
    return text


def owner(number: int, name: Path, *, where: str) -> int:
    """A user's or group's id."""
    if not 0 <= number <= ID_MAX:
        raise UserError(f"{shown(name)}: an owner with id {number}", where=where)
    return number


def time(seconds: int) -> int:
    """Whole seconds of a regular file's modification; 0 for what does not fit, as container engines have it."""
    return seconds if 0 <= seconds < TIME_END else 0


def xattrs(found: Mapping[bytes, bytes], name: Path, *, folder: bool, file: bool, where: str) -> dict[bytes, bytes]:
    """Those that are kept, sorted; UserError for what would mean something to somebody.

    Kept are user.* of files and folders, and capabilities of files. What hosts add for themselves (labels of SELinux,
    hashes of IMA) is left out.
    """
    kept: dict[bytes, bytes] = {}
    for key, value in sorted(found.items()):
        if key.startswith((*_OVERLAY, *_ELSEWHERE)):
            raise UserError(f"{shown(name)} has the attribute {shown(key)}, which is for overlayfs alone", where=where)
        if key in _ACL:
            # Dropped, the group would get what the mask grants.
            hint = "remove it, for example with `setfacl --remove-all --remove-default`"
            raise UserError(f"{shown(name)} has an access control list, which layers lack", where=where, hint=hint)
        if b"=" in key or b"\0" in key or len(key) > NAME_MAX:
            raise UserError(f"{shown(name)} has an attribute called {shown(key)}", where=where)
        if key == CAPABILITY and file:
            kept[key] = _capability(value, name, where=where)
        elif key.startswith(b"user.") and (folder or file):
            kept[key] = value
    check_size(kept, name, where=where)
    return kept


def check_size(xattrs: Mapping[bytes, bytes], name: Path, *, where: str) -> None:
    """UserError for more attributes than one file may have."""
    if sum(len(key) + len(value) for key, value in xattrs.items()) > XATTRS_MAX:
        raise UserError(f"{shown(name)} has more than {XATTRS_MAX} bytes of attributes", where=where)


def _capability(value: bytes, name: Path, *, where: str) -> bytes:
    # linux/capability.h: version 3 is bound to the user namespace that wrote it, version 1 is of 2.6.24.
    if len(value) != _CAPABILITY_V2_SIZE or int.from_bytes(value[:4], "little") not in _CAPABILITY_V2:
        raise UserError(f"{shown(name)} has file capabilities of another version than 2", where=where)
    return value
