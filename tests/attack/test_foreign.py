# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit attack --out FOLDER`: what of a folder is taken along."""

import shutil
from pathlib import Path

import pytest

from tools.attack.base.lab import Lab
from tools.attack.base.model import Part, UnjudgedError
from tools.attack.base.target import Target
from tools.attack.catalogue.devices.network import networked
from tools.attack.front import foreign
from tools.pipeline.tasks.project import Project
from tools.sev.formats import KERNEL_NAME, NETWORK


def test_the_kernel_for_guests_with_a_network_is_taken_along(project: Project, artifacts: Path, tmp_path: Path) -> None:
    """Or rows about networks are judged without their control."""
    theirs, without = tmp_path / "theirs", tmp_path / "without"
    for folder in (theirs, without):
        shutil.copytree(artifacts, folder)
    for path in without.glob(f"*{NETWORK}*"):
        path.unlink()

    def taken(folder: Path) -> tuple[Lab, Target]:
        lab = Lab(project=project, own=Target(name="shipped", folder=artifacts), work=tmp_path / f"{folder.name}-lab")
        target, parts = foreign.target(lab, folder, {})
        assert parts == frozenset({Part.FIRMWARE, Part.KERNEL, Part.AGENT, Part.LAUNCHER})
        return lab, target

    lab, target = taken(theirs)
    assert networked(lab, target).kernel.read_bytes() == (theirs / f"{KERNEL_NAME}{NETWORK}").read_bytes()
    lab, target = taken(without)
    with pytest.raises(UnjudgedError, match="has no vmlinuz-network"):
        networked(lab, target)
