# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures: guests of one kernel or another with the load in them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bounce import machine
from tests.bounce.machine import Machine
from tools.attack.base.lab import Lab
from tools.pipeline.engine.tree import Tree
from tools.pipeline.guest import kernel

Start = Callable[[str], Machine]


@pytest.fixture(scope="session")
def load(build_tree: Tree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initramfs that is the load."""
    return machine.program(build_tree.path, tmp_path_factory.mktemp("load") / "program")


@pytest.fixture(scope="session")
def start(qemu: Path, load: Path, lab: Lab) -> Start:
    """A guest of the kernel with this name, of any series, which is built when it is not there."""
    recipes = {recipe.name: recipe for profile in lab.project.recipes.all_profiles for recipe in profile.kernels}

    def made(name: str) -> Machine:
        step = lab.project.plan.kernel(recipes[name], builtin=False)
        return Machine(qemu=qemu, kernel=lab.output(step, kernel.IMAGE), initramfs=load)

    return made
