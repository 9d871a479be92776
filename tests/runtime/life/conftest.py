# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A lab for each test; one image and one cache of disks for all."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.life.lab import Lab
from tools.attack.guests import roots

_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


@pytest.fixture(autouse=True)
def _subreaper() -> Iterator[None]:
    """As containerd's shim and conmon are: whoever is left by its parent becomes this process's child."""
    assert ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0) == 0
    yield
    ctypes.CDLL(None).prctl(_SUBREAPER, 0, 0, 0, 0)


@pytest.fixture(scope="session")
def shared(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's folder, and beside it a cache."""
    folder = tmp_path_factory.mktemp("runtime")
    roots.folder(busybox, folder / "image")
    (folder / "cache").mkdir(mode=0o700)
    return folder


@pytest.fixture
def lab(artifacts: Path, qemu: Path, shared: Path, tmp_path: Path, reachable: Path) -> Iterator[Lab]:
    """Unprotected, unless a test writes another configuration."""
    config = tmp_path / "sev-runtime.toml"
    lab = Lab(program=artifacts / "sev-runtime", folder=tmp_path, image=shared / "image", config=config)
    lines = ["schema = 1", 'protection = "unprotected"', f'qemu = "{qemu}"', 'accel = "tcg"']
    lines += [f'cache = "{shared / "cache"}"', f'run = "{reachable}"']
    config.write_text("\n".join(lines) + "\n")
    yield lab
    lab.close()
