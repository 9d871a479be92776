# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The guest firmware: edk2's AmdSev platform, which verifies kernel, initramfs and command line.

edk2 tarball ────────────────────────────┐
Debian's fixes, by edk2-patches.toml ────┼─ source ── build.sh ── OVMF.fd, footer checked
recipes/firmware/patches ────────────────┘
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import files as digest
from tools.pipeline.base import toml_reader
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine.store import Input, Result, Step
from tools.pipeline.guest import patches
from tools.pipeline.guest import source_tree as source
from tools.pipeline.guest.patches import Patch
from tools.pipeline.recipes.profiles import FirmwareRecipe
from tools.pipeline.tasks.project import Project
from tools.sev import firmware_check
from tools.sev.errors import FormatError

_FOLDER = "recipes/firmware"
_JUDGED = f"{_FOLDER}/edk2-patches.toml"
_LICENCE = "BSD-2-Clause-Patent"


@dataclass(frozen=True, kw_only=True)
class DebianPatch:
    """One patch of Debian's edk2 package, and whether it is applied."""

    file: str
    apply: bool


def pins(recipe: FirmwareRecipe) -> list[str]:
    """Names in sources.lock that the source tree is made of."""
    return [recipe.source, f"{recipe.source}-debian"]


def check_pins(project: Project) -> None:
    """Raise UserError when sources.lock lacks something that a profile's firmware is made of."""
    for profile in project.recipes.profiles:
        for name in pins(profile.firmware):
            project.source(name)


def log(recipe: FirmwareRecipe) -> str:
    """The name of the log of a firmware's build."""
    return f"firmware-{recipe.name}"


def script(project: Project) -> Path:
    """What runs in the sandbox to build the firmware."""
    return project.root / _FOLDER / "build.sh"


def patch_files(project: Project) -> list[Path]:
    """Every file that the patched source tree depends on."""
    folder = project.root / _FOLDER
    own = sorted((folder / "patches").glob("*.patch"))
    return [folder / "prepare.sh", folder / "edk2-patches.toml", folder / "patches/series", *own]


def judged_patches(path: Path) -> tuple[DebianPatch, ...]:
    """Parse edk2-patches.toml; the order is the order of application."""
    table = toml_reader.load(path, shown_as=_JUDGED)
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


def source_tree(project: Project, recipe: FirmwareRecipe) -> Result:
    """The patched source tree; BuildError names the hunk of a patch that does not fit.

    Raises UserError when Debian's package holds a patch that nobody has judged yet.
    """
    main, debian = pins(recipe)
    folder = project.root / _FOLDER
    judged = judged_patches(folder / "edk2-patches.toml")
    series = patches.load_series(folder / "patches", label=f"{_FOLDER}/patches", licence=_LICENCE)
    archive = project.source_input(debian, inside="/inputs/debian.tar.xz")
    _check_all_judged(archive.host, judged)
    taken = [p.file for p in judged if p.apply]
    own = [Input.file(folder / "patches" / p.name, f"/inputs/firmware/patches/{p.name}") for p in series]
    step = source.step(
        name=f"source-{recipe.source}",
        title=f"source: {recipe.source} {project.source(main).pin.version}",
        tool=project.tree("build"),
        archive=project.source_input(main, inside="/inputs/source"),
        extra=[
            archive,
            Input.file(folder / "prepare.sh", "/inputs/firmware/prepare.sh"),
            Input.file(folder / "patches/series", "/inputs/firmware/patches/series"),
            *own,
        ],
        patch_argv=["sh", "/inputs/firmware/prepare.sh", "/inputs/debian.tar.xz", *taken],
    )
    expected = (*[_debian_patch(name) for name in taken], *series)

    def judge(log: str, status: int) -> None:
        patches.check_log(log, exit_status=status, patches=expected)

    return project.store.run(step, judge=judge)


def _debian_patch(name: str) -> Patch:
    where = f"debian/patches/{name}"
    return Patch(name=name, where=where, subject="", upstream="", tested="", files=())


def _check_all_judged(archive: Path, judged: tuple[DebianPatch, ...]) -> None:
    prefix = "debian/patches/"
    with tarfile.open(archive, "r:xz") as members:
        names = {m.name.removeprefix(prefix) for m in members if m.isfile() and m.name.startswith(prefix)}
    names.discard("series")
    known = {p.file for p in judged}
    for name in sorted(names - known):
        raise UserError(f"{name} of Debian's edk2 is not judged", where=_JUDGED, hint="add it, with a reason")
    for name in sorted(known - names):
        raise UserError(f"{name} is not in Debian's edk2 any more", where=_JUDGED, hint="remove it")


def build(project: Project, recipe: FirmwareRecipe, target: Path) -> None:
    """Build the firmware to `target` after checking the footer that QEMU and the launch digest rely on."""
    step = Step(
        name=log(recipe),
        title=f"firmware, {recipe.target}, {recipe.size}",
        argv=(
            "/bin/sh",
            "-euc",
            f'exec bash /inputs/build.sh {recipe.target} {recipe.size} "$JOBS"',
        ),
        tool=project.tree("build"),
        inputs=(
            source_tree(project, recipe).input(source.FOLDER, inside="/src"),
            Input.file(script(project), "/inputs/build.sh"),
        ),
        outputs=("OVMF.fd", "OVMF.report.txt"),
    )
    image = project.store.run(step).path("OVMF.fd")
    data = image.read_bytes()
    try:
        firmware_check.check_firmware(data, where=str(image), size=recipe.size.bytes)
    except FormatError as error:
        raise BuildError.of(error) from None
    digest.write_if_changed(target, data)
