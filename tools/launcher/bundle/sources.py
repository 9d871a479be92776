# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a user may give → its layers, the lowest first, and its config.

OCI layout, `docker save` (archive or folder) ── layers, each compared with its digests
directory, tar ── one layer
layers by themselves: overlayfs's folders, tars
"""

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.launcher.base import files
from tools.launcher.base.errors import UserError
from tools.launcher.bundle import blobs, image_config, images
from tools.launcher.bundle.blobs import Blobs
from tools.launcher.bundle.image_config import Config
from tools.launcher.layers import layer
from tools.launcher.layers.from_folder import Note
from tools.launcher.layers.layer import Layer
from tools.launcher.layers.plain import LIMIT, plain
from tools.launcher.layers.rules import Owner

_SPOOL = "spool"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for: `source`, or else `parts`, layers by themselves, the lowest first.

    `config` is an image's config for what has none. `limit` is what a layer may unpack to, in bytes. `userxattr`:
    folders among the parts were unpacked by an engine without root (from_folder.read()).
    """

    source: Path | None = None
    parts: tuple[Path, ...] = ()
    name: str | None = None
    config: Path | None = None
    owner: Owner | None = None
    userxattr: bool = False
    limit: int = LIMIT

    @property
    def where(self) -> str:
        """For errors that are of no single layer."""
        return str(self.source if self.source is not None else self.parts[-1])


@dataclass(frozen=True, kw_only=True)
class Source:
    """`layers` gives each of `count` layers when it is its turn; it is open until the next one is asked for."""

    count: int
    layers: Callable[[], Iterator[Layer]]
    config: Config
    digest: str


@contextmanager
def opened(wanted: Wanted, *, work: Path, note: Note) -> Iterator[Source]:
    """The source, with temporary files in the folder `work`; UserError for what it is not."""
    path = wanted.source
    if path is None:
        _refuse(wanted, name="has no image to choose from")
        yield _of_parts(wanted, work=work, note=note)
        return
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        files = blobs.in_folder(path)
        if images.is_layout(files) or images.is_saved(files):
            yield _of_image(wanted, files, work=work)
        else:
            _refuse(wanted, name="holds no images to choose from")
            one = layer.of_folder(path, owner=wanted.owner, note=note)
            yield Source(count=1, layers=lambda: iter([one]), config=_given_config(wanted, layers=1), digest="")
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
                yield _of_image(wanted, files, work=work)
            else:
                _refuse(wanted, name="holds no images to choose from")
                one = layer.of_archive(stream, size=end, owner=wanted.owner, where=str(path))
                yield Source(count=1, layers=lambda: iter([one]), config=_given_config(wanted, layers=1), digest="")


def _refuse(wanted: Wanted, *, name: str = "", owner: str = "", config: str = "") -> None:
    """UserError for an option that the source has no use for."""
    for given, what, option in (
        (wanted.name, name, "--image"), (wanted.owner, owner, "--owner"), (wanted.config, config, "--image-config"),
    ):  # fmt: skip
        if given is not None and what:
            raise UserError(what, where=wanted.where, hint=f"leave {option} out")


def _given_config(wanted: Wanted, *, layers: int) -> Config:
    """The config that is given beside what has none."""
    if wanted.config is None:
        return Config()
    where = str(wanted.config)
    data = files.read(wanted.config, blobs.JSON_MAX)
    config = image_config.read(blobs.parse(data, where=where), where=where)
    if config.diff_ids and len(config.diff_ids) != layers:
        raise UserError(f"is of an image with {len(config.diff_ids)} layers, given are {layers}", where=where)
    return config


def _of_parts(wanted: Wanted, *, work: Path, note: Note) -> Source:
    if len(wanted.parts) > images.LAYERS_MAX:
        raise UserError(f"{len(wanted.parts)} layers, not 1 to {images.LAYERS_MAX}", where="--layer")
    config = _given_config(wanted, layers=len(wanted.parts))

    def layers() -> Iterator[Layer]:
        for number, path in enumerate(wanted.parts):
            if path.is_dir():
                # Nobody can say of an unpacked layer what its archive's digest was.
                yield layer.of_folder(
                    path, upper=True, userxattr=wanted.userxattr, owner=wanted.owner, note=note
                )  # fmt: skip
                continue
            spool = work / _SPOOL
            spool.unlink(missing_ok=True)
            with path.open("rb") as compressed:
                stream, end = plain(
                    compressed, size=path.stat().st_size, spool=spool, limit=wanted.limit, where=str(path)
                )
                with stream:
                    if config.diff_ids:
                        _check_diff_id(stream, config.diff_ids[number], where=str(path))
                    yield layer.of_archive(stream, size=end, owner=wanted.owner, where=str(path))

    return Source(count=len(wanted.parts), layers=layers, config=config, digest="")


def _check_diff_id(stream: BinaryIO, diff_id: str, *, where: str) -> None:
    if f"sha256:{images.sha256(stream)}" != diff_id:
        raise UserError(f"is not the layer {diff_id[:80]!r} that the config names", where=where)


def _of_image(wanted: Wanted, files: Blobs, *, work: Path) -> Source:
    _refuse(wanted, owner="is an image, which says whose its files are", config="is an image, which has a config")
    image = images.load(files, name=wanted.name)

    def layers() -> Iterator[Layer]:
        for name, diff_id in zip(image.layers, image.config.diff_ids, strict=True):
            where = f"{image.files.where}: {name}"
            spool = work / _SPOOL
            spool.unlink(missing_ok=True)
            compressed, size = image.files.open(name)
            with compressed:
                if image.digest:
                    images.check(images.sha256(compressed), name.rpartition("/")[2], where=where)
                stream, end = plain(compressed, size=size, spool=spool, limit=wanted.limit, where=where)
                with stream:
                    _check_diff_id(stream, diff_id, where=where)
                    yield layer.of_archive(stream, size=end, where=where)

    return Source(count=len(image.layers), layers=layers, config=image.config, digest=image.digest)
