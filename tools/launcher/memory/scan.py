# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Reading mappings of another process, in large pieces: what is found, and what the pages look like."""

import collections
import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from tools.launcher.memory.process import PAGE, Mapping, Process

_PIECE = 8 << 20
_SAMPLES = 1024
"""Pages of a mapping that are looked at closely."""
_NOT_THERE = {errno.EIO, errno.EFAULT, errno.EPERM}
_ZEROS = bytes(PAGE)
_HITS_MAX = 8
# Chi-square of 256 byte values in a page: 255 on average where all are equally likely, standard deviation 22.6.
_RANDOM_MAX = 255 + 6 * 23


@dataclass(kw_only=True)
class Seen:
    """What was seen of mappings. `hits`: addresses of each text, the first few; the others count bytes or pages.

    `zero`, `random` and `other` are of the pages that were looked at closely; `example` is the address of a random one.
    """

    size: int = 0
    touched: int = 0
    read: int = 0
    hits: dict[bytes, list[int]] = field(default_factory=dict)
    zero: int = 0
    random: int = 0
    other: int = 0
    example: int | None = None


def looks_random(page: bytes) -> bool:
    """Whether all byte values are about equally frequent, as in what is encrypted, or compressed."""
    expected = len(page) / 256
    counts = collections.Counter(page)
    missing = (256 - len(counts)) * expected
    return sum((count - expected) ** 2 for count in counts.values()) / expected + missing < _RANDOM_MAX


def scan(process: Process, mappings: Sequence[Mapping], texts: Sequence[bytes], *, sample: bool = False) -> Seen:
    """Read everything that was touched, and look for the texts; `sample`: look at pages, too.

    LauncherError when the process ends meanwhile. What cannot be read is no error, but is missing in `read`.
    """
    seen = Seen(hits={text: [] for text in texts})
    overlap = max(map(len, texts), default=1) - 1
    stretches = [stretch for mapping in mappings for stretch in process.touched(mapping)]
    seen.size = sum(mapping.size for mapping in mappings)
    seen.touched = sum(end - start for start, end in stretches)
    step = max(1, seen.touched // PAGE // _SAMPLES) * PAGE if sample else 0
    buffer = bytearray(_PIECE)
    for start, end in stretches:
        at = start
        while at < end:
            count = _read(process, buffer, at, end)
            if count == 0:
                at += PAGE
                continue
            seen.read += count
            _find(seen, buffer, count, at)
            if step:
                _sample(seen, buffer, count, at, step)
            # A text may lie across two pieces: read its beginning again.
            again = overlap if at + count < end and count > overlap else 0
            seen.read -= again
            at += count - again
    if seen.read == 0 and not process.mappings():
        raise process.gone()
    return seen


def _read(process: Process, buffer: bytearray, at: int, end: int) -> int:
    """How much could be read from there; 0 when the page there cannot be."""
    try:
        count = os.preadv(process.memory, [memoryview(buffer)[: end - at]], at)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return 0
        raise
    if count == 0:
        raise process.gone()
    return count


def _find(seen: Seen, buffer: bytearray, count: int, at: int) -> None:
    for text, hits in seen.hits.items():
        found = buffer.find(text, 0, count)
        while found >= 0 and len(hits) < _HITS_MAX:
            if at + found not in hits:
                hits.append(at + found)
            found = buffer.find(text, found + 1, count)


def _sample(seen: Seen, buffer: bytearray, count: int, at: int, step: int) -> None:
    """Every page whose address is a multiple of the step."""
    first = -(-at // step) * step
    for address in range(first, at + count - PAGE + 1, step):
        page = bytes(buffer[address - at : address - at + PAGE])
        if page == _ZEROS:
            seen.zero += 1
        elif looks_random(page):
            seen.random += 1
            seen.example = seen.example or address
        else:
            seen.other += 1


def page_at(process: Process, address: int) -> bytes:
    """The page around an address; empty when it cannot be read."""
    try:
        return os.pread(process.memory, PAGE, address // PAGE * PAGE)
    except OSError:
        return b""
