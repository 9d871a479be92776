# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tool trees: root file systems for the sandbox, made of pinned Debian packages without dpkg.

    toolchain.lock ── packages in the cache ── unpacked in parallel ─┐
    toolchain.toml ── merged-/usr links, links, mount points ────────┴─ TREES/NAME-KEY/root
                                                                                      /tree.json

KEY is the digest of everything that decides the bytes: the packages' digests, the layout and TREE_VERSION. A
tree is made under a temporary name and renamed when it is complete. Its record is sealed (seal.py), and the
whole tree is hashed again before a step runs in it. All of it lies where only we and root can write: what was
hashed is what a step sees. Whoever runs something in a tree holds it (flock of its record): it is not cleared away.
"""

import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from tools.pipeline.base import ambient, files, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store import merkle
from tools.pipeline.engine.store.cas import Cas
from tools.pipeline.engine.store.seal import Seal
from tools.pipeline.engine.tree import Tree
from tools.pipeline.sources.pins import Package, ToolchainLock
from tools.pipeline.sources.wanted import Layout, Toolchain, WantedTree

TREE_VERSION = 1
"""Raised when the same packages and layout give another tree: trees that are there are then made again."""

_RECORD = "tree.json"
_KIND = "tool tree"
_KEY = 32  # hex digits of the key in the folder's name
_KEEP = 3  # trees of a name that stay
_HELD: dict[Path, int] = {}  # descriptors of records, for as long as the process lives
_HOLDING = threading.Lock()


def key(wanted: WantedTree, layout: Layout, packages: Iterable[Package]) -> str:
    """SHA-256 over all that decides the tree's bytes."""
    description = {
        "packages": sorted((p.pin.name, p.pin.version, p.pin.sha256) for p in packages),
        "layout": asdict(layout),
        "links": wanted.links,
        "version": TREE_VERSION,
    }
    return files.of_bytes(json.dumps(description, sort_keys=True).encode())


def ensure_tree(
    name: str, *, toolchain: Toolchain, lock: ToolchainLock, cache: Cas, trees: Path, seal: Seal, jobs: int
) -> Tree:
    """The named tree below `trees`, made now unless it is there; the packages must be in the cache.

    Raises BuildError for a package that is missing, damaged, or would leave the tree; UserError where others can
    write to `trees`.
    """
    wanted = toolchain.tree(name)
    packages = lock.of_tree(name)
    whole = key(wanted, toolchain.layout, packages)
    found = _load(trees, name, whole, seal)
    if found is not None:
        return found
    os.close(files.open_folder(trees.parent, trees.name, make=True))
    _check_place(trees)
    guard = files.open_lock(trees / f".lock-{name}")
    try:
        # The kernel's lock: whoever waits finds the tree made, and what a killed process left is nobody's.
        fcntl.flock(guard, fcntl.LOCK_EX)
        found = _load(trees, name, whole, seal)
        if found is not None:
            return found
        for rest in trees.glob(f".{name}.*"):
            remove(rest)
        _make(trees, wanted, toolchain.layout, whole, packages=packages, cache=cache, seal=seal, jobs=jobs)
        _prune(trees, name)
    finally:
        os.close(guard)
    made = _load(trees, name, whole, seal)
    assert made is not None
    return made


def find_tree(name: str, *, toolchain: Toolchain, lock: ToolchainLock, trees: Path, seal: Seal) -> Tree | None:
    """The named tree if it has been made."""
    return _load(trees, name, key(toolchain.tree(name), toolchain.layout, lock.of_tree(name)), seal)


def place(name: str, *, toolchain: Toolchain, lock: ToolchainLock, trees: Path) -> Path:
    """Where the named tree lies below `trees`, or would."""
    return _folder(trees, name, key(toolchain.tree(name), toolchain.layout, lock.of_tree(name)))


def folders(trees: Path) -> list[tuple[Path, float]]:
    """Folders of complete trees, whoever made them, and when each was last used (seconds since the epoch)."""
    try:
        os.close(files.open_folder(trees.parent, trees.name))
    except FileNotFoundError:
        return []
    records = sorted(trees.glob(f"*-{'[0-9a-f]' * _KEY}/{_RECORD}"))
    return [(record.parent, record.stat().st_mtime) for record in records]


def _folder(trees: Path, name: str, whole: str) -> Path:
    return trees / f"{name}-{whole[:_KEY]}"


def _check_place(trees: Path) -> None:
    files.check_unshared(trees.parent, sticky=True)
    files.check_unshared(trees)


def _make(
    trees: Path,
    wanted: WantedTree,
    layout: Layout,
    whole: str,
    *,
    packages: tuple[Package, ...],
    cache: Cas,
    seal: Seal,
    jobs: int,
) -> None:
    """Set the tree up under a temporary name and rename it."""
    # Importing libarchive starts programs that look for it: not before a build with nothing to do.
    from tools.pipeline.toolchain import fill  # noqa: PLC0415 (start-up: only filling a tree needs it)

    name = wanted.name
    final = _folder(trees, name, whole)
    scratch = Path(tempfile.mkdtemp(dir=trees, prefix=f".{name}."))
    try:
        with ui.working(f"setting up the {name} tree ({len(packages)} packages)"):
            members = fill.fill(scratch / "root", wanted, layout, packages=packages, cache=cache, jobs=jobs)
        record = {"digest": fill.digest(members), "members": len(members), "packages": len(packages)}
        seal.write(scratch / _RECORD, record, kind=_KIND, key=_sealed_as(name, whole))
        scratch.chmod(0o755)
        if os.path.lexists(final):
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
        remove_unused(record.parent)


def hold(tree: Tree) -> bool:
    """Keep others from clearing a tree away until this process ends; False when somebody just has."""
    record = tree.path.parent / _RECORD
    with _HOLDING, suppress(FileNotFoundError):
        held = _HELD.get(record)
        if held is not None and os.path.samestat(os.fstat(held), record.lstat()):
            return True
        guard = os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        fcntl.flock(guard, fcntl.LOCK_SH)
        if held is not None:
            os.close(held)  # of a tree that was changed, and is set up again
        _HELD[record] = guard
        return os.path.samestat(os.fstat(guard), record.lstat())
    return False


def in_use(folder: Path) -> bool:
    """Whether a process holds the tree."""
    with _unheld(folder) as free:
        return not free


def remove_unused(folder: Path) -> None:
    """Delete a tree unless a process holds it."""
    with _unheld(folder) as free:
        if free:
            remove(folder)


@contextmanager
def _unheld(folder: Path) -> Iterator[bool]:
    """Whether nobody holds the tree; until the end nobody can."""
    try:
        guard = os.open(folder / _RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        yield True  # what has no record is no tree that anybody uses
        return
    try:
        fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        free = True
    except OSError as error:
        free = error.errno != errno.EWOULDBLOCK  # where there are no locks, nobody holds anything
    try:
        yield free
    finally:
        os.close(guard)


def is_intact(tree: Tree) -> bool:
    """Hash the whole tree again (about 2 s): whether it is what was set up, and nobody else can change it."""
    return tree.path.is_dir() and _is_unshared(tree.path) and merkle.read(tree.path).digest().sha256 == tree.digest


def _is_unshared(root: Path) -> bool:
    """Whether all that is in the folder is ours or root's, and nobody else's to write."""
    us = {0, ambient.effective_uid()}

    def good(path: str) -> bool:
        status = os.lstat(path)
        return status.st_uid in us and (stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o022)

    walk = os.walk(root)
    return good(os.fspath(root)) and all(
        good(f"{folder}/{name}") for folder, folders, names in walk for name in (*folders, *names)
    )


def remove(folder: Path) -> None:
    """Delete a tree, complete or not; the record goes first, so that a rest is never taken for a tree."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink()
        return
    (folder / _RECORD).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _sealed_as(name: str, whole: str) -> str:
    return f"{name}-{whole}"


def _load(trees: Path, name: str, whole: str, seal: Seal) -> Tree | None:
    folder = _folder(trees, name, whole)
    record = seal.read(folder / _RECORD, kind=_KIND, key=_sealed_as(name, whole))
    if record is None:
        return None
    _check_place(trees)
    try:
        files.check_unshared(folder)
        files.check_unshared(folder / "root")
    except UserError:
        return None  # set up before its place was made safe
    tree_digest = record.get("digest")
    if not isinstance(tree_digest, str) or not (folder / "root" / "usr").is_dir():
        return None
    with suppress(OSError):
        os.utime(folder / _RECORD)  # used just now; a cache that is mounted read-only is fine too
    return Tree(path=folder / "root", digest=tree_digest)
