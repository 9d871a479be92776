# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The same host before two kernels: the shipped one, and Debian's, which has no defence against tables."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tools.attack.acpi import debian
from tools.attack.acpi.host import Side
from tools.attack.acpi.machine import Machine
from tools.pipeline.engine.tree import Tree
from tools.pipeline.tasks.project import Project


@pytest.fixture(scope="session")
def iasl(host_tool: Callable[..., Path], build_tree: Tree) -> Path:
    """The pinned compiler of AML."""
    return host_tool("iasl", build_tree)


@pytest.fixture(scope="session")
def bench_tree(project: Project) -> Path:
    """Debian's cloud kernel of the same version, with its modules."""
    return project.trees.ensure("bench").path


@pytest.fixture(scope="session")
def undefended(qemu: Path, bench_tree: Path, firmware_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Side:
    """Debian's kernel behind our firmware."""
    machine = Machine(qemu=qemu, kernel=debian.kernel(bench_tree), firmware=firmware_path)
    return Side.undefended(machine, tmp_path_factory.mktemp("undefended") / "honest")


@pytest.fixture(scope="session")
def shipped(undefended: Side, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Side:
    """The production kernel."""
    machine = Machine(qemu=undefended.machine.qemu, kernel=artifacts / "vmlinuz", firmware=undefended.machine.firmware)
    return undefended.beside(machine, tmp_path_factory.mktemp("shipped") / "honest")


@pytest.fixture(autouse=True)
def _no_memory_left(tmp_path: Path) -> Iterator[None]:
    """A guest's memory takes more room than is kept for people who look into a failed test."""
    yield
    for memory in sorted(tmp_path.rglob("memory")):
        memory.unlink()
