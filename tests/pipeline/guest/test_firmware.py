# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The firmware's steps: Debian's patches and ours on a small tree, in the sandbox; the footer of what was built."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.alone import engine, output
from tests.pipeline.guest import tree_kit
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.step import Literal, Step
from tools.pipeline.guest import firmware, patches, source_tree
from tools.pipeline.recipes.firmwares import FirmwareRecipe
from tools.pipeline.tasks.project import Project

JUDGED = "recipes/firmware/patches/debian.toml"
ENTRY = '[[debian]]\nfile = "a.patch"\ncves = ["CVE-2025-1234"]\napply = true\nreason = "built"\n'
DIFF = "--- a/MdePkg/x.c\n+++ b/MdePkg/x.c\n@@ -1,2 +1,2 @@\n one\r\n-two\r\n+{}\r\n"
TREE = {"edk2/MdePkg/x.c": b"one\r\ntwo\r\n"}

Judge = Callable[[str], Path]


@pytest.fixture
def recipe(project: Project) -> FirmwareRecipe:
    return project.recipes.profile("production").firmware


@pytest.fixture
def judge(copied: Path) -> Judge:
    """judge(text): write the list of judged patches, leave out ours; give the checkout."""

    def write(text: str) -> Path:
        (copied / JUDGED).write_text(text)
        (copied / "recipes/firmware/patches/series").write_text("")
        for patch in (copied / "recipes/firmware/patches").glob("*.patch"):
            patch.unlink()
        return copied

    return write


def source(root: Path, recipe: FirmwareRecipe, **debian: str) -> Step:
    """The step, on a small tree and a Debian package with these patches."""
    members = {
        "debian/patches/series": b"",
        **{f"debian/patches/{name}.patch": t.encode() for name, t in debian.items()},
    }
    return firmware.source(
        root,
        recipe,
        archive=Literal(data=tree_kit.tar(TREE)),
        debian=Literal(data=tree_kit.tar(members, compress="xz")),
        version="1",
    )


def test_judged_patches_are_applied_or_not(
    judge: Judge, recipe: FirmwareRecipe, project: Project, tmp_path: Path
) -> None:
    other = ENTRY.replace("a.patch", "b.patch").replace("true", "false")
    root = judge("schema = 1\n" + ENTRY + other)
    step = source(root, recipe, a=DIFF.format("TWO"), b=DIFF.format("never"))
    packed = output(engine(project, tmp_path, root=root), step, source_tree.ARCHIVE)
    assert tree_kit.contents(packed)["MdePkg/x.c"] == b"one\r\nTWO\r\n"


@pytest.mark.parametrize(
    ("there", "says"),
    [
        ("a new", f"{JUDGED}: new.patch of Debian's edk2 is not judged; add it, with a reason"),
        ("", f"{JUDGED}: a.patch is not in Debian's edk2 any more; remove it"),
        ("a", "debian/patches/a.patch: MdePkg/x.c: hunk 1 does not fit at line 1; refresh the patch against "),
    ],
)
def test_a_patch_that_nobody_judged_or_that_does_not_fit(judge: Judge, project: Project, there: str, says: str) -> None:
    """One line with its place, and the user's mistake: status 2."""
    root = judge("schema = 1\n" + ENTRY)
    recipe = project.recipes.profile("production").firmware
    step = source(root, recipe, **dict.fromkeys(there.split(), DIFF.format("TWO").replace("two", "nine")))
    with pytest.raises(UserError) as caught:
        engine(project, root.parent, root=root).ensure(step)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "schema: missing"),
        ("schema = 2\n" + ENTRY, "schema: 2 is not in"),
        ("schema = 1\n", "debian: missing"),
        ("schema = 1\nextra = 1\n" + ENTRY, "extra: unknown key"),
        ("schema = 1\n" + ENTRY + "why = 1\n", "debian[0].why: unknown key"),
        ("schema = 1\n" + ENTRY + ENTRY, "debian[1].file: 'a.patch' stands twice"),
        ("schema = 1\n" + ENTRY.replace("a.patch", "../a.patch"), "debian[0].file: '../a.patch' is not"),
        ("schema = 1\n" + ENTRY.replace('"built"', '""'), "debian[0].reason"),
        ("schema = 1\n" + ENTRY.replace("true", '"yes"'), "debian[0].apply: must be true or false"),
    ],
)
def test_bad_lists(judge: Judge, recipe: FirmwareRecipe, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"{JUDGED}: {message}")) as caught:
        firmware.debian_patches(judge(text), recipe)
    assert "\n" not in str(caught.value)


def test_the_real_list(project: Project, recipe: FirmwareRecipe) -> None:
    """What is applied today, and that every CVE Debian fixes has a decision."""
    assert [patch.file for patch in firmware.debian_patches(project.root, recipe) if patch.apply] == [
        "0001-Fix-timing-side-channel-in-ECDSA-signature-computati.patch",
        "0001-OvmfPkg-QemuKernelLoaderFsDxe-fix-allocation-failure.patch",
    ]
    text = (project.root / JUDGED).read_text()
    assert set(re.findall(r'"(CVE-[^"]*)"', text)) == {
        "CVE-2024-13176",
        "CVE-2024-38797",
        "CVE-2024-38805",
        "CVE-2025-2295",
        "CVE-2025-3770",
    }


def test_our_own_patches(project: Project, recipe: FirmwareRecipe) -> None:
    """They load; plain line ends, because apply-patches.sh adds the CR of edk2's files."""
    series = patches.load_series(project.root, recipe.patches, licence="BSD-2-Clause-Patent")
    assert series
    for patch in series:
        assert b"\r" not in (project.root / patch.path).read_bytes()


def test_the_footer_is_checked(project: Project, recipe: FirmwareRecipe, firmware_path: Path, tmp_path: Path) -> None:
    """Of the size that the recipe says, with its tables: the build ends before anything is published that has none."""
    (check,) = project.plan.firmware(recipe).checks
    check({firmware.IMAGE: firmware_path})
    good = firmware_path.read_bytes()
    for bad in (good[4096:], good[:-4096] + bytes(4096)):
        (tmp_path / "OVMF.fd").write_bytes(bad)
        with pytest.raises(BuildError, match=r"^OVMF\.fd: "):
            check({firmware.IMAGE: tmp_path / "OVMF.fd"})


MODULES = {
    "MdeModulePkg/Core/Dxe/DxeMain.inf",
    "MdeModulePkg/Core/DxeIplPeim/DxeIpl.inf",
    "MdeModulePkg/Core/Pei/PeiMain.inf",
    "MdeModulePkg/Core/RuntimeDxe/RuntimeDxe.inf",
    "MdeModulePkg/Universal/Acpi/AcpiTableDxe/AcpiTableDxe.inf",
    "MdeModulePkg/Universal/Metronome/Metronome.inf",
    "MdeModulePkg/Universal/PCD/Dxe/Pcd.inf",
    "MdeModulePkg/Universal/PCD/Pei/Pcd.inf",
    "MdeModulePkg/Universal/ResetSystemRuntimeDxe/ResetSystemRuntimeDxe.inf",
    "MdeModulePkg/Universal/SecurityStubDxe/SecurityStubDxe.inf",
    "MdeModulePkg/Universal/WatchdogTimerDxe/WatchdogTimer.inf",
    "OvmfPkg/AcpiPlatformDxe/AcpiPlatformDxe.inf",
    "OvmfPkg/AmdSev/SecretDxe/SecretDxe.inf",
    "OvmfPkg/AmdSev/SecretPei/SecretPei.inf",
    "OvmfPkg/AmdSevDxe/AmdSevDxe.inf",
    "OvmfPkg/IoMmuDxe/IoMmuDxe.inf",
    "OvmfPkg/LocalApicTimerDxe/LocalApicTimerDxe.inf",
    "OvmfPkg/PlatformPei/PlatformPei.inf",
    "OvmfPkg/QemuKernelLoaderFsDxe/QemuKernelLoaderFsDxe.inf",
    "OvmfPkg/ResetVector/ResetVector.inf",
    "OvmfPkg/Sec/SecMain.inf",
    "SecurityPkg/RandomNumberGenerator/RngDxe/RngDxe.inf",
    "SevGuest/AbsentServicesDxe/AbsentServicesDxe.inf",
    "SevGuest/KernelBdsDxe/KernelBdsDxe.inf",
    "UefiCpuPkg/CpuDxe/CpuDxe.inf",
    "UefiCpuPkg/CpuMpPei/CpuMpPei.inf",
}


def test_the_firmware_has_these_modules_and_no_other(repository: Path) -> None:
    """The build refuses some names; any other driver would read what a host gives it before anything is verified."""
    platform = repository / "recipes/firmware/platform"
    volumes = (platform / "SevGuest.fdf").read_text()
    assert {line.split()[-1] for line in volumes.splitlines() if line.lstrip().startswith("INF ")} == MODULES
    included = set(re.findall(r"^!include (\S+)", volumes, re.MULTILINE))
    assert included == {"SevGuest/Volume.fdf.inc", "OvmfPkg/Include/Fdf/FvmainCompactScratchEnd.fdf.inc"}
    components = (platform / "SevGuest.dsc").read_text().partition("[Components]")[2]
    compiled = re.findall(r"^  ([A-Za-z]\S*/\S+\.inf)", components, re.MULTILINE)
    assert set(compiled) == MODULES
