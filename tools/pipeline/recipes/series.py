# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/series/NAME.toml: a kernel series beside the default one.

recipes/kernel/linux-6.12*.toml ─┐
recipes/profiles/*.toml ─────────┼── every profile of the default series once more, in another: 6.18, 6.18-debug …
recipes/series/6.18.toml ────────┘

The default series is that of the default profile's kernel. Nothing of a profile is written twice: what differs between
two series is a source, a folder of patches, and fragments that stand in the place of fragments/series-6.12.config.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from tools.pipeline.base.errors import UserError
from tools.pipeline.base.toml_reader import Table
from tools.pipeline.recipes import folder, kernels
from tools.pipeline.recipes.kernels import KernelRecipe
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile

FOLDER = "recipes/series"
SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Series:
    """A series (6.18), its source in recipes/sources.toml, its fragments in place of the default series' own."""

    name: str
    source: str
    fragments: tuple[str, ...]

    @property
    def file(self) -> str:
        """The recipe itself, from the checkout's root."""
        return f"{FOLDER}/{self.name}.toml"


def load(root: Path, *, sources: Collection[str], default: str) -> tuple[Series, ...]:
    """Every series of a checkout but the `default` one, oldest first; `sources` as in kernels.load().

    UserError names file and key.
    """

    def read(table: Table, name: str) -> Series:
        shown = f"{FOLDER}/{name}.toml"
        if re.fullmatch(kernels.SERIES, name) is None:
            raise UserError(f"{name!r} is no kernel series", where=shown, hint="name the file as 6.18.toml")
        if name == default:
            hint = f"it is the default one, of {DEFAULT_PROFILE}'s kernel: remove the file"
            raise UserError(f"{name} is there already", where=shown, hint=hint)
        kernels.check_patches(root, name, where=shown)
        table.integer("schema", low=SCHEMA, high=SCHEMA)
        return Series(
            name=name,
            source=folder.source(table, "source", sources),
            fragments=kernels.named_fragments(table, root=root, allow_empty=True),
        )

    found = folder.load(root, FOLDER, read).values()
    return tuple(sorted(found, key=lambda one: tuple(int(part) for part in one.name.split("."))))


def derived(one: Series, profiles: Mapping[str, Profile], *, default: str) -> tuple[Profile, ...]:
    """The profiles of the default series in another one; those whose kernels are not of the default are none."""
    return tuple(
        replace(
            profile,
            name=one.name if profile.name == DEFAULT_PROFILE else f"{one.name}-{profile.name}",
            kernel=_kernel(one, profile.kernel, default=default),
            network=profile.network and _kernel(one, profile.network, default=default),
        )
        for profile in profiles.values()
        if all(kernel.series == default for kernel in profile.kernels)
    )


def _kernel(one: Series, recipe: KernelRecipe, *, default: str) -> KernelRecipe:
    name = recipe.name.replace(default, one.name)
    return replace(
        recipe,
        name=name if name != recipe.name else f"{recipe.name}-{one.name}",
        source=one.source,
        series=one.name,
        fragments=(
            *(path for path in recipe.fragments if path != kernels.fragment(f"series-{default}")),
            *one.fragments,
        ),
        files=(*recipe.files, one.file),
    )
