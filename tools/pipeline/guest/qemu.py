# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The QEMU that starts guests: one static program with the devices that our guests have, and no others.

qemu tarball ──┐
qemu-patches ──┴─ source ─┬─ build.sh ── qemu-lite, its lists of devices compared with recipes/qemu/devices.txt
devices.mak ──────────────┘
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.step import CheckoutFile, Reference, Step
from tools.pipeline.guest import patches, source_tree
from tools.sev.formats import QEMU_NAME

NAME = QEMU_NAME
SOURCE = "qemu"
"""The pin."""
LISTED = f"{NAME}.devices.txt"
SIZE_MAX = 12 << 20
"""Bytes that the program may have."""

_FOLDER = "recipes/qemu"
_EXPECTED = f"{_FOLDER}/devices.txt"
_LICENCE = "GPL-2.0-only"
# Firmware by others, which no build of this program reads.
_LEFT_OUT = "find ./roms ! -type d"


def patch_folder(version: str) -> str:
    """Where the patches for a version lie, by its first two numbers ("1:10.2.2+ds-1" → qemu-patches/10.2)."""
    return f"qemu-patches/{'.'.join(version.rpartition(':')[2].split('.')[:2])}"


def recipe_files(version: str) -> tuple[str, ...]:
    """Files that the steps are made from without being inputs of one."""
    return _EXPECTED, f"{patch_folder(version)}/series"


def source(root: Path, *, archive: Reference, version: str) -> Step:
    """The patched tree; UserError for a patch that is not what it must be."""
    series = patches.load_series(root, patch_folder(version), licence=_LICENCE)
    files = (patches.SCRIPT, *(patch.path for patch in series))
    return source_tree.step(
        name=f"source-{SOURCE}",
        title=f"source: {SOURCE} {version}",
        archive=archive,
        extra={f"/inputs/{path}": CheckoutFile(path=path) for path in files},
        script=f"{patches.apply(patches.inside(series))}\n{_LEFT_OUT} >{source_tree.LEFT_OUT}",
    )


def step(root: Path, *, source: Step) -> Step:
    """The step that compiles it. UserError when the list of what it must have cannot be read."""
    try:
        expected = (root / _EXPECTED).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(getattr(error, "strerror", None) or "not UTF-8", where=_EXPECTED) from None
    return Step(
        name=NAME,
        title=f"{NAME}, the QEMU of these guests",
        argv=("/bin/sh", "-euc", f"{source_tree.UNPACK} && exec sh -eu /inputs/build.sh"),
        tools="qemu",
        inputs={
            **source_tree.inputs(source),
            "/inputs/build.sh": CheckoutFile(path=f"{_FOLDER}/build.sh"),
            "/inputs/devices.mak": CheckoutFile(path=f"{_FOLDER}/devices.mak"),
        },
        outputs=(NAME, LISTED),
        parallel=True,
        checks=(partial(_check_devices, listed(expected)), _check_size),
    )


def listed(text: str) -> frozenset[str]:
    """The lines of a list, each "KIND NAME", without comments."""
    lines = (line.split("#", 1)[0].split() for line in text.splitlines())
    return frozenset(" ".join(words) for words in lines if words)


def _check_devices(expected: frozenset[str], outputs: Mapping[str, Path]) -> None:
    """BuildError when the program lacks something that is listed, or has something that is not."""
    there = listed(outputs[LISTED].read_text(encoding="utf-8", errors="replace"))
    for words, wrong in (("lacks", expected - there), ("has, though nobody asked for it,", there - expected)):
        if wrong:
            names = ", ".join(sorted(wrong)[:10])
            more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
            raise BuildError(
                f"the program {words} {names}{more}",
                where=_EXPECTED,
                hint=f"change {_FOLDER}/devices.mak, or this list where that is meant",
            )


def _check_size(outputs: Mapping[str, Path]) -> None:
    size = outputs[NAME].stat().st_size
    if size > SIZE_MAX:
        raise BuildError(f"{size} bytes, more than {SIZE_MAX}", where=NAME)
