# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Is this the whole of a firmware that verifies the kernel? Asked before a launch digest is computed from it.

From a damaged image, half of a split one or OvmfPkgX64 a digest can be computed as well; it would look like
any other and promise what it cannot keep.
"""

import struct
import uuid
from itertools import pairwise

from tools.launcher.base.errors import UserError
from tools.launcher.guest.firmware import Firmware, Section, parse_firmware

PAGE = 4096
# gEfiSystemNvDataFvGuid: the volume with which an unsplit image begins.
_VARIABLE_STORE = uuid.UUID("fff12b8d-7696-4c8b-a985-2747075b4f50").bytes_le
# EFI_FIRMWARE_VOLUME_HEADER (UEFI PI 1.8, volume 3, 3.2.1): zero vector, GUID, u64 length, signature, u32
# attributes, u16 header length; the header's 16-bit words add up to zero.
_VOLUME = struct.Struct("<16x16sQ4sIH")
_VOLUME_MIN = 56
_HINT = "build OVMF from OvmfPkg/AmdSev/AmdSevX64.dsc; the image must be whole and not split"
_NEEDED = ("SEC_MEM", "SECRETS", "CPUID", "KERNEL_HASHES")
_ONE_PAGE = ("SECRETS", "CPUID", "KERNEL_HASHES")


def check_measured(image: bytes, *, where: str) -> Firmware:
    """Parse and check an image; UserError (prefixed with `where`) names the first thing that is wrong."""
    firmware = parse_firmware(image, where=where)
    _check_volumes(image, where=where)
    _check_layout(firmware.layout, flash=(1 << 32) - len(image), where=where)
    secret = firmware.secret
    if secret is None or not secret.base or not secret.size:
        raise UserError("no secret area: this looks like OvmfPkgX64", where=where, hint=_HINT)
    hashes = Section(name="hashes table area", base=firmware.hashes_base, size=firmware.hashes_size)
    page = next(section for section in firmware.layout if section.name == "KERNEL_HASHES")
    for area in (hashes, secret):
        if not (page.base <= area.base and area.end <= page.end):
            raise UserError(f"{area} lies outside {page}", where=where, hint=_HINT)
    if hashes.overlaps(secret):
        raise UserError(f"{hashes} and {secret} overlap", where=where, hint=_HINT)
    reset = firmware.es_reset
    if not reset:
        raise UserError("no SEV-ES reset address", where=where, hint=_HINT)
    if not any(s.name == "SEC_MEM" and s.base <= reset < s.end for s in firmware.layout):
        raise UserError(f"SEV-ES reset address {reset:#x} lies in no SEC_MEM", where=where, hint=_HINT)
    return firmware


def _check_layout(layout: tuple[Section, ...], *, flash: int, where: str) -> None:
    names = [section.name for section in layout]
    for name in _NEEDED:
        if name not in names:
            raise UserError(f"the SEV metadata has no {name} section", where=where, hint=_HINT)
    for section in layout:
        if section.name not in (*_NEEDED, "SVSM_CAA"):
            raise UserError(f"the SEV metadata has a section of type {section.name}", where=where)
        if section.name != "SEC_MEM" and names.count(section.name) > 1:
            raise UserError(f"the SEV metadata has {section.name} twice", where=where)
        if not section.size or section.base % PAGE or section.size % PAGE:
            raise UserError(f"{section} is empty or not made of pages", where=where)
        if section.name in _ONE_PAGE and section.size != PAGE:
            raise UserError(f"{section} is not one page", where=where)
        if section.end > flash:
            raise UserError(f"{section} reaches into the flash", where=where)
    for low, high in pairwise(sorted(layout, key=lambda section: section.base)):
        if low.overlaps(high):
            raise UserError(f"{low} and {high} overlap", where=where)


def _check_volumes(image: bytes, *, where: str) -> None:
    """Firmware volumes from the first byte to the last; a cut, split or joined file has none somewhere."""
    offset = count = 0
    while offset < len(image):
        header = image[offset : offset + _VOLUME_MIN]
        if len(header) < _VOLUME_MIN:
            raise UserError(f"no firmware volume at {offset:#x}", where=where, hint=_HINT)
        guid, length, signature, _, header_length = _VOLUME.unpack_from(header)
        if signature != b"_FVH":
            raise UserError(f"no firmware volume at {offset:#x}: cut, or no OVMF", where=where, hint=_HINT)
        if not _VOLUME_MIN <= header_length <= length <= len(image) - offset or header_length % 2:
            raise UserError(f"the firmware volume at {offset:#x} is cut", where=where, hint=_HINT)
        words = struct.unpack_from(f"<{header_length // 2}H", image, offset)
        if sum(words) & 0xFFFF:
            raise UserError(f"the firmware volume at {offset:#x} is damaged", where=where, hint=_HINT)
        if not offset and guid != _VARIABLE_STORE:
            raise UserError("no variable store: the CODE half of a split image", where=where, hint=_HINT)
        if offset and guid == _VARIABLE_STORE:
            raise UserError("a second variable store: several images in one", where=where, hint=_HINT)
        offset += length
        count += 1
    if count < 2:
        raise UserError("a variable store alone: the VARS half of a split image", where=where, hint=_HINT)
    if image[-20:-16] != b"VTF\0":
        raise UserError("no volume top file before the reset vector", where=where, hint=_HINT)
