# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Files of the output folder that no runtime.toml names, against the SHA256SUMS beside them.

Against accidents, as for artifacts: another mkfs.erofs would make other bytes, in a digest that nobody else computes.
Whoever can write to the folder can write both, and the launcher too.
"""

import hashlib
from pathlib import Path

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.sev.formats import SUMS_NAME

_SUMS_MAX = 1 << 20  # bytes; it has a line of some eighty for each file
_FILE_MAX = 64 << 20
_REBUILD = "rebuild with ./doit build, or restore the file"


def checked(path: Path, *, hint: str) -> Path:
    """The path, once its file is what SHA256SUMS says; UserError when not, or with `hint` when it says nothing."""
    sums = path.parent / SUMS_NAME
    lines = files.read(sums, _SUMS_MAX, hint=hint).decode("utf-8", "replace").splitlines()
    # sha256sum's form: digest, blank, blank or asterisk, name.
    said = next((line[:64] for line in lines if line[64:65] == " " and line[66:] == path.name), None)
    if said is None:
        raise UserError(f"does not name {path.name}", where=str(sums), hint=hint)
    found = hashlib.sha256(files.read(path, _FILE_MAX, hint=hint)).hexdigest()
    if found != said:
        raise UserError(f"SHA-256 is {found}, {SUMS_NAME} says {said}", where=str(path), hint=_REBUILD)
    return path
