# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The hashes table that QEMU writes into an SEV guest's memory for OVMF to verify its blobs against.

Every byte equals what QEMU's target/i386/sev.c (sev_add_kernel_loader_hashes) writes. The launcher builds the
table here, to put it into unprotected guests and for its launch digest; the pipeline's launch digest takes its
table from sev-snp-measure.
"""

import hashlib
import struct

from tools.sev.guid import guid

HEADER_GUID = guid("9438d606-4f22-4cc9-b479-a793d411fd21")
CMDLINE_GUID = guid("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
INITRD_GUID = guid("44baf731-3a2f-4bd7-9af1-41e29169781d")
KERNEL_GUID = guid("4de79437-abd2-427f-b835-d5b172d2045b")
_ENTRY = struct.Struct("<16sH32s")
# Header GUID and length, then three entries: 168 bytes.
_LENGTH = 18 + 3 * _ENTRY.size
TABLE_SIZE = 176
"""QEMU rounds the table up to 16 bytes, the unit of LAUNCH_UPDATE_DATA."""


def hashes_table(*, kernel_sha256: bytes, initrd_sha256: bytes | None, cmdline: str) -> bytes:
    """Return the 176 bytes of the table; an absent initrd counts as the empty string."""
    if initrd_sha256 is None:
        initrd_sha256 = hashlib.sha256(b"").digest()
    # The command line is hashed with its trailing NUL, as fw_cfg serves it.
    cmdline_sha256 = hashlib.sha256(cmdline.encode("ascii") + b"\0").digest()
    table = struct.pack("<16sH", HEADER_GUID, _LENGTH)
    for entry, digest in ((CMDLINE_GUID, cmdline_sha256), (INITRD_GUID, initrd_sha256), (KERNEL_GUID, kernel_sha256)):
        table += _ENTRY.pack(entry, _ENTRY.size, digest)
    return table.ljust(TABLE_SIZE, b"\0")
