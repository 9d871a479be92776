# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Packages, merged-/usr links, links and mount points → the folder of a tool tree."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.merkle import Folder, Link
from tools.pipeline.sources.pins import Package
from tools.pipeline.sources.wanted import Layout, WantedTree
from tools.pipeline.toolchain import deb
from tools.pipeline.toolchain.deb import Member


def fill(
    root: Path,
    wanted: WantedTree,
    layout: Layout,
    *,
    packages: tuple[Package, ...],
    cache: Cas,
    jobs: int,
) -> dict[bytes, Member]:
    """Make `root`, a new folder, from the packages in the cache; all that is in it, by its path.

    Raises BuildError for a package that is missing, damaged, or would leave the tree.
    """
    root.mkdir()
    members: dict[bytes, Member] = {}
    merged = tuple(os.fsencode(name) for name in layout.merged)
    skip = tuple(os.fsencode(name) for name in layout.skip)
    # First of all: where a package says lib/, it must land in usr/lib.
    for name in layout.merged:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
        _add(members, Member(path=os.fsencode(name), node=Link(target=os.fsencode(f"usr/{name}"))), "the layout")
        _add_folder(members, f"usr/{name}")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    # The modes below are explicit; only a folder that mkdir makes would feel the umask, so it is set last.
    try:

        def one(package: Package) -> list[Member]:
            data = cache.read(package.pin.sha256, package.pin.size)
            if data is None:
                raise BuildError("is not in the cache", where=package.pin.where, hint="run ./doit build")
            return deb.Unpacker(descriptor, merged=merged, skip=skip).unpack(data, name=package.pin.where)

        # Threads are enough: decompressing, hashing and writing happen outside the interpreter's lock.
        # Largest first, so that no long package is left for the end; results are taken in lock order.
        order = sorted(packages, key=lambda p: -p.pin.size)
        with ThreadPoolExecutor(max_workers=max(jobs, 1)) as pool:
            try:
                futures = {package.pin.name: pool.submit(one, package) for package in order}
                for package in packages:
                    for member in futures[package.pin.name].result():
                        _add(members, member, package.pin.where)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
    finally:
        os.close(descriptor)
    for name in layout.folders:
        (root / name).mkdir(parents=True, exist_ok=True)
        _add_folder(members, name)
    for name, target in wanted.links:
        _make_link(root, members, name, target)
    # Deepest first: making a member changes the time of the folder that holds it.
    for member in sorted(members.values(), key=lambda m: m.path, reverse=True):
        path = os.path.join(os.fsencode(root), member.path)  # noqa: PTH118 (bytes, 10,000 times)
        if member.node is None:
            os.chmod(path, deb.FOLDER_MODE)  # noqa: PTH101
        if member.node is None or isinstance(member.node, Link):
            os.utime(path, (deb.MTIME, deb.MTIME), follow_symlinks=False)
    root.chmod(deb.FOLDER_MODE)
    os.utime(root, (deb.MTIME, deb.MTIME))
    return members


def _make_link(root: Path, members: dict[bytes, Member], name: str, target: str) -> None:
    path = root / name
    if path.parent.resolve() != path.parent or not path.parent.is_dir():
        raise BuildError("is not in a real folder of the tree", where=f"recipes/toolchain.toml: {name}")
    try:
        path.symlink_to(target)
    except FileExistsError:
        raise BuildError("a package brings this path already", where=f"recipes/toolchain.toml: {name}") from None
    _add(members, Member(path=os.fsencode(name), node=Link(target=os.fsencode(target))), "the layout")


def _add_folder(members: dict[bytes, Member], name: str) -> None:
    parts = name.split("/")
    for i in range(len(parts)):
        path = os.fsencode("/".join(parts[: i + 1]))
        if path not in members:
            _add(members, Member(path=path, node=None), "the layout")


def _add(members: dict[bytes, Member], member: Member, origin: str) -> None:
    """Folders may come from several packages; anything else twice would make the result depend on order."""
    known = members.setdefault(member.path, member)
    if known is not member and (known.node, member.node) != (None, None):
        raise BuildError(f"brings {member.path!r}, which another package has too", where=origin)


def digest(members: dict[bytes, Member]) -> str:
    """The same as merkle.read of the tree, without reading it again; a test compares them."""
    root = Folder()
    for path, member in members.items():
        if member.node is None:
            root.folder(path)
        else:
            root.add(path, member.node)
    return root.digest().sha256
