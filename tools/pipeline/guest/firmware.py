# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The guest firmware: edk2's AmdSev platform, which verifies kernel, initramfs and command line.

edk2 tarball ────────────────────────────┐
Debian's fixes, by debian.toml ──────────┼─ source ── build.sh ── OVMF.fd, footer checked
recipes/firmware/patches ────────────────┘
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import CheckoutFile, Literal, Reference, Step
from tools.pipeline.guest import source_tree
from tools.pipeline.guest.patches import Patch
from tools.pipeline.recipes.firmwares import FirmwareRecipe
from tools.sev import firmware_check
from tools.sev.errors import FormatError

IMAGE = "OVMF.fd"
LICENCE = "BSD-2-Clause-Patent"
_FOLDER = "recipes/firmware"


@dataclass(frozen=True, kw_only=True)
class DebianPatch:
    """One patch of Debian's edk2 package, and whether it is applied."""

    file: str
    apply: bool


def debian_patches(root: Path, recipe: FirmwareRecipe) -> tuple[DebianPatch, ...]:
    """Which of Debian's patches are applied; the order is the order of application. UserError names file and key."""
    table = toml_reader.load(root / recipe.debian_patches, shown_as=recipe.debian_patches)
    table.integer("schema", low=1, high=1)
    found: dict[str, DebianPatch] = {}
    for item in table.tables("debian"):
        file = item.string("file", pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*", says="a file in debian/patches")
        item.strings("cves", allow_empty=True)
        item.string("reason")
        if file in found:
            raise item.error("file", f"{file!r} stands twice")
        found[file] = DebianPatch(file=file, apply=item.boolean("apply"))
        item.close()
    table.close()
    return tuple(found.values())


def source(
    recipe: FirmwareRecipe,
    *,
    archive: Reference,
    debian: Reference,
    version: str,
    judged: Sequence[DebianPatch],
    series: Sequence[Patch],
) -> Step:
    """The patched tree. `debian` is the archive with Debian's patches: one that nobody has judged is a mistake."""
    inside = "/inputs/firmware"
    known = "".join(f"{patch.file}\n" for patch in judged)
    return source_tree.step(
        name=f"source-{recipe.source}",
        title=f"source: {recipe.source} {version}",
        archive=archive,
        extra={
            "/inputs/debian.tar.xz": debian,
            f"{inside}/prepare.sh": CheckoutFile(path=f"{_FOLDER}/prepare.sh"),
            f"{inside}/judged": Literal(data=known.encode()),
            f"{inside}/where": Literal(data=f"{recipe.debian_patches}\n".encode()),
            f"{inside}/patches/series": CheckoutFile(path=f"{recipe.patches}/series"),
            **{f"{inside}/patches/{p.name}": CheckoutFile(path=f"{recipe.patches}/{p.name}") for p in series},
        },
        patch_argv=["sh", f"{inside}/prepare.sh", "/inputs/debian.tar.xz", *(p.file for p in judged if p.apply)],
    )


def step(recipe: FirmwareRecipe, *, source: Step) -> Step:
    """The step that builds the firmware; its footer, which QEMU and the launch digest rely on, is checked."""
    return Step(
        name=f"firmware-{recipe.name}",
        title=f"firmware, {recipe.name}",
        argv=("/bin/sh", "-euc", f"{source_tree.UNPACK} && exec bash /inputs/build.sh {recipe.target} {recipe.size}"),
        tools="build",
        inputs={**source_tree.inputs(source), "/inputs/build.sh": CheckoutFile(path=f"{_FOLDER}/build.sh")},
        outputs=(IMAGE, "OVMF.report.txt"),
        parallel=True,
        checks=(partial(_check_footer, recipe.size.bytes),),
    )


def _check_footer(size: int, outputs: Mapping[str, Path]) -> None:
    try:
        firmware_check.check_firmware(outputs[IMAGE].read_bytes(), where=IMAGE, size=size)
    except FormatError as error:
        raise BuildError.of(error) from None
