# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The initramfs as files: a newc cpio archive by the kernel's own gen_init_cpio, and the same with zstd.

gen_init_cpio.c (of the default kernel's source) ─┐
manifest.toml ── listing ─────────────────────────┼── initramfs.cpio ── initramfs.cpio.zst, within its budget
agent, files ─────────────────────────────────────┘
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tools.pipeline.engine.sandbox import EPOCH
from tools.pipeline.engine.step import CheckoutFile, Literal, Output, Reference, Step
from tools.pipeline.guest import agent, initramfs
from tools.pipeline.guest.initramfs import Manifest

CPIO = "initramfs.cpio"
COMPRESSED = "initramfs.cpio.zst"
_PACKER = "/inputs/gen_init_cpio.c"
_LIST = "/inputs/list"


def step(root: Path, *, agent_output: Output, packer: Output) -> Step:
    """The step that packs both; `packer` is the source of gen_init_cpio. UserError for a bad manifest."""
    manifest = initramfs.load(root / initramfs.FILE, artifacts=[agent.NAME])
    contents: dict[str, Reference] = {initramfs.inside_artifact(agent.NAME): agent_output}
    for name in manifest.files():
        contents[initramfs.inside_file(name)] = CheckoutFile(path=f"initramfs/{name}")
    return Step(
        name="initramfs",
        title="initramfs",
        argv=(
            "/bin/sh",
            "-euc",
            f"cc -O2 -o /build/gen_init_cpio {_PACKER}"
            f" && /build/gen_init_cpio -t {EPOCH} {_LIST} >/out/{CPIO}"
            # One thread: the number of threads must not decide a byte.
            f" && zstd -19 --threads=1 --quiet --check /out/{CPIO} -o /out/{COMPRESSED}",
        ),
        tools="build",
        inputs={
            _PACKER: packer,
            _LIST: Literal(data=initramfs.listing(manifest).encode()),
            **contents,
        },
        outputs=(CPIO, COMPRESSED),
        checks=(partial(_check_budget, manifest),),
    )


def _check_budget(manifest: Manifest, outputs: Mapping[str, Path]) -> None:
    initramfs.check_budget(manifest, compressed=outputs[COMPRESSED].stat().st_size, archive=outputs[CPIO])
