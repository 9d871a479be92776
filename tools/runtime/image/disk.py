# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A container's root file system, as its engine has mounted it → the disk of its guest.

overlayfs ── its own layers ── checked: nothing but inventions
          └─ image's layers ── known image? ──────────────────────────── disk from the cache
                             └ each: known layer? copied : EROFS image ── new disk
anything else ── one layer, read whole unless nothing in it has changed
"""

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.launcher.base.errors import LauncherError, UserError
from tools.launcher.bundle import hash_tree
from tools.launcher.bundle.hash_tree import BLOCK
from tools.launcher.layers import layer
from tools.launcher.layers.below import Below
from tools.launcher.layers.from_folder import Note
from tools.runtime.image import identity, inventions, mounts, store
from tools.runtime.image.mounts import Overlay
from tools.runtime.image.store import Disk, Store
from tools.sev.formats import DISK
from tools.sev.workload.document import LAYERS_MAX, Verity

LIMIT = 32 << 30
"""Bytes of all disks in a cache, unless said otherwise."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A layer's folder and the key that it is known by."""

    folder: Path
    key: str
    upper: bool
    userxattr: bool = False


def disk_of(root: Path, *, cache: Path, mkfs: Path, note: Note, limit: int = LIMIT, made: Iterable[str] = ()) -> Disk:
    """The disk, from the cache or made now. Keep what is returned open while the guest runs.

    `made`: paths in the container at which the engine may have made an empty file or folder: its mounts' targets and
    the working directory. UserError for what cannot become an image, for one that holds more than its image's layers,
    and when there is no room.
    """
    program = identity.of_program(mkfs)
    overlay = mounts.overlay_at(root)
    if overlay is None:
        note(f"{root}: no overlayfs is mounted there: all of it becomes one layer, whoever put it in")
        sources = [_plain(root, program=program)]
    else:
        sources = _layers(overlay, program=program, made=made, where=str(root))
    kept = Store(cache, limit=limit)
    key = identity.of_image([source.key for source in sources])
    found = kept.find(key)
    if found is not None:
        return found
    try:
        with kept.making(waits=lambda: note(f"{cache}: another image is being made, waiting")) as work:
            # Somebody else may have made it meanwhile.
            found = kept.find(key)
            if found is not None:
                return found
            return _make(sources, kept, work, image=key, program=program, mkfs=mkfs.absolute(), note=note)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(cache)
        raise UserError(error.strerror or str(error), where=where, hint=_hint(error, cache)) from None


def _hint(error: OSError, cache: Path) -> str | None:
    return f"{cache} needs room for the image three times over" if error.errno == errno.ENOSPC else None


def _plain(root: Path, *, program: str) -> _Source:
    try:
        folder = root.resolve(strict=True)
        key, _ = identity.of_tree(folder, program=program)
    except OSError as error:
        raise UserError(error.strerror or "cannot be read", where=str(root)) from None
    return _Source(folder=folder, key=key, upper=False)


def _layers(overlay: Overlay, *, program: str, made: Iterable[str], where: str) -> list[_Source]:
    """The image's layers, the lowest first."""
    lower = overlay.lower
    own = [] if overlay.upper is None else [overlay.upper]
    # docker: image/overlay2's layer NAME-init lies between the container's own and the image's.
    if lower[0].parent.name.endswith("-init"):
        own.append(lower[0])
        lower = lower[1:]
    if not 1 <= len(lower) <= LAYERS_MAX:
        raise UserError(f"has {len(lower)} layers, not 1 to {LAYERS_MAX}", where=where)
    inventions.check(own, lower, made=made, where=where)
    return [
        _Source(
            folder=folder,
            key=identity.of_layer(folder, program=program, userxattr=overlay.userxattr),
            upper=True,
            userxattr=overlay.userxattr,
        )
        for folder in reversed(lower)
    ]


def _make(sources: list[_Source], kept: Store, work: Path, *, image: str, program: str, mkfs: Path, note: Note) -> Disk:
    path = work / DISK
    blocks: list[int] = []
    leaves: list[bytes] = []
    with path.open("x+b", buffering=0) as disk:
        path.chmod(0o600)
        for source in sources:
            with kept.part(source.key) as part:
                if part is not None:
                    start, size = part.offset * BLOCK, part.blocks * BLOCK
                    store.copy(part.descriptor, disk.fileno(), offset=start, count=size)
                    leaves.append(
                        hash_tree.read_leaves(part.descriptor, of=part.of, offset=part.offset, blocks=part.blocks)
                    )
                    blocks.append(part.blocks)
                    continue
            hashes = _append(source, disk, work=work, mkfs=mkfs, note=note)
            leaves.append(hashes)
            blocks.append(len(hashes) // hash_tree.DIGEST)
    with path.open("r+b") as disk:
        tree = hash_tree.append(disk, blocks=sum(blocks), known=b"".join(leaves))
    settled = [_is_stable(source, work, program=program) for source in sources]
    stable = all(settled)
    verity = Verity(root_hash=tree.root_hash, salt=tree.salt, layers=tuple(blocks))
    keys: list[str | None] = [source.key if stable else None for source in sources]
    return kept.keep(path, verity, image=image if stable else None, layers=keys)


def _append(source: _Source, disk: BinaryIO, *, work: Path, mkfs: Path, note: Note) -> bytes:
    """Make the layer's image, put it behind what the disk has, and return its blocks' hashes."""
    image = work / "layer.erofs"
    one = layer.of_folder(source.folder, upper=source.upper, userxattr=source.userxattr, note=note)
    try:
        layer.make_image(one, Below(), image, mkfs=mkfs)
    except LauncherError as error:
        # mkfs.erofs says it in words of its own.
        if any("No space left" in line for line in error.details):
            raise OSError(errno.ENOSPC, "No space left on device", str(image)) from None
        raise
    with image.open("rb") as stream:
        size = image.stat().st_size
        assert size % BLOCK == 0, "EROFS images are made of whole blocks"
        hashes = hash_tree.leaves(stream, blocks=size // BLOCK)
        store.copy(stream.fileno(), disk.fileno(), offset=0, count=size)
    image.unlink()
    return hashes


def _is_stable(source: _Source, work: Path, *, program: str) -> bool:
    """Whether the key still says what was read; UserError when the folder has changed meanwhile.

    A plain folder that was changed a moment ago is not written down: it may change again within the same tick of the
    file system's clock, and nobody would see it.
    """
    if source.upper:
        key = identity.of_layer(source.folder, program=program, userxattr=source.userxattr)
        latest = 0
    else:
        key, latest = identity.of_tree(source.folder, program=program)
    if key != source.key:
        raise UserError("changed while it was read", where=str(source.folder))
    return work.stat().st_ctime_ns - latest > 1_000_000_000
