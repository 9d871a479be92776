# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""initramfs/agent/ → one static executable, and its initramfs."""

import shutil
from pathlib import Path

from tools.pipeline.base import files
from tools.pipeline.engine.store import Input, Step
from tools.pipeline.guest import initramfs
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE
from tools.pipeline.tasks.project import Project

_ARTIFACT = "agent"


def sources(project: Project) -> list[Path]:
    """What the agent is made of; `target/` is what a developer's own cargo leaves behind."""
    folder = project.root / "initramfs/agent"
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and path.relative_to(folder).parts[0] != "target"
    )


def build(project: Project, target: Path) -> None:
    """Compile the agent to `target`."""
    step = Step(
        name="agent",
        title="agent",
        argv=("/bin/sh", "-euc", 'exec sh /src/build.sh "$JOBS"'),
        tool=project.tree("build"),
        inputs=(Input.folder(_stage(project), "/src"),),
        outputs=("agent",),
    )
    result = project.store.run(step)
    files.write_if_changed(target, result.path("agent").read_bytes(), mode=0o755)


def _stage(project: Project) -> Path:
    """A copy of the crate without what a developer's cargo left beside it."""
    crate = project.root / "initramfs/agent"
    stage = project.build / "agent/src"
    shutil.rmtree(stage, ignore_errors=True)
    for path in sources(project):
        executable = path.stat().st_mode & 0o100
        copy = stage / path.relative_to(crate)
        files.write_atomically(copy, path.read_bytes(), mode=0o755 if executable else 0o644)
    return stage


def manifest(project: Project) -> initramfs.Manifest:
    """The parsed manifest."""
    return initramfs.load(project.root / "initramfs/manifest.toml", artifacts=[_ARTIFACT])


def pack(project: Project, *, agent: Path, cpio: Path, compressed: Path) -> None:
    """Write the initramfs, plain to `cpio` and with zstd to `compressed`.

    Raises BuildError naming the largest members when it is over its budget.
    """
    listed = manifest(project)
    listing = project.build / "initramfs/initramfs.list"
    files.write_if_changed(listing, initramfs.listing(listed).encode())
    kernel = project.recipes.profile(DEFAULT_PROFILE).kernel
    tool = Step(
        name="gen_init_cpio",
        title="gen_init_cpio",
        argv=("/bin/sh", "-euc", initramfs.COMPILE),
        tool=project.tree("build"),
        inputs=(project.source_input(kernel.source, inside=initramfs.SOURCE),),
        outputs=("gen_init_cpio",),
    )
    step = Step(
        name="initramfs",
        title="initramfs",
        argv=("/bin/sh", "-euc", initramfs.PACK),
        tool=project.tree("build"),
        inputs=(
            project.store.run(tool).input("gen_init_cpio", inside=initramfs.TOOL),
            Input.file(listing, initramfs.LIST),
            *[Input.file(agent, inside) for inside in listed.artifacts()],
            *[Input.file(project.root / "initramfs" / name, inside) for inside, name in listed.files().items()],
        ),
        outputs=("initramfs.cpio", "initramfs.cpio.zst"),
    )
    result = project.store.run(step)
    made = {name: result.path(name) for name in step.outputs}
    initramfs.check_budget(made, budget=listed.budget)
    files.write_if_changed(cpio, made["initramfs.cpio"].read_bytes())
    files.write_if_changed(compressed, made["initramfs.cpio.zst"].read_bytes())
