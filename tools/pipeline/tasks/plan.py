# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From recipes and pins to steps: the whole graph of a checkout as data. Nothing runs and nothing is hashed here.

source-LINUX ── kernel-config-K ── kernel-K ─────────────┬─ digests-P ── runtime-P ─┐
source-EDK2 ── firmware-F ───────────────────────────────┤                          ├─ out/ of profile P
agent ── initramfs (with gen_init_cpio of source-LINUX) ─┘                          │
                    the same again for a profile's second kernel: P-network ────────┤
       source-qemu ── qemu-lite        launcher, mkfs-erofs, qemu-lite, dropins-P ──┘
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.step import Blob, Output, Reference, Step, closure
from tools.pipeline.guest import agent, firmware, initramfs, kernel, mkfs_erofs, qemu
from tools.pipeline.measure import launch_digests
from tools.pipeline.publish import launcher, templates
from tools.pipeline.recipes import guest, kernels
from tools.pipeline.recipes.firmwares import FirmwareRecipe
from tools.pipeline.recipes.kernels import KernelRecipe
from tools.pipeline.recipes.load import Recipes
from tools.pipeline.recipes.profiles import DEFAULT_PROFILE, Carry, Profile
from tools.pipeline.sources import pins, wanted
from tools.pipeline.sources.pins import Source
from tools.sev.formats import DIGESTS_NAME, KERNEL_NAME, NETWORK, RUNTIME_NAME, with_addition

WHEEL = "sev-snp-measure"
"""The pin of the library that computes launch digests."""


@dataclass(frozen=True, kw_only=True)
class Deliverable:
    """What a profile ships: file name in the output folder → output of a step, and the steps behind them all."""

    profile: Profile
    outputs: Mapping[str, Output]

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step that an output depends on, needed ones first."""
        return closure(*(output.step for output in self.outputs.values()))


def _steps(deliverables: Iterable[Deliverable]) -> tuple[Step, ...]:
    return closure(*(step for deliverable in deliverables for step in deliverable.steps))


class Plan:
    """The steps of one checkout."""

    def __init__(self, root: Path, recipes: Recipes, sources: Mapping[str, Source], *, version: str) -> None:
        self._root = root
        self._recipes = recipes
        self._sources = sources
        self._version = version
        # One step for one recipe: profiles share what they can.
        self.kernel_source = cache(self._kernel_source)
        self.config = cache(self._config)
        self.kernel = cache(self._kernel)
        self.firmware = cache(self._firmware)
        self.deliverable = cache(self._deliverable)

    def deliverables(self, *, every: bool = True) -> tuple[Deliverable, ...]:
        """Those of every profile, or of those of the default series."""
        profiles = self._recipes.all_profiles if every else self._recipes.profiles
        return tuple(self.deliverable(profile) for profile in profiles)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every step that a profile needs."""
        return _steps(self.deliverables())

    @cached_property
    def default_steps(self) -> tuple[Step, ...]:
        """Every step that a profile of the default series needs."""
        return _steps(self.deliverables(every=False))

    @cached_property
    def whole_kernels(self) -> Mapping[str, tuple[Step, Step]]:
        """Profile → the kernel that is linked from another's objects, and the same compiled whole."""
        return {
            profile.name: (self.kernel(profile.kernel, builtin=True), self._whole(profile.kernel))
            for profile in self._recipes.profiles
            if profile.carry is Carry.BUILTIN
        }

    @cached_property
    def agent(self) -> Step:
        """The guest agent."""
        return agent.step(self._root)

    @cached_property
    def initramfs(self) -> Step:
        """The initramfs; its packer is of the default profile's kernel source, whatever kernel it is used with."""
        packer = self.kernel_source(self._recipes.profile(DEFAULT_PROFILE).kernel).output(kernel.GEN_INIT_CPIO)
        return initramfs.step(self._root, built=self.agent.output(agent.NAME), packer=packer)

    @cached_property
    def launcher(self) -> Step:
        """sev-launch."""
        return launcher.step(self._root)

    @cached_property
    def container_runtime(self) -> Step:
        """sev-runtime."""
        return launcher.step(self._root, launcher.RUNTIME)

    @cached_property
    def mkfs_erofs(self) -> Step:
        """mkfs.erofs, which the launcher calls."""
        name = mkfs_erofs.SOURCE
        return mkfs_erofs.step(archive=self._blob(name), version=self._source(name).pin.version)

    @cached_property
    def qemu(self) -> Step:
        """The QEMU that the launcher starts."""
        name = qemu.SOURCE
        version = self._source(name).pin.version
        return qemu.step(self._root, source=qemu.source(self._root, archive=self._blob(name), version=version))

    def _blob(self, name: str) -> Blob:
        pin = self._source(name).pin
        return Blob(sha256=pin.sha256, size=pin.size, where=pin.where)

    def _source(self, name: str) -> Source:
        if name not in self._sources:
            raise UserError(f"{name!r} is not pinned", where=pins.SOURCES_LOCK)
        return self._sources[name]

    def _kernel_source(self, recipe: KernelRecipe) -> Step:
        version = self._source(recipe.source).pin.version
        return kernel.source(self._root, recipe, archive=self._blob(recipe.source), version=version)

    def _config(self, recipe: KernelRecipe, *, builtin: bool) -> Step:
        return kernel.config(recipe, source=self.kernel_source(recipe), root=self._root, builtin=builtin)

    def _kernel(self, recipe: KernelRecipe, *, builtin: bool) -> Step:
        source, config = self.kernel_source(recipe), self.config(recipe, builtin=builtin)
        if not builtin:
            return kernel.compiled(recipe, source=source, config=config)
        return kernel.linked(
            recipe,
            source=source,
            config=config,
            plain=self.kernel(recipe, builtin=False),
            cpio=self.initramfs.output(initramfs.CPIO),
        )

    def _whole(self, recipe: KernelRecipe) -> Step:
        source, config = self.kernel_source(recipe), self.config(recipe, builtin=True)
        return kernel.whole(recipe, source=source, config=config, cpio=self.initramfs.output(initramfs.CPIO))

    def _firmware(self, recipe: FirmwareRecipe) -> Step:
        source = firmware.source(
            self._root,
            recipe,
            archive=self._blob(recipe.source),
            debian=self._blob(recipe.debian_source),
            version=self._source(recipe.source).pin.version,
        )
        return firmware.step(self._root, recipe, source=source)

    def _deliverable(self, profile: Profile) -> Deliverable:
        outputs = {
            **self._started(profile, profile.kernel, addition=""),
            launcher.NAME: self.launcher.output(launcher.NAME),
            launcher.RUNTIME: self.container_runtime.output(launcher.RUNTIME),
            launcher.EXAMPLE: launcher.example().output(launcher.EXAMPLE),
            mkfs_erofs.NAME: self.mkfs_erofs.output(mkfs_erofs.NAME),
            qemu.NAME: self.qemu.output(qemu.NAME),
        }
        if profile.network is not None:
            outputs |= self._started(profile, profile.network, addition=NETWORK)
        if profile.kata:
            kata = templates.kata(profile, self._recipes.guest, kernel=KERNEL_NAME, firmware=firmware.IMAGE)
            outputs |= {f"kata/{name}": kata.output(name) for name in kata.outputs}
        return Deliverable(profile=profile, outputs=outputs)

    def _started(self, profile: Profile, recipe: KernelRecipe, *, addition: str) -> dict[str, Output]:
        """What a guest of the profile with that kernel is started from: measured files, config, launch digests.

        `addition` stands in the names of what is the kernel's own.
        """
        machine = self._recipes.guest
        builtin = profile.carry is Carry.BUILTIN
        # Measured artifacts: role in runtime.toml → file name in the output folder, and output.
        measured = {"kernel": (f"{KERNEL_NAME}{addition}", self.kernel(recipe, builtin=builtin).output(kernel.IMAGE))}
        if not builtin:
            measured["initramfs"] = (initramfs.COMPRESSED, self.initramfs.output(initramfs.COMPRESSED))
        measured["firmware"] = (firmware.IMAGE, self.firmware(profile.firmware).output(firmware.IMAGE))
        files = {role: name for role, (name, _) in measured.items()}
        artifacts: dict[str, Reference] = {role: output for role, (_, output) in measured.items()}
        name = f"{profile.name}{addition}"
        digests = launch_digests.step(
            profile, machine, name=name, root=self._root, files=files, artifacts=artifacts, wheel=self._blob(WHEEL),
            version=self._version,
        )  # fmt: skip
        runtime = templates.runtime(
            profile,
            machine,
            name=name,
            # What starts the guest is none of what is measured.
            files={**files, "qemu": qemu.NAME},
            artifacts={**artifacts, "qemu": self.qemu.output(qemu.NAME)},
            digests=digests.output(DIGESTS_NAME),
            version=self._version,
        )
        return {
            **dict(measured.values()),
            with_addition(DIGESTS_NAME, addition): digests.output(DIGESTS_NAME),
            with_addition(RUNTIME_NAME, addition): runtime.output(templates.CONFIG),
        }

    def recipe_files(self, profile: Profile) -> tuple[str, ...]:
        """Files of the checkout that a profile's steps were made from without being inputs of one, sorted."""
        return tuple(
            sorted(
                {
                    guest.FILE,
                    kernels.LISTS,
                    profile.file,
                    *(file for recipe in profile.kernels for file in recipe.files),
                    *(f"{recipe.patches}/series" for recipe in profile.kernels),
                    profile.firmware.file,
                    profile.firmware.debian_patches,
                    f"{profile.firmware.patches}/series",
                    initramfs.FILE,
                    *qemu.recipe_files(self._source(qemu.SOURCE).pin.version),
                    pins.SOURCES_LOCK,
                    pins.TOOLCHAIN_LOCK,
                    wanted.SOURCES_TOML,
                    wanted.TOOLCHAIN_TOML,
                    "pyproject.toml",
                }
            )
        )
