# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
import io
import re
import tarfile
from pathlib import Path

import pytest

from tools.pipeline.base.errors import UserError
from tools.pipeline.guest import firmware, patches

ROOT = Path(__file__).resolve().parents[3]
PATCHES = "recipes/firmware/patches"
ENTRY = '[[debian]]\nfile = "a.patch"\ncves = ["CVE-2025-1234"]\napply = true\nreason = "built"\n'


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "debian.toml").write_text(text)
    return tmp_path


def archive(tmp_path: Path, *names: str) -> Path:
    path = tmp_path / "edk2.debian.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(f"debian/patches/{name}"), io.BytesIO())
    return path


def test_the_real_list() -> None:
    """What is applied today, and that every CVE Debian fixes has a decision."""
    judged = firmware.judged_patches(ROOT, f"{PATCHES}/debian.toml")
    assert [patch.file for patch in judged if patch.apply] == [
        "0001-Fix-timing-side-channel-in-ECDSA-signature-computati.patch",
        "0001-OvmfPkg-QemuKernelLoaderFsDxe-fix-allocation-failure.patch",
    ]
    text = (ROOT / PATCHES / "debian.toml").read_text()
    assert set(re.findall(r'"(CVE-[^"]*)"', text)) == {
        "CVE-2024-13176",
        "CVE-2024-38797",
        "CVE-2024-38805",
        "CVE-2025-2295",
        "CVE-2025-3770",
    }


def test_list_must_cover_the_archive(tmp_path: Path) -> None:
    judged = firmware.judged_patches(write(tmp_path, "schema = 1\n" + ENTRY), "debian.toml")
    firmware._check_all_judged(archive(tmp_path, "series", "a.patch"), judged, where="debian.toml")
    with pytest.raises(UserError, match=r"new\.patch of Debian's edk2 is not judged; add it"):
        firmware._check_all_judged(archive(tmp_path, "series", "a.patch", "new.patch"), judged, where="debian.toml")
    with pytest.raises(UserError, match=r"a\.patch is not in Debian's edk2 any more; remove it"):
        firmware._check_all_judged(archive(tmp_path, "series"), judged, where="debian.toml")


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
def test_bad_lists(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        firmware.judged_patches(write(tmp_path, text), "debian.toml")
    assert "\n" not in str(caught.value)


def test_our_own_patches() -> None:
    """They load; plain line ends, because apply-patches.sh adds the CR of edk2's files."""
    series = patches.load_series(ROOT, PATCHES, licence="BSD-2-Clause-Patent")
    assert series
    for patch in series:
        assert b"\r" not in (ROOT / patch.path).read_bytes()
