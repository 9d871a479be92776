# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""initramfs/agent/ → one static executable, and its initramfs."""

import shutil
from pathlib import Path

from tools.pipeline.base import files
from tools.pipeline.engine.store import Input, Step
from tools.pipeline.guest import initramfs
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
    folder, artifacts = project.root / "initramfs", {_ARTIFACT: agent}
    files.write_if_changed(cpio, initramfs.archive(listed, folder=folder, artifacts=artifacts))
    step = Step(
        name="initramfs",
        title="initramfs",
        # The compressor of the pinned tree: libarchive's own would be whatever the host has.
        argv=(
            "zstd",
            "-19",
            "--threads=1",
            "--quiet",
            "--check",
            "/inputs/initramfs.cpio",
            "-o",
            "/out/initramfs.cpio.zst",
        ),
        tool=project.tree("build"),
        inputs=(Input.file(cpio, "/inputs/initramfs.cpio"),),
        outputs=("initramfs.cpio.zst",),
    )
    result = project.store.run(step).path("initramfs.cpio.zst")
    initramfs.check_budget(listed, compressed=result.stat().st_size, folder=folder, artifacts=artifacts)
    files.write_if_changed(compressed, result.read_bytes())
