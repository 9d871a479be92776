# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  hypothesis and pytest hand arguments over by name
"""The launcher's launch digests: known answers, the library beside them, what moves a digest, refusals."""

import hashlib
import struct
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies

from tests.launcher.launcher_kit import CMDLINE, Out, firmware_image
from tools.launcher.base.errors import UserError
from tools.launcher.config.runtime_config import load_config
from tools.launcher.measure import cpu_signature, digest_file, vmsa
from tools.launcher.measure.launch_digest import LaunchDigests, sha384_of, snp_flash, snp_sections
from tools.pipeline.measure.digest import Inputs, Launch
from tools.sev.cpu_models import CPU_MODELS
from tools.sev.footer import Area, Footer
from tools.sev.hashes_table import hashes_table
from tools.sev.modes import Mode
from tools.sev.vmsa import RESET_VECTOR, SEV_ES_FEATURES, SNP_FEATURES, VMSA_GPA

MODELS = {model.name: model.signature for model in CPU_MODELS}
COUNTS = (1, 2, 3, 17, 64, 255)
EMPTY = hashlib.sha256(b"").digest()


def dump(*lines: str) -> bytes:
    """The page of a `hd` listing: "offset bytes", or "offset-end bytes" for repeated lines; the rest zero."""
    page = bytearray(4096)
    for line in lines:
        at, _, text = line.partition(" ")
        data = bytes.fromhex(text)
        start, _, end = at.partition("-")
        first = int(start, 16)
        for offset in range(first, int(end, 16) if end else first + 16, 16):
            page[offset : offset + 16] = data
    return bytes(page)


def hardware_vmsa(cs_base: str, rip: str) -> bytes:
    """The VMSA that Linux of 2021 handed to the firmware of an EPYC Rome, where only the legacy VM type was.

    From the hexadecimal dump in qemu-devel, 2021-12-16, <336cbad3-06da-f11c-8cd1-ca058dd9c6b0@linux.ibm.com>.
    """
    return dump(
        "000 00009300ffff00000000000000000000",
        f"010 00f09b00ffff00000000{cs_base}00000000",
        "020-060 00009300ffff00000000000000000000",
        "060 00000000ffff00000000000000000000",
        "070 00008200ffff00000000000000000000",
        "080 00000000ffff00000000000000000000",
        "090 00008b00ffff00000000000000000000",
        "0d0 00100000000000000000000000000000",
        "140 00000000000000004000000000000000",
        "150 00000000000000001000000000000000",
        "160 0004000000000000f00fffff00000000",
        f"170 0200000000000000{rip}000000000000",
        "260 00000000000000000604070006040700",
        "310 100f8300000000000000000000000000",
        "3e0 00000000000000000100000000000000",
    )


@pytest.mark.parametrize(("eip", "cs_base", "rip"), [(0xFFFFFFF0, "ffff", "f0ff"), (0x80B000, "8000", "00b0")])
def test_the_legacy_vmsa_is_what_hardware_was_given(eip: int, cs_base: str, rip: str) -> None:
    """First vCPU and second one of a guest that ran."""
    made = vmsa.page(eip=eip, signature=MODELS["EPYC-Rome"], features=0, fpu=False)
    assert made == hardware_vmsa(cs_base, rip)
    with_fpu = vmsa.page(eip=eip, signature=MODELS["EPYC-Rome"], features=0, fpu=True)
    different = {offset for offset in range(4096) if made[offset] != with_fpu[offset]}
    assert different == {0x408, 0x409, 0x410, 0x411}
    assert struct.unpack_from("<IHHH", with_fpu, 0x408) == (0x1F80, 0, 0, 0x37F)


def test_sev_es_digests_of_that_guests_vmsas(folder: Path) -> None:
    """The legacy VM type, from the dump and nothing else of ours; both sides."""
    image = firmware_image().replace(struct.pack("<I", 0x80B004), struct.pack("<I", 0x80B000))
    own, library = both(folder, image, kernel=b"k", initramfs=b"i", cmdline="x")
    table = hashes_table(
        kernel_sha256=hashlib.sha256(b"k").digest(), initrd_sha256=hashlib.sha256(b"i").digest(), cmdline="x"
    )
    total = hashlib.sha256(image + table + hardware_vmsa("ffff", "f0ff"))
    expected = [total.hexdigest()]
    for _ in range(3):
        total.update(hardware_vmsa("8000", "00b0"))
        expected.append(total.hexdigest())
    signature = MODELS["EPYC-Rome"]
    assert list(islice(own.sev_es(signature, legacy_vm_type=True), 4)) == expected
    assert library.sev_es(signature, legacy_vm_type=True, up_to=4) == expected


# tests/test_guest.py of sev-snp-measure 0.0.13 (Apache-2.0): its firmware's digest (calc_snp_ovmf_hash) and
# the launch digests of an empty kernel and initrd on EPYC-v4. Its metadata is edk2's (AmdSev).
SUFFIX_HASH = "086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74"
SUFFIX_LAYOUT = (
    ("SEC_MEM", 0x800000, 0x9000),
    ("SEC_MEM", 0x80A000, 0x3000),
    ("SECRETS", 0x80D000, 0x1000),
    ("CPUID", 0x80E000, 0x1000),
    ("SVSM_CAA", 0x80F000, 0x1000),
    ("KERNEL_HASHES", 0x810000, 0x1000),
    ("SEC_MEM", 0x811000, 0xF000),
)


@pytest.mark.parametrize(
    ("cmdline", "vcpus", "features", "expected"),
    [
        (
            "",
            1,
            0x1,
            "ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5",
        ),
        (
            "",
            1,
            0x21,
            "329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198",
        ),
        (
            "console=ttyS0 loglevel=7",
            1,
            0x1,
            "6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa",
        ),
        (
            "",
            4,
            0x1,
            "5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5",
        ),
    ],
)
def test_snp_against_published_digests(
    monkeypatch: pytest.MonkeyPatch, cmdline: str, vcpus: int, features: int, expected: str
) -> None:
    layout = tuple(Area(name=name, base=base, size=size) for name, base, size in SUFFIX_LAYOUT)
    firmware = Footer(
        hashes=Area(name="x", base=0x810C00, size=0x400), sev_es_reset=0x80B004, secret=None, sections=layout
    )
    table = hashes_table(kernel_sha256=EMPTY, initrd_sha256=EMPTY, cmdline=cmdline)
    digests = LaunchDigests.__new__(LaunchDigests)
    digests._ap_eip = 0x80B004
    digests.snp_before_vmsas = snp_sections(bytes.fromhex(SUFFIX_HASH), table, firmware)
    monkeypatch.setattr("tools.launcher.measure.launch_digest.SNP_FEATURES", features)
    assert next(islice(digests.snp(MODELS["EPYC"]), vcpus - 1, None)) == expected


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def both(
    folder: Path, image: bytes, *, kernel: bytes, initramfs: bytes | None, cmdline: str
) -> tuple[LaunchDigests, Launch]:
    """The two computations over the same inputs."""
    paths = {"fd": image, "kernel": kernel, "initrd": initramfs}
    for name, content in paths.items():
        (folder / name).write_bytes(content or b"")
    table = hashes_table(
        kernel_sha256=hashlib.sha256(kernel).digest(),
        initrd_sha256=None if initramfs is None else hashlib.sha256(initramfs).digest(),
        cmdline=cmdline,
    )
    inputs = Inputs(
        firmware=folder / "fd",
        firmware_size=len(image),
        kernel=folder / "kernel",
        initramfs=None if initramfs is None else folder / "initrd",
        cmdline=cmdline,
    )
    return LaunchDigests(image, table, where="x"), Launch(inputs)


@pytest.mark.parametrize("initramfs", [b"initramfs", None])
def test_both_computations_agree_everywhere(folder: Path, initramfs: bytes | None) -> None:
    image = firmware_image(sections=(1, 2, 3, 4, 0x10))
    own, library = both(folder, image, kernel=b"kernel", initramfs=initramfs, cmdline=CMDLINE)
    assert own.sev() == library.sev()
    for signature in [*MODELS.values(), 0xA60F12]:
        assert list(islice(own.snp(signature), 255)) == library.snp(signature, up_to=255)
        for legacy in (False, True):
            ours = list(islice(own.sev_es(signature, legacy_vm_type=legacy), 255))
            assert ours == library.sev_es(signature, legacy_vm_type=legacy, up_to=255)
            assert len(set(ours)) == 255


@settings(max_examples=40, deadline=None)
@given(
    fill=strategies.binary(min_size=1, max_size=64),
    at=strategies.integers(min_value=5000, max_value=8000),
    kernel=strategies.binary(max_size=200),
    initramfs=strategies.none() | strategies.binary(max_size=200),
    cmdline=strategies.text(alphabet=strategies.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200),
    vcpus=strategies.sampled_from(COUNTS),
    signature=strategies.sampled_from(sorted(MODELS.values())),
    order=strategies.permutations((1, 2, 3, 4, 0x10)),
)  # fmt: skip
def test_both_computations_agree_on_any_input(
    folder: Path,
    fill: bytes,
    at: int,
    kernel: bytes,
    initramfs: bytes | None,
    cmdline: str,
    vcpus: int,
    signature: int,
    order: list[int],
) -> None:
    image = bytearray(firmware_image(sections=tuple(order)))
    image[at : at + len(fill)] = fill
    own, library = both(folder, bytes(image), kernel=kernel, initramfs=initramfs, cmdline=cmdline)
    for legacy in (False, True):
        options: dict[str, Any] = {"signature": signature, "vcpus": vcpus, "legacy_vm_type": legacy}
        assert own.digest(Mode.SEV, **options) == library.sev()
        es = library.sev_es(signature, legacy_vm_type=legacy, up_to=vcpus)[-1]
        assert own.digest(Mode.SEV_ES, **options) == es
        assert own.digest(Mode.SNP, **options) == library.snp(signature, up_to=vcpus)[-1]


def every_digest(image: bytes, *, kernel: bytes, initramfs: bytes | None, cmdline: str) -> tuple[str, ...]:
    table = hashes_table(
        kernel_sha256=hashlib.sha256(kernel).digest(),
        initrd_sha256=None if initramfs is None else hashlib.sha256(initramfs).digest(),
        cmdline=cmdline,
    )
    own = LaunchDigests(image, table, where="x")
    return tuple(
        own.digest(mode, signature=MODELS["EPYC"], vcpus=2, legacy_vm_type=legacy)
        for mode, legacy in ((Mode.SEV, False), (Mode.SEV_ES, False), (Mode.SEV_ES, True), (Mode.SNP, False))
    )


@settings(max_examples=60, deadline=None)
@given(strategies.data())
def test_any_changed_byte_changes_every_digest(data: strategies.DataObject) -> None:
    kernel, initramfs = b"kernel" * 20, b"initramfs" * 20
    whole: dict[str, Any] = {
        "image": firmware_image(),
        "kernel": kernel,
        "initramfs": initramfs,
        "cmdline": CMDLINE,
    }
    before = every_digest(**whole)
    what = data.draw(strategies.sampled_from(sorted(whole)))
    # What a check would refuse is not drawn: volume headers, metadata, footer.
    low, high = (4096 + 72, 12288) if what == "image" else (0, len(whole[what]))
    position = data.draw(strategies.integers(min_value=low, max_value=high - 1))
    if what == "cmdline":
        replaced = "!" if CMDLINE[position] != "!" else "?"
        whole[what] = CMDLINE[:position] + replaced + CMDLINE[position + 1 :]
    else:
        changed = bytearray(whole[what])
        changed[position] ^= data.draw(strategies.integers(min_value=1, max_value=255))
        whole[what] = bytes(changed)
    after = every_digest(**whole)
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_lengths_count_too() -> None:
    image = firmware_image()
    before = every_digest(image, kernel=b"k", initramfs=b"i", cmdline="a")
    for changed in (
        every_digest(image, kernel=b"k\0", initramfs=b"i", cmdline="a"),
        every_digest(image, kernel=b"k", initramfs=b"i\0", cmdline="a"),
        every_digest(image, kernel=b"k", initramfs=b"i", cmdline="a "),
        every_digest(image, kernel=b"k", initramfs=None, cmdline="a"),
        every_digest(image, kernel=b"i", initramfs=b"k", cmdline="a"),
        every_digest(firmware_image(pages=5), kernel=b"k", initramfs=b"i", cmdline="a"),
        every_digest(firmware_image(hashes=(0x810C10, 0x3F0)), kernel=b"k", initramfs=b"i", cmdline="a"),
    ):
        assert all(old != new for old, new in zip(before, changed, strict=True))


def test_an_absent_initramfs_is_an_empty_one() -> None:
    image = firmware_image()
    absent = every_digest(image, kernel=b"k", initramfs=None, cmdline="a")
    assert absent == every_digest(image, kernel=b"k", initramfs=b"", cmdline="a")


def test_the_resumable_form_gives_any_count() -> None:
    """With nothing but hashlib and what launch-digests.json holds."""
    own = LaunchDigests(firmware_image(), bytes(176), where="x")
    signature = MODELS["EPYC-Genoa"]
    bsp, ap = map(sha384_of, own.vmsa_pages(signature, features=SNP_FEATURES, fpu=True))
    digest = own.snp_before_vmsas
    for count, expected in zip(range(1, 200), own.snp(signature), strict=False):
        contents = bytes.fromhex(bsp if count == 1 else ap)
        info = digest + contents + struct.pack("<HBBIQ", 0x70, 2, 0, 0, VMSA_GPA)
        digest = hashlib.sha384(info).digest()
        assert digest.hex() == expected


def test_the_features_are_in_the_vmsa() -> None:
    assert (SEV_ES_FEATURES, SNP_FEATURES) == (0, 1)
    first = vmsa.page(eip=RESET_VECTOR, signature=1, features=1, fpu=True)
    assert struct.unpack_from("<Q", first, 0x3B0) == (1,)


def test_flash_alone() -> None:
    """Two pages by hand."""
    image = bytes(4096) + b"\1" * 4096
    digest = bytes(48)
    for page, gpa in ((bytes(4096), 0xFFFFE000), (b"\1" * 4096, 0xFFFFF000)):
        info = digest + hashlib.sha384(page).digest() + struct.pack("<HBBIQ", 0x70, 1, 0, 0, gpa)
        digest = hashlib.sha384(info).digest()
    assert snp_flash(image) == digest


@pytest.mark.parametrize("image", [firmware_image(es_reset=False), firmware_image(sections=(1, 2, 3)), bytes(16384)])
def test_no_digest_from_firmware_that_is_not_whole(tmp_path: Path, image: bytes) -> None:
    """tests/sev/test_firmware_check.py tries what can be wrong; here, that it is asked."""
    out = Out(tmp_path / "out", firmware=image)
    with pytest.raises(UserError, match=rf"\A{out.folder}/OVMF.fd: [^\n]+\Z"):
        digest_file.launch_digests(load_config(out.config), cmdline=CMDLINE)


@pytest.mark.parametrize(
    ("text", "value"),
    [("0xa00f11", 0xA00F11), ("0xA00F11", 0xA00F11), (str(0x800F12), 0x800F12), ("0x0fff0fff", 0x0FFF0FFF)],
)
def test_signatures(text: str, value: int) -> None:
    assert cpu_signature.parse_signature(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0x0",
        "-1",
        "a00f11",
        "0xa00f1g",
        "0x10a00f11",
        "0xa0ff11",
        "0x600f12",
        "0x1",
        "1e9",
        "0x" + "f" * 9,
    ],
)
def test_what_is_no_signature(text: str) -> None:
    with pytest.raises(ValueError, match=r"no number such as|no CPUID signature"):
        cpu_signature.parse_signature(text)


@pytest.mark.parametrize("name", ["host", "max", "EPYC-v0", "EPYC-v6", "epyc", "Opteron_G5", "EPYC-Rome-v", ""])
def test_unknown_models_are_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"known: EPYC\[-vN\], EPYC-Rome.*--cpu-signature"):
        cpu_signature.signature_of(name)
