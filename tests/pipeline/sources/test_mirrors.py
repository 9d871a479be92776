# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where pins are looked for: the setting, or apt's configuration in each form that Debian installs."""

from pathlib import Path

import pytest

from tools.pipeline.base.errors import UserError
from tools.pipeline.sources import mirrors
from tools.pipeline.sources.mirrors import Mirror, Mirrors
from tools.pipeline.sources.pins import Archive, LocalFile, Pin, PoolFile, Urls

DIGEST = "ab" + "0" * 62


def pin(origin: PoolFile | Urls | LocalFile) -> Pin:
    return Pin(name="x", version="1", sha256=DIGEST, size=1, origin=origin, lock="recipes/x.lock")


GCC = pin(PoolFile(archive=Archive.DEBIAN, path="pool/main/g/gcc/g++_14+b1~x_amd64.deb"))
FIX = pin(PoolFile(archive=Archive.SECURITY, path="pool/updates/main/f/fix_1_all.deb"))


def test_setting() -> None:
    found = mirrors.from_setting(
        ["http://h/debian/", "http://h/debian-security", "https://s/archive/debian/20260101T000000Z/"]
    )
    assert found.urls(GCC) == (
        "http://h/debian/pool/main/g/gcc/g%2B%2B_14%2Bb1~x_amd64.deb",
        "https://s/archive/debian/20260101T000000Z/pool/main/g/gcc/g%2B%2B_14%2Bb1~x_amd64.deb",
    )
    assert found.urls(FIX) == (
        "http://h/debian-security/pool/updates/main/f/fix_1_all.deb",
        # Where a point release moves it.
        "http://h/debian/pool/main/f/fix_1_all.deb",
        "https://s/archive/debian/20260101T000000Z/pool/main/f/fix_1_all.deb",
    )


def test_bundle_in_the_setting() -> None:
    found = mirrors.from_setting(["file:///srv/bundle"])
    assert found.urls(FIX) == (
        f"file:///srv/bundle/sha256/ab/{DIGEST}",
        "file:///srv/bundle/debian-security/pool/updates/main/f/fix_1_all.deb",
        "file:///srv/bundle/debian/pool/main/f/fix_1_all.deb",
    )
    https = pin(Urls(urls=("https://upstream/x.tar",)))
    assert found.urls(https) == (f"file:///srv/bundle/sha256/ab/{DIGEST}", "https://upstream/x.tar")


def test_a_prefix_says_what_the_path_does_not() -> None:
    found = mirrors.from_setting(["bundle=file:///home/debian/copy", "debian-security=http://h/s", "debian=http://h/d"])
    assert [m.archive for m in found.mirrors] == [None, Archive.SECURITY, Archive.DEBIAN]
    assert found.of_archive(Archive.DEBIAN) == ("http://h/d", "file:///home/debian/copy/debian")


@pytest.mark.parametrize(
    "word",
    [
        "debian",
        "ftp://h/debian",
        "http://",
        "/srv/mirror",
        "file://host/x",
        "x=http:y",
        "http://[::1/debian",
        "http://h:99999/debian",
        "http://h:port/debian",
        "http://u:secret@[::1/debian",
    ],
)
def test_bad_setting(word: str) -> None:
    with pytest.raises(UserError, match=r"SEV_ARTIFACTS_MIRROR: .*is not a base URL") as caught:
        mirrors.from_setting(["http://h/debian", word])
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_one_line_style(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        "# deb http://commented/debian trixie main\n"
        "deb http://one/debian trixie main contrib\n"
        "deb-src [signed-by=/k.gpg arch=amd64] http://two/debian/ trixie main # why\n"
        "deb [ arch=amd64 ] https://sec/debian-security trixie-security main\n"
        "deb cdrom:[Debian]/debian trixie main\n"
        "deb https://vendor/apt stable main\n"
        "deb http://other/ubuntu noble main\n"
    )
    found = mirrors.from_apt(tmp_path)
    assert found == Mirrors(
        mirrors=(
            Mirror(base="http://one/debian", archive=Archive.DEBIAN),
            Mirror(base="http://two/debian", archive=Archive.DEBIAN),
            Mirror(base="https://sec/debian-security", archive=Archive.SECURITY),
        )
    )


def test_deb822_style(tmp_path: Path) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(
        "Types: deb deb-src\n# a comment\nURIs: http://one/debian\n  http://two/debian\nSuites: trixie\n"
        "Components: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n -----END\n"
        "\nTypes: deb\nURIs: http://one/debian-security/\nSuites: trixie-security\n"
        "\nEnabled: no\nTypes: deb\nURIs: http://off/debian\nSuites: sid\n"
    )
    (folder / "ignored.save").write_text("deb http://saved/debian trixie main\n")
    found = mirrors.from_apt(tmp_path)
    assert [m.base for m in found.mirrors] == [
        "http://one/debian",
        "http://two/debian",
        "http://one/debian-security",
    ]


def test_mirror_lists_of_cloud_images(tmp_path: Path) -> None:
    listed = tmp_path / "debian.list"
    listed.write_text("# comment\nhttps://cloud/debian\tpriority:1\n\n")
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(
        f"Types: deb\nURIs: mirror+file:{listed}\nSuites: trixie\n\nTypes: deb\nURIs: mirror+file:/nowhere\n"
    )
    assert [m.base for m in mirrors.from_apt(tmp_path).mirrors] == ["https://cloud/debian"]


def test_the_setting_replaces_apt(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://apt/debian trixie main\n")
    assert mirrors.discover([], apt=tmp_path).of_archive(Archive.DEBIAN) == ("http://apt/debian",)
    assert mirrors.discover(["http://mine/debian"], apt=tmp_path).of_archive(Archive.DEBIAN) == ("http://mine/debian",)


@pytest.mark.parametrize("url", ["http://[::1/debian", "http://u:secret@h:99999/debian"])
def test_broken_entry_of_apt_is_named(tmp_path: Path, url: str) -> None:
    folder = tmp_path / "sources.list.d"
    folder.mkdir()
    (folder / "debian.sources").write_text(f"Types: deb\nURIs: {url}\nSuites: trixie\nComponents: main\n")
    with pytest.raises(UserError, match=r"debian\.sources: .* is not the URL of an archive; correct it") as caught:
        mirrors.from_apt(tmp_path)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    (folder / "debian.sources").write_text("Types: deb\nURIs: cdrom:[Debian\nSuites: trixie\nComponents: main\n")
    assert mirrors.from_apt(tmp_path) == Mirrors(mirrors=())


def test_neither_says_what_to_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'set SEV_ARTIFACTS_MIRROR to base URLs, for example "http://HOST/debian') as e:
        mirrors.discover([], apt=tmp_path).urls(GCC)
    assert e.value.exit_status == 2
    assert "no mirror of the debian archive is known" in str(e.value)


@pytest.mark.parametrize(
    ("known", "beside"),
    [
        ("http://h/debian", "http://h/debian-security"),
        ("http://debian/debian", "http://debian/debian-security"),
        ("https://s/archive/debian/20260101T000000Z", "https://s/archive/debian-security/20260101T000000Z"),
    ],
)
def test_security_is_derived_and_said(
    known: str, beside: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sources.list").write_text(f"deb {known.replace('://', '://u:secret@')} trixie main\n")
    found = mirrors.discover([], apt=tmp_path)
    assert found.of_archive(Archive.SECURITY) == (beside.replace("://", "://u:secret@"),)
    said = capfd.readouterr().err
    assert f"names no mirror of debian-security; looking for it at {beside.replace('://', '://***@')}" in said
    assert "secret" not in said
    (tmp_path / "sources.list").write_text(f"deb {known} trixie main\ndeb http://sec/debian-security trixie main\n")
    assert mirrors.discover([], apt=tmp_path).of_archive(Archive.SECURITY) == ("http://sec/debian-security",)
    assert capfd.readouterr().err == ""


def test_no_security_is_derived_from_what_the_path_does_not_name() -> None:
    assert mirrors.discover(["debian=http://h/d"]).of_archive(Archive.SECURITY) == ()
    assert mirrors.discover(["file:///srv/bundle"]).of_archive(Archive.SECURITY) == (
        "file:///srv/bundle/debian-security",
    )


def test_local_file_needs_no_mirror() -> None:
    assert Mirrors(mirrors=()).urls(pin(LocalFile(path="a"))) == ()
