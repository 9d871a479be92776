# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Records in a cache that only this user can have written.

A cache is a folder that others may reach: a shared disk, a volume restored from yesterday's CI run. Its files
are checked against their record, and the record against an HMAC whose key never lies in the cache. Whoever
plants a result, its record included, has planted nothing; nor has who puts a genuine record, of last year's lock
say, in another's place: each says what it is a record of.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient, files
from tools.pipeline.base.errors import UserError

KEY_SIZE = 32  # bytes; HMAC-SHA256 gains nothing from a longer key (RFC 2104, section 3)
_KEY_FILE = "cache-key"
_MAX = 1 << 20  # bytes of a record; ours have a few hundred for each output


@dataclass(frozen=True, kw_only=True)
class Seal:
    """Seals records and recognises them again."""

    key: bytes = field(repr=False)

    def write(self, path: Path, record: Mapping[str, object], *, kind: str, key: str, root: Path | None = None) -> None:
        """Write the record with its seal, by rename. `kind` and `key` say of what thing it is the record.

        Others may write below `root` (the path's folder unless given): no link there is followed.
        """
        sealed = {"kind": kind, "key": key, "record": record}
        document = {**sealed, "seal": self._mac(sealed)}
        top = root or path.parent
        names = path.relative_to(top).parts
        files.write_member(top, *names, data=(json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    def read(self, path: Path, *, kind: str, key: str, root: Path | None = None) -> dict[str, Any] | None:
        """The record, or None when there is none, somebody else wrote it, or it is another thing's."""
        top = root or path.parent
        try:
            document = json.loads(files.read_member(top, *path.relative_to(top).parts, limit=_MAX) or b"")
            record, found = document["record"], document["seal"]
            # Not what the file says that it is, but what is asked for.
            expected = self._mac({"kind": kind, "key": key, "record": record})
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if not (isinstance(record, dict) and isinstance(found, str) and found.isascii()):
            return None
        return record if hmac.compare_digest(found, expected) else None

    def _mac(self, sealed: Mapping[str, object]) -> str:
        # Sorted and without white space: one text for one record.
        text = json.dumps(sealed, sort_keys=True, separators=(",", ":"))
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


def load(folder: Path) -> Seal:
    """The seal with the key in `folder`, which is made at first use; UserError when that cannot be.

    So it is for a key that is another's, or that others can read: they could seal what they like.
    """
    path = folder / _KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            files.write_once(path, ambient.random_bytes(KEY_SIZE), mode=0o600)
        with path.open("rb") as file:
            files.check_private(os.fstat(file.fileno()), path)
            key = file.read(KEY_SIZE + 1)
    except OSError as error:
        raise UserError(
            f"cannot be used: {error.strerror}",
            where=str(path),
            hint="set XDG_STATE_HOME to a folder that you can write to",
        ) from None
    if len(key) != KEY_SIZE:
        size = path.stat().st_size
        raise UserError(f"has {size} bytes, not {KEY_SIZE}", where=str(path), hint="remove it")
    return Seal(key=key)
