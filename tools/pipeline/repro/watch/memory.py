# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What became of each artifact that was seen: one JSON file, written whole after each step.

Nothing rests on it but whether work is done again: an endorsement is what the registry has, not what is noted here.
"""

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tools.pipeline.base import files
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.store import locks

_SCHEMA = 1
_MAX = 64 << 20  # bytes
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class State(StrEnum):
    """What became of an artifact."""

    ENDORSED = "endorsed"
    """As the registry had it then: until that nears its end, or is there no more."""
    DIFFERENT = "different"
    """The rebuild gave other bytes: for good, unless another commit is claimed some day."""
    FAILED = "failed"
    """Something else was in the way: tried again later."""
    BEGUN = "begun"
    """A rebuild began, and whoever began it has not said how it ended: tried again at once."""


@dataclass(frozen=True, kw_only=True)
class Note:
    """On one artifact. `again`: seconds since the epoch from which on it is tried again; `tries` so far.

    `others`: commits that it is said to come from, and that gave other bytes.
    """

    state: State
    commit: str = ""
    why: str = ""
    tries: int = 0
    again: float = 0.0
    others: tuple[str, ...] = ()


class Memory:
    """By digest, in a file of `folder`, which is this user's alone."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "artifacts.json"
        locks.private_folder(folder)
        self._notes = self._read()

    def get(self, digest: str) -> Note | None:
        """The note on an artifact."""
        return self._notes.get(digest)

    def put(self, digest: str, note: Note) -> None:
        """Keep it: on the disk before this returns."""
        self._notes[digest] = note
        self._write()

    def keep(self, digests: Collection[str]) -> None:
        """Forget all others: what is there no more, and would be looked at anew."""
        gone = self._notes.keys() - set(digests)
        if gone:
            self._notes = {key: note for key, note in self._notes.items() if key not in gone}
            self._write()

    def _write(self) -> None:
        document = {"schema": _SCHEMA, "artifacts": {key: asdict(value) for key, value in self._notes.items()}}
        files.write_atomically(self._path, (json.dumps(document, indent=1, sort_keys=True) + "\n").encode(), mode=0o600)

    def _read(self) -> dict[str, Note]:
        if not self._path.exists():
            return {}
        try:
            document = json.loads(files.read_private(self._path, _MAX))
            notes: Any = document["artifacts"] if document["schema"] == _SCHEMA else None
            return {key: _note(value) for key, value in notes.items() if _DIGEST.fullmatch(key)}
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            hint = "remove it: what the registry has endorsed by this key is not rebuilt again"
            raise UserError("is damaged, or of another version", where=str(self._path), hint=hint) from None


def _note(value: dict[str, object]) -> Note:
    tries, again, others = value["tries"], value["again"], value.get("others", [])
    if not isinstance(tries, int) or not isinstance(again, int | float) or not isinstance(others, list):
        raise TypeError
    return Note(
        state=State(str(value["state"])),
        commit=str(value["commit"]),
        why=str(value["why"]),
        tries=tries,
        again=again,
        others=tuple(str(commit) for commit in others),
    )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One watcher a place and key: a second one waits."""
    with locks.locked(folder, "lock", waiting="waiting for another watcher of the same place"):
        yield
