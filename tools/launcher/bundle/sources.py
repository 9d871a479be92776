# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a user may give → its layers, the lowest first, and its config.

OCI layout, `docker save` (archive or folder) ── layers, each compared with its digests
directory, tar ── one layer
"""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.launcher.base.errors import UserError
from tools.launcher.bundle import blobs, images
from tools.launcher.bundle.image_config import Config
from tools.launcher.bundle.images import Image
from tools.launcher.layers import layer
from tools.launcher.layers.from_folder import Note
from tools.launcher.layers.layer import Layer
from tools.launcher.layers.plain import plain
from tools.launcher.layers.rules import Owner

_SPOOL = "spool"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for. `limit` is what a layer may unpack to, in bytes."""

    source: Path
    name: str | None
    owner: Owner | None
    limit: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """`layers` gives each layer when it is its turn; it is open until the next one is asked for."""

    layers: Callable[[], Iterator[Layer]]
    config: Config
    digest: str


@contextmanager
def opened(wanted: Wanted, *, work: Path, note: Note) -> Iterator[Source]:
    """The source, with temporary files in the folder `work`; UserError for what it is not."""
    path = wanted.source
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        files = blobs.in_folder(path)
        if images.is_layout(files) or images.is_saved(files):
            _no_owner(wanted)
            yield _of_image(images.load(files, name=wanted.name), work=work, limit=wanted.limit)
        else:
            _no_name(wanted)
            yield Source(
                layers=lambda: iter([layer.of_folder(path, owner=wanted.owner, note=note)]), config=Config(), digest=""
            )
        return
    if not stat.S_ISREG(mode):
        raise UserError("is no image, directory or tar", where=str(path))
    spool = work / "source"
    with path.open("rb") as compressed:
        size = path.stat().st_size
        stream, end = plain(compressed, size=size, spool=spool, limit=wanted.limit, where=str(path))
        with stream:
            at = spool if spool.exists() else path
            files = blobs.in_archive(at, stream, end=end, where=str(path))
            if images.is_layout(files) or images.is_saved(files):
                _no_owner(wanted)
                yield _of_image(images.load(files, name=wanted.name), work=work, limit=wanted.limit)
            else:
                _no_name(wanted)
                one = layer.of_archive(stream, size=end, owner=wanted.owner, where=str(path))
                yield Source(layers=lambda: iter([one]), config=Config(), digest="")


def _no_owner(wanted: Wanted) -> None:
    if wanted.owner is not None:
        raise UserError(
            "is an image, which says whose its files are", where=str(wanted.source), hint="leave --owner out"
        )


def _no_name(wanted: Wanted) -> None:
    if wanted.name is not None:
        raise UserError("holds no images to choose from", where=str(wanted.source), hint="leave --image out")


def _of_image(image: Image, *, work: Path, limit: int) -> Source:
    def layers() -> Iterator[Layer]:
        for name, diff_id in zip(image.layers, image.config.diff_ids, strict=True):
            where = f"{image.files.where}: {name}"
            spool = work / _SPOOL
            spool.unlink(missing_ok=True)
            compressed, size = image.files.open(name)
            with compressed:
                if image.digest:
                    images.check(images.sha256(compressed), name.rpartition("/")[2], where=where)
                stream, end = plain(compressed, size=size, spool=spool, limit=limit, where=where)
                with stream:
                    if f"sha256:{images.sha256(stream)}" != diff_id:
                        raise UserError(f"is not the layer {diff_id[:80]!r} that the config names", where=where)
                    yield layer.of_archive(stream, size=end, where=where)

    return Source(layers=layers, config=image.config, digest=image.digest)
