# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""EROFS images and the dm-verity superblock behind them.

EROFS: fs/erofs/erofs_fs.h (superblock at 1024). dm-verity: cryptsetup's on-disk format, version 1
(superblock of 512 bytes at the hash offset, here right after the file system).
"""

import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError

EROFS_OFFSET = 1024
EROFS_MAGIC = 0xE0F5E1E2
BLOCK = 4096
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
