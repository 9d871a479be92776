# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""recipes/profiles/NAME.toml: one set of artifacts."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tools.pipeline.base.toml_reader import Table
from tools.pipeline.recipes import firmwares, folder, kernels
from tools.pipeline.recipes.firmwares import FirmwareRecipe
from tools.pipeline.recipes.kernels import KernelRecipe
from tools.sev.limits import CMDLINE_MAX
from tools.sev.modes import Console, ProfileKind

FOLDER = "recipes/profiles"
SCHEMA = 2
DEFAULT_PROFILE = "production"

_CMDLINE = rf"[ -~]{{1,{CMDLINE_MAX}}}"


class Carry(StrEnum):
    """How the initramfs reaches the guest."""

    BESIDE = "beside"
    BUILTIN = "builtin"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Which kernel and firmware, started how. `cmdline` is measured byte for byte; `kata`: drop-ins for Kata, too.

    `recipe` is the file that says it, without ending: one of another series (6.18-debug) has that of the default's.
    `network`: a second kernel, for guests with a network; it has a runtime config and launch digests of its own.
    """

    name: str
    recipe: str
    kind: ProfileKind
    kernel: KernelRecipe
    firmware: FirmwareRecipe
    cmdline: str
    carry: Carry
    console: Console
    kata: bool = False
    network: KernelRecipe | None = None

    @property
    def kernels(self) -> tuple[KernelRecipe, ...]:
        """Every kernel that it ships."""
        return (self.kernel,) if self.network is None else (self.kernel, self.network)

    @property
    def series(self) -> str:
        """The series of its kernel."""
        return self.kernel.series

    @property
    def file(self) -> str:
        """The recipe itself, from the checkout's root."""
        return f"{FOLDER}/{self.recipe}.toml"


def load(
    root: Path, *, known_kernels: Mapping[str, KernelRecipe], known_firmwares: Mapping[str, FirmwareRecipe]
) -> dict[str, Profile]:
    """Every profile of a checkout by its name; UserError names file and key."""

    def read(table: Table, name: str) -> Profile:
        table.integer("schema", low=SCHEMA, high=SCHEMA)
        kind = table.choice("kind", ProfileKind)
        carry = table.choice("carry", Carry)
        kata = table.has("kata") and table.boolean("kata")
        if kata and carry is Carry.BUILTIN:
            raise table.error("kata", "a kernel that brings an agent of its own is none for Kata", 'carry = "beside"')
        kernel = folder.named(table, "kernel", known_kernels, kernels.FOLDER)
        network = _network(table, kernel, known_kernels)
        if network is not None and carry is Carry.BUILTIN:
            raise table.error("network", "a second kernel takes the initramfs from beside it", 'carry = "beside"')
        return Profile(
            name=name,
            recipe=name,
            kind=kind,
            kernel=kernel,
            firmware=folder.named(table, "firmware", known_firmwares, firmwares.FOLDER),
            cmdline=_cmdline(table, kind),
            carry=carry,
            console=table.choice("console", Console),
            kata=kata,
            network=network,
        )

    return folder.load(root, FOLDER, read)


def _network(table: Table, kernel: KernelRecipe, known: Mapping[str, KernelRecipe]) -> KernelRecipe | None:
    if not table.has("network"):
        return None
    network = folder.named(table, "network", known, kernels.FOLDER)
    if network is kernel:
        raise table.error("network", f"{network.name!r} is the profile's kernel already", "name another")
    return network


def _cmdline(table: Table, kind: ProfileKind) -> str:
    cmdline = table.string("cmdline", pattern=_CMDLINE, says=f"1 to {CMDLINE_MAX} printable ASCII characters")
    # The agent reads its profile from the measured command line, the launcher from runtime.toml.
    word = f"sev_agent.profile={kind}"
    if cmdline.split().count(word) != 1:
        raise table.error("cmdline", f"must hold {word!r} once", f"the profile's kind is {kind}")
    return cmdline
