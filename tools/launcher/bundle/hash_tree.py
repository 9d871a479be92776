# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A dm-verity hash tree behind the data that it is of, as `veritysetup format --hash-offset` writes it.

Kernel: Documentation/admin-guide/device-mapper/verity.rst; cryptsetup: lib/verity/verity.c (superblock of version 1).
Without salt and UUID: the same data must give the same root hash everywhere.
"""

import hashlib
import struct
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 4096
_DIGEST = 32
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s")


@dataclass(frozen=True, kw_only=True)
class HashTree:
    """What a kernel has to be told; `blocks` counts 4096-byte blocks of data, `salt` is in hexadecimal."""

    root_hash: str
    blocks: int
    salt: str = ""


def append(disk: BinaryIO, *, blocks: int) -> HashTree:
    """Write superblock and tree behind the `blocks` that the file has."""
    disk.seek(0)
    level = b"".join(_hashed(disk.read(BLOCK)) for _ in range(blocks))
    levels: list[bytes] = []
    while len(level) > _DIGEST:
        padded = level + bytes(-len(level) % BLOCK)
        levels.append(padded)
        level = b"".join(_hashed(padded[at : at + BLOCK]) for at in range(0, len(padded), BLOCK))
    superblock = _SUPERBLOCK.pack(b"verity\0\0", 1, 1, bytes(16), b"sha256", BLOCK, BLOCK, blocks, 0, bytes(256))
    disk.seek(blocks * BLOCK)
    disk.write(superblock.ljust(BLOCK, b"\0"))
    # The top comes first.
    for padded in reversed(levels):
        disk.write(padded)
    return HashTree(root_hash=level.hex(), blocks=blocks)


def _hashed(block: bytes) -> bytes:
    assert len(block) == BLOCK
    return hashlib.sha256(block).digest()
