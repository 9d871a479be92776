# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Is this the whole of a firmware that verifies the kernel? Asked before a launch digest is computed from it.

From a damaged image, half of a split one or OvmfPkgX64 a digest can be computed as well, and it boots guests;
it would look like any other and promise what it cannot keep.

Volume headers: UEFI PI specification 1.8, volume 3, section 3.2.1. One page for SECRETS and CPUID: the secure
processor fills one each (SNP firmware ABI, SNP_LAUNCH_UPDATE).
"""

import struct
from itertools import pairwise

from tools.sev.errors import FormatError
from tools.sev.footer import HINT, NEEDED_SECTIONS, Area, Footer, parse_footer
from tools.sev.guid import guid
from tools.sev.limits import FOUR_GIB, PAGE

VARIABLE_STORE_GUID = guid("fff12b8d-7696-4c8b-a985-2747075b4f50")
"""gEfiSystemNvDataFvGuid: the volume with which an unsplit image begins."""
# EFI_FIRMWARE_VOLUME_HEADER: zero vector, GUID, u64 length, signature, u32 attributes, u16 header length; the
# header's 16-bit words add up to zero.
_VOLUME = struct.Struct("<16x16sQ4sIH")
_VOLUME_MIN = 56
_ONE_PAGE = ("SECRETS", "CPUID", "KERNEL_HASHES")


def check_firmware(image: bytes, *, where: str, size: int | None = None) -> Footer:
    """Parse and check an image; FormatError, prefixed with `where`, names the first thing that is wrong.

    `size`: the bytes that it must have, where that is known.
    """
    if size is not None and len(image) != size:
        raise FormatError(f"firmware has {len(image)} bytes, wanted {size}", where=where)
    footer = parse_footer(image, where=where)
    try:
        _check_volumes(image)
        _check_sections(footer.sections, flash=FOUR_GIB - len(image))
        _check_injected(footer)
        _check_reset(footer)
    except FormatError as error:
        raise FormatError(error.what, where=where, hint=error.hint or HINT) from None
    return footer


def _check_volumes(image: bytes) -> None:
    """The firmware volumes must tile the file: a cut, split or joined image does not."""
    offset = count = 0
    while offset < len(image):
        length, guid = _volume(image, offset)
        if not offset and guid != VARIABLE_STORE_GUID:
            raise FormatError("no variable store at the beginning: the CODE half of a split image?")
        if offset and guid == VARIABLE_STORE_GUID:
            raise FormatError("a second variable store: several images in one?")
        offset += length
        count += 1
    if count < 2:
        raise FormatError("a variable store alone: the VARS half of a split image?")
    if image[-20:-16] != b"VTF\0":
        raise FormatError("no volume top file before the reset vector")


def _volume(image: bytes, offset: int) -> tuple[int, bytes]:
    """Length and GUID of the volume there."""
    header = image[offset : offset + _VOLUME_MIN]
    if len(header) < _VOLUME_MIN:
        raise FormatError(f"no firmware volume at {offset:#x}: truncated?")
    guid, length, signature, _, header_length = _VOLUME.unpack_from(header)
    if signature != b"_FVH":
        raise FormatError(f"no firmware volume at {offset:#x}: no OVMF image, or a cut one")
    if not _VOLUME_MIN <= header_length <= length or header_length % 2:
        raise FormatError(f"the firmware volume at {offset:#x} has a bad header length")
    if length > len(image) - offset:
        raise FormatError(f"the firmware volume at {offset:#x} reaches beyond the file; truncated?")
    words = struct.unpack_from(f"<{header_length // 2}H", image, offset)
    if sum(words) & 0xFFFF:
        raise FormatError(f"the firmware volume at {offset:#x} has a wrong header checksum: damaged")
    return int(length), guid


def _check_sections(sections: tuple[Area, ...], *, flash: int) -> None:
    if not sections:
        raise FormatError("no SEV metadata")
    names = [section.name for section in sections]
    for name in NEEDED_SECTIONS:
        if name not in names:
            raise FormatError(f"the SEV metadata has no {name} section")
    for section in sections:
        if section.name not in (*NEEDED_SECTIONS, "SVSM_CAA"):
            raise FormatError(f"the SEV metadata has a section {section.name}, which is not known here")
        if section.name != "SEC_MEM" and names.count(section.name) > 1:
            raise FormatError(f"the SEV metadata has {names.count(section.name)} {section.name} sections")
        if not section.size or section.base % PAGE or section.size % PAGE:
            raise FormatError(f"section {section} is empty or not page-aligned")
        if section.name in _ONE_PAGE and section.size != PAGE:
            raise FormatError(f"section {section} is not one page")
        if section.end > flash:
            raise FormatError(f"section {section} reaches into the flash")
    for low, high in pairwise(sorted(sections, key=lambda section: section.base)):
        if low.overlaps(high):
            raise FormatError(f"sections {low} and {high} overlap")


def _check_injected(footer: Footer) -> None:
    """The areas that QEMU writes into lie in the page that is measured with them."""
    if footer.secret is None or not footer.secret.base or not footer.secret.size:
        raise FormatError("no secret area")
    page = next(section for section in footer.sections if section.name == "KERNEL_HASHES")
    for area in (footer.hashes, footer.secret):
        if not page.contains(area):
            raise FormatError(f"the {area} is outside section {page}")
    if footer.hashes.overlaps(footer.secret):
        raise FormatError(f"the {footer.hashes} and the {footer.secret} overlap")


def _check_reset(footer: Footer) -> None:
    reset = footer.sev_es_reset
    if not reset:
        raise FormatError("no SEV-ES reset address")
    start = Area(name="reset", base=reset, size=1)
    if not any(section.name == "SEC_MEM" and section.contains(start) for section in footer.sections):
        raise FormatError(f"the SEV-ES reset address {reset:#x} lies in no SEC_MEM section")
