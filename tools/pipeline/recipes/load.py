# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""All hand-written recipes of a checkout, parsed once.

recipes/kernel/*.toml ─────┐
recipes/firmware/*.toml ───┴── recipes/profiles/*.toml ──┬── Recipes
recipes/series/*.toml ───────────────────────────────────┤
recipes/guest.toml ──────────────────────────────────────┘
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tools.pipeline.base.errors import UserError
from tools.pipeline.recipes import firmwares, guest, kernels, profiles, series
from tools.pipeline.recipes.firmwares import FirmwareRecipe
from tools.pipeline.recipes.guest import Guest
from tools.pipeline.recipes.kernels import KernelRecipe
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Profile
from tools.pipeline.recipes.series import Series
from tools.sev.modes import ProfileKind


@dataclass(frozen=True, kw_only=True)
class Recipes:
    """All of them, sorted by name; kernels and firmwares are those that a profile names.

    `profiles` are those that somebody has written, `others` the same in the `series` beside the default one.
    """

    guest: Guest
    kernels: tuple[KernelRecipe, ...]
    firmwares: tuple[FirmwareRecipe, ...]
    profiles: tuple[Profile, ...]
    series: tuple[Series, ...] = ()
    others: tuple[Profile, ...] = ()

    @property
    def all_profiles(self) -> tuple[Profile, ...]:
        """Those of the default series, then those of each other one."""
        return (*self.profiles, *self.others)

    def of_series(self, series: str) -> tuple[Profile, ...]:
        """Those whose kernel is of a series; none for one that is not there."""
        return tuple(profile for profile in self.all_profiles if profile.series == series)

    def profile(self, name: str) -> Profile:
        """The profile of that name; it exists because recipes() demands the default one."""
        return next(p for p in self.all_profiles if p.name == name)


def recipes(root: Path, *, sources: Collection[str]) -> Recipes:
    """Parse all recipes of a checkout; `sources` are the names in recipes/sources.toml.

    Raises UserError naming file and key.
    """
    machine = guest.load(root)
    known_kernels = kernels.load(root, sources=sources)
    known_firmwares = firmwares.load(root, sources=sources)
    known = profiles.load(root, known_kernels=known_kernels, known_firmwares=known_firmwares)
    _check_debug(machine, known.values())
    if DEFAULT_PROFILE not in known:
        raise UserError("no such file", where=f"{profiles.FOLDER}/{DEFAULT_PROFILE}.toml", hint="restore it")
    default = known[DEFAULT_PROFILE].series
    beside = series.load(root, sources=sources, default=default)
    others = tuple(p for one in beside for p in series.derived(one, known, default=default))
    for profile in others:
        if profile.name in known:
            where = f"{profiles.FOLDER}/{profile.name}.toml"
            raise UserError("is a name that a series takes", where=where, hint=f"rename it, or {series.FOLDER}/")
    return Recipes(
        guest=machine,
        kernels=tuple(k for k in known_kernels.values() if any(k in p.kernels for p in known.values())),
        firmwares=tuple(f for f in known_firmwares.values() if any(p.firmware is f for p in known.values())),
        profiles=tuple(known.values()),
        series=beside,
        others=others,
    )


def _check_debug(machine: Guest, known: Collection[Profile]) -> None:
    """A production guest that the host may debug would be one that the host can read."""
    production = [p.name for p in known if p.kind is ProfileKind.PRODUCTION]
    for mode in machine.debuggable() if production else ():
        raise UserError(
            f"must be false for production profiles ({', '.join(production)})",
            where=f"{guest.FILE}: sev.{mode}.policy.debug",
            hint="for one guest of the debug profile, change the bits in its runtime.toml",
        )
