# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the launcher needs from OVMF.fd: the footer table and the SEV metadata.

Layout: edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm (footer) and
OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm (metadata). All numbers little-endian.
"""

import struct
import uuid
from dataclasses import dataclass

from tools.launcher.base.errors import UserError

_TABLE = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_HASHES = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le
_SECRET = uuid.UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294").bytes_le
_ES_RESET = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e").bytes_le
_METADATA = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc").bytes_le
# The footer ends 32 bytes before the end of the image: the reset vector has those.
_FOOTER_END = 32
_ENTRY = struct.Struct("<H16s")
SECTION_NAMES = {1: "SEC_MEM", 2: "SECRETS", 3: "CPUID", 4: "SVSM_CAA", 0x10: "KERNEL_HASHES"}


@dataclass(frozen=True, kw_only=True)
class Section:
    """A named range of guest-physical addresses, in bytes."""

    name: str
    base: int
    size: int

    @property
    def end(self) -> int:
        """First address after it."""
        return self.base + self.size

    def overlaps(self, other: "Section") -> bool:
        """Whether the two share a byte."""
        return self.base < other.end and other.base < self.end

    def __str__(self) -> str:
        return f"{self.name} ({self.base:#x}+{self.size:#x})"


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """Addresses are guest-physical; `layout` is the SEV metadata in its own order, which SNP measures."""

    hashes_base: int
    hashes_size: int
    es_reset: int | None
    secret: Section | None
    layout: tuple[Section, ...]

    @property
    def has_secret_area(self) -> bool:
        """Whether a secret can be injected."""
        return self.secret is not None

    @property
    def sections(self) -> frozenset[str]:
        """Names in the SEV metadata."""
        return frozenset(section.name for section in self.layout)

    @property
    def snp_missing(self) -> tuple[str, ...]:
        """Metadata sections without which QEMU cannot start an SNP guest with a measured kernel."""
        return tuple(n for n in ("SEC_MEM", "SECRETS", "CPUID", "KERNEL_HASHES") if n not in self.sections)


def parse_firmware(image: bytes, *, where: str) -> Firmware:
    """Read footer and metadata; UserError when the image cannot start a guest with a measured kernel."""
    hint = "build OVMF from OvmfPkg/AmdSev/AmdSevX64.dsc"
    if not image or len(image) % 4096:
        raise UserError(f"{len(image)} bytes are no whole number of 4096-byte pages", where=where, hint=hint)
    entries = _footer(image, where=where)
    hashes = entries.get(_HASHES)
    if hashes is None:
        raise UserError(
            "the footer has no hashes table area: this firmware would not verify the kernel",
            where=where,
            hint=hint,
        )
    base, size = _unpack("<II", hashes, where=where, what="hashes table area")
    if not base or size < 176:
        raise UserError(f"hashes table area is invalid (base={base:#x} size={size:#x})", where=where, hint=hint)
    reset = entries.get(_ES_RESET)
    secret = entries.get(_SECRET)
    return Firmware(
        hashes_base=base,
        hashes_size=size,
        es_reset=None if reset is None else _unpack("<I", reset, where=where, what="SEV-ES reset block")[0],
        secret=None if secret is None else _secret(secret, where=where),
        layout=_layout(image, entries.get(_METADATA), where=where),
    )


def _unpack(layout: str, data: bytes, *, where: str, what: str) -> tuple[int, ...]:
    if len(data) < struct.calcsize(layout):
        raise UserError(f"{what} in the footer is too short", where=where)
    return struct.unpack_from(layout, data)


def _secret(entry: bytes, *, where: str) -> Section:
    base, size = _unpack("<II", entry, where=where, what="secret area")
    return Section(name="secret area", base=base, size=size)


def _footer(image: bytes, *, where: str) -> dict[bytes, bytes]:
    end = len(image) - _FOOTER_END
    if image[end - 16 : end] != _TABLE:
        raise UserError("no OVMF footer: truncated, or no OVMF code image", where=where)
    total = int.from_bytes(image[end - 18 : end - 16], "little")
    start = end - total
    if total < _ENTRY.size or start < 0:
        raise UserError(f"the footer's length {total} is impossible", where=where)
    entries: dict[bytes, bytes] = {}
    # Entries are read backwards: data, then u16 length of the whole entry, then its GUID.
    position = end - _ENTRY.size
    while position > start:
        if position - _ENTRY.size < start:
            raise UserError("the footer's entries do not add up to its length", where=where)
        length, guid = _ENTRY.unpack_from(image, position - _ENTRY.size)
        if length < _ENTRY.size or position - length < start:
            raise UserError(f"a footer entry's length {length} is impossible", where=where)
        if guid in entries:
            raise UserError("the footer has an entry twice", where=where)
        entries[guid] = image[position - length : position - _ENTRY.size]
        position -= length
    return entries


def _layout(image: bytes, entry: bytes | None, *, where: str) -> tuple[Section, ...]:
    if entry is None:
        return ()
    # The entry holds the metadata's distance from the end of the image.
    (distance,) = _unpack("<I", entry, where=where, what="SEV metadata")
    start = len(image) - distance
    if not 0 <= start <= len(image) - 16 or image[start : start + 4] != b"ASEV":
        raise UserError("the SEV metadata is not where the footer says", where=where)
    length, version, count = struct.unpack_from("<III", image, start + 4)
    if version != 1 or length != 16 + 12 * count or start + length > len(image):
        raise UserError("the SEV metadata's header is malformed", where=where)
    return tuple(
        Section(name=SECTION_NAMES.get(kind, f"{kind:#x}"), base=base, size=size)
        for base, size, kind in struct.iter_unpack("<III", image[start + 16 : start + length])
    )
