# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What an OVMF image says at its end: the footer table and the SEV metadata that one of its entries names.

Layout: edk2, `OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm` (footer) and `…/X64/OvmfSevMetadata.asm` (metadata).
The last byte of the file is at guest address 4 GiB - 1; 48 bytes before the end stands the footer's GUID,
preceded by a u16 length of the whole table. Entries are read backwards: data, u16 length (of data, length and
GUID together), GUID. Everything is little-endian.

sev-snp-measure, by which the pipeline computes launch digests, has a parser of its own.
"""

import struct
from dataclasses import dataclass

from tools.sev.errors import FormatError
from tools.sev.guid import guid, guid_text
from tools.sev.hashes_table import TABLE_SIZE
from tools.sev.limits import PAGE

FOOTER_GUID = guid("96b582de-1fb2-45f7-baea-a366c55a082d")
HASHES_GUID = guid("7255371f-3a3b-4b04-927b-1da6efa8d454")
SECRET_GUID = guid("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
SEV_ES_RESET_GUID = guid("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
SEV_METADATA_GUID = guid("dc886566-984a-4798-a75e-5585a7bf67cc")
SECTION_NAMES = {1: "SEC_MEM", 2: "SECRETS", 3: "CPUID", 4: "SVSM_CAA", 0x10: "KERNEL_HASHES"}
"""Section types of the SEV metadata, version 1."""
NEEDED_SECTIONS = ("SEC_MEM", "SECRETS", "CPUID", "KERNEL_HASHES")
"""Without one of these QEMU cannot start an SNP guest whose kernel is measured."""
HINT = "build OVMF from OvmfPkg/AmdSev/AmdSevX64.dsc: only that platform verifies the kernel"

# The reset vector takes the last 16 bytes; the 16 before them end with the volume top file's signature.
_FOOTER_END = 32
_ENTRY = struct.Struct("<H16s")
_METADATA = struct.Struct("<4sIII")
_SECTION = struct.Struct("<III")


@dataclass(frozen=True, kw_only=True)
class Area:
    """A named range of guest-physical addresses, in bytes."""

    name: str
    base: int
    size: int

    @property
    def end(self) -> int:
        """First address after it."""
        return self.base + self.size

    def contains(self, other: "Area") -> bool:
        """Whether `other` lies inside completely."""
        return self.base <= other.base and other.end <= self.end

    def overlaps(self, other: "Area") -> bool:
        """Whether the two share at least one byte."""
        return self.base < other.end and other.base < self.end

    def __str__(self) -> str:
        return f"{self.name} ({self.base:#x}+{self.size:#x})"


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What the end of an image says.

    Addresses are guest-physical; None: the entry is not there. `sections` are those of the SEV metadata in
    their own order, in which SNP measures them; empty without metadata.
    """

    hashes: Area
    secret: Area | None
    sev_es_reset: int | None
    sections: tuple[Area, ...]

    @property
    def snp_missing(self) -> tuple[str, ...]:
        """What the SEV metadata lacks for an SNP guest with a measured kernel."""
        names = {section.name for section in self.sections}
        return tuple(name for name in NEEDED_SECTIONS if name not in names)


def parse_footer(image: bytes, *, where: str) -> Footer:
    """Read footer and metadata of a whole image; FormatError, prefixed with `where`, says what is wrong.

    An image without a place for the hashes table is refused, because it would start any kernel; whether the
    rest is there and as it should be is for firmware_check.
    """
    if not image or len(image) % PAGE:
        raise FormatError(
            f"{len(image)} bytes are no whole number of {PAGE}-byte pages; truncated?", where=where, hint=HINT
        )
    entries = _entries(image, where=where)
    hashes = entries.get(HASHES_GUID)
    if hashes is None:
        raise FormatError("the footer has no hashes table area", where=where, hint=HINT)
    area = _area(hashes, what="hashes table area", where=where)
    # OvmfPkgX64 has the entry with base 0 and size 0.
    if not area.base or area.size < TABLE_SIZE:
        raise FormatError(f"the {area} is invalid: it needs {TABLE_SIZE} bytes", where=where, hint=HINT)
    secret, reset = entries.get(SECRET_GUID), entries.get(SEV_ES_RESET_GUID)
    return Footer(
        hashes=area,
        secret=None if secret is None else _area(secret, what="secret area", where=where),
        sev_es_reset=None if reset is None else _u32(reset, what="SEV-ES reset address", where=where),
        sections=_sections(image, entries.get(SEV_METADATA_GUID), where=where),
    )


def _entries(image: bytes, *, where: str) -> dict[bytes, bytes]:
    end = len(image) - _FOOTER_END
    total, last = _ENTRY.unpack_from(image, end - _ENTRY.size)
    if last != FOOTER_GUID:
        raise FormatError("no OVMF footer 48 bytes before the end: truncated, or no OVMF code image", where=where)
    start = end - total
    if total < _ENTRY.size or start < 0:
        raise FormatError(f"the footer's length {total} is impossible", where=where)
    entries: dict[bytes, bytes] = {}
    position = end - _ENTRY.size
    while position > start:
        head = position - _ENTRY.size
        if head < start:
            raise FormatError(f"the footer has {position - start} stray bytes at its start", where=where)
        length, raw = _ENTRY.unpack_from(image, head)
        if length < _ENTRY.size or position - length < start:
            raise FormatError(f"the footer's entry {guid_text(raw)} has the impossible length {length}", where=where)
        if raw in entries:
            raise FormatError(f"the footer has entry {guid_text(raw)} twice", where=where)
        entries[raw] = image[position - length : head]
        position -= length
    return entries


def _sections(image: bytes, entry: bytes | None, *, where: str) -> tuple[Area, ...]:
    if entry is None:
        return ()
    # The entry holds the metadata's distance from the end of the image.
    distance = _u32(entry, what="offset of the SEV metadata", where=where)
    start = len(image) - distance
    if not 0 <= start <= len(image) - _METADATA.size:
        raise FormatError(f"the SEV metadata's offset {distance:#x} is outside the file", where=where)
    signature, length, version, count = _METADATA.unpack_from(image, start)
    if signature != b"ASEV":
        raise FormatError("the SEV metadata is not where the footer says: no ASEV there", where=where)
    if version != 1:
        raise FormatError(f"the SEV metadata has version {version}, known is 1", where=where)
    if length != _METADATA.size + _SECTION.size * count or length > distance:
        raise FormatError(f"the SEV metadata's length {length} does not fit {count} sections", where=where)
    return tuple(
        Area(name=SECTION_NAMES.get(kind, f"of type {kind:#x}"), base=base, size=size)
        for base, size, kind in _SECTION.iter_unpack(image[start + _METADATA.size : start + length])
    )


def _area(data: bytes, *, what: str, where: str) -> Area:
    if len(data) != 8:
        raise FormatError(f"the footer's {what} has {len(data)} bytes, not 8", where=where)
    base, size = struct.unpack("<II", data)
    return Area(name=what, base=base, size=size)


def _u32(data: bytes, *, what: str, where: str) -> int:
    if len(data) != 4:
        raise FormatError(f"the footer's {what} has {len(data)} bytes, not 4", where=where)
    return int.from_bytes(data, "little")
