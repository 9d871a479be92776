# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A checkout, its mirror and an archive, for tests of `./doit lock`."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tools.pipeline.base.errors import BuildError
from tools.pipeline.sources import mirrors, pins, resolve, resolver
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


# What the locks have before the first run: something that nobody asks for any more.
SOURCES_LOCK = f"""\
schema = 1
[[source]]
name = "seed"
version = "1"
licence = "MIT"
kind = "https"
urls = ["https://example.org/seed"]
size = 1
sha256 = "{"a" * 64}"
"""
TOOLCHAIN_LOCK = f"""\
schema = 1
suite = "trixie"
[trees.seed]
packages = ["seed"]
[[package]]
name = "seed"
version = "1"
architecture = "amd64"
trees = ["seed"]
archive = "debian"
path = "pool/main/s/seed/seed_1_amd64.deb"
size = 1
sha256 = "{"b" * 64}"
"""


@dataclass
class World:
    """A checkout, a mirror as a folder, and an archive that apt would describe."""

    root: Path
    mirror: Path
    closures: dict[str, list[str]] = field(default_factory=dict)
    versions: dict[str, list[str]] = field(default_factory=dict)
    """The index: by package, newest first."""
    sources: list[str] = field(default_factory=list)
    source_versions: list[str] = field(default_factory=lambda: ["6.12.107-1"])
    asked: int = 0
    """How many closures were asked for."""
    shown: list[str] = field(default_factory=list)
    """What a person was asked to confirm."""
    matters: list[str] = field(default_factory=list)
    place: str = ""
    """The mirror's URL, if it is another than the folder."""

    def publish(self, path: str, data: bytes) -> None:
        target = self.mirror / "debian" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)

    def found(self, path: str, file: str, data: bytes) -> Found:
        origin = PoolFile(archive=Archive.DEBIAN, path=path)
        return Found(file=file, origin=origin, size=len(data), sha256=hashlib.sha256(data).hexdigest())

    def deb(self, name: str, prefer: Mapping[str, str], avoid: Collection[tuple[str, str]]) -> Found:
        known = [version for version in self.versions[name] if (name, version) not in avoid]
        if not known:
            raise BuildError(f"apt-get install failed: E: {name} has no installation candidate")
        version = prefer[name] if prefer.get(name) in known else known[0]
        path = f"pool/main/{name}_{version}_amd64.deb"
        data = f"{name} {version}".encode()
        return self.found(path, f"{name}_{version}_amd64.deb", data)

    def closure(
        self, packages: Sequence[str], prefer: Mapping[str, str], avoid: Collection[tuple[str, str]]
    ) -> list[Found]:
        self.asked += 1
        return [self.deb(name, prefer, avoid) for wanted in packages for name in self.closures[wanted]]

    def publish_all(self) -> None:
        for name, versions in self.versions.items():
            for version in versions:
                self.publish(f"pool/main/{name}_{version}_amd64.deb", f"{name} {version}".encode())
        for file in self.sources:
            self.publish(f"pool/main/{file}", file.encode())

    def source(self, package: str, version: str) -> list[Found]:
        assert package == "linux"
        if version not in self.source_versions:
            return []
        own = [resolver.named(file, "6.12.107-1", version) for file in self.sources]
        return [self.found(f"pool/main/{file}", file, file.encode()) for file in own]

    def list_kernels(self, *versions: str, there: Collection[str] = ()) -> None:
        """The index has these versions, and the mirror the files of those that are `there`."""
        self.source_versions = list(versions)
        for version in there:
            for found in self.source("linux", version):
                self.publish(found.origin.path, found.file.encode())

    def confirm(self, matter: str, lines: Sequence[str]) -> None:
        self.matters.append(matter)
        self.shown.extend(lines)

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.root / "recipes" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    def lock(self, *only: str, check: bool = False) -> list[str]:
        known = mirrors.from_setting([f"bundle={self.place or self.mirror.as_uri()}"])
        return resolve.lock(
            root=self.root,
            folder=self.root / "apt",
            mirrors=known,
            only=only,
            confirm=self.confirm,
            check=check,
        )

    def packages(self, tree: str) -> dict[str, str]:
        """Package → version, as the lock has them for the tree."""
        locked = pins.read_toolchain_lock(self.root / pins.TOOLCHAIN_LOCK)
        return {p.pin.name: p.pin.version for p in locked.of_tree(tree)}

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
    (root / pins.SOURCES_LOCK).write_text(SOURCES_LOCK)
    (root / pins.TOOLCHAIN_LOCK).write_text(TOOLCHAIN_LOCK)
    (root / "extra.txt").write_text("extra")
    made = World(
        root=root,
        mirror=tmp_path / "mirror",
        closures={"gcc": ["gcc", "libc6"], "qemu": ["qemu", "libc6"]},
        versions={"gcc": ["14.2"], "libc6": ["2.41"], "qemu": ["10.0"]},
        sources=["linux_6.12.107-1.dsc", "linux_6.12.107.orig.tar.xz"],
    )
    made.publish_all()
    # apt itself is tested in test_apt.py.
    monkeypatch.setattr(Apt, "update", lambda _: None)
    monkeypatch.setattr(Apt, "fingerprint", lambda _: repr((made.versions, made.closures, made.sources)))
    monkeypatch.setattr(Apt, "closure", lambda _, packages, *, prefer, avoid: made.closure(packages, prefer, avoid))
    monkeypatch.setattr(Apt, "source", lambda _, package, version: made.source(package, version))
    monkeypatch.setattr(Apt, "source_versions", lambda *_: sorted(made.source_versions))
    return made
