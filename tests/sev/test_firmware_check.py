# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Each field of a synthetic image is broken in turn; the untouched image is the positive control."""

import re
import struct
from collections.abc import Callable

import pytest

from tests.sev.firmware_kit import (
    CODE_SIZE,
    HASHES,
    METADATA,
    METADATA_OFFSET,
    NV_STORE,
    RESET,
    SECRET,
    SIZE,
    VARS_SIZE,
    Image,
    entry,
    volume,
)
from tools.sev.errors import FormatError
from tools.sev.firmware_check import check_firmware
from tools.sev.footer import Area, parse_footer


def refusal(image: bytes | bytearray, *, size: int | None = None) -> str:
    """The message with which an image is refused: one line that begins with where it is."""
    with pytest.raises(FormatError) as caught:
        check_firmware(bytes(image), where="OVMF.fd", size=size)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("OVMF.fd: ")
    return message


def test_untouched_image_is_accepted() -> None:
    image = bytes(Image().build())
    footer = check_firmware(image, where="x", size=SIZE)
    assert footer == parse_footer(image, where="x")
    assert footer.hashes == Area(name="hashes table area", base=0x810C00, size=0x400)
    assert footer.secret == Area(name="secret area", base=0x810000, size=0xC00)
    assert footer.sev_es_reset == 0x80B004
    assert [(s.base, s.size) for s in footer.sections] == [(base, size) for base, size, _ in Image().sections]
    assert footer.snp_missing == ()
    assert str(footer.sections[0]) == "SEC_MEM (0x800000+0x9000)"


def test_svsm_section_and_foreign_entries_are_optional() -> None:
    image = Image()
    del image.sections[4]
    # edk2's TDX metadata offset: unknown here, and none of our business.
    image.entries["tdx"] = entry("e47a6535-984a-4798-865e-4685a7bf8ec2", b"\1\2\3\4")
    footer = check_firmware(bytes(image.build()), where="x")
    assert "SVSM_CAA" not in {section.name for section in footer.sections}


def test_the_wanted_size() -> None:
    image = Image().build()
    check_firmware(bytes(image), where="x", size=SIZE)
    assert "firmware has 262144 bytes, wanted 1048576" in refusal(image, size=1 << 20)


def test_what_a_start_needs_is_less_than_what_a_digest_needs() -> None:
    """A plain SEV guest starts with firmware that has a place for the hashes table and nothing else."""
    image = Image()
    for guid in (SECRET, RESET, METADATA):
        del image.entries[guid]
    footer = parse_footer(bytes(image.build()), where="x")
    assert (footer.secret, footer.sev_es_reset, footer.sections) == (None, None, ())
    assert footer.snp_missing == ("SEC_MEM", "SECRETS", "CPUID", "KERNEL_HASHES")
    assert "no SEV metadata" in refusal(image.build())


@pytest.mark.parametrize("missing", [HASHES, SECRET, RESET, METADATA])
def test_each_entry_is_needed(missing: str) -> None:
    image = Image()
    del image.entries[missing]
    assert re.search("no (hashes table area|secret area|SEV-ES reset address|SEV metadata)", refusal(image.build()))


@pytest.mark.parametrize(("kind", "name"), [(1, "SEC_MEM"), (2, "SECRETS"), (3, "CPUID"), (0x10, "KERNEL_HASHES")])
def test_each_section_is_needed(kind: int, name: str) -> None:
    image = Image()
    image.sections = [section for section in image.sections if section[2] != kind]
    assert f"SEV metadata has no {name} section" in refusal(image.build())


def _entry(guid: str, data: bytes, *, length: int | None = None) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        image.entries[guid] = entry(guid, data, length=length)

    return change


def _section(index: int, value: tuple[int, int, int]) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        image.sections[index] = value

    return change


def _append(value: tuple[int, int, int]) -> Callable[[Image], None]:
    return lambda image: image.sections.append(value)


def _field(name: str, value: object) -> Callable[[Image], None]:
    return lambda image: setattr(image, name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            _entry(HASHES, bytes(8)),
            "the hashes table area (0x0+0x0) is invalid: it needs 176 bytes; build OVMF from OvmfPkg/AmdSev",
        ),
        (_entry(SECRET, bytes(8)), "no secret area"),
        (_entry(HASHES, struct.pack("<II", 0x810C00, 0)), "the hashes table area (0x810c00+0x0) is invalid"),
        (
            _entry(HASHES, struct.pack("<II", 0x810C00, 175)),
            "the hashes table area (0x810c00+0xaf) is invalid: it needs 176 bytes",
        ),
        (_entry(HASHES, bytes(4)), "the footer's hashes table area has 4 bytes, not 8"),
        (_entry(SECRET, bytes(12)), "the footer's secret area has 12 bytes, not 8"),
        (_entry(RESET, bytes(8)), "the footer's SEV-ES reset address has 8 bytes, not 4"),
        (_entry(RESET, bytes(4)), "no SEV-ES reset address"),
        (
            _entry(RESET, struct.pack("<I", 0x80D000)),
            "SEV-ES reset address 0x80d000 lies in no SEC_MEM section",
        ),
        (_entry(METADATA, bytes(3)), "the footer's offset of the SEV metadata has 3 bytes, not 4"),
        (_entry(METADATA, struct.pack("<I", 15)), "the SEV metadata's offset 0xf is outside the file"),
        (_entry(METADATA, struct.pack("<I", SIZE + 1)), "the SEV metadata's offset 0x40001 is outside the file"),
        (_entry(METADATA, struct.pack("<I", 0x204)), "the SEV metadata is not where the footer says: no ASEV"),
        (
            _entry(HASHES, struct.pack("<II", 0x810800, 0x400)),
            "(0x810800+0x400) and the secret area (0x810000+0xc00) overlap",
        ),
        (
            _entry(HASHES, struct.pack("<II", 0x811000, 0x400)),
            "(0x811000+0x400) is outside section KERNEL_HASHES",
        ),
        (_entry(HASHES, struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF)), "is outside section KERNEL_HASHES"),
        (
            _entry(SECRET, struct.pack("<II", 0x80F000, 0xC00)),
            "secret area (0x80f000+0xc00) is outside section",
        ),
        (_entry(RESET, bytes(4), length=17), "has the impossible length 17"),
        (_entry(RESET, bytes(4), length=0xFFFF), "has the impossible length 65535"),
        (_entry(METADATA, struct.pack("<I", METADATA_OFFSET), length=21), "the footer has 1 stray bytes"),
        (_field("signature", b"TDVF"), "no ASEV there"),
        (_field("version", 2), "the SEV metadata has version 2, known is 1"),
        (_field("metadata_length", 16 + 12 * 6), "the SEV metadata's length 88 does not fit 7 sections"),
        (_field("metadata_length", 0xFFFFFFFF), "the SEV metadata's length 4294967295 does not fit"),
        (_field("sections", [(0, 0, 1)] * 42), "the SEV metadata's length 520 does not fit 42 sections"),
        (_field("sections", []), "no SEV metadata"),
        (_field("table_length", 17), "the footer's length 17 is impossible"),
        (_field("table_length", 0), "the footer's length 0 is impossible"),
        (_field("table_length", 64), "has the impossible length 26"),
        (_field("footer_guid", HASHES), "no OVMF footer 48 bytes before the end"),
        (_section(0, (0x800000, 0x9000, 5)), "a section of type 0x5, which is not known here"),
        (_section(0, (0x800000, 0, 1)), "section SEC_MEM (0x800000+0x0) is empty or not page-aligned"),
        (_section(0, (0x800010, 0x9000, 1)), "is empty or not page-aligned"),
        (_section(0, (0x800000, 0x9010, 1)), "is empty or not page-aligned"),
        (
            _section(0, (0x800000, 0xB000, 1)),
            "sections SEC_MEM (0x800000+0xb000) and SEC_MEM (0x80a000+0x3000) overlap",
        ),
        (_section(0, (0xFFFBF000, 0x2000, 1)), "reaches into the flash"),
        (_section(0, (0xFFFFF000, 0xFFFFF000, 1)), "reaches into the flash"),
        (
            _section(6, (0x820000, 0x1000, 0x10)),
            "hashes table area (0x810c00+0x400) is outside section KERNEL_HASHES",
        ),
        (_append((0x820000, 0x1000, 2)), "SEV metadata has 2 SECRETS sections"),
        (_append((0x820000, 0x1000, 0x10)), "SEV metadata has 2 KERNEL_HASHES sections"),
        (_section(3, (0x840000, 0x2000, 3)), "section CPUID (0x840000+0x2000) is not one page"),
    ],
)
def test_broken_field_is_named(change: Callable[[Image], None], message: str) -> None:
    image = Image()
    change(image)
    assert message in refusal(image.build())


def test_duplicate_entry() -> None:
    image = Image()
    image.entries["again"] = image.entries[HASHES]
    assert "twice" in refusal(image.build())


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (slice(0, 0), "0 bytes are no whole number of 4096-byte pages"),
        (slice(0, 100), "no whole number of 4096-byte pages; truncated?"),
        (slice(1, SIZE), "no whole number of 4096-byte pages; truncated?"),
        (slice(0, 4096), "no OVMF footer"),
        (slice(4096, SIZE), "no firmware volume at 0x0"),
        (slice(0, SIZE - 4096), "no OVMF footer"),
        (slice(0, VARS_SIZE), "no OVMF footer"),
        (slice(VARS_SIZE, SIZE), "the CODE half of a split image"),
        (slice(0, VARS_SIZE + CODE_SIZE), "no OVMF footer"),
    ],
)
def test_cut_or_split_image(cut: "slice[int, int, None]", message: str) -> None:
    image = bytes(Image().build())
    assert message in refusal(image[cut])


@pytest.mark.parametrize("extra", [b"\xff" * 4096, bytes(4096)])
def test_padded_image(extra: bytes) -> None:
    assert "no OVMF footer" in refusal(bytes(Image().build()) + extra)
    assert "no firmware volume at 0x0" in refusal(extra + bytes(Image().build()))


def test_other_files_are_no_firmware() -> None:
    for other in (bytes(SIZE), b"\xff" * SIZE, b"\x7fELF" + bytes(4092)):
        assert "no OVMF code image" in refusal(other)


def test_volume_headers() -> None:
    for offset in (0, VARS_SIZE, VARS_SIZE + CODE_SIZE):
        image = Image().build()
        image[offset + 44] ^= 1
        assert f"the firmware volume at {offset:#x} has a wrong header checksum" in refusal(image)
        for length in (0, 54, 73, 0xFFFF):
            image = Image().build()
            struct.pack_into("<H", image, offset + 48, length)
            assert "has a bad header length" in refusal(image)
    end = Image().build()[VARS_SIZE:]
    for length, says in ((0, "bad header length"), (71, "bad header length"), (1 << 63, "reaches beyond the file")):
        image = volume(VARS_SIZE, NV_STORE, length=length) + end
        assert f"the firmware volume at 0x0 {'has a ' * ('bad' in says)}{says}" in refusal(image)
    # Joined and half images whose end is as it should be.
    whole = Image().build()
    assert "a second variable store" in refusal(whole + whole)
    alone = volume(SIZE, NV_STORE)[: SIZE - 4096] + whole[SIZE - 4096 :]
    assert "the VARS half of a split image" in refusal(alone)
    assert "no volume top file" in refusal(whole[:-20] + b"FTV\0" + whole[-16:])


def test_no_single_byte_of_the_table_can_be_flipped_into_a_crash() -> None:
    """Each byte of the last 4 KiB inverted in turn: accepted or refused, never another exception."""
    image = Image().build()
    refused = 0
    for position in range(SIZE - 4096, SIZE):
        changed = bytearray(image)
        changed[position] ^= 0xFF
        try:
            check_firmware(bytes(changed), where="x")
        except FormatError:
            refused += 1
    # Four entries with their GUIDs, the footer, the metadata and the signature are all load-bearing.
    assert refused > 200
