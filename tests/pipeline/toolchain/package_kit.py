# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Debian packages made in a test, and a cache and trees of its own to set them up in."""

import gzip
import hashlib
import io
import random
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.seal import Seal
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sources.pins import Archive, Package, Pin, PoolFile, ToolchainLock
from tools.pipeline.sources.wanted import Architecture, Layout, Toolchain, WantedTree
from tools.pipeline.toolchain import tool_tree
from tools.pipeline.toolchain.trees import Trees

LAYOUT = Layout(merged=("bin", "lib"), folders=("build", "var/tmp"), skip=("usr/share/doc",))


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A tar member; a file unless `type` says otherwise."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def link(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(members: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return buffer.getvalue()


def ar(*parts: tuple[str, bytes]) -> bytes:
    """deb(5): an ar archive in common format."""
    out = b"!<arch>\n"
    for name, data in parts:
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def package_file(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    return ar(
        ("debian-binary", b"2.0\n"),
        ("control.tar.gz", gzip.compress(b"x")),
        ("data.tar.gz", gzip.compress(tar(members))),
    )


class Workshop:
    """Packages made in the test, put into a cache and set up as tree `t`."""

    def __init__(self, where: Path) -> None:
        self.cache = Cas(root=where / "cache")
        self.trees = where / "trees"
        self.seal = Seal(key=b"k" * 32)
        self.packages: list[Package] = []
        self.links: tuple[tuple[str, str], ...] = ()

    def add(self, name: str, data: bytes, *, cached: bool = True) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        if cached:
            path = self.cache.path(sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        origin = PoolFile(archive=Archive.DEBIAN, path=f"pool/{name}_1_all.deb")
        pin = Pin(
            name=name,
            version="1",
            sha256=sha256,
            size=len(data),
            origin=origin,
            lock="recipes/toolchain.lock",
        )
        self.packages.append(Package(pin=pin, architecture=Architecture.ALL, trees=("t",)))

    def of_a_checkout(self, layout: Layout = LAYOUT, name: str = "t") -> Trees:
        wanted = WantedTree(name=name, packages=("a",), links=self.links)
        toolchain = Toolchain(suite="s", architecture=Architecture.AMD64, layout=layout, trees=(wanted,))
        packages = tuple(replace(package, trees=(name,)) for package in self.packages)
        lock = ToolchainLock(suite="s", wanted=((name, ("a",)),), packages=packages)
        return Trees(toolchain=toolchain, lock=lock, cas=self.cache, seal=self.seal, path=self.trees)

    def ensure(self, layout: Layout = LAYOUT, jobs: int = 2, name: str = "t") -> Tree:
        """Set up without being held, as by a process that has ended."""
        made = self.of_a_checkout(layout, name)
        return tool_tree.ensure_tree(
            name,
            toolchain=made.toolchain,
            lock=made.lock,
            cache=self.cache,
            trees=self.trees,
            seal=self.seal,
            jobs=jobs,
        )


def big(shop: Workshop) -> None:
    data = random.Random(7).randbytes(1 << 20)
    for i in range(40):
        shop.add(f"p{i:02}", ar(("data.tar", tar([member(f"./usr/f{i}", data[i:])]))))
