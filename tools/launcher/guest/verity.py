# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""EROFS images and the dm-verity superblock behind them.

EROFS: fs/erofs/erofs_fs.h (superblock at 1024). dm-verity: cryptsetup's on-disk format, version 1
(superblock of 512 bytes at the hash offset, here right after the file system).
"""

import hashlib
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.sev.workload import document

EROFS_OFFSET = 1024
EROFS_MAGIC = 0xE0F5E1E2
BLOCK = 4096
_DIGEST = 32
_SUPERBLOCK = struct.Struct("<8sII16s32sIIQH6x256s")
_HINT = "make it with `veritysetup format --hash-offset=<size of the EROFS image> IMAGE IMAGE`"


@dataclass(frozen=True, kw_only=True)
class Verity:
    """Parameters of a verity image; `data_blocks` counts 4096-byte blocks."""

    root_hash: str
    salt: str
    data_blocks: int

    @property
    def cmdline(self) -> str:
        """The kernel command line argument that makes the agent insist on this image."""
        return f"sev_agent.verity={self.root_hash}:{self.salt or '-'}:{self.data_blocks}"


def is_erofs(head: bytes) -> bool:
    """Whether the first 2 KiB of an image are those of an EROFS file system."""
    magic = head[EROFS_OFFSET : EROFS_OFFSET + 4]
    return len(magic) == 4 and int.from_bytes(magic, "little") == EROFS_MAGIC


def read_verity(image: Path, *, root_hash: str) -> Verity:
    """Find the superblock behind the EROFS file system in `image`; UserError when it does not fit."""
    if re.fullmatch(r"[0-9a-f]{64}", root_hash) is None:
        raise UserError("--verity wants the root hash, 64 lower-case hexadecimal digits")
    where = str(image)
    try:
        with image.open("rb") as stream:
            head = stream.read(EROFS_OFFSET + 128)
            if not is_erofs(head) or len(head) < EROFS_OFFSET + 128:
                raise UserError("--verity needs an EROFS image, this is none", where=where)
            size = os.fstat(stream.fileno()).st_size
            # u8 blkszbits at 12, u32 blocks at 36 of the EROFS superblock.
            block_bits = head[EROFS_OFFSET + 12]
            (blocks,) = struct.unpack_from("<I", head, EROFS_OFFSET + 36)
            if not 9 <= block_bits <= 12:
                raise UserError(f"EROFS with 2^{block_bits}-byte blocks", where=where)
            offset = blocks << block_bits
            if offset % BLOCK or not offset:
                raise UserError("the EROFS file system's size is no multiple of 4096", where=where)
            if offset + 2 * BLOCK > size:
                raise UserError("no hash tree behind the EROFS file system", where=where, hint=_HINT)
            stream.seek(offset)
            superblock = stream.read(_SUPERBLOCK.size)
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=f"--rootfs {where}") from None
    return _check(superblock, blocks=offset // BLOCK, root_hash=root_hash, where=where)


def check_layers(image: Path, wanted: document.Verity, *, where: str) -> None:
    """UserError unless the image is as long as layers and hash tree, and the tree's top has the document's root hash.

    The agent checks every block that is read; this tells at once that another disk was taken.
    """
    above = _tree_blocks(wanted.blocks)
    # The superblock stands between data and tree; of a single block there is no tree, it has the root hash itself.
    top = wanted.blocks + 1 if above else 0
    try:
        with image.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(wanted.blocks * BLOCK)
            superblock = stream.read(_SUPERBLOCK.size)
            stream.seek(top * BLOCK)
            block = stream.read(BLOCK)
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=where) from None
    needed = (wanted.blocks + 1 + above) * BLOCK
    if size < needed:
        raise UserError(f"has {size} bytes; the workload document's root has {needed}", where=where)
    found = _check(superblock, blocks=wanted.blocks, root_hash=wanted.root_hash, where=where)
    if found.salt != wanted.salt:
        raise UserError(
            f"the workload document's root has the salt {wanted.salt or '-'}, this {found.salt or '-'}", where=where
        )
    root_hash = hashlib.sha256(bytes.fromhex(wanted.salt) + block).hexdigest()
    if root_hash != wanted.root_hash:
        what = f"has the root hash {root_hash}, the workload document's root is {wanted.root_hash}"
        raise UserError(what, where=where)


def _tree_blocks(blocks: int) -> int:
    """Blocks of the hash tree over so many blocks of data."""
    total = 0
    while blocks > 1:
        blocks = -(-blocks * _DIGEST // BLOCK)
        total += blocks
    return total


def _check(superblock: bytes, *, blocks: int, root_hash: str, where: str) -> Verity:
    fields = _SUPERBLOCK.unpack(superblock) if len(superblock) == _SUPERBLOCK.size else None
    if fields is None or fields[0] != b"verity\0\0":
        raise UserError("no verity superblock right behind the EROFS file system", where=where, hint=_HINT)
    _, version, hash_type, _, algorithm, data_block, hash_block, data_blocks, salt_size, salt = fields
    wrong = [
        f"{name} {value} (must be {wanted})"
        for name, value, wanted in (
            ("superblock version", version, 1),
            ("hash type", hash_type, 1),
            ("algorithm", algorithm.rstrip(b"\0").decode("ascii", "replace"), "sha256"),
            ("data block size", data_block, BLOCK),
            ("hash block size", hash_block, BLOCK),
            ("number of data blocks", data_blocks, blocks),
        )
        if value != wanted
    ]
    if salt_size > 256:
        wrong.append(f"salt of {salt_size} bytes")
    if wrong:
        raise UserError(f"verity superblock with {', '.join(wrong)}", where=where, hint=_HINT)
    return Verity(root_hash=root_hash, salt=salt[:salt_size].hex(), data_blocks=data_blocks)
