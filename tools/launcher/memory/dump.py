# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes for people."""

from collections.abc import Iterator

_ROW = 16


def rows(data: bytes, *, address: int, around: int | None = None, count: int | None = None) -> Iterator[str]:
    """`ADDRESS  bytes  text`, sixteen bytes a row; equal rows as one with a star under it, as hexdump has it.

    `count` rows at most, around the byte `around` of the data; None: all.
    """
    first, last = 0, -(-len(data) // _ROW)
    if count is not None and last > count:
        first = min(max(0, (around or 0) // _ROW - count // 3), last - count)
        last = first + count
    previous, starred = b"", False
    for number in range(first, last):
        row = data[number * _ROW : (number + 1) * _ROW]
        if row == previous and number != last - 1:
            if not starred:
                yield "*"
            starred = True
            continue
        previous, starred = row, False
        left, right = row[:8].hex(" "), row[8:].hex(" ")
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{address + number * _ROW:012x}  {left:<23}  {right:<23}  |{text}|"
