# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/firmware/NAME.toml: a source, Debian's patches for it, patches of our own, and what to build."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.pipeline.base.toml_reader import Table
from tools.pipeline.recipes import folder

FOLDER = "recipes/firmware"
SCHEMA = 1

# Only a name: the folder lies beside the recipe.
_BESIDE = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"


class FirmwareTarget(StrEnum):
    """edk2's build target."""

    RELEASE = "RELEASE"
    DEBUG = "DEBUG"


class FirmwareSize(StrEnum):
    """Size of the flash image, and so of what is measured at launch. QEMU's -bios wants a multiple of 64 KiB."""

    KIB_256 = "256KB"
    KIB_512 = "512KB"

    @property
    def kibibytes(self) -> int:
        """The number alone, as recipes/firmware/platform/SevGuest.fdf takes it."""
        return int(self.removesuffix("KB"))

    @property
    def bytes(self) -> int:
        """Size of the image in bytes."""
        return self.kibibytes << 10


@dataclass(frozen=True, kw_only=True)
class FirmwareRecipe:
    """Which firmware. `patches` is a folder, as a path from the checkout's root, with a series file and debian.toml."""

    name: str
    source: str
    debian_source: str
    patches: str
    target: FirmwareTarget
    size: FirmwareSize

    @property
    def file(self) -> str:
        """The recipe itself, from the checkout's root."""
        return f"{FOLDER}/{self.name}.toml"

    @property
    def sources(self) -> tuple[str, str]:
        """Names in sources.toml that it is made of."""
        return self.source, self.debian_source

    @property
    def debian_patches(self) -> str:
        """What says which of Debian's patches are applied, from the checkout's root."""
        return f"{self.patches}/debian.toml"


def load(root: Path, *, sources: Collection[str]) -> dict[str, FirmwareRecipe]:
    """Every firmware of a checkout by its name; `sources` are the names in recipes/sources.toml.

    Raises UserError naming file and key.
    """

    def read(table: Table, name: str) -> FirmwareRecipe:
        table.integer("schema", low=SCHEMA, high=SCHEMA)
        return FirmwareRecipe(
            name=name,
            source=folder.source(table, "source", sources),
            debian_source=folder.source(table, "debian-source", sources),
            patches=_patches(table, root),
            target=table.choice("target", FirmwareTarget),
            size=table.choice("size", FirmwareSize),
        )

    return folder.load(root, FOLDER, read)


def _patches(table: Table, root: Path) -> str:
    name = table.string("patches", pattern=_BESIDE, says=f"the name of a folder in {FOLDER}/")
    for file in ("series", "debian.toml"):
        if not (root / FOLDER / name / file).is_file():
            raise table.error("patches", f"no {FOLDER}/{name}/{file}")
    return f"{FOLDER}/{name}"
