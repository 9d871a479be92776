# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""launch-digests.json as the build computes it: beside the library's own calls, and its refusals."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sevsnpmeasure import guest as library
from sevsnpmeasure.sev_mode import SevMode

from tests.sev.firmware_kit import CODE_SIZE, HASHES, SECRET, SIZE, VARS_SIZE, Image, entry
from tools.pipeline.measure import table
from tools.pipeline.measure.digest import Inputs, Launch
from tools.pipeline.measure.table import Guest
from tools.sev import cpu_models
from tools.sev.cpu_models import CPU_MODELS
from tools.sev.errors import FormatError
from tools.sev.modes import ProfileKind

CMDLINE = "panic=-1 quiet"
GUEST = Guest(
    profile=ProfileKind.PRODUCTION,
    version="1.2",
    cpu="EPYC-v4",
    vcpus=1,
    legacy_vm_type=False,
    cmdline=CMDLINE,
    firmware_size=SIZE,
    artifacts={"firmware": "OVMF.fd", "kernel": "vmlinuz", "initramfs": "initramfs.cpio.zst"},
)


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """A well-formed firmware and made-up files."""
    (tmp_path / "OVMF.fd").write_bytes(Image().build())
    (tmp_path / "vmlinuz").write_bytes(b"kernel")
    (tmp_path / "initramfs.cpio.zst").write_bytes(b"initramfs")
    return Inputs(
        firmware=tmp_path / "OVMF.fd",
        firmware_size=SIZE,
        kernel=tmp_path / "vmlinuz",
        initramfs=tmp_path / "initramfs.cpio.zst",
        cmdline=f"{CMDLINE} sev_agent.unbound",
    )


def make(inputs: Inputs, guest: Guest = GUEST) -> dict[str, Any]:
    """The document, as it comes out of the file again."""
    files = {"firmware": inputs.firmware, "kernel": inputs.kernel, "initramfs": inputs.initramfs}
    found = table.document(guest, {role: path for role, path in files.items() if path is not None})
    parsed: dict[str, Any] = json.loads(table.serialise(found))
    return parsed


def by_library(inputs: Inputs, mode: SevMode, *, signature: int, vcpus: int) -> str:
    digest: bytes = library.calc_launch_digest(
        mode,
        vcpus,
        signature,
        str(inputs.firmware),
        str(inputs.kernel),
        None if inputs.initramfs is None else str(inputs.initramfs),
        inputs.cmdline,
        0x1,
    )
    return digest.hex()


@pytest.mark.parametrize("builtin", [False, True])
def test_the_table_is_what_the_library_says_call_by_call(inputs: Inputs, builtin: bool) -> None:
    inputs = replace(inputs, initramfs=None if builtin else inputs.initramfs)
    modes = make(inputs)["modes"]
    for name, signature in ((m.name, m.signature) for m in CPU_MODELS):
        for count in (1, 2, 31, 64):
            options = {"signature": signature, "vcpus": count}
            assert modes["snp"]["digests"][name][str(count)] == by_library(inputs, SevMode.SEV_SNP, **options)
            off = modes["sev-es"]["legacy-vm-type=off"][name][str(count)]
            assert off == by_library(inputs, SevMode.SEV_ES, **options)
            # The departure: the library knows one of the two.
            assert modes["sev-es"]["legacy-vm-type=on"][name][str(count)] != off
    assert modes["sev"]["digest"] == by_library(inputs, SevMode.SEV, signature=0, vcpus=1)


def test_the_shape(inputs: Inputs) -> None:
    """docs/launch-digests.md names exactly these."""
    found = make(inputs)
    assert sorted(found) == [
        "computed_with", "configured", "cpu_models", "depends_on", "modes", "profile", "schema", "version",
    ]  # fmt: skip
    assert found["computed_with"] == {"name": "sev-snp-measure", "version": "0.0.13"}
    assert sorted(found["depends_on"]) == ["artifacts", "base_cmdline", "guest_features", "kernel_cmdline", "vmm"]
    assert found["depends_on"]["base_cmdline"] == CMDLINE
    assert found["depends_on"]["kernel_cmdline"] == f"{CMDLINE} sev_agent.unbound"
    assert found["depends_on"]["guest_features"] == {"sev-es": "0x0", "snp": "0x1"}
    assert found["depends_on"]["artifacts"]["kernel"]["size"] == 6
    names = {model.name for model in CPU_MODELS}
    assert names == {"EPYC", "EPYC-Rome", "EPYC-Milan", "EPYC-Genoa", "EPYC-Turin"}
    assert set(found["cpu_models"]) == names
    modes = found["modes"]
    assert sorted(modes) == ["sev", "sev-es", "snp"]
    assert sorted(modes["sev"]) == ["algorithm", "digest"]
    assert sorted(modes["sev-es"]) == ["algorithm", "legacy-vm-type=off", "legacy-vm-type=on"]
    assert sorted(modes["snp"]) == ["algorithm", "digests", "resumable"]
    assert sorted(modes["snp"]["resumable"]) == ["before_vmsas", "vmsa_gpa", "vmsa_pages"]
    tables = [(modes["snp"]["digests"], 96)]
    tables += [(modes["sev-es"][f"legacy-vm-type={word}"], 64) for word in ("off", "on")]
    everything = [modes["sev"]["digest"]]
    for by_model, length in tables:
        assert set(by_model) == names
        for digests in by_model.values():
            assert list(digests) == [str(count) for count in range(1, 65)]
            assert {len(digest) for digest in digests.values()} == {length}
            everything += digests.values()
    assert len(set(everything)) == 1 + 3 * 5 * 64


def test_the_configured_ones_are_those_of_guest_toml(inputs: Inputs) -> None:
    for cpu, vcpus, legacy in (("EPYC-v4", 1, False), ("EPYC-Milan-v2", 5, True)):
        found = make(inputs, replace(GUEST, cpu=cpu, vcpus=vcpus, legacy_vm_type=legacy))
        name = cpu_models.find(cpu).name
        es = found["modes"]["sev-es"][f"legacy-vm-type={'on' if legacy else 'off'}"]
        assert found["configured"] == {
            "cpu": cpu,
            "vcpus": vcpus,
            "legacy_vm_type": legacy,
            "digests": {
                "sev": found["modes"]["sev"]["digest"],
                "sev-es": es[name][str(vcpus)],
                "snp": found["modes"]["snp"]["digests"][name][str(vcpus)],
            },
        }
    # Beyond the tables.
    found = make(inputs, replace(GUEST, vcpus=200))
    expected = by_library(inputs, SevMode.SEV_SNP, signature=CPU_MODELS[0].signature, vcpus=200)
    assert found["configured"]["digests"]["snp"] == expected


def test_the_same_inputs_give_the_same_bytes(inputs: Inputs) -> None:
    texts = {table.serialise(make(inputs)) for _ in range(2)}
    assert len(texts) == 1
    text = texts.pop()
    assert text.endswith("}\n")
    # Sorted, but numbers by value.
    assert text.index('"2": ') < text.index('"10": ')
    assert list(json.loads(text)) == sorted(json.loads(text))


def without(guid: str) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        del image.entries[guid]

    return change


def without_section(kind: int) -> Callable[[Image], None]:
    def change(image: Image) -> None:
        image.sections = [section for section in image.sections if section[2] != kind]

    return change


def like_ovmf_x64(image: Image) -> None:
    image.entries[HASHES] = entry(HASHES, bytes(8))
    image.entries[SECRET] = entry(SECRET, bytes(8))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without(HASHES), "no hashes table area"),
        (like_ovmf_x64, "hashes table area .* is invalid"),
        (without_section(1), "no SEC_MEM section"),
        (without_section(2), "no SECRETS section"),
        (without_section(3), "no CPUID section"),
        (without_section(0x10), "no KERNEL_HASHES section"),
    ],
)
def test_no_number_from_unsuitable_firmware(inputs: Inputs, change: Callable[[Image], None], said: str) -> None:
    """The library gives a number, an assertion or a traceback for most of these."""
    image = Image()
    change(image)
    inputs.firmware.write_bytes(image.build())
    with pytest.raises(FormatError, match=rf"\A[^\n]*OVMF.fd: [^\n]*{said}[^\n]*\Z"):
        Launch(inputs)
    inputs.firmware.write_bytes(Image().build())
    Launch(inputs)


@pytest.mark.parametrize(
    "cut",
    [
        slice(4096, SIZE),
        slice(0, SIZE - 4096),
        slice(0, VARS_SIZE),
        slice(VARS_SIZE, SIZE),
        slice(0, VARS_SIZE + CODE_SIZE),
        slice(SIZE - 4096, SIZE),
        slice(0, 10),
        slice(0, 0),
    ],
    ids=str,
)
@pytest.mark.parametrize("size_follows", [False, True])
def test_no_number_from_cut_or_split_firmware(inputs: Inputs, cut: "slice[int, int, None]", size_follows: bool) -> None:
    """Also when its size is said to be right."""
    image = bytes(Image().build())[cut]
    inputs.firmware.write_bytes(image)
    said = replace(inputs, firmware_size=len(image)) if size_follows and image else inputs
    with pytest.raises(FormatError, match=r"\A[^\n]+\Z"):
        Launch(said)


@pytest.mark.parametrize(
    "image",
    [
        bytes(Image().build())[VARS_SIZE:],
        bytes(Image(sections=[s for s in Image().sections if s[2] != 3]).build()),
    ],
    ids=["head cut off", "no CPUID section"],
)
def test_what_the_library_does_with_such_firmware(inputs: Inputs, image: bytes) -> None:
    """Why it is checked first: these are plausible numbers."""
    good = by_library(inputs, SevMode.SEV_SNP, signature=0xA00F11, vcpus=1)
    inputs.firmware.write_bytes(image)
    bad = by_library(inputs, SevMode.SEV_SNP, signature=0xA00F11, vcpus=1)
    assert len(bad) == len(good)
    assert bad != good
    assert by_library(inputs, SevMode.SEV_SNP, signature=0xA00F11, vcpus=0) != bad


def test_a_hashes_section_of_two_pages(inputs: Inputs) -> None:
    """The library would stop with an assertion."""
    image = Image()
    image.sections[5] = (0x812000, 0xE000, 1)
    image.sections[6] = (0x810000, 0x2000, 0x10)
    inputs.firmware.write_bytes(image.build())
    with pytest.raises(FormatError, match=r"section KERNEL_HASHES \(0x810000\+0x2000\) is not one page"):
        Launch(inputs)


@pytest.mark.parametrize("name", ["kernel", "initramfs", "firmware"])
def test_missing_files(inputs: Inputs, name: str) -> None:
    path: Path = getattr(inputs, name)
    path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        Launch(inputs)
    assert caught.value.filename in (str(path), path)


@pytest.mark.parametrize("vcpus", [0, -1, 256])
def test_counts_are_checked(inputs: Inputs, vcpus: int) -> None:
    launch = Launch(inputs)
    calls: tuple[Callable[[], object], ...] = (
        lambda: launch.snp(0xA00F11, up_to=vcpus),
        lambda: launch.sev_es(0xA00F11, legacy_vm_type=False, up_to=vcpus),
    )
    for compute in calls:
        with pytest.raises(ValueError, match=rf"{vcpus} vCPUs: not in 1…255"):
            compute()
    assert len(launch.snp(0xA00F11, up_to=255)) == 255


@pytest.mark.parametrize("signature", [0, 1, -1, 0x600F12, 0xA0FF11, 0x10A00F11, 1 << 40])
def test_signatures_are_checked(inputs: Inputs, signature: int) -> None:
    launch = Launch(inputs)
    for compute in (
        lambda: launch.snp(signature, up_to=1),
        lambda: launch.snp_start(signature),
        lambda: launch.sev_es(signature, legacy_vm_type=True, up_to=1),
    ):
        with pytest.raises(ValueError, match="is no CPUID signature"):
            compute()
