# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Parse and check the footer of an OVMF image.

QEMU and the launch digest take all that they need to know about the firmware from a table at the end of
the file. A file that lacks part of it still gives a plausible digest, or boots without verifying the kernel,
so the built file is checked here before anything is computed from it.

Layout, from edk2 (`OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm`, `…/X64/OvmfSevMetadata.asm`): the last byte
of the file is at guest address 4 GiB - 1; 48 bytes before the end stands the footer GUID, preceded by a u16
length of the whole table. Entries are read backwards: data, u16 length (data, length and GUID together),
GUID. Everything is little-endian. Volume headers: UEFI PI specification 1.8, volume 3, section 3.2.1.
"""

import struct
import sys
import uuid
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from tools.pipeline.base.errors import BuildError, SevArtifactsError, UserError

_T = TypeVar("_T")

FOUR_GIB = 1 << 32
PAGE = 4096

FOOTER_GUID = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d")
HASHES_GUID = uuid.UUID("7255371f-3a3b-4b04-927b-1da6efa8d454")
SECRET_GUID = uuid.UUID("4c2eb361-7d9b-4cc3-8081-127c90d3d294")
SEV_ES_RESET_GUID = uuid.UUID("00f771de-1a7e-4fcb-890e-68c77e2fb44e")
SEV_METADATA_GUID = uuid.UUID("dc886566-984a-4798-a75e-5585a7bf67cc")
# gEfiSystemNvDataFvGuid: the volume that opens an unsplit image.
VARIABLE_STORE_GUID = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50")

# The reset vector takes the last 16 bytes; the 16 before them end with the volume top file's signature.
_FOOTER_END = 32
_ENTRY_HEAD = 18
_VTF_SIGNATURE = (-20, b"VTF\0")
# QEMU writes 168 bytes of table, padded to 16 (target/i386/sev.c, PaddedSevHashTable).
_HASHES_TABLE_SIZE = 176
_FV_HEADER_MIN = 56


class SectionType(IntEnum):
    """Section types of the SEV metadata, version 1 (`OvmfSevMetadata.asm`)."""

    SEC_MEM = 1
    SECRETS = 2
    CPUID = 3
    SVSM_CAA = 4
    KERNEL_HASHES = 0x10


@dataclass(frozen=True, kw_only=True)
class Area:
    """A range of guest-physical addresses, in bytes."""

    base: int
    size: int

    @property
    def end(self) -> int:
        """First address after the area."""
        return self.base + self.size

    def contains(self, other: "Area") -> bool:
        """Whether `other` lies inside completely."""
        return self.base <= other.base and other.end <= self.end

    def overlaps(self, other: "Area") -> bool:
        """Whether the two share at least one byte."""
        return self.base < other.end and other.base < self.end

    def __str__(self) -> str:
        return f"{self.base:#x}+{self.size:#x}"


@dataclass(frozen=True, kw_only=True)
class Section:
    """One entry of the SEV metadata: what the host must prepare before launch."""

    type: SectionType
    area: Area


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What the end of an OVMF image says. `file_size` in bytes; addresses are guest-physical."""

    file_size: int
    hashes: Area | None
    secret: Area | None
    sev_es_reset: int | None
    sections: tuple[Section, ...] | None


def check_firmware(path: Path, *, file_size: int) -> Footer:
    """Read, parse and check a built image that must have exactly `file_size` bytes.

    Raises `UserError` when the file cannot be read, `BuildError` for all that is wrong with its contents.
    """
    try:
        image = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read firmware: {error.strerror}", where=str(path)) from error
    footer = parse_footer(image, where=str(path))
    check_footer(footer, file_size=file_size, where=str(path))
    return footer


def parse_footer(image: bytes, *, where: str) -> Footer:
    """Parse a whole image. Raises `BuildError` (prefixed with `where`) unless it is structurally sound.

    Missing entries are None here; `check_footer` decides what must be there.
    """
    _check_volumes(image, where=where)
    entries = _table_entries(image, where=where)
    reset = entries.get(SEV_ES_RESET_GUID)
    offset = entries.get(SEV_METADATA_GUID)
    return Footer(
        file_size=len(image),
        hashes=_area(entries.get(HASHES_GUID), what="hashes table area", where=where),
        secret=_area(entries.get(SECRET_GUID), what="secret area", where=where),
        sev_es_reset=None if reset is None else _u32(reset, what="SEV-ES reset block", where=where),
        sections=None
        if offset is None
        else _sections(image, offset=_u32(offset, what="SEV metadata offset", where=where), where=where),
    )


def check_footer(footer: Footer, *, file_size: int, where: str) -> None:
    """Check that the image can start SEV, SEV-ES and SNP guests with a verified kernel.

    Raises `UserError` when `file_size` itself makes no sense, `BuildError` when the image is not as wanted.
    """
    if file_size <= 0 or file_size % PAGE:
        raise UserError(f"wanted firmware size {file_size} is not a positive multiple of {PAGE}", where=where)
    if footer.file_size != file_size:
        raise BuildError(f"firmware has {footer.file_size} bytes, wanted {file_size}", where=where)
    hashes = _present(footer.hashes, what="hashes table area", where=where)
    secret = _present(footer.secret, what="secret area", where=where)
    # OvmfPkgX64 carries both entries with base 0 and size 0.
    for area, what in ((hashes, "hashes table area"), (secret, "secret area")):
        if not area.base or not area.size:
            raise BuildError(
                f"{what} is empty ({area})",
                where=where,
                hint="only the AmdSev platform verifies the kernel; this looks like OvmfPkgX64",
            )
    if hashes.size < _HASHES_TABLE_SIZE:
        raise BuildError(
            f"hashes table area has {hashes.size} bytes, the table needs {_HASHES_TABLE_SIZE}", where=where
        )
    reset = _present(footer.sev_es_reset, what="SEV-ES reset block", where=where)
    if not reset:
        raise BuildError("SEV-ES reset address is 0", where=where)
    sections = _present(footer.sections, what="SEV metadata", where=where)
    _check_sections(sections, ram_end=FOUR_GIB - file_size, where=where)
    _check_injected(sections, hashes=hashes, secret=secret, where=where)
    if not any(s.type == SectionType.SEC_MEM and s.area.contains(Area(base=reset, size=1)) for s in sections):
        raise BuildError(f"SEV-ES reset address {reset:#x} lies in no SEC_MEM section", where=where)


def _check_sections(sections: tuple[Section, ...], *, ram_end: int, where: str) -> None:
    for section in sections:
        area = section.area
        if not area.size or area.base % PAGE or area.size % PAGE:
            raise BuildError(f"section {section.type.name} ({area}) is empty or not page-aligned", where=where)
        if area.end > ram_end:
            raise BuildError(f"section {section.type.name} ({area}) reaches into the flash", where=where)
    ordered = sorted(sections, key=lambda section: section.area.base)
    for low, high in pairwise(ordered):
        if low.area.overlaps(high.area):
            raise BuildError(
                f"sections {low.type.name} ({low.area}) and {high.type.name} ({high.area}) overlap",
                where=where,
            )
    for kind in SectionType:
        count = sum(section.type == kind for section in sections)
        if not count and kind != SectionType.SVSM_CAA:
            raise BuildError(f"SEV metadata has no {kind.name} section", where=where)
        if count > 1 and kind != SectionType.SEC_MEM:
            raise BuildError(f"SEV metadata has {count} {kind.name} sections", where=where)
    # The PSP fills one page each (SNP firmware ABI, SNP_LAUNCH_UPDATE, page types SECRETS, CPUID); launch
    # digests are computed for one page with the hashes table.
    single = {SectionType.SECRETS, SectionType.CPUID, SectionType.KERNEL_HASHES}
    for section in sections:
        if section.type in single and section.area.size != PAGE:
            raise BuildError(f"section {section.type.name} ({section.area}) is not one page", where=where)


def _check_injected(sections: tuple[Section, ...], *, hashes: Area, secret: Area, where: str) -> None:
    kernel_hashes = next(section.area for section in sections if section.type == SectionType.KERNEL_HASHES)
    for area, what in ((hashes, "hashes table area"), (secret, "secret area")):
        if not kernel_hashes.contains(area):
            raise BuildError(f"{what} ({area}) is outside section KERNEL_HASHES ({kernel_hashes})", where=where)
    if hashes.overlaps(secret):
        raise BuildError(f"hashes table area ({hashes}) and secret area ({secret}) overlap", where=where)


def _check_volumes(image: bytes, *, where: str) -> None:
    """The firmware volumes must tile the file: a cut, split or joined image does not."""
    if not image:
        raise BuildError("firmware is empty", where=where)
    if len(image) % PAGE:
        raise BuildError(f"firmware size {len(image)} is not a multiple of {PAGE}; truncated?", where=where)
    offset = 0
    volumes = 0
    while offset < len(image):
        length = _volume_length(image, offset=offset, where=where)
        if not offset and image[16:32] != VARIABLE_STORE_GUID.bytes_le:
            raise BuildError(
                "firmware does not begin with the variable store: the CODE half of a split image?",
                where=where,
            )
        offset += length
        volumes += 1
    if volumes < 2:
        raise BuildError("firmware holds a variable store only: the VARS half of a split image?", where=where)
    position, signature = _VTF_SIGNATURE
    if image[position : position + len(signature)] != signature:
        raise BuildError("firmware has no volume top file before the reset vector", where=where)


def _volume_length(image: bytes, *, offset: int, where: str) -> int:
    header = image[offset : offset + _FV_HEADER_MIN]
    if len(header) < _FV_HEADER_MIN or header[40:44] != b"_FVH":
        raise BuildError(f"no firmware volume at offset {offset:#x}: not an OVMF image, or a cut one", where=where)
    length, _, _, header_length = struct.unpack_from("<QIIH", header, 32)
    if not _FV_HEADER_MIN <= header_length <= length or header_length % 2:
        raise BuildError(f"firmware volume at offset {offset:#x} has a bad header length", where=where)
    if length > len(image) - offset:
        raise BuildError(
            f"firmware volume at offset {offset:#x} ({length} bytes) reaches beyond the file; truncated?",
            where=where,
        )
    words = struct.unpack_from(f"<{header_length // 2}H", image, offset)
    if sum(words) & 0xFFFF:
        raise BuildError(f"firmware volume at offset {offset:#x} has a wrong header checksum", where=where)
    return int(length)


def _table_entries(image: bytes, *, where: str) -> dict[uuid.UUID, bytes]:
    end = len(image) - _FOOTER_END
    if image[end - 16 : end] != FOOTER_GUID.bytes_le:
        raise BuildError("firmware has no footer table (GUID missing 48 bytes before the end)", where=where)
    (length,) = struct.unpack_from("<H", image, end - _ENTRY_HEAD)
    if not _ENTRY_HEAD <= length <= end:
        raise BuildError(f"footer table length {length} is impossible", where=where)
    start = end - length
    position = end - _ENTRY_HEAD
    entries: dict[uuid.UUID, bytes] = {}
    while position > start:
        if position - start < _ENTRY_HEAD:
            raise BuildError(f"footer table has {position - start} stray bytes at its start", where=where)
        guid = uuid.UUID(bytes_le=image[position - 16 : position])
        (size,) = struct.unpack_from("<H", image, position - _ENTRY_HEAD)
        if not _ENTRY_HEAD <= size <= position - start:
            raise BuildError(f"footer entry {guid} has impossible length {size}", where=where)
        if guid in entries:
            raise BuildError(f"footer entry {guid} occurs twice", where=where)
        entries[guid] = image[position - size : position - _ENTRY_HEAD]
        position -= size
    return entries


def _sections(image: bytes, *, offset: int, where: str) -> tuple[Section, ...]:
    if not 16 <= offset <= len(image):
        raise BuildError(f"SEV metadata offset {offset:#x} is outside the file", where=where)
    start = len(image) - offset
    signature, length, version, count = struct.unpack_from("<4sIII", image, start)
    if signature != b"ASEV":
        raise BuildError("SEV metadata lacks its signature ASEV", where=where)
    if version != 1:
        raise BuildError(f"SEV metadata has version {version}, wanted 1", where=where)
    if length != 16 + 12 * count or length > offset:
        raise BuildError(f"SEV metadata length {length} does not fit {count} sections", where=where)
    sections = []
    for base, size, kind in struct.iter_unpack("<III", image[start + 16 : start + length]):
        try:
            section_type = SectionType(kind)
        except ValueError:
            raise BuildError(f"SEV metadata has a section of unknown type {kind:#x}", where=where) from None
        sections.append(Section(type=section_type, area=Area(base=base, size=size)))
    return tuple(sections)


def _area(data: bytes | None, *, what: str, where: str) -> Area | None:
    if data is None:
        return None
    if len(data) != 8:
        raise BuildError(f"{what} entry has {len(data)} bytes of data, wanted 8", where=where)
    base, size = struct.unpack("<II", data)
    return Area(base=base, size=size)


def _u32(data: bytes, *, what: str, where: str) -> int:
    if len(data) != 4:
        raise BuildError(f"{what} entry has {len(data)} bytes of data, wanted 4", where=where)
    return int.from_bytes(data, "little")


def _present(value: _T | None, *, what: str, where: str) -> _T:
    if value is None:
        raise BuildError(f"firmware footer has no {what}", where=where)
    return value


def main(arguments: list[str]) -> int:
    """`ovmf_footer FILE BYTES`: print what the footer says, or one line that says what is wrong."""
    try:
        if len(arguments) != 2 or not arguments[1].isdecimal():
            raise UserError("usage: ovmf_footer FILE SIZE-IN-BYTES")
        footer = check_firmware(Path(arguments[0]), file_size=int(arguments[1]))
    except SevArtifactsError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print(f"hashes {footer.hashes}  secret {footer.secret}  SEV-ES reset {footer.sev_es_reset:#x}")
    for section in footer.sections or ():
        print(f"{section.type.name:14} {section.area}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
