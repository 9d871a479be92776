# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Source → a folder with one disk, bundle.json and what the caller adds.

layer, lowest first ── normal form ── EROFS image ─┬─ disk.img: images one behind the other, then the hash tree
                                   next layer … ───┘
"""

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from tools.launcher.base.errors import UserError
from tools.launcher.bundle import hash_tree, image_config, sources
from tools.launcher.bundle.accounts import Accounts
from tools.launcher.bundle.hash_tree import BLOCK, HashTree
from tools.launcher.bundle.image_config import Changes, Config, Process
from tools.launcher.bundle.sources import Wanted
from tools.launcher.layers import layer
from tools.launcher.layers.below import Below
from tools.launcher.layers.from_folder import Note
from tools.sev.formats import DISK

DOCUMENT = "bundle.json"
SCHEMA = 2
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """A layer's EROFS image on the disk, in blocks of 4096 bytes, and its own SHA-256."""

    offset: int
    blocks: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """What was made. `layers`: the lowest first. `digest` is the image manifest's, empty where there is none.

    `config` is the image's own; `passwd` and `group` are the texts of its files.
    """

    layers: tuple[Stretch, ...]
    tree: HashTree
    process: Process
    digest: str
    config: Config
    passwd: bytes
    group: bytes

    def as_json(self) -> dict[str, Any]:
        """What bundle.json says."""
        return {
            "schema": SCHEMA,
            "disk": DISK,
            "verity": {"root_hash": self.tree.root_hash, "salt": self.tree.salt, "blocks": self.tree.blocks},
            "layers": [{"offset": s.offset, "blocks": s.blocks, "sha256": s.sha256} for s in self.layers],
            "image": self.digest,
        }


Describe = Callable[[Bundle], Mapping[str, bytes]]
"""Further files of the folder, by their names."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What the caller does on the way: `note` says something, `begin` is told of each layer and how many there are."""

    note: Note
    begin: Callable[[int, int], None]
    describe: Describe


def make(wanted: Wanted, folder: Path, *, mkfs: Path, changes: Changes, steps: Steps) -> Bundle:
    """Make the folder, which must not exist; it has its name only when all of it is there."""
    if folder.exists() or folder.is_symlink():
        raise UserError("exists already", where=f"-o {folder}", hint="give another, or remove it")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.absolute().parent) as name:
            work, made = Path(name), Path(name, "bundle")
            made.mkdir()
            # Whatever the umask: QEMU may run as somebody else.
            made.chmod(0o755)
            bundle = _make(wanted, made, work=work, mkfs=mkfs, changes=changes, steps=steps)
            made.rename(folder)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else str(folder)
        hint = "-o where there is room" if error.errno == errno.ENOSPC else None
        raise UserError(error.strerror or str(error), where=where, hint=hint) from None
    return bundle


def _make(wanted: Wanted, folder: Path, *, work: Path, mkfs: Path, changes: Changes, steps: Steps) -> Bundle:
    below, accounts = Below(), Accounts()
    stretches: list[Stretch] = []
    where = wanted.where
    with sources.opened(wanted, work=work, note=steps.note) as source, (folder / DISK).open("x+b") as disk:
        config = image_config.changed(source.config, changes)
        if not config.entrypoint and not config.command:
            raise UserError("names no command to run", where=where, hint="put one behind --")
        steps.begin(1, source.count)
        for one in source.layers():
            accounts.settle(one, where=where)
            image = work / "layer.erofs"
            layer.make_image(one, below, image, mkfs=mkfs)
            stretches.append(_append(image, disk))
            image.unlink()
            if len(stretches) < source.count:
                steps.begin(len(stretches) + 1, source.count)
        tree = hash_tree.append(disk, blocks=disk.tell() // BLOCK)
        process = image_config.resolve(config, passwd=accounts.passwd, group=accounts.group, where=where)
        bundle = Bundle(
            layers=tuple(stretches),
            tree=tree,
            process=process,
            digest=source.digest,
            config=source.config,
            passwd=accounts.passwd,
            group=accounts.group,
        )
    text = json.dumps(bundle.as_json(), indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    for name, data in {DOCUMENT: text.encode("ascii"), **steps.describe(bundle)}.items():
        (folder / name).write_bytes(data)
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)
    return bundle


def _append(image: Path, disk: BinaryIO) -> Stretch:
    offset, size = disk.tell(), image.stat().st_size
    assert size % BLOCK == 0, "EROFS images are made of whole blocks"
    with image.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        stream.seek(0)
        shutil.copyfileobj(stream, disk, _CHUNK)
    return Stretch(offset=offset // BLOCK, blocks=size // BLOCK, sha256=digest)
