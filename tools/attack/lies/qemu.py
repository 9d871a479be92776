# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The lying QEMU: one build step, whose output never gets near out/.

source-qemu ── qemu-patches/VERSION/lies ── recipes/qemu/build.sh ── qemu-liar

What it tells is a text of lines (qemu-patches, hw/core/lies.c): without one it is as honest as qemu-lite.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.pipeline.engine.step import CheckoutFile, Step
from tools.pipeline.guest import patches, qemu
from tools.pipeline.guest.source_tree import TREE, UNPACK
from tools.pipeline.tasks.project import Project

NAME = "qemu-liar"
_LICENCE = "GPL-2.0-only"


def folder(project: Project) -> str:
    """Where its patches lie, from the checkout's root."""
    (source,) = project.plan.qemu.needs
    found = [path for path in source.inputs if path.startswith("/inputs/qemu-patches/")]
    return f"{Path(found[0]).parent.relative_to('/inputs')}/lies"


def step(project: Project) -> Step:
    """qemu-lite's own step, on the source with more patches."""
    honest = project.plan.qemu
    series = patches.load_series(project.root, folder(project), licence=_LICENCE)
    files = (patches.SCRIPT, *(patch.path for patch in series))
    built = f"mv /out/{qemu.NAME} /out/{NAME} && rm /out/{qemu.LISTED}"
    apply = f"cd {TREE} && {patches.apply(patches.inside(series))} && cd /build"
    return Step(
        name=NAME,
        title=f"{NAME}, a QEMU for attacks",
        argv=("/bin/sh", "-euc", f"{UNPACK} && {apply} && sh -eu /inputs/build.sh && {built}"),
        tools=honest.tools,
        inputs={**honest.inputs, **{f"/inputs/{path}": CheckoutFile(path=path) for path in files}},
        outputs=(NAME,),
        parallel=True,
    )


@dataclass(frozen=True, kw_only=True)
class Liar:
    """An executable in QEMU's place that tells these lies, and what it has told so far."""

    path: Path
    log: Path

    @property
    def told(self) -> list[str]:
        """Each lie as often as it was told."""
        return [line for line in self._lines() if not line.startswith("read ")]

    @property
    def readings(self) -> list[str]:
        """What the guest chose of fw_cfg: "read KEY NUMBER NAME"."""
        return [line for line in self._lines() if line.startswith("read ")]

    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()


def liar(lab: Lab, place: Path, lies: Sequence[str]) -> Liar:
    """Made in the folder `place`, which whoever runs QEMU may enter."""
    program = lab.output(step(lab.project), NAME)
    program.chmod(0o755)
    text, log, path = place / "lies", place / "told", place / "qemu"
    text.write_text("".join(f"{lie}\n" for lie in lies))
    log.write_bytes(b"")
    log.chmod(0o666)  # QEMU may be somebody else
    path.write_text(
        f"#!/bin/sh\nQEMU_LIES={shlex.quote(str(text))} QEMU_LIES_TOLD={shlex.quote(str(log))} "
        f'exec {shlex.quote(str(program))} "$@"\n'
    )
    path.chmod(0o755)
    return Liar(path=path, log=log)
