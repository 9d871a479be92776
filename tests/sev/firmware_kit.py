# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A made-up image of edk2's AmdSev platform whose parts a test can replace."""

import struct
import uuid
from dataclasses import dataclass, field

SIZE = 256 * 1024
VARS_SIZE = 64 * 1024
CODE_SIZE = 128 * 1024
FOOTER = "96b582de-1fb2-45f7-baea-a366c55a082d"
HASHES = "7255371f-3a3b-4b04-927b-1da6efa8d454"
SECRET = "4c2eb361-7d9b-4cc3-8081-127c90d3d294"
RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
METADATA = "dc886566-984a-4798-a75e-5585a7bf67cc"
NV_STORE = "fff12b8d-7696-4c8b-a985-2747075b4f50"
FFS2 = "8c8ce578-8a3d-4f1c-9935-896185c32dd3"
METADATA_OFFSET = 0x200


def volume(size: int, guid: str, *, length: int | None = None) -> bytearray:
    """A firmware volume: header of 72 bytes with a valid checksum, the rest erased flash."""
    header = bytearray(16) + uuid.UUID(guid).bytes_le
    header += struct.pack(
        "<Q4sIHHHBBIIII", size if length is None else length, b"_FVH", 0, 72, 0, 0, 0, 2, 1, size, 0, 0
    )
    checksum = -sum(struct.unpack("<36H", header)) & 0xFFFF
    struct.pack_into("<H", header, 50, checksum)
    return header + b"\xff" * (size - len(header))


def entry(guid: str, data: bytes, *, length: int | None = None) -> bytes:
    """One footer entry: data, u16 length, GUID."""
    return data + struct.pack("<H", len(data) + 18 if length is None else length) + uuid.UUID(guid).bytes_le


@dataclass
class Image:
    """The parts of an image, each replaceable by a test before `build`."""

    entries: dict[str, bytes] = field(
        default_factory=lambda: {
            METADATA: entry(METADATA, struct.pack("<I", METADATA_OFFSET)),
            HASHES: entry(HASHES, struct.pack("<II", 0x810C00, 0x400)),
            SECRET: entry(SECRET, struct.pack("<II", 0x810000, 0xC00)),
            RESET: entry(RESET, struct.pack("<I", 0x80B004)),
        }
    )
    sections: list[tuple[int, int, int]] = field(
        default_factory=lambda: [
            (0x800000, 0x9000, 1),
            (0x80A000, 0x3000, 1),
            (0x80D000, 0x1000, 2),
            (0x80E000, 0x1000, 3),
            (0x80F000, 0x1000, 4),
            (0x811000, 0xF000, 1),
            (0x810000, 0x1000, 0x10),
        ]
    )
    signature: bytes = b"ASEV"
    version: int = 1
    metadata_length: int | None = None
    table_length: int | None = None
    footer_guid: str = FOOTER

    def build(self) -> bytearray:
        image = volume(VARS_SIZE, NV_STORE) + volume(CODE_SIZE, FFS2) + volume(SIZE - VARS_SIZE - CODE_SIZE, FFS2)
        body = b"".join(struct.pack("<III", *section) for section in self.sections)
        length = 16 + len(body) if self.metadata_length is None else self.metadata_length
        start = SIZE - METADATA_OFFSET
        head = struct.pack("<4sIII", self.signature, length, self.version, len(self.sections))
        image[start:SIZE] = (head + body + image[start + 16 + len(body) :])[:METADATA_OFFSET]
        table = b"".join(self.entries.values())
        length = len(table) + 18 if self.table_length is None else self.table_length
        table += entry(self.footer_guid, b"", length=length)
        end = SIZE - 32
        image[end - len(table) : end] = table
        image[SIZE - 20 : SIZE - 16] = b"VTF\0"
        return image
