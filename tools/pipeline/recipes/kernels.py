# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/kernel/NAME.toml: a source, a patch series, and configuration fragments.

fragments/lists.toml ── include ──┐
fragments/NAME.config ────────────┴── recipes/kernel/NAME.toml ── KernelRecipe
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base import names, toml_reader
from tools.pipeline.base.errors import UserError
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.recipes import folder

FOLDER = "recipes/kernel"
FRAGMENTS = f"{FOLDER}/fragments"
LISTS = f"{FRAGMENTS}/lists.toml"
PATCHES = "kernel-patches"
SCHEMA = 1

SERIES = r"[0-9]{1,3}\.[0-9]{1,3}"


@dataclass(frozen=True, kw_only=True)
class KernelRecipe:
    """Which kernel, with which patches and options.

    `fragments` are paths from the checkout's root, in order, and so are `files`: the recipes that say it.
    """

    name: str
    source: str
    series: str
    fragments: tuple[str, ...]
    files: tuple[str, ...] = ()

    @property
    def patches(self) -> str:
        """The folder of the patch series, from the checkout's root."""
        return f"{PATCHES}/{self.series}"


def fragment(name: str) -> str:
    """The path of a fragment, from the checkout's root."""
    return f"{FRAGMENTS}/{name}.config"


def check_patches(root: Path, series: str, *, where: str) -> None:
    """Raise UserError, said of the recipe `where`, when there is no folder of patches for a series."""
    if not (root / PATCHES / series / "series").is_file():
        there = ", ".join(sorted(path.parent.name for path in (root / PATCHES).glob("*/series")))
        raise UserError(f"no {PATCHES}/{series}/series", where=where, hint=f"create it, or use one of: {there}")


def load(root: Path, *, sources: Collection[str]) -> dict[str, KernelRecipe]:
    """Every kernel of a checkout by its name; `sources` are the names in recipes/sources.toml.

    Raises UserError naming file and key.
    """
    lists = _lists(root)

    def read(table: Table, name: str) -> KernelRecipe:
        table.integer("schema", low=SCHEMA, high=SCHEMA)
        series = table.string("series", pattern=SERIES, says="a kernel series such as 6.12")
        check_patches(root, series, where=f"{FOLDER}/{name}.toml: series")
        return KernelRecipe(
            name=name,
            source=folder.source(table, "source", sources),
            series=series,
            fragments=_all_fragments(table, root=root, lists=lists),
            files=(f"{FOLDER}/{name}.toml",),
        )

    return folder.load(root, FOLDER, read)


def _lists(root: Path) -> dict[str, tuple[str, ...]]:
    table = toml_reader.load(root / LISTS, shown_as=LISTS)
    table.integer("schema", low=SCHEMA, high=SCHEMA)
    lists = table.table("lists")
    found = {name: named_fragments(lists, name, root=root) for name in lists.keys()}  # noqa: SIM118 (a Table, not a dict)
    table.close()
    return found


def _all_fragments(table: Table, *, root: Path, lists: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    found: list[str] = []
    for i, name in enumerate(table.strings("include", allow_empty=True)):
        if name not in lists:
            raise table.error(f"include[{i}]", f"no list {name!r} in {LISTS}", names.hint(name, lists))
        found += lists[name]
    found += named_fragments(table, root=root, allow_empty=bool(found))
    for path in found:
        if found.count(path) > 1:
            raise table.error("fragments", f"{path} stands twice, counting what is included")
    return tuple(found)


def named_fragments(table: Table, key: str = "fragments", *, root: Path, allow_empty: bool = False) -> tuple[str, ...]:
    """The paths of the fragments that a key names, from the checkout's root; UserError for one that is not there."""
    found = []
    for i, name in enumerate(table.strings(key, allow_empty=allow_empty)):
        # The name is checked before it is looked up: a file system refuses some names with an OSError.
        if re.fullmatch(folder.NAME, name) is None or not (root / fragment(name)).is_file():
            there = [path.stem for path in (root / FRAGMENTS).glob("*.config")]
            raise table.error(f"{key}[{i}]", f"no {fragment(name[:80])}", names.hint(name, there))
        found.append(fragment(name))
    return tuple(found)
