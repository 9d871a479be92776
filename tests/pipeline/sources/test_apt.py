# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What apt is asked, under which configuration, and what is made of its answers.

The programs are stand-ins on PATH that record how they were called and answer what real apt 2.6 and 3.0
printed; the real ones need an archive signed by Debian.
"""

import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import apt, mirrors
from tools.pipeline.sources.apt import Apt, Found
from tools.pipeline.sources.mirrors import Mirrors
from tools.pipeline.sources.pins import Archive, PoolFile
from tools.pipeline.sources.wanted import NO_OLDER, Architecture, Older

A, B = "a" * 64, "b" * 64

STAND_IN = """\
#!{python}
import json, os, sys
from pathlib import Path
here = Path(__file__).parent
name = Path(__file__).name
with (here / "calls").open("a") as file:
    print(json.dumps([name, *sys.argv[1:], sorted(os.environ)]), file=file)
for words, status, out, err in json.loads((here / "answers").read_text()):
    if all(word in [name, *sys.argv[1:]] for word in words):
        print(out, end="")
        print(err, end="", file=sys.stderr)
        sys.exit(status)
sys.exit(0)
"""


class StandIn:
    """apt-get, apt-cache and apt-config in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.answers: list[tuple[list[str], int, str, str]] = []
        for name in ("apt-get", "apt-cache", "apt-config"):
            (folder / name).write_text(STAND_IN.format(python=sys.executable))
            (folder / name).chmod(0o755)
        self.answer()

    def answer(self, *words: str, status: int = 0, out: str = "", err: str = "") -> None:
        """To a call that has all these words."""
        if words:
            self.answers.append((list(words), status, out, err))
        (self.folder / "answers").write_text(json.dumps(self.answers))

    def calls(self, name: str) -> list[list[str]]:
        """The arguments of each call, without the environment."""
        lines = (self.folder / "calls").read_text().splitlines()
        return [call[1:-1] for call in map(json.loads, lines) if call[0] == name]

    def environment(self) -> list[str]:
        """Names of the variables that the last call saw."""
        last: list[str] = json.loads((self.folder / "calls").read_text().splitlines()[-1])[-1]
        return [name for name in last if name != "LC_CTYPE"]  # Python's own, PEP 538


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    monkeypatch.setenv("APT_CONFIG", "/somebody/elses")
    monkeypatch.setenv("LANG", "de_DE.UTF-8")
    keyring = tmp_path / "keyring.gpg"
    keyring.write_bytes(b"")
    monkeypatch.setattr(apt, "KEYRINGS", (keyring,))
    return made


def make(tmp_path: Path, known: Mirrors | None = None, *, older: Older = NO_OLDER) -> Apt:
    known = known or mirrors.from_setting(["http://h/debian", "http://h/debian-security"])
    return Apt(folder=tmp_path / "apt", suite="trixie", older=older, architecture=Architecture.AMD64, mirrors=known)


def test_update_is_private(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer("apt-config", out='Acquire::http "";\nAcquire::http::Proxy "http://p:1";\n')
    make(tmp_path).update()
    folder = tmp_path / "apt"
    keyring = tmp_path / "keyring.gpg"
    assert (folder / "sources.list").read_text().splitlines() == [
        f"deb [signed-by={keyring}] http://h/debian trixie main",
        f"deb-src [signed-by={keyring}] http://h/debian trixie main",
        f"deb [signed-by={keyring}] http://h/debian trixie-updates main",
        f"deb-src [signed-by={keyring}] http://h/debian trixie-updates main",
        f"deb [signed-by={keyring}] http://h/debian-security trixie-security main",
        f"deb-src [signed-by={keyring}] http://h/debian-security trixie-security main",
    ]
    for name in ("sources.list", "apt.conf"):  # both may hold passwords
        assert oct((folder / name).stat().st_mode) == "0o100600"
    assert (folder / "status").read_bytes() == b""
    configuration = (folder / "apt.conf").read_text().splitlines()
    for line in (
        f'Dir::State "{folder}/state";',
        f'Dir::State::status "{folder}/status";',
        'Dir::Etc::parts "/dev/null";',
        'Dir::Etc::sourceparts "/dev/null";',
        'Dir::Etc::trustedparts "/dev/null";',
        'APT::Architectures "amd64";',
        'APT::Install-Recommends "false";',
        'Acquire::ForceHash "SHA256";',
        'Acquire::http::Proxy "http://p:1";',
    ):
        assert line in configuration
    assert 'Acquire::http "";' not in configuration
    assert stand_in.calls("apt-get") == [["-qq", "-o", "APT::Update::Error-Mode=any", "update"]]
    assert stand_in.environment() == ["APT_CONFIG", "LC_ALL", "PATH", "http_proxy"]


def test_sources_of_another_suite(stand_in: StandIn, tmp_path: Path) -> None:
    """Nothing but its source packages: no tree takes a package from there."""
    replace(make(tmp_path), sources=("trixie-backports",)).update()
    lines = (tmp_path / "apt/sources.list").read_text().splitlines()
    keyring = tmp_path / "keyring.gpg"
    assert [line for line in lines if "backports" in line] == [
        f"deb-src [signed-by={keyring}] http://h/debian trixie-backports main"
    ]


def test_closure(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer(
        "install",
        out="'http://h/debian/pool/main/g/gcc/g%2b%2b_14.2.0%2bb1_amd64.deb' g++_4%3a14.2.0+b1_amd64.deb "
        f"1344 SHA256:{A}\n"
        "'http://h/debian-security/pool/updates/main/l/l_1%7edeb_all.deb' l_1~deb_all.deb "
        f"12 SHA256:{B}\n",
        err="W: a warning\n",
    )
    assert make(tmp_path).closure(["g++", "l"]) == [
        Found(
            file="g++_4:14.2.0+b1_amd64.deb",
            origin=PoolFile(archive=Archive.DEBIAN, path="pool/main/g/gcc/g++_14.2.0+b1_amd64.deb"),
            size=1344,
            sha256=A,
        ),
        Found(
            file="l_1~deb_all.deb",
            origin=PoolFile(archive=Archive.SECURITY, path="pool/updates/main/l/l_1~deb_all.deb"),
            size=12,
            sha256=B,
        ),
    ]
    assert stand_in.calls("apt-get") == [
        ["-qq", "--yes", "--no-install-recommends", "--print-uris", "install", "g++", "l"]
    ]


@pytest.mark.parametrize(
    ("out", "says"),
    [
        (f"'http://h/debian/pool/x_1_all.deb' x_1_all.deb 5 MD5Sum:{'a' * 32}\n", "pins nothing"),
        (f"'http://elsewhere/debian/pool/x_1_all.deb' x_1_all.deb 5 SHA256:{A}\n", "pins nothing"),
        ("'http://h/debian/pool/x_1_all.deb' x_1_all.deb 5 \n", "pins nothing"),
        ("", "apt named no file"),
    ],
)
def test_an_answer_that_pins_nothing_is_refused(stand_in: StandIn, tmp_path: Path, out: str, says: str) -> None:
    stand_in.answer("install", out=out)
    with pytest.raises(BuildError, match=says):
        make(tmp_path).closure(["x"])


def test_apt_fails(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer("update", status=100, err="W: noise\nE: Failed to fetch http://h/x  404\nE: Some index files\n")
    with pytest.raises(BuildError) as caught:
        make(tmp_path).update()
    assert "apt-get update failed: E: Failed to fetch http://h/x  404 E: Some index files" in str(caught.value)
    assert "W: noise" not in str(caught.value)
    assert "SEV_ARTIFACTS_MIRROR" in str(caught.value)


def test_a_folder_whose_name_is_no_utf8(stand_in: StandIn, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9/apt")
    made = replace(make(tmp_path), folder=folder)
    made.update()
    assert b'Dir::State "' + os.fsencode(folder) + b'/state";\n' in (folder / "apt.conf").read_bytes()
    made.fingerprint()
    stand_in.answer("install", out=f"'http://h/debian/pool/x_1_all.deb' x_1_all.deb 5 SHA256:{A}\n")
    assert [found.file for found in made.closure(["x"])] == ["x_1_all.deb"]


def test_fingerprint_follows_the_signed_files(stand_in: StandIn, tmp_path: Path) -> None:
    made = make(tmp_path)
    made.update()
    first = made.fingerprint()
    release = made.folder / "state/lists/h_debian_dists_trixie_InRelease"
    release.write_text("one")
    second = made.fingerprint()
    release.write_text("two")
    assert len({first, second, made.fingerprint()}) == 3


def test_password_of_a_mirror_is_not_shown(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer("update", status=100, err="E: Failed to fetch http://u:s3cret@h/debian/x  404\n")
    with pytest.raises(BuildError, match=r"http://\*\*\*@h/debian/x") as caught:
        make(tmp_path, mirrors.from_setting(["http://u:s3cret@h/debian", "http://h/debian-security"])).update()
    assert "s3cret" not in str(caught.value)


def test_source_of_a_version_that_the_index_has_not(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer("showsrc", out="Package: linux\nVersion: 6.12.107-1\n\nVersion: 6.12.117-1\n\nVersion: 9\x1b[2J\n")
    stand_in.answer("source", out=f"'http://h/debian/pool/l.tar.xz' l.tar.xz 5 SHA256:{A}\n")
    made = make(tmp_path)
    assert made.source("linux", "9") == []
    assert made.source_versions("linux") == ["6.12.107-1", "6.12.117-1"]
    assert [found.file for found in made.source("linux", "6.12.107-1")] == ["l.tar.xz"]
    assert stand_in.calls("apt-get") == [["-qq", "--print-uris", "--only-source", "source", "linux=6.12.107-1"]]


def test_versions_are_compared_as_dpkg_does(stand_in: StandIn, tmp_path: Path) -> None:
    made = make(tmp_path)
    assert made.newest_first(["1.9", "1.10", "1:0", "1.10~rc1"]) == ["1:0", "1.10", "1.10~rc1", "1.9"]
    with pytest.raises(BuildError, match="dpkg cannot compare the versions 1- and 1"):
        made.precedes("1-", "1")


def test_versions_to_prefer_and_to_avoid(stand_in: StandIn, tmp_path: Path) -> None:
    stand_in.answer("install", out=f"'http://h/debian/pool/x_1_all.deb' x_1_all.deb 5 SHA256:{A}\n")
    made = make(tmp_path)
    made.update()
    assert f'Dir::Etc::preferences "{made.folder}/preferences";' in (made.folder / "apt.conf").read_text()
    made.closure(["x"], prefer={"x": "1:2+b1"}, avoid=[("y", "3")])
    assert (made.folder / "preferences").read_text() == (
        "Package: x\nPin: version 1:2+b1\nPin-Priority: 1001\n\nPackage: y\nPin: version 3\nPin-Priority: -1\n"
    )
    made.closure(["x"])
    assert (made.folder / "preferences").read_text() == ""


def test_an_older_suite_fills_in(stand_in: StandIn, tmp_path: Path) -> None:
    """The named ones of its packages, no sources; and none that the suite has in any version: its priority is 500."""
    stand_in.answer("install", out=f"'http://h/debian/pool/x_1_all.deb' x_1_all.deb 5 SHA256:{A}\n")
    made = make(tmp_path)
    made.update()
    without = (made.folder / "sources.list").read_text()
    made = make(tmp_path, older=Older(suite="bookworm", packages=("old",)))
    made.update()
    more = (made.folder / "sources.list").read_text().removeprefix(without).splitlines()
    signed = f"deb [signed-by={tmp_path}/keyring.gpg]"
    assert more == [
        f"{signed} http://h/debian bookworm main",
        f"{signed} http://h/debian bookworm-updates main",
        f"{signed} http://h/debian-security bookworm-security main",
    ]
    made.closure(["x"], avoid=[("y", "3")])
    assert (made.folder / "preferences").read_text() == (
        "Package: y\nPin: version 3\nPin-Priority: -1\n"
        "\nPackage: old\nPin: release n=bookworm*\nPin-Priority: 100\n"
        "\nPackage: old\nPin: release a=bookworm*\nPin-Priority: 100\n"
        "\nPackage: *\nPin: release n=bookworm*\nPin-Priority: -1\n"
        "\nPackage: *\nPin: release a=bookworm*\nPin-Priority: -1\n"
    )


def test_no_apt_on_this_machine(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(stand_in.folder)
    monkeypatch.setenv("PATH", str(stand_in.folder))
    with pytest.raises(UserError, match=r"is not installed; \./doit lock needs a machine with apt; building does not"):
        make(tmp_path).update()


def test_no_keyring(stand_in: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "KEYRINGS", (tmp_path / "none.gpg",))
    with pytest.raises(UserError, match="install debian-archive-keyring"):
        make(tmp_path).update()


def test_one_archive_without_a_mirror(stand_in: StandIn, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no mirror of the debian-security archive"):
        make(tmp_path, mirrors.from_setting(["http://h/debian"])).update()
