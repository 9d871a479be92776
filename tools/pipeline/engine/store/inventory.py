# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What lies in the cache, by kind and age, and what of it may go.

    pins ──────────────────────────┐
    keys ── results.py ── outputs ─┴─ needed ─┐
    cas.py, results.py, partial/ ─────────────┴─ items ── choose() ── those to remove

A file is as old as its last use, or that of a result that names it: a result never outlives its outputs.
"""

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.pipeline.base import files
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.results import Results

DAY = 86_400.0  # seconds


class Kind(StrEnum):
    """What something in the cache is."""

    DOWNLOAD = "downloads"
    RESULT = "results of steps"
    TREE = "tool trees"
    UNFINISHED = "unfinished"
    OTHER = "other files"


@dataclass(frozen=True, kw_only=True)
class Item:
    """Something that can be removed by itself. `size` in bytes; `used` in seconds since the epoch."""

    kind: Kind
    size: int
    used: float
    needed: bool
    remove: Callable[[], object]


def items(cas: Cas, results: Results, *, pins: Collection[str], keys: Collection[str]) -> list[Item]:
    """Downloads, results and what is on its way. Needed: the pins by SHA-256, and the results of these keys."""
    found: list[Item] = []
    needed: set[str] = set(pins)
    last: dict[str, float] = {}
    for key, size, used in results.entries():
        result = results.read(key)
        outputs = [] if result is None else [node.digest.sha256 for node in result.outputs.values()]
        for sha256 in outputs:
            last[sha256] = max(used, last.get(sha256, 0.0))
        if key in keys:
            needed.update(outputs)
        found.append(_result(results, key, size=size, used=used, needed=key in keys))
    for entry in cas.entries():
        kind = Kind.DOWNLOAD if entry.sha256 in pins else Kind.RESULT if entry.sha256 in last else Kind.OTHER
        found.append(
            Item(
                kind=kind,
                size=entry.size,
                used=max(entry.used, last.get(entry.sha256, 0.0)),
                needed=entry.sha256 in needed,
                remove=lambda sha256=entry.sha256: cas.remove(sha256),  # type: ignore[misc]  # bound by default
            )
        )
    found += _unfinished(cas.root, needed=pins)
    return found


def _result(results: Results, key: str, *, size: int, used: float, needed: bool) -> Item:
    return Item(kind=Kind.RESULT, size=size, used=used, needed=needed, remove=lambda: results.remove(key))


def _unfinished(root: Path, *, needed: Collection[str]) -> Iterator[Item]:
    for name, status in files.members(root, "partial"):
        yield Item(
            kind=Kind.UNFINISHED,
            size=status.st_size,
            used=status.st_mtime,
            needed=name in needed,
            remove=lambda name=name: files.remove_member(root, "partial", name),  # type: ignore[misc]  # bound by default
        )


def choose(found: Iterable[Item], *, before: float, most: int | None = None) -> list[Item]:
    """What may go, the oldest first: not needed, and not used since `before` (seconds since the epoch).

    With `most`, also what was used since, as long as the sum of all sizes is above that many bytes.
    """
    everything = list(found)
    left = sum(item.size for item in everything)
    chosen = []
    for item in sorted(everything, key=lambda item: item.used):
        if item.needed or (item.used >= before and (most is None or left <= most)):
            continue
        chosen.append(item)
        left -= item.size
    return chosen


def disk_usage(folder: Path) -> int:
    """Bytes on the disk of all that is in a folder; each inode counts once. 0 when there is none."""
    total, seen = 0, set()
    for here, folders, names in os.walk(folder):
        for name in (*folders, *names):
            try:
                status = os.lstat(os.path.join(here, name))  # noqa: PTH118 (100,000 times)
            except FileNotFoundError:
                continue  # a build that runs removes what it has used
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                total += status.st_blocks * 512  # stat(2): blocks of 512 bytes, whatever the file system's are
    return total


def ages(found: Sequence[Item], *, now: float) -> tuple[int, int, int, int]:
    """Bytes that were last used within a day, a week, 30 days, and before."""
    sums = [0, 0, 0, 0]
    for item in found:
        days = (now - item.used) / DAY
        sums[next((n for n, limit in enumerate((1, 7, 30)) if days < limit), 3)] += item.size
    return sums[0], sums[1], sums[2], sums[3]
