# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Which files of the kernel's tree were compiled: from what the compiler itself left beside each object.

kernel-K: objects.tar.zst ── .NAME.o.cmd ── its source, and every file that this includes
source-LINUX: source.tar.zst ── which files there are
"""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base.errors import BuildError

_TREE = "/build/src/"  # where guest/source_tree.py unpacks it
_CODE = re.compile(r".+\.[chS]")
_LEFT_OUT = re.compile(r"arch/(?!x86/)[^/]+/[^/].*|tools/testing/.+|Documentation/.+/.+")
"""What the packed source is without, because no kernel for x86 is made of it (guest/kernel.py)."""
_COMMAND = re.compile(r"(?:.*/)?\.[^/]+\.cmd")
_DEPENDS = re.compile(rf"(?:^source_\S+ := |^  ){re.escape(_TREE)}(\S+?)(?: \\)?$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Compiled:
    """Paths from the top of the tree: files that an object was made from, and all that are in the tree."""

    used: frozenset[str]
    tree: frozenset[str]

    def __or__(self, other: "Compiled") -> "Compiled":
        """What two kernels were made from: what is in either is in an output folder that holds both."""
        return Compiled(used=self.used | other.used, tree=self.tree | other.tree)

    def compiled(self, files: Iterable[str]) -> bool | None:
        """Whether an object was made from any of the files; None where that cannot be said.

        False only if each file is code that this tree has, under that name: a fix of a file that was renamed
        since, of a Makefile or of a table that a script reads says nothing.
        """
        files = list(files)
        if any(path in self.used for path in files):
            return True
        known = all(_CODE.fullmatch(path) and (path in self.tree or _LEFT_OUT.fullmatch(path)) for path in files)
        return False if files and known else None


def read(objects: Path, source: Path) -> Compiled:
    """From the outputs of the two steps. BuildError when there is nothing of it in them."""
    used: set[str] = set()
    for _, data in _members(objects, wanted=_COMMAND):
        used.update(map(posixpath.normpath, _DEPENDS.findall(data.decode("utf-8", "replace"))))
    tree = frozenset(name for name, _ in _members(source, wanted=None))
    if not used or not used <= tree:
        missing = sorted(used - tree)[:1] or ["no command of a compiler"]
        raise BuildError(f"does not fit its source: {missing[0]}", where=objects.name, hint="build again")
    return Compiled(used=frozenset(used), tree=tree)


def _members(archive: Path, *, wanted: "re.Pattern[str] | None") -> Iterable[tuple[str, bytes]]:
    """Names of files, and the bytes of those that are wanted."""
    import libarchive  # noqa: PLC0415 (start-up: it looks for its library by starting programs)

    with libarchive.file_reader(str(archive)) as entries:
        for entry in entries:
            name = entry.pathname.removeprefix("./")
            if not entry.isfile:
                continue
            if wanted is None:
                yield name, b""
            elif wanted.fullmatch(name):
                yield name, b"".join(entry.get_blocks())
