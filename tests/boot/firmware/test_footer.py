# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The firmware that was built, and what becomes of its check when it is cut, split or patched."""

import struct
from pathlib import Path

import pytest

from tools.sev.errors import FormatError
from tools.sev.firmware_check import check_firmware
from tools.sev.footer import HASHES_GUID, SECTION_NAMES, Area


def test_built_firmware_has_all_that_a_measured_launch_needs(firmware_path: Path) -> None:
    footer = check_firmware(firmware_path.read_bytes(), where="x", size=1 << 18)
    # recipes/firmware/platform/SevGuest.fdf, FD.MEMFD at 8 MiB.
    assert footer.hashes == Area(name="hashes table area", base=0x810C00, size=0x400)
    assert footer.secret == Area(name="secret area", base=0x810000, size=0xC00)
    assert footer.sev_es_reset == 0x80B004
    assert {section.name for section in footer.sections} == set(SECTION_NAMES.values())


def test_the_same_firmware_damaged_is_refused(firmware_path: Path) -> None:
    image = firmware_path.read_bytes()
    damaged = {
        "head cut": image[4096:],
        "tail cut": image[:-4096],
        "half": image[: len(image) // 2],
        "one byte short": image[:-1],
        "last volume alone": image[0x34000:],
        "doubled": image * 2,
        "no hashes area": image.replace(
            struct.pack("<II", 0x810C00, 0x400) + b"\x1a\0" + HASHES_GUID,
            bytes(8) + b"\x1a\0" + HASHES_GUID,
        ),
        "no hashes entry": image.replace(HASHES_GUID, bytes(16)),
        "no footer": image[:-48] + bytes(16) + image[-32:],
        "no metadata": image.replace(b"ASEV", b"TDVF"),
    }
    for what, data in damaged.items():
        assert data != image, what
        with pytest.raises(FormatError, match=r"\AOVMF.fd: [^\n]+\Z"):
            check_firmware(data, where="OVMF.fd")
    check_firmware(image, where="OVMF.fd")
