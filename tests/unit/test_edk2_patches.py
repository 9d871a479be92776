# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
import io
import re
import tarfile
from pathlib import Path

import pytest

from tools.pipeline import edk2_patches
from tools.pipeline.errors import UserError

HERE = Path(__file__).resolve().parents[2] / "recipes" / "firmware"
ENTRY = '[[debian]]\nfile = "a.patch"\ncves = ["CVE-2025-1234"]\napply = true\nreason = "built"\n'


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "edk2-patches.toml"
    path.write_text(text)
    return path


def archive(tmp_path: Path, series: bytes | None) -> Path:
    path = tmp_path / "edk2.debian.tar.xz"
    with tarfile.open(path, "w:xz") as tar:
        if series is not None:
            member = tarfile.TarInfo("debian/patches/series")
            member.size = len(series)
            tar.addfile(member, io.BytesIO(series))
    return path


def test_the_real_list() -> None:
    patches = edk2_patches.load(HERE / "edk2-patches.toml", shown_as="edk2-patches.toml")
    assert {cve for patch in patches for cve in patch.cves} == {
        "CVE-2024-13176",
        "CVE-2024-38797",
        "CVE-2024-38805",
        "CVE-2025-2295",
        "CVE-2025-3770",
    }
    assert edk2_patches.applied(patches) == (
        "0001-Fix-timing-side-channel-in-ECDSA-signature-computati.patch",
        "0001-OvmfPkg-QemuKernelLoaderFsDxe-fix-allocation-failure.patch",
    )


def test_list_must_cover_the_archive(tmp_path: Path) -> None:
    patches = edk2_patches.load(write(tmp_path, "schema = 1\n" + ENTRY), shown_as="list")
    edk2_patches.check_archive(patches, archive(tmp_path, b"# c\n\na.patch -p1 # why\n"), shown_as="list")
    with pytest.raises(UserError, match=r"\Alist: Debian's patch new\.patch is not listed; add it"):
        edk2_patches.check_archive(patches, archive(tmp_path, b"a.patch\nnew.patch\n"), shown_as="list")
    with pytest.raises(UserError, match=r"\Alist: .* has no patch a\.patch"):
        edk2_patches.check_archive(patches, archive(tmp_path, b""), shown_as="list")


def test_bad_archives(tmp_path: Path) -> None:
    for path in (archive(tmp_path, None), tmp_path / "none", write(tmp_path, "no tar")):
        with pytest.raises(UserError, match=r"holds no readable debian/patches/series"):
            edk2_patches.check_archive((), path, shown_as="list")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "schema: missing"),
        ("schema = 2\n" + ENTRY, "schema: 2 is not in"),
        ("schema = 1\n", "debian: missing"),
        ("schema = 1\nextra = 1\n" + ENTRY, "extra: unknown key"),
        ("schema = 1\n" + ENTRY + "why = 1\n", "debian[0].why: unknown key"),
        ("schema = 1\n" + ENTRY + ENTRY, "debian[1].file: a.patch is listed twice"),
        ("schema = 1\n" + ENTRY.replace("a.patch", "../a.patch"), "debian[0].file: '../a.patch' is not"),
        ("schema = 1\n" + ENTRY.replace("CVE-2025-1234", "cve-1"), "'cve-1' is not a CVE identifier"),
        ("schema = 1\n" + ENTRY.replace('"built"', '""'), "debian[0].reason"),
        ("schema = 1\n" + ENTRY.replace("true", '"yes"'), "debian[0].apply: must be true or false"),
    ],
)
def test_bad_lists(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        edk2_patches.load(write(tmp_path, text), shown_as="list")
    assert "\n" not in str(caught.value)


def test_our_own_patches() -> None:
    folder = HERE / "patches"
    named = [line for line in (folder / "series").read_text().splitlines() if line and line[0] != "#"]
    assert named == sorted(path.name for path in folder.glob("*.patch"))
    for name in named:
        text = (folder / name).read_bytes()
        # prepare.sh adds the CR that edk2's files have.
        assert b"\r" not in text
        header = text.decode().split("\n---\n")[0]
        for field in (
            "Subject: ",
            "SPDX-FileCopyrightText: ",
            "SPDX-License-Identifier: BSD-2-Clause-Patent",
            "Upstream: ",
            "Tested: ",
        ):
            assert sum(line.startswith(field) for line in header.splitlines()) == 1, (name, field)
