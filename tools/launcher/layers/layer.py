# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One layer, from whatever it comes as to its EROFS image.

tar, compressed or not ── plain ── from_tar ──┐
                                              ├── tree ── Below.settle ── tar_writer ── image (mkfs.erofs)
folder, overlayfs's upper folder ─ from_folder ┘
"""

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tools.launcher.layers import contents, from_folder, from_tar, image, tar_writer
from tools.launcher.layers.below import Below
from tools.launcher.layers.from_folder import Note
from tools.launcher.layers.rules import Owner
from tools.launcher.layers.tar_writer import Copy
from tools.launcher.layers.tree import Tree


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A tree, and how its files' contents are read."""

    tree: Tree
    copy: Copy


def of_archive(stream: BinaryIO, *, size: int, owner: Owner | None = None, where: str) -> Layer:
    """The layer in a plain tar of `size` bytes, which stays open until the layer is written."""
    tree = from_tar.read(stream, end=size, owner=owner, where=where)
    return Layer(tree=tree, copy=contents.of_archive(stream, where=where))


def of_folder(
    folder: Path, *, upper: bool = False, userxattr: bool = False, owner: Owner | None = None, note: Note
) -> Layer:
    """The layer in a folder: from_folder.read() says what the options mean."""
    tree = from_folder.read(folder, upper=upper, userxattr=userxattr, owner=owner, note=note)
    return Layer(tree=tree, copy=contents.of_folder())


def write_tar(layer: Layer, below: Below, output: BinaryIO) -> None:
    """Write the normal form of a layer above `below`, which then includes it."""
    below.settle(layer.tree.root)
    tar_writer.write(layer.tree.root, output, copy=layer.copy)


def make_image(layer: Layer, below: Below, target: Path, *, mkfs: Path) -> None:
    """Write the layer's EROFS image to the new file `target`; a tar of the same size lies beside it meanwhile."""
    archive = target.with_name(f"{target.name}.tar")
    try:
        with archive.open("xb") as output:
            write_tar(layer, below, output)
        image.make(mkfs, archive, target)
    finally:
        archive.unlink(missing_ok=True)
