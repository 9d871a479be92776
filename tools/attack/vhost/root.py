# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The root file system for all of these rows: busybox, and a list by which a workload decides."""

import mmap
from dataclasses import dataclass
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.guests import roots
from tools.attack.guests.verity import with_tree
from tools.attack.vhost.disk import SECTOR
from tools.pipeline.base.errors import BuildError

_LINE, _NAMED = b"trudy__\n", b"mallory\n"
_LINES = 65536  # of eight bytes; long enough that nobody who reads what lies beside it meets the bait
_PLACE = 24576  # the line in which the name stands
# The blocks around the name: bytes 128 KiB to 256 KiB of the list.
_BAIT = range(128 << 10, 256 << 10)


@dataclass(frozen=True, kw_only=True)
class Root:
    """An EROFS image with its dm-verity tree. `bait`: sectors of the disk in which the list's name lies."""

    image: Path
    root_hash: str
    content: memoryview
    bait: range


def root(lab: Lab) -> Root:
    """Made once a lab."""
    return lab.once("vhost root", lambda: _make(lab))


def _make(lab: Lab) -> Root:
    folder = lab.folder("vhost-root")
    tree = roots.folder(lab.tree("boot") / "usr/bin/busybox", folder / "root")
    text = _LINE * _PLACE + _NAMED + _LINE * (_LINES - _PLACE - 1)
    (tree / "etc/denied").write_bytes(text)
    erofs = roots.erofs(tree, folder / "root.erofs", mkfs=lab.tool("mkfs.erofs"))
    verity = with_tree(erofs, lab.tool("veritysetup"))
    with verity.image.open("rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    start = bytes(content).index(text)
    if start % 4096:
        raise BuildError("the list does not lie in blocks of its own", where=str(verity.image))
    bait = range((start + _BAIT.start) // SECTOR, (start + _BAIT.stop) // SECTOR)
    return Root(image=verity.image, root_hash=verity.root_hash, content=content, bait=bait)
