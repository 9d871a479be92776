# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The guest firmware: edk2 for a guest under SEV, which verifies kernel, initramfs and command line.

edk2 tarball ────────────────────────────┐
Debian's fixes, by debian.toml ──────────┼─ source ─┬─ build.sh ── OVMF.fd, footer checked
recipes/firmware/patches ────────────────┘          │
recipes/firmware/platform ──────────────────────────┘
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import CheckoutFile, Literal, Reference, Step
from tools.pipeline.guest import patches, source_tree
from tools.pipeline.recipes.firmwares import FirmwareRecipe
from tools.sev import firmware_check
from tools.sev.errors import FormatError

IMAGE = "OVMF.fd"
_LICENCE = "BSD-2-Clause-Patent"
_BUILD = "recipes/firmware/build.sh"
_PLATFORM = "recipes/firmware/platform"
_JUDGED = "recipes/firmware/judged.sh"
_DEBIAN = "/inputs/debian.tar.xz"
_UNPACKED = "/tmp"  # noqa: S108 (the sandbox's own)


@dataclass(frozen=True, kw_only=True)
class DebianPatch:
    """One patch of Debian's edk2 package, whether it is applied and why, and the CVEs that it is for."""

    file: str
    apply: bool
    cves: tuple[str, ...] = ()
    reason: str = ""


def debian_patches(root: Path, recipe: FirmwareRecipe) -> tuple[DebianPatch, ...]:
    """Which of Debian's patches are applied; the order is the order of application. UserError names file and key."""
    table = toml_reader.load(root / recipe.debian_patches, shown_as=recipe.debian_patches)
    table.integer("schema", low=1, high=1)
    found: dict[str, DebianPatch] = {}
    for item in table.tables("debian"):
        file = item.string("file", pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*", says="a file in debian/patches")
        cves = item.strings("cves", allow_empty=True)
        reason = item.string("reason")
        if file in found:
            raise item.error("file", f"{file!r} stands twice")
        found[file] = DebianPatch(file=file, apply=item.boolean("apply"), cves=cves, reason=reason)
        item.close()
    table.close()
    return tuple(found.values())


def source(root: Path, recipe: FirmwareRecipe, *, archive: Reference, debian: Reference, version: str) -> Step:
    """The patched tree. `debian` is the archive with Debian's patches: one that nobody has judged is a mistake.

    Raises UserError for a patch of ours, or a judgement, that is not what it must be.
    """
    judged = debian_patches(root, recipe)
    series = patches.load_series(root, recipe.patches, licence=_LICENCE)
    files = (patches.SCRIPT, _JUDGED, *(patch.path for patch in series))
    return source_tree.step(
        name=f"source-{recipe.source}",
        title=f"source: {recipe.source} {version}",
        archive=archive,
        extra={
            _DEBIAN: debian,
            "/inputs/judged": Literal(data="".join(f"{patch.file}\n" for patch in judged).encode()),
            **{f"/inputs/{path}": CheckoutFile(path=path) for path in files},
        },
        script="\n".join(
            [
                f"tar --extract --xz --file={_DEBIAN} --directory={_UNPACKED} debian/patches",
                f"sh /inputs/{_JUDGED} {_UNPACKED}/debian/patches /inputs/judged {recipe.debian_patches}",
                patches.apply(f"{_UNPACKED}/debian/patches/{patch.file}" for patch in judged if patch.apply),
                # Ours touch edk2's own files only, which have CR LF. They are kept with plain line ends, which every
                # tool passes on unharmed.
                patches.apply(patches.inside(series), crlf=True),
            ]
        ),
    )


def step(root: Path, recipe: FirmwareRecipe, *, source: Step) -> Step:
    """The step that builds the firmware; its footer, which QEMU and the launch digest rely on, is checked."""
    build = f"exec bash /inputs/build.sh {recipe.target} {recipe.size.kibibytes}"
    return Step(
        name=f"firmware-{recipe.name}",
        title=f"firmware, {recipe.name}",
        argv=("/bin/sh", "-euc", f"{source_tree.UNPACK} && {build}"),
        tools="build",
        inputs={**source_tree.inputs(source), "/inputs/build.sh": CheckoutFile(path=_BUILD), **platform(root)},
        outputs=(IMAGE, "OVMF.report.txt"),
        parallel=True,
        checks=(partial(_check_footer, recipe.size.bytes),),
    )


def platform(root: Path) -> dict[str, CheckoutFile]:
    """Our platform's description and its own modules, where build.sh looks for them."""
    folder = root / _PLATFORM
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {f"/inputs/platform/{path}": CheckoutFile(path=f"{_PLATFORM}/{path}") for path in paths}


def _check_footer(size: int, outputs: Mapping[str, Path]) -> None:
    try:
        firmware_check.check_firmware(outputs[IMAGE].read_bytes(), where=IMAGE, size=size)
    except FormatError as error:
        raise BuildError.of(error) from None
