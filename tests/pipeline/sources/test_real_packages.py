# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The pinned packages themselves: what we unpack is what dpkg-deb unpacks."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.pipeline.engine.store import merkle
from tools.pipeline.sources.pins import ToolchainLock
from tools.pipeline.sources.wanted import Architecture, Layout, Toolchain, WantedTree
from tools.pipeline.tasks.project import Project
from tools.pipeline.toolchain import tool_tree

# Hard links, long names, many links, set-uid programs, paths outside usr.
NAMES = ["perl-base", "libgcc-14-dev", "libc6", "bash", "tzdata", "mount", "util-linux", "base-files"]


@pytest.mark.parametrize("name", NAMES)
def test_same_as_dpkg_deb(name: str, project: Project, host_tool: Callable[[str], Path], tmp_path: Path) -> None:
    package = next(p for p in project.toolchain_lock.packages if p.pin.name == name)
    project.fetch([package.pin], title=f"fetching {name}")
    archive = tmp_path / "package.deb"
    assert project.cas.copy_to(package.pin.sha256, package.pin.size, archive)
    reference = tmp_path / "reference"
    subprocess.run([host_tool("dpkg-deb"), "-x", archive, reference], check=True)
    wanted = WantedTree(name="one", packages=(name,), links=())
    bare = Toolchain(
        suite="s",
        architecture=Architecture.AMD64,
        layout=Layout(merged=(), folders=(), skip=()),
        trees=(wanted,),
    )
    one = package.__class__(pin=package.pin, architecture=package.architecture, trees=("one",))
    lock = ToolchainLock(suite="s", wanted=(("one", (name,)),), packages=(one,))
    made = tool_tree.ensure_tree(
        "one",
        toolchain=bare,
        lock=lock,
        cache=project.cas,
        trees=tmp_path / "trees",
        seal=project.seal,
        jobs=1,
    )
    assert made.digest == merkle.read(reference).digest().sha256
    assert made.digest == merkle.read(made.path).digest().sha256


def test_the_trees_are_what_was_set_up(project: Project) -> None:
    """The digest that steps are keyed by is the digest of what lies on the disk."""
    assert tool_tree.is_intact(project.trees.ensure("boot"))
