# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What steps gave, by their keys: sealed records beside the content-addressed store.

    CACHE/results/ab/abcdef….json   key of a step → digest, size and executable bit of each output, and seconds;
                                    for what others have made: who (origin.py)
    CACHE/sha256/…                  the outputs themselves (cas.py)

A record is this user's word (seal.py) for one key: under another name it is no record.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store import merkle, origin
from tools.pipeline.engine.store.origin import OURS, Origin
from tools.pipeline.engine.store.seal import Seal

_KIND = "result"
_NAME = re.compile(r"([0-9a-f]{64})\.json")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished step: its key, its outputs by name, how long it ran, in seconds, and whose word that is."""

    key: str
    outputs: Mapping[str, merkle.File]
    seconds: float
    origin: Origin = OURS


@dataclass(frozen=True, kw_only=True)
class Results:
    """The records below `root`."""

    root: Path
    seal: Seal

    def read(self, key: str) -> Result | None:
        """The record of that key; None when there is none that this user wrote for it."""
        record = self.seal.read(self._path(key), kind=_KIND, key=key, root=self.root.parent)
        return None if record is None else _parse(key, record)

    def write(self, result: Result) -> None:
        """Keep a result. BuildError when it cannot be written."""
        outputs = {
            name: {"sha256": node.digest.sha256, "size": node.digest.size, "executable": node.executable}
            for name, node in result.outputs.items()
        }
        record: dict[str, object] = {"outputs": outputs, "seconds": round(result.seconds, 1)}
        if not result.origin.ours:
            record["origin"] = result.origin.document()
        path = self._path(result.key)
        try:
            self.seal.write(path, record, kind=_KIND, key=result.key, root=self.root.parent)
        except OSError as error:
            hint = "set SEV_ARTIFACTS_CACHE to another folder"
            raise BuildError(f"cannot be written: {error.strerror}", where=str(path), hint=hint) from None

    def entries(self) -> Iterator[tuple[str, int, float]]:
        """Key, size in bytes and last use (seconds since the epoch) of every record, whoever wrote it."""
        # From the cache's own folder on, as they are read: others may put a link in the place of any below it.
        for folder in sorted(self.root.glob("[0-9a-f][0-9a-f]")):
            for name, status in files.members(self.root.parent, self.root.name, folder.name):
                if match := _NAME.fullmatch(name):
                    yield match[1], status.st_size, status.st_mtime

    def used(self, key: str) -> None:
        """Say that the record was used just now; a cache that is mounted read-only is fine too."""
        with suppress(OSError):
            os.utime(self._path(key), follow_symlinks=False)

    def remove(self, key: str) -> None:
        """Remove a record, if it is there."""
        files.remove_member(self.root.parent, self.root.name, key[:2], f"{key}.json")

    def _path(self, key: str) -> Path:
        return self.root / key[:2] / f"{key}.json"


def _parse(key: str, record: Mapping[str, Any]) -> Result | None:
    """The record as a result. Only its form can be wrong, by another version of this code."""
    try:
        outputs = {
            str(name): merkle.File(
                digest=merkle.Digest(sha256=str(entry["sha256"]), size=int(entry["size"])),
                executable=bool(entry["executable"]),
            )
            for name, entry in record["outputs"].items()
        }
        whose = origin.parse(record["origin"]) if "origin" in record else OURS
        return Result(key=key, outputs=outputs, seconds=float(record["seconds"]), origin=whose)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
