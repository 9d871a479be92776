# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tool trees: root file systems for the sandbox, made of pinned Debian packages without dpkg.

    toolchain.lock ── packages in the cache ── unpacked in parallel ─┐
    toolchain.toml ── merged-/usr links, links, mount points ────────┴─ TREES/NAME-KEY/root
                                                                                      /tree.json

KEY is the digest of everything that decides the bytes: the packages' digests, the layout and this code. A
tree is made under a temporary name and renamed when it is complete. Its record is sealed (seal.py), and the
whole tree is hashed again before a step runs in it.
"""

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.cas import Cas
from tools.pipeline.engine.seal import Seal
from tools.pipeline.sources.pins import Package, ToolchainLock
from tools.pipeline.sources.wanted import Layout, Toolchain, WantedTree
from tools.pipeline.toolchain import deb
from tools.pipeline.toolchain.deb import Member

_OWN_CODE = ("deb.py", "tool_tree.py")
_RECORD = "tree.json"
_KEY = 32  # hex digits of the key in the folder's name
_KEEP = 3  # trees of a name that stay


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A complete tool tree: the folder to mount as root, and the digest of all that is in it."""

    path: Path
    digest: str


def key(wanted: WantedTree, layout: Layout, packages: Iterable[Package]) -> str:
    """SHA-256 over all that decides the tree's bytes."""
    here = Path(__file__).parent
    description = {
        "packages": sorted((p.pin.name, p.pin.version, p.pin.sha256) for p in packages),
        "layout": asdict(layout),
        "links": wanted.links,
        "code": {name: files.of_file(here / name) for name in _OWN_CODE},
    }
    return files.of_bytes(json.dumps(description, sort_keys=True).encode())


def ensure_tree(
    name: str, *, toolchain: Toolchain, lock: ToolchainLock, cache: Cas, trees: Path, seal: Seal, jobs: int
) -> Tree:
    """The named tree below `trees`, made now unless it is there; the packages must be in the cache.

    Raises BuildError for a package that is missing, damaged, or would leave the tree.
    """
    wanted = toolchain.tree(name)
    packages = lock.of_tree(name)
    final = _folder(name, toolchain=toolchain, lock=lock, trees=trees)
    found = _load(final, seal)
    if found is not None:
        return found
    trees.mkdir(parents=True, exist_ok=True)
    with (trees / f".lock-{name}").open("ab") as guard:
        # The kernel's lock: whoever waits finds the tree made, and what a killed process left is nobody's.
        fcntl.flock(guard, fcntl.LOCK_EX)
        found = _load(final, seal)
        if found is not None:
            return found
        for rest in trees.glob(f".{name}.*"):
            remove(rest)
        _make(final, wanted, toolchain.layout, packages=packages, cache=cache, seal=seal, jobs=jobs)
        _prune(trees, name)
    made = _load(final, seal)
    assert made is not None
    return made


def find_tree(name: str, *, toolchain: Toolchain, lock: ToolchainLock, trees: Path, seal: Seal) -> Tree | None:
    """The named tree if it has been made."""
    return _load(_folder(name, toolchain=toolchain, lock=lock, trees=trees), seal)


def _folder(name: str, *, toolchain: Toolchain, lock: ToolchainLock, trees: Path) -> Path:
    return trees / f"{name}-{key(toolchain.tree(name), toolchain.layout, lock.of_tree(name))[:_KEY]}"


def _make(
    final: Path,
    wanted: WantedTree,
    layout: Layout,
    *,
    packages: tuple[Package, ...],
    cache: Cas,
    seal: Seal,
    jobs: int,
) -> None:
    """Set the tree up under a temporary name and rename it."""
    name = wanted.name
    scratch = Path(tempfile.mkdtemp(dir=final.parent, prefix=f".{name}."))
    try:
        with ui.working(f"setting up the {name} tree ({len(packages)} packages)"):
            members = _fill(scratch / "root", wanted, layout, packages=packages, cache=cache, jobs=jobs)
        record = {
            "digest": _digest(members),
            "members": len(members),
            "packages": len(packages),
            "tree": name,
        }
        seal.write(scratch / _RECORD, record)
        scratch.chmod(0o755)
        if final.exists():
            remove(final)  # incomplete, or it would have been used
        scratch.rename(final)
    except OSError as error:
        raise BuildError(f"cannot set up the tree: {error.strerror}", where=str(scratch)) from None
    finally:
        if scratch.exists():
            remove(scratch)


def _prune(trees: Path, name: str) -> None:
    """Keep the trees that were used last: every change of the lock makes a new one."""
    records = sorted(trees.glob(f"{name}-{'[0-9a-f]' * _KEY}/{_RECORD}"), key=lambda p: -p.stat().st_mtime_ns)
    for record in records[_KEEP:]:
        remove(record.parent)


def is_intact(tree: Tree) -> bool:
    """Hash the whole tree again (about 2 s): whether it is what was set up."""
    return tree.path.is_dir() and files.of_folder(tree.path) == tree.digest


def remove(folder: Path) -> None:
    """Delete a tree, complete or not; the record goes first, so that a rest is never taken for a tree."""
    (folder / _RECORD).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _load(folder: Path, seal: Seal) -> Tree | None:
    record = seal.read(folder / _RECORD)
    if record is None:
        return None
    tree_digest = record.get("digest")
    if not isinstance(tree_digest, str) or not (folder / "root" / "usr").is_dir():
        return None
    with suppress(OSError):
        os.utime(folder / _RECORD)  # used just now; a cache that is mounted read-only is fine too
    return Tree(path=folder / "root", digest=tree_digest)


def _fill(
    root: Path,
    wanted: WantedTree,
    layout: Layout,
    *,
    packages: tuple[Package, ...],
    cache: Cas,
    jobs: int,
) -> dict[bytes, Member]:
    root.mkdir()
    members: dict[bytes, Member] = {}
    merged = tuple(os.fsencode(name) for name in layout.merged)
    skip = tuple(os.fsencode(name) for name in layout.skip)
    # First of all: where a package says lib/, it must land in usr/lib.
    for name in layout.merged:
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
        _add(members, Member(path=os.fsencode(name), kind=b"l", value=os.fsencode(f"usr/{name}")), "the layout")
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
        if member.kind == b"d":
            os.chmod(path, deb.FOLDER_MODE)  # noqa: PTH101
        if member.kind in {b"d", b"l"}:
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
    _add(members, Member(path=os.fsencode(name), kind=b"l", value=os.fsencode(target)), "the layout")


def _add_folder(members: dict[bytes, Member], name: str) -> None:
    parts = name.split("/")
    for i in range(len(parts)):
        path = os.fsencode("/".join(parts[: i + 1]))
        if path not in members:
            _add(members, Member(path=path, kind=b"d", value=b""), "the layout")


def _add(members: dict[bytes, Member], member: Member, origin: str) -> None:
    """Folders may come from several packages; anything else twice would make the result depend on order."""
    known = members.setdefault(member.path, member)
    if known is not member and (known.kind, member.kind) != (b"d", b"d"):
        raise BuildError(f"brings {member.path!r}, which another package has too", where=origin)


def _digest(members: dict[bytes, Member]) -> str:
    """The same as files.of_folder over the tree, without reading it again; a test compares them."""
    total = sha256()
    lines = (
        member.kind + b" " + member.path + (b"" if member.kind == b"d" else b"\0" + member.value)
        for member in members.values()
    )
    for line in sorted(lines):
        total.update(line + b"\0\n")
    return total.hexdigest()
