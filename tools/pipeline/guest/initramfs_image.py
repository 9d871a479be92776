# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The step that packs the initramfs: agent and files, by the list that the manifest becomes."""

from functools import partial
from pathlib import Path

from tools.pipeline.engine.step import CheckoutFile, Literal, Output, Step
from tools.pipeline.guest import agent, initramfs


def step(root: Path, *, built: Output, packer: Output) -> Step:
    """The step. `built` is the agent, `packer` the source of gen_init_cpio. UserError for a bad manifest."""
    manifest = initramfs.load(root / initramfs.FILE, artifacts=[agent.NAME])
    return Step(
        name="initramfs",
        title="initramfs",
        argv=("/bin/sh", "-euc", initramfs.PACK),
        tools="build",
        inputs={
            initramfs.PACKER: packer,
            initramfs.LIST: Literal(data=initramfs.listing(manifest).encode()),
            **dict.fromkeys(manifest.artifacts(), built),
            **{inside: CheckoutFile(path=f"initramfs/{name}") for inside, name in manifest.files().items()},
        },
        outputs=(initramfs.CPIO, initramfs.COMPRESSED),
        checks=(partial(initramfs.check_budget, manifest.budget),),
    )
