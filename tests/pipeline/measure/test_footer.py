# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Each field of a synthetic image is broken in turn; the untouched image is the positive control."""

import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.measure import footer as ovmf_footer
from tools.pipeline.measure.footer import Area, SectionType, check_firmware

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


def check(tmp_path: Path, image: bytes | bytearray, *, file_size: int = SIZE) -> ovmf_footer.Footer:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(image)
    return check_firmware(path, file_size=file_size)


def refusal(tmp_path: Path, image: bytes | bytearray, *, file_size: int = SIZE) -> str:
    """The message with which an image is refused: one line that begins with the file's path."""
    with pytest.raises(BuildError) as caught:
        check(tmp_path, image, file_size=file_size)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path / 'OVMF.fd'}: ")
    return message


def test_untouched_image_is_accepted(tmp_path: Path) -> None:
    footer = check(tmp_path, Image().build())
    assert footer.file_size == SIZE
    assert footer.hashes == Area(base=0x810C00, size=0x400)
    assert footer.secret == Area(base=0x810000, size=0xC00)
    assert footer.sev_es_reset == 0x80B004
    assert footer.sections is not None
    assert [(s.area.base, s.area.size, int(s.type)) for s in footer.sections] == Image().sections


def test_svsm_section_and_foreign_entries_are_optional(tmp_path: Path) -> None:
    image = Image()
    del image.sections[4]
    # edk2's TDX metadata offset: unknown here, and none of our business.
    image.entries["tdx"] = entry("e47a6535-984a-4798-865e-4685a7bf8ec2", b"\1\2\3\4")
    footer = check(tmp_path, image.build())
    assert footer.sections is not None
    assert SectionType.SVSM_CAA not in {section.type for section in footer.sections}


def test_wanted_size_must_make_sense(tmp_path: Path) -> None:
    for wrong in (0, -4096, 4095):
        with pytest.raises(UserError, match="not a positive multiple of 4096"):
            check(tmp_path, Image().build(), file_size=wrong)
    assert "wanted 1048576" in refusal(tmp_path, Image().build(), file_size=1 << 20)


def test_unreadable_file_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read firmware: No such file"):
        check_firmware(tmp_path / "nothing", file_size=SIZE)
    with pytest.raises(UserError, match="cannot read firmware: Is a directory"):
        check_firmware(tmp_path, file_size=SIZE)


@pytest.mark.parametrize("missing", [HASHES, SECRET, RESET, METADATA])
def test_each_entry_is_needed(tmp_path: Path, missing: str) -> None:
    image = Image()
    del image.entries[missing]
    assert "firmware footer has no " in refusal(tmp_path, image.build())


@pytest.mark.parametrize(("kind", "name"), [(1, "SEC_MEM"), (2, "SECRETS"), (3, "CPUID"), (0x10, "KERNEL_HASHES")])
def test_each_section_is_needed(tmp_path: Path, kind: int, name: str) -> None:
    image = Image()
    image.sections = [section for section in image.sections if section[2] != kind]
    assert f"SEV metadata has no {name} section" in refusal(tmp_path, image.build())


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
        (_entry(HASHES, bytes(8)), "hashes table area is empty (0x0+0x0); only the AmdSev platform verifies"),
        (_entry(SECRET, bytes(8)), "secret area is empty"),
        (_entry(HASHES, struct.pack("<II", 0x810C00, 0)), "hashes table area is empty"),
        (
            _entry(HASHES, struct.pack("<II", 0x810C00, 175)),
            "hashes table area has 175 bytes, the table needs 176",
        ),
        (_entry(HASHES, bytes(4)), "hashes table area entry has 4 bytes of data, wanted 8"),
        (_entry(SECRET, bytes(12)), "secret area entry has 12 bytes of data, wanted 8"),
        (_entry(RESET, bytes(8)), "SEV-ES reset block entry has 8 bytes of data, wanted 4"),
        (_entry(RESET, bytes(4)), "SEV-ES reset address is 0"),
        (
            _entry(RESET, struct.pack("<I", 0x80D000)),
            "SEV-ES reset address 0x80d000 lies in no SEC_MEM section",
        ),
        (_entry(METADATA, bytes(3)), "SEV metadata offset entry has 3 bytes of data, wanted 4"),
        (_entry(METADATA, struct.pack("<I", 15)), "SEV metadata offset 0xf is outside the file"),
        (_entry(METADATA, struct.pack("<I", SIZE + 1)), "SEV metadata offset 0x40001 is outside the file"),
        (_entry(METADATA, struct.pack("<I", 0x204)), "SEV metadata lacks its signature"),
        (_entry(HASHES, struct.pack("<II", 0x810800, 0x400)), "0x810800+0x400) and secret area"),
        (
            _entry(HASHES, struct.pack("<II", 0x811000, 0x400)),
            "(0x811000+0x400) is outside section KERNEL_HASHES",
        ),
        (_entry(HASHES, struct.pack("<II", 0xFFFFFFFF, 0xFFFFFFFF)), "is outside section KERNEL_HASHES"),
        (
            _entry(SECRET, struct.pack("<II", 0x80F000, 0xC00)),
            "secret area (0x80f000+0xc00) is outside section",
        ),
        (_entry(RESET, bytes(4), length=17), "has impossible length 17"),
        (_entry(RESET, bytes(4), length=0xFFFF), "has impossible length 65535"),
        (_entry(METADATA, struct.pack("<I", METADATA_OFFSET), length=21), "footer table has 1 stray bytes"),
        (_field("signature", b"TDVF"), "SEV metadata lacks its signature ASEV"),
        (_field("version", 2), "SEV metadata has version 2, wanted 1"),
        (_field("metadata_length", 16 + 12 * 6), "SEV metadata length 88 does not fit 7 sections"),
        (_field("metadata_length", 0xFFFFFFFF), "SEV metadata length 4294967295 does not fit"),
        (_field("sections", [(0, 0, 1)] * 42), "SEV metadata length 520 does not fit 42 sections"),
        (_field("sections", []), "SEV metadata has no SEC_MEM section"),
        (_field("table_length", 17), "footer table length 17 is impossible"),
        (_field("table_length", 0), "footer table length 0 is impossible"),
        (_field("table_length", 64), "has impossible length 26"),
        (_field("footer_guid", HASHES), "firmware has no footer table"),
        (_section(0, (0x800000, 0x9000, 5)), "SEV metadata has a section of unknown type 0x5"),
        (_section(0, (0x800000, 0, 1)), "section SEC_MEM (0x800000+0x0) is empty or not page-aligned"),
        (_section(0, (0x800010, 0x9000, 1)), "is empty or not page-aligned"),
        (_section(0, (0x800000, 0x9010, 1)), "is empty or not page-aligned"),
        (_section(0, (0x800000, 0xB000, 1)), "(0x800000+0xb000) and SEC_MEM (0x80a000+0x3000) overlap"),
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
def test_broken_field_is_named(tmp_path: Path, change: Callable[[Image], None], message: str) -> None:
    image = Image()
    change(image)
    assert message in refusal(tmp_path, image.build())


def test_duplicate_entry(tmp_path: Path) -> None:
    image = Image()
    image.entries["again"] = image.entries[HASHES]
    assert "occurs twice" in refusal(tmp_path, image.build())


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        (slice(0, 0), "firmware is empty"),
        (slice(0, 100), "not a multiple of 4096"),
        (slice(1, SIZE), "not a multiple of 4096"),
        (slice(0, 4096), "reaches beyond the file"),
        (slice(4096, SIZE), "no firmware volume at offset 0x0"),
        (slice(0, SIZE - 4096), "reaches beyond the file"),
        (slice(0, VARS_SIZE), "the VARS half of a split image"),
        (slice(VARS_SIZE, SIZE), "the CODE half of a split image"),
        (slice(0, VARS_SIZE + CODE_SIZE), "no volume top file before the reset vector"),
    ],
)
def test_cut_or_split_image(tmp_path: Path, cut: "slice[int, int, None]", message: str) -> None:
    image = bytes(Image().build())
    assert message in refusal(tmp_path, image[cut])


@pytest.mark.parametrize("extra", [b"\xff" * 4096, bytes(4096)])
def test_padded_image(tmp_path: Path, extra: bytes) -> None:
    assert "no firmware volume at offset 0x40000" in refusal(tmp_path, bytes(Image().build()) + extra)
    assert "no firmware volume at offset 0x0" in refusal(tmp_path, extra + bytes(Image().build()))


def test_other_files_are_no_firmware(tmp_path: Path) -> None:
    for other in (bytes(SIZE), b"\xff" * SIZE, b"\x7fELF" + bytes(4092)):
        assert "not an OVMF image" in refusal(tmp_path, other)


def test_volume_headers(tmp_path: Path) -> None:
    for offset in (0, VARS_SIZE, VARS_SIZE + CODE_SIZE):
        image = Image().build()
        image[offset + 44] ^= 1
        assert f"firmware volume at offset {offset:#x} has a wrong header checksum" in refusal(tmp_path, image)
        for length in (0, 54, 73, 0xFFFF):
            image = Image().build()
            struct.pack_into("<H", image, offset + 48, length)
            assert "has a bad header length" in refusal(tmp_path, image)
    for length in (0, 71, 1 << 63):
        image = volume(SIZE, NV_STORE, length=length)
        assert "offset 0x0" in refusal(tmp_path, image)


def test_no_single_byte_of_the_table_can_be_flipped_into_a_crash(tmp_path: Path) -> None:
    """Each byte of the last 4 KiB inverted in turn: accepted or refused, never another exception."""
    image = Image().build()
    refused = 0
    for position in range(SIZE - 4096, SIZE):
        changed = bytearray(image)
        changed[position] ^= 0xFF
        try:
            ovmf_footer.check_footer(ovmf_footer.parse_footer(bytes(changed), where="x"), file_size=SIZE, where="x")
        except BuildError:
            refused += 1
    # Four entries with their GUIDs, the footer, the metadata and the signature are all load-bearing.
    assert refused > 200


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "OVMF.fd"
    path.write_bytes(Image().build())
    assert ovmf_footer.main([str(path), str(SIZE)]) == 0
    assert "KERNEL_HASHES  0x810000+0x1000" in capsys.readouterr().out
    assert ovmf_footer.main([str(path), "1048576"]) == 1
    assert ovmf_footer.main([str(path), "1M"]) == 2
    assert ovmf_footer.main([str(tmp_path / "none"), str(SIZE)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 3
