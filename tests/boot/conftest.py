# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Guests for the boot tests: the real artifacts under QEMU's emulation, started by the real sev-launch."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.attack.guests import roots
from tools.attack.guests.run import Guest


@pytest.fixture(scope="session")
def root_folder(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A container root: busybox, links for its applets, one data file."""
    return roots.folder(busybox, tmp_path_factory.mktemp("root") / "busybox")


@pytest.fixture(scope="session")
def root_tar(root_folder: Path) -> Path:
    """The same as a plain tar."""
    return roots.tar(root_folder, root_folder.parent / "busybox.tar")


@pytest.fixture(scope="session")
def root_erofs(root_folder: Path, host_tool: Callable[[str], Path]) -> Path:
    """The same as an EROFS image."""
    return roots.erofs(root_folder, root_folder.parent / "busybox.erofs", mkfs=host_tool("mkfs.erofs"))


@pytest.fixture(scope="session")
def guest(artifacts: Path, root_tar: Path) -> Guest:
    """The production guest on the tar root, under the QEMU of the artifacts."""
    return Guest(launcher=artifacts / "sev-launch", qemu=None, rootfs=root_tar)


@pytest.fixture(scope="session")
def debug_guest(debug_artifacts: Path, root_tar: Path) -> Guest:
    """The debug guest on the tar root, under the QEMU of the artifacts."""
    return Guest(launcher=debug_artifacts / "sev-launch", qemu=None, rootfs=root_tar)
