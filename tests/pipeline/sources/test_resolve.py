# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit lock`: what changed is told, what no mirror has is never pinned, and nothing is half-written."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import mirrors, pins, resolve
from tools.pipeline.sources.apt import Apt, Found
from tools.pipeline.sources.pins import Archive, PoolFile

SOURCES = """\
schema = 1
[source.linux]
kind = "debian-source"
package = "linux"
version = "6.12.107-1"
file = "linux_6.12.107.orig.tar.xz"
licence = "GPL-2.0-only"
[source.extra]
kind = "file"
path = "extra.txt"
version = "1"
licence = "Apache-2.0"
"""

TOOLCHAIN = """\
schema = 1
suite = "trixie"
architecture = "amd64"
[layout]
merged = ["bin"]
folders = ["build"]
skip = []
[trees.build]
packages = ["gcc"]
[trees.boot]
packages = ["qemu"]
"""


@dataclass
class World:
    """A checkout, a mirror as a folder, and an archive that apt would describe."""

    root: Path
    mirror: Path
    closures: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    sources: list[str] = field(default_factory=list)

    def publish(self, path: str, data: bytes) -> None:
        target = self.mirror / "debian" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def found(self, path: str, file: str, data: bytes) -> Found:
        origin = PoolFile(archive=Archive.DEBIAN, path=path)
        return Found(file=file, origin=origin, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def deb(self, name: str) -> Found:
        version = self.versions[name]
        path = f"pool/main/{name}_{version}_amd64.deb"
        data = f"{name} {version}".encode()
        return self.found(path, f"{name}_{version}_amd64.deb", data)

    def closure(self, packages: Sequence[str]) -> list[Found]:
        return [self.deb(name) for wanted in packages for name in self.closures[wanted]]

    def publish_all(self) -> None:
        for name, version in self.versions.items():
            self.publish(f"pool/main/{name}_{version}_amd64.deb", f"{name} {version}".encode())
        for file in self.sources:
            self.publish(f"pool/main/{file}", file.encode())

    def source(self, package: str, version: str) -> list[Found]:
        assert (package, version) == ("linux", "6.12.107-1")
        return [self.found(f"pool/main/{file}", file, file.encode()) for file in self.sources]

    def lock(self, *, check: bool = False) -> list[str]:
        known = mirrors.from_setting([f"bundle={self.mirror.as_uri()}"])
        return resolve.lock(root=self.root, folder=self.root / "apt", mirrors=known, check=check)

    def text(self) -> tuple[str, str]:
        return (
            (self.root / pins.SOURCES_LOCK).read_text(encoding="utf-8"),
            (self.root / pins.TOOLCHAIN_LOCK).read_text(encoding="utf-8"),
        )


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    root = tmp_path / "checkout"
    (root / "recipes").mkdir(parents=True)
    (root / "recipes/sources.toml").write_text(SOURCES)
    (root / "recipes/toolchain.toml").write_text(TOOLCHAIN)
    (root / "extra.txt").write_text("extra")
    made = World(
        root=root,
        mirror=tmp_path / "mirror",
        closures={"gcc": ["gcc", "libc6"], "qemu": ["qemu", "libc6"]},
        versions={"gcc": "14.2", "libc6": "2.41", "qemu": "10.0"},
        sources=["linux_6.12.107-1.dsc", "linux_6.12.107.orig.tar.xz"],
    )
    made.publish_all()
    # apt itself is tested in test_apt.py.
    monkeypatch.setattr(Apt, "update", lambda _: None)
    monkeypatch.setattr(Apt, "closure", lambda _, packages: made.closure(packages))
    monkeypatch.setattr(Apt, "source", lambda _, package, version: made.source(package, version))
    return made


def test_first_lock(world: World) -> None:
    assert world.lock() == [
        "added    extra 1",
        "added    linux 6.12.107-1",
        "added    gcc 14.2",
        "added    libc6 2.41",
        "added    qemu 10.0",
    ]
    sources = pins.read_sources_lock(world.root / pins.SOURCES_LOCK)
    assert [(s.pin.name, s.pin.size) for s in sources] == [("extra", 5), ("linux", 26)]
    locked = pins.read_toolchain_lock(world.root / pins.TOOLCHAIN_LOCK)
    assert {p.pin.name: p.trees for p in locked.packages} == {
        "gcc": ("build",),
        "libc6": ("boot", "build"),
        "qemu": ("boot",),
    }
    assert not any("://" in text for text in world.text())


def test_again_changes_nothing(world: World) -> None:
    world.lock()
    before = world.text()
    assert world.lock() == []
    assert world.text() == before


def test_changes_are_told_and_check_writes_nothing(world: World) -> None:
    world.lock()
    before = world.text()
    world.versions |= {"libc6": "2.42", "gmp": "6"}
    world.closures |= {"gcc": ["gcc", "libc6", "gmp"], "qemu": ["qemu"]}
    world.publish_all()
    del world.closures["qemu"][:]
    world.closures["qemu"].append("libc6")
    expected = ["added    gmp 6", "updated  libc6 2.41 → 2.42", "removed  qemu 10.0"]
    assert world.lock(check=True) == expected
    assert world.text() == before
    assert world.lock() == expected
    assert world.text() != before


def test_other_bytes_of_the_same_version_stand_out(world: World) -> None:
    world.lock()
    (world.root / "extra.txt").write_text("EXTRA")
    assert world.lock() == ["updated  extra 1: OTHER BYTES OR PLACE"]


def test_what_no_mirror_has_is_not_pinned(world: World) -> None:
    world.lock()
    before = world.text()
    world.versions["qemu"] = "10.1"
    with pytest.raises(BuildError, match=r"recipes/toolchain\.lock: qemu: 10\.1 .*no such file"):
        world.lock()
    assert world.text() == before


def test_file_that_the_source_package_has_not(world: World) -> None:
    world.sources = ["linux_6.12.107-1.dsc"]
    with pytest.raises(UserError, match=r"source\.linux: linux has no file linux_6\.12\.107\.orig\.tar\.xz; it has"):
        world.lock()


def test_broken_lock_can_be_replaced(world: World) -> None:
    world.lock()
    good = world.text()
    (world.root / pins.TOOLCHAIN_LOCK).write_text("<<<<<<< a merge conflict\n")
    assert "added    gcc 14.2" in world.lock()
    assert world.text() == good
