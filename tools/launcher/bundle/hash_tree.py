# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A dm-verity hash tree behind the data that it is of, as `veritysetup format --hash-offset` writes it.

Kernel: Documentation/admin-guide/device-mapper/verity.rst; cryptsetup: lib/verity/verity.c (superblock of version 1).
Without salt and UUID: the same data must give the same root hash everywhere.
"""

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from tools.launcher.base.errors import UserError

BLOCK = 4096
DIGEST = 32
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s")


@dataclass(frozen=True, kw_only=True)
class HashTree:
    """What a kernel has to be told; `blocks` counts 4096-byte blocks of data, `salt` is in hexadecimal."""

    root_hash: str
    blocks: int
    salt: str = ""


def leaves(stream: BinaryIO, *, blocks: int) -> bytes:
    """The hashes of the next blocks of a stream, one after the other."""
    return b"".join(_hashed(stream.read(BLOCK)) for _ in range(blocks))


def size(blocks: int) -> int:
    """Bytes of a disk with that many blocks of data: data, superblock, tree."""
    return (blocks + 1 + sum(_levels(blocks))) * BLOCK


def _levels(blocks: int) -> list[int]:
    """Blocks of each level of a tree, the lowest first; one hash needs none."""
    levels: list[int] = []
    hashes = blocks
    while hashes > 1:
        hashes = -(-hashes // (BLOCK // DIGEST))
        levels.append(hashes)
    return levels


def read_leaves(disk: int, *, of: int, offset: int, blocks: int) -> bytes:
    """The hashes of `blocks` from `offset` on, out of the tree on a disk of `of` blocks; the disk is a descriptor."""
    levels = _levels(of)
    if not levels:
        return _hashed(os.pread(disk, BLOCK, 0))  # the only hash is the root
    # Behind the superblock the top comes first.
    lowest = (of + 1 + sum(levels[1:])) * BLOCK
    data = os.pread(disk, blocks * DIGEST, lowest + offset * DIGEST)
    if len(data) != blocks * DIGEST:
        raise UserError("ends too soon", where=f"a disk of {of} blocks")
    return data


def append(disk: BinaryIO, *, blocks: int, known: bytes | None = None) -> HashTree:
    """Write superblock and tree behind the `blocks` that the file has; `known` are their hashes, if somebody knows."""
    disk.seek(0)
    level = leaves(disk, blocks=blocks) if known is None else known
    assert len(level) == blocks * DIGEST
    levels: list[bytes] = []
    while len(level) > DIGEST:
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
