# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A tmpfs that an engine asks for, as a mount of the guest's memory."""

import re

from tools.launcher.base.errors import UserError
from tools.launcher.oci.container import Mount
from tools.sev.workload import document
from tools.sev.workload.canonical import INTEGER_MAX

_SIZE = re.compile(r"([0-9]{1,18})([kmgtKMGT]?)")
_MODE = re.compile(r"[0-7]{1,4}")
_UNITS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
_HALF = "50%"
_DEFAULT_MODE = 0o1777
_ALLOWED_BITS = 0o1777
_PASSED_OVER = frozenset({
    "rw", "nosuid", "nodev", "private", "rprivate", "noatime", "nodiratime", "relatime", "strictatime", "nostrictatime",
    "tmpcopyup", "notmpcopyup", "defaults",
})  # fmt: skip


def read(mount: Mount, *, memory: int) -> document.Mount:
    """The mount, in a guest with so many bytes of RAM; UserError for options that a guest cannot have."""
    length, mode, executable = memory // 2, _DEFAULT_MODE, True
    for option in mount.options:
        name, _, value = option.partition("=")
        if name == "size":
            length = memory // 2 if value == _HALF else _length(mount, value)
        elif name == "mode":
            mode = _mode(mount, value)
        elif option in ("exec", "noexec"):
            executable = option == "exec"
        elif option not in _PASSED_OVER:
            raise UserError(
                f"refused (from --tmpfs): the guest does not know the option {option[:60]!r} of a tmpfs",
                where=f"{mount.where}: {mount.target}",
            )
    return document.Mount(target=mount.target, length=length, mode=f"{mode:04o}", executable=executable)


def of_volume(mount: Mount, *, memory: int) -> document.Mount:
    """A volume that nobody gave a name: empty, so whoever it was for in the image must be able to write to it."""
    return document.Mount(target=mount.target, length=memory // 2, mode="1777", executable=True)


def _length(mount: Mount, text: str) -> int:
    match = _SIZE.fullmatch(text)
    length = int(match[1]) << _UNITS[match[2].lower()] if match else 0
    if not 0 < length <= INTEGER_MAX:
        raise UserError(
            f"refused (from --tmpfs): {text[:60]!r} is no size that a document can say: bytes, or a number and k, m, g",
            where=f"{mount.where}: {mount.target}",
        )
    return length


def _mode(mount: Mount, text: str) -> int:
    mode = int(text, 8) if _MODE.fullmatch(text) else _ALLOWED_BITS + 1
    if mode & ~_ALLOWED_BITS:
        raise UserError(
            f"refused (from --tmpfs): {text[:60]!r} is no mode of a folder in octal, sticky bit at most",
            where=f"{mount.where}: {mount.target}",
        )
    return mode
