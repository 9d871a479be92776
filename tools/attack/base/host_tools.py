# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Programs of the pinned tool trees, run on this host's files."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.tree import Tree


@dataclass(frozen=True, kw_only=True)
class HostTools:
    """Wrappers in `folder`: the host's file system with the tree's /usr on top.

    Works because both are merged-/usr systems, and needs no root.
    """

    folder: Path

    def wrapper(self, name: str, tree: Tree) -> Path:
        """An executable that is the tree's program `name`."""
        path = self.folder / f"{tree.digest[:8]}-{name}"
        found = [place for place in ("usr/bin", "usr/sbin") if (tree.path / place / name).exists()]
        if not found:
            raise BuildError(f"has no program {name}", where=str(tree.path))
        usr = shlex.quote(str(tree.path / "usr"))
        script = (
            f'#!/bin/sh\nexec bwrap --die-with-parent --dev-bind / / --ro-bind {usr} /usr -- /{found[0]}/{name} "$@"\n'
        )
        files.write_once(path, script.encode(), mode=0o755)
        return path
