# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The same host before two kernels: the shipped one, and Debian's, which has no defence against tables."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.boot.acpi import tables
from tests.boot.acpi.host import Side
from tests.boot.acpi.machine import MARKER, Machine
from tools.pipeline.engine.tree import Tree
from tools.pipeline.tasks.project import Project


@pytest.fixture(scope="session")
def iasl(host_tool: Callable[..., Path], build_tree: Tree) -> Path:
    """The pinned compiler of AML."""
    return host_tool("iasl", build_tree)


@pytest.fixture(scope="session")
def debian_kernel(project: Project) -> Path:
    """Debian's cloud kernel of the same version."""
    (kernel,) = (project.trees.ensure("bench").path / "boot").glob("vmlinuz-*")
    return kernel


@pytest.fixture(scope="session")
def undefended(qemu: Path, debian_kernel: Path, firmware_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Side:
    """Debian's kernel behind our firmware; what it says of the memory map holds for every kernel there."""
    machine = Machine(qemu=qemu, kernel=debian_kernel, firmware=firmware_path)
    # By then its map, its tables and its command line are where they stay; the rest of its start takes the most time.
    folder = tmp_path_factory.mktemp("undefended") / "honest"
    boot = machine.start(folder, until=lambda boot: "ACPI: Interpreter enabled" in boot.log)
    return Side.of(machine, boot, boot, tables.of(boot))


@pytest.fixture(scope="session")
def shipped(undefended: Side, artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Side:
    """The production kernel. It has no console; the map and the tables are Debian's."""
    machine = Machine(qemu=undefended.machine.qemu, kernel=artifacts / "vmlinuz", firmware=undefended.machine.firmware)
    boot = machine.start(tmp_path_factory.mktemp("shipped") / "honest")
    assert boot.find(MARKER.encode()), "the kernel did not start"
    return Side.of(machine, boot, undefended.honest, undefended.tables)


@pytest.fixture(autouse=True)
def _no_memory_left(tmp_path: Path) -> Iterator[None]:
    """A guest's memory takes more room than is kept for people who look into a failed test."""
    yield
    for memory in sorted(tmp_path.rglob("memory")):
        memory.unlink()
