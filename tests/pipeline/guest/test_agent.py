# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The steps of agent and initramfs: what they are made of, and the budget."""

from pathlib import Path

import pytest

from tests.pipeline.alone import alone, engine
from tests.pipeline.conftest import Edit
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import CheckoutFile, Literal
from tools.pipeline.guest import agent, initramfs
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project


def test_the_agent_is_made_of_every_file_of_its_folder(copied: Path) -> None:
    """A new file is part of it; what a developer's own cargo leaves behind is not."""
    crate = copied / "initramfs/agent"
    before = agent.step(copied).inputs
    assert {"/src/Cargo.toml", "/src/Cargo.lock", "/src/build.sh", "/src/src/main.rs"} <= before.keys()
    (crate / "target/debug").mkdir(parents=True)
    (crate / "target/debug/agent").write_bytes(b"\x7fELF")
    assert agent.step(copied).inputs == before
    (crate / "src/new.rs").write_text("")
    new = {"/src/src/new.rs": CheckoutFile(path="initramfs/agent/src/new.rs")}
    assert agent.step(copied).inputs == {**before, **new}


def test_the_initramfs_is_made_of_its_list_and_contents(copied: Path, edit: Edit) -> None:
    """Everything that the list names is an input, and nothing else but the packer."""
    (copied / "initramfs/data").write_text("data\n")
    entry = '[[entry]]\npath = "data"\ntype = "file"\nmode = "0644"\nfile = "data"\n\n[[entry]]\npath = "init"'
    edit("initramfs/manifest.toml", '[[entry]]\npath = "init"', entry)
    built, packer = agent.step(copied).output("agent"), agent.step(copied).output("agent")
    inputs = initramfs.step(copied, built=built, packer=packer).inputs
    listed = inputs.pop(initramfs.LIST) if isinstance(inputs, dict) else None
    assert isinstance(listed, Literal)
    named = {word for line in listed.data.decode().splitlines() for word in line.split() if word.startswith("/inputs/")}
    assert inputs == {
        initramfs.PACKER: packer,
        "/inputs/artifacts/agent": built,
        "/inputs/files/data": CheckoutFile(path="initramfs/data"),
    }
    assert named == inputs.keys() - {initramfs.PACKER}


def test_an_initramfs_over_its_budget_ends_the_build(
    project: Project, artifacts: Path, copied: Path, edit: Edit, tmp_path: Path
) -> None:
    """The real one in the real sandbox, with a budget of a byte less than it has."""
    assert artifacts.is_dir()
    size = (artifacts / initramfs.COMPRESSED).stat().st_size
    kernel = project.plan.kernel_source(project.recipes.profile(DEFAULT_PROFILE).kernel)
    for spare in (0, -1):
        path = copied / initramfs.FILE
        lines = [line if not line.startswith("budget = ") else f"budget = {size + spare}" for line in
                 path.read_text().splitlines()]  # fmt: skip
        path.write_text("\n".join(lines) + "\n")
        step = initramfs.step(
            copied, built=project.plan.agent.output(agent.NAME), packer=kernel.output("gen_init_cpio.c")
        )
        made = engine(project, tmp_path / str(spare), root=copied)
        if spare == 0:
            assert made.ensure(alone(project, step)).outputs[initramfs.COMPRESSED].digest.size == size
            continue
        with pytest.raises(BuildError, match=rf"^initramfs: {size} bytes compressed, 1 over the budget of {size - 1}"):
            made.ensure(alone(project, step))
