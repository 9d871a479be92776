# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Records in a cache that only this user can have written.

A cache is a folder that others may reach: a shared disk, a volume restored from yesterday's CI run. Its files
are checked against their record, and the record against an HMAC whose key never lies in the cache. Whoever
plants a result, its record included, has planted nothing.
"""

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.pipeline.base import ambient
from tools.pipeline.base import files as digest
from tools.pipeline.base.errors import UserError

KEY_SIZE = 32  # bytes; HMAC-SHA256 gains nothing from a longer key (RFC 2104, section 3)
_KEY_FILE = "cache-key"


@dataclass(frozen=True, kw_only=True)
class Seal:
    """Seals records and recognises them again."""

    key: bytes = field(repr=False)

    def write(self, path: Path, record: Mapping[str, object], **kw) -> None:
        """Write the record with its seal, by rename."""
        document = {"record": record, "seal": self._mac(record)}
        digest.write_atomically(path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode())

    def read(self, path: Path, **kw) -> dict[str, Any] | None:
        """The record, or None when there is none or somebody else wrote it."""
        try:
            document = json.loads(path.read_bytes())
            record, found = document["record"], document["seal"]
            expected = self._mac(record)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        if not (isinstance(record, dict) and isinstance(found, str) and found.isascii()):
            return None
        return record if hmac.compare_digest(found, expected) else None

    def _mac(self, record: Mapping[str, object]) -> str:
        # Sorted and without white space: one text for one record.
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        return hmac.new(self.key, text.encode(), hashlib.sha256).hexdigest()


def load(folder: Path) -> Seal:
    """The seal with the key in `folder`, which is made at first use; UserError when that cannot be."""
    path = folder / _KEY_FILE
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            digest.write_once(path, ambient.random_bytes(KEY_SIZE), mode=0o600)
        key = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot be used: {error.strerror}",
            where=str(path),
            hint="set XDG_STATE_HOME to a folder that you can write to",
        ) from None
    if len(key) != KEY_SIZE:
        raise UserError(f"has {len(key)} bytes, not {KEY_SIZE}", where=str(path), hint="remove it")
    return Seal(key=key)
