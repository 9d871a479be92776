# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The hashes table that QEMU writes into an SEV guest's memory for OVMF to verify its blobs against.

Every byte equals what QEMU's target/i386/sev.c (sev_add_kernel_loader_hashes) writes.
"""

import hashlib
import struct
import uuid

_HEADER = uuid.UUID("9438d606-4f22-4cc9-b479-a793d411fd21").bytes_le
_CMDLINE = uuid.UUID("97d02dd8-bd20-4c94-aa78-e7714d36ab2a").bytes_le
_INITRD = uuid.UUID("44baf731-3a2f-4bd7-9af1-41e29169781d").bytes_le
_KERNEL = uuid.UUID("4de79437-abd2-427f-b835-d5b172d2045b").bytes_le
_ENTRY = struct.Struct("<16sH32s")
# Header GUID and length, then three entries: 168 bytes.
_LENGTH = 18 + 3 * _ENTRY.size
# QEMU rounds the table up to 16 bytes, the unit of LAUNCH_UPDATE_DATA.
TABLE_SIZE = 176


def hashes_table(*, kernel_sha256: bytes, initrd_sha256: bytes | None, cmdline: str) -> bytes:
    """Return the 176 bytes of the table; an absent initrd counts as the empty string."""
    if initrd_sha256 is None:
        initrd_sha256 = hashlib.sha256(b"").digest()
    # The command line is hashed with its trailing NUL, as fw_cfg serves it.
    cmdline_sha256 = hashlib.sha256(cmdline.encode("ascii") + b"\0").digest()
    table = struct.pack("<16sH", _HEADER, _LENGTH)
    for guid, digest in ((_CMDLINE, cmdline_sha256), (_INITRD, initrd_sha256), (_KERNEL, kernel_sha256)):
        table += _ENTRY.pack(guid, _ENTRY.size, digest)
    return table.ljust(TABLE_SIZE, b"\0")
