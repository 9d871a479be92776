# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The manifest, and the newc bytes that it becomes, read here without libarchive."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.sandbox import EPOCH
from tools.pipeline.guest import initramfs
from tools.pipeline.guest.initramfs import Manifest

MANIFEST = """
schema = 1
budget = 1000
[[entry]]
path = "usr/lib/data"
type = "file"
mode = "0640"
file = "data/file.txt"
[[entry]]
path = "usr"
type = "dir"
mode = "0755"
[[entry]]
path = "usr/lib"
type = "dir"
mode = "0711"
[[entry]]
path = "init"
type = "file"
mode = "0755"
artifact = "agent"
[[entry]]
path = "usr/link"
type = "link"
mode = "0777"
target = "lib/data"
[[entry]]
path = "usr-x"
type = "dir"
mode = "01777"
[[entry]]
path = "console"
type = "char"
mode = "0600"
major = 5
minor = 1
"""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One newc header with its data; the names are those of the kernel's buffer-format.rst."""

    name: str
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    mtime: int
    dev: tuple[int, int]
    rdev: tuple[int, int]
    data: bytes


def newc(archive: bytes) -> Iterator[Member]:
    """Documentation/driver-api/early-userspace/buffer-format.rst; the trailer must come, then zeros."""
    at = 0
    while True:
        assert archive[at : at + 6] == b"070701"
        f = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
        size, name_size, check = f[6], f[11], f[12]
        assert check == 0
        name = archive[at + 110 : at + 110 + name_size]
        assert name.endswith(b"\0")
        begin = (at + 110 + name_size + 3) & ~3
        data = archive[begin : begin + size]
        assert len(data) == size
        at = (begin + size + 3) & ~3
        if name == b"TRAILER!!!\0":
            assert not archive[at:].strip(b"\0")
            return
        yield Member(
            name=name[:-1].decode(),
            ino=f[0],
            mode=f[1],
            uid=f[2],
            gid=f[3],
            nlink=f[4],
            mtime=f[5],
            dev=(f[7], f[8]),
            rdev=(f[9], f[10]),
            data=data,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An initramfs/ folder with the manifest above and its source."""
    root = tmp_path / "initramfs"
    (root / "data").mkdir(parents=True)
    (root / "data/file.txt").write_bytes(b"content of the file\n")
    (root / "manifest.toml").write_text(MANIFEST)
    (tmp_path / "agent").write_bytes(b"\x7fELF" + b"\0" * 100)
    return root


def load(folder: Path) -> Manifest:
    return initramfs.load(folder / "manifest.toml", artifacts=["agent"])


def pack(folder: Path) -> bytes:
    return initramfs.archive(load(folder), folder=folder, artifacts={"agent": folder.parent / "agent"})


def test_members(folder: Path) -> None:
    members = {m.name: m for m in newc(pack(folder))}
    # Bytewise: "usr-x" before "usr/lib" because "-" is 0x2d and "/" 0x2f; folders before their members.
    assert list(members) == ["console", "init", "usr", "usr-x", "usr/lib", "usr/lib/data", "usr/link"]
    assert {name: oct(m.mode) for name, m in members.items()} == {
        "console": "0o20600",
        "init": "0o100755",
        "usr": "0o40755",
        "usr-x": "0o41777",
        "usr/lib": "0o40711",
        "usr/lib/data": "0o100640",
        "usr/link": "0o120777",
    }
    assert members["usr/lib/data"].data == b"content of the file\n"
    assert members["init"].data == b"\x7fELF" + b"\0" * 100
    assert members["usr/link"].data == b"lib/data"
    assert members["console"].rdev == (5, 1)
    assert all(m.rdev == (0, 0) for m in members.values() if m.name != "console")
    assert all(m.data == b"" for m in members.values() if m.name in {"console", "usr", "usr-x", "usr/lib"})


def test_nothing_of_the_build_machine(folder: Path) -> None:
    for member in newc(pack(folder)):
        assert (member.ino, member.uid, member.gid, member.nlink, member.dev) == (0, 0, 0, 0, (0, 0))
        assert member.mtime == EPOCH


def test_same_bytes_whatever_the_machine(folder: Path, tmp_path: Path) -> None:
    first = pack(folder)
    other = tmp_path / "elsewhere/initramfs"
    previous = os.umask(0o077)
    try:
        (other / "data").mkdir(parents=True)
        # Another order of creation, other times, modes and folder entries.
        blocks = MANIFEST.split("[[entry]]")
        (other / "manifest.toml").write_text("[[entry]]".join([blocks[0], *reversed(blocks[1:])]))
        (other / "zzz").write_text("not in the manifest")
        (other / "data/aaa").write_text("nor this")
        (other / "data/file.txt").write_bytes(b"content of the file\n")
        (other / "data/file.txt").chmod(0o777)
        os.utime(other / "data/file.txt", (1, 1))
        (other.parent / "agent").write_bytes(b"\x7fELF" + b"\0" * 100)
        assert pack(other) == first
    finally:
        os.umask(previous)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('mode = "0640"', 'mode = "0644"'),
        ('path = "usr-x"', 'path = "usr-y"'),
        ('target = "lib/data"', 'target = "lib/date"'),
        ("minor = 1", "minor = 2"),
    ],
)
def test_each_change_reaches_the_bytes(folder: Path, old: str, new: str) -> None:
    first = pack(folder)
    (folder / "manifest.toml").write_text(MANIFEST.replace(old, new))
    assert pack(folder) != first


def test_content_reaches_the_bytes(folder: Path) -> None:
    first = pack(folder)
    (folder / "data/file.txt").write_bytes(b"content of the fire\n")
    assert pack(folder) != first


def test_files_lists_the_sources(folder: Path) -> None:
    assert load(folder).files() == ("data/file.txt",)


def test_the_repositorys_own_manifest(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "agent").write_bytes(b"agent")
    root = repository / "initramfs"
    manifest = initramfs.load(root / "manifest.toml", artifacts=["agent"])
    assert manifest.budget <= 14_000_000
    members = {
        m.name: m for m in newc(initramfs.archive(manifest, folder=root, artifacts={"agent": tmp_path / "agent"}))
    }
    assert members["init"].data == b"agent"
    assert members["init"].mode == 0o100755
    assert members["dev/console"].rdev == (5, 1)
    assert not [name for name in members if name.endswith(("sh", "busybox"))], "no shell in the guest"


FILE = 'file = "data/file.txt"'


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("schema = 1", "schema = 0", "schema: 0 is not in 1…1"),
        ("budget = 1000", "budget = 0", "budget: 0 is not in"),
        ("budget = 1000", "budget = 1000\nx = 1", "x: unknown key"),
        ('"init"', '"/init"', "entry[3].path: '/init' is not a relative path"),
        ('"init"', '"../init"', "entry[3].path: '../init' must not hold . or .."),
        ('"init"', '"usr/../init"', "must not hold . or .."),
        ('"init"', '"./init"', "must not hold . or .."),
        ('"init"', '"usr//init"', "is not a relative path"),
        ('"init"', '"usr/"', "is not a relative path"),
        ('"init"', '"TRAILER!!!"', "is not a relative path"),
        ('"init"', f'"{"x" * 256}"', "is longer than"),
        ('"init"', '"usr-x"', "entry[5].path: 'usr-x' stands twice"),
        ('"init"', '"lib/init"', "'lib/init' has no parent 'lib'; list the folder: its mode matters"),
        ('"init"', '"console/init"', "'console/init' has no parent 'console'"),
        ('"char"', '"block"', "entry[6].type: 'block' is not one of: dir, file, link, char"),
        ('"0640"', '"640"', "entry[0].mode: '640' is not an octal mode such as 0755"),
        ('"0640"', '"0648"', "is not an octal mode"),
        ('"0640"', "416", "entry[0].mode: must be an octal mode such as 0755, not an integer"),
        ('"agent"', '"agnet"', "entry[3].artifact: 'agnet' is not one of: agent"),
        ('artifact = "agent"', "", "exactly one of artifact and file"),
        ('artifact = "agent"', f'artifact = "agent"\n{FILE}', "exactly one of artifact and file"),
        (FILE, 'file = "../agent"', "entry[0].file: '../agent' leaves initramfs/"),
        (FILE, 'file = "/etc/passwd"', "entry[0].file: '/etc/passwd' leaves initramfs/"),
        (FILE, 'file = "data/missing"', "entry[0].file: no file initramfs/data/missing"),
        (FILE, 'file = "data"', "no file initramfs/data"),
        (FILE, f'file = "{"x" * 300}"', "entry[0].file: "),
        (FILE, f'{FILE}\ntarget = "x"', "entry[0].target: unknown key"),
        ('target = "lib/data"', 'target = "über"', "target: 'über' is not a link target in printable ASCII"),
        ('target = "lib/data"', "", "entry[4].target: missing"),
        ("major = 5", "major = 4096", "entry[6].major: 4096 is not in 0…4095"),
        ("minor = 1", "", "entry[6].minor: missing"),
    ],
)
def test_refuses(folder: Path, old: str, new: str, says: str) -> None:
    assert old in MANIFEST
    (folder / "manifest.toml").write_text(MANIFEST.replace(old, new, 1))
    with pytest.raises(UserError) as info:
        load(folder)
    assert str(info.value).startswith("initramfs/manifest.toml: ")
    assert says in str(info.value)


def link(folder: Path) -> None:
    (folder / "data/real.txt").write_text("x")
    (folder / "data/file.txt").unlink()
    (folder / "data/file.txt").symlink_to("real.txt")


def link_outside(folder: Path) -> None:
    (folder / "data/file.txt").unlink()
    (folder / "data").rmdir()
    (folder.parent / "outside").mkdir()
    (folder.parent / "outside/file.txt").write_text("x")
    (folder / "data").symlink_to("../outside")


@pytest.mark.parametrize(
    ("spoil", "says"), [(link, "no file initramfs/data/file.txt"), (link_outside, "leaves initramfs/")]
)
def test_refuses_linked_sources(folder: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(folder)
    with pytest.raises(UserError, match=says):
        load(folder)


def test_budget(folder: Path) -> None:
    manifest = load(folder)
    artifacts = {"agent": folder.parent / "agent"}
    initramfs.check_budget(manifest, compressed=1000, folder=folder, artifacts=artifacts)
    with pytest.raises(BuildError) as info:
        initramfs.check_budget(manifest, compressed=1001, folder=folder, artifacts=artifacts)
    assert str(info.value) == (
        "initramfs: 1001 bytes compressed, 1 over the budget of 1000; "
        "largest members, uncompressed: init 104 B, usr/lib/data 20 B"
    )


def test_refuses_a_huge_source(folder: Path) -> None:
    with (folder / "data/file.txt").open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(BuildError, match="larger than"):
        pack(folder)
