# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The guest kernel.

linux tarball ─┐
kernel-patches ┴─ source ─┐
recipes/kernel/ fragments ┴─ .config, audited ─┐
initramfs.cpio (when it is built in) ──────────┴─ bzImage
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tools.pipeline import digest, kconfig, patches, source, ui
from tools.pipeline.project import Project
from tools.pipeline.recipes import Carry, KernelRecipe, Profile
from tools.pipeline.sandbox import EPOCH
from tools.pipeline.store import Input, Result, Step

BUILTIN_FRAGMENT = "builtin-initramfs"
"""The fragment that is added when the initramfs is built into the kernel."""

_BUILTIN_CPIO = "/inputs/initramfs.cpio"

# What would otherwise be the date, user, host and build count of this machine. Documentation/kbuild/
# reproducible-builds.rst of the kernel names them.
_KBUILD: Mapping[str, str] = {
    # In a form that `date -d` takes: gen_initramfs.sh silently drops others, and `uname -v` shows it.
    "KBUILD_BUILD_TIMESTAMP": f"{datetime.fromtimestamp(EPOCH, tz=UTC):%Y-%m-%d %H:%M:%S} UTC",
    "KBUILD_BUILD_USER": "sev-artifacts",
    "KBUILD_BUILD_HOST": "sandbox",
    "KBUILD_BUILD_VERSION": "1",
    "LOCALVERSION": "",
}


def patch_folder(project: Project, recipe: KernelRecipe) -> Path:
    """Where the series' patches lie."""
    return project.root / "kernel-patches" / recipe.series


def fragments(project: Project, profile: Profile) -> list[Path]:
    """The profile's configuration fragments, with the one that builds the initramfs in where it applies."""
    found = project.fragments(profile)
    if profile.carry is Carry.BUILTIN:
        found.append(project.root / "recipes/kernel" / f"{BUILTIN_FRAGMENT}.config")
    return found


def source_tree(project: Project, recipe: KernelRecipe) -> Result:
    """The patched source tree.

    Raises UserError for a bad series and BuildError naming the hunk for a patch that does not fit.
    """
    folder = patch_folder(project, recipe)
    series = patches.load_series(folder, label=f"kernel-patches/{recipe.series}")
    step = source.step(
        name=f"source-{recipe.source}",
        title=f"source: {recipe.source} {project.source(recipe.source).pin.version}",
        tool=project.tree("build"),
        archive=project.source_input(recipe.source, inside="/inputs/source"),
        extra=[Input.file(folder / p.name, f"/inputs/patches/{p.name}") for p in series],
        patch_argv=patches.apply_argv(series, folder="/inputs/patches"),
    )
    offsets: list[patches.Offset] = []

    def judge(log: str, status: int) -> None:
        offsets.extend(patches.check_log(log, exit_status=status, patches=series))

    result = project.store.run(step, judge=judge)
    for offset in offsets:
        ui.line(f"   note: {offset}")
    return result


def configure(project: Project, profile: Profile, target: Path) -> None:
    """Write the profile's .config to `target`.

    Raises UserError naming fragment and line for each requested symbol that Kconfig did not honour.
    """
    recipe = profile.kernel
    requests = kconfig.load_fragments(
        fragments(project, profile), label=lambda path: f"recipes/kernel/{path.name}"
    )
    allconfig = project.build / "kernel" / profile.name / "allconfig"
    digest.write_if_changed(allconfig, kconfig.merge(requests).encode())
    tree = source_tree(project, recipe)
    inputs = [
        tree.input(source.FOLDER, inside="/src"),
        Input.file(allconfig, "/inputs/allconfig"),
    ]
    step = Step(
        name=f"kernel-config-{profile.name}",
        title=f"kernel configuration, {profile.name}",
        argv=(
            "/bin/sh",
            "-euc",
            _make("KCONFIG_ALLCONFIG=/inputs/allconfig allnoconfig && cp .config /out/config"),
        ),
        tool=project.tree("build"),
        inputs=tuple(inputs),
        outputs=("config",),
        environment=_KBUILD,
    )
    config = project.store.run(step).path("config")
    text = config.read_text()
    symbols = kconfig.read_symbols(kconfig.tree_reader(tree.path(source.FOLDER)))
    kconfig.raise_findings(
        kconfig.audit(requests, symbols=symbols, result=kconfig.parse_config(text, where=".config"))
    )
    digest.write_if_changed(target, text.encode())


def build(project: Project, profile: Profile, *, config: Path, cpio: Path, target: Path) -> None:
    """Compile the kernel to `target`; `cpio` is used only when the profile builds the initramfs in."""
    inputs = [
        source_tree(project, profile.kernel).input(source.FOLDER, inside="/src"),
        Input.file(config, "/inputs/config"),
    ]
    if profile.carry is Carry.BUILTIN:
        inputs.append(Input.file(cpio, _BUILTIN_CPIO))
    step = Step(
        name=f"kernel-{profile.name}",
        title=f"kernel, {profile.name}",
        argv=(
            "/bin/sh",
            "-euc",
            # olddefconfig must not change a byte: the configuration was audited as it is.
            "cp /inputs/config .config && "
            + _make("olddefconfig")
            + " && cmp .config /inputs/config && "
            + _make("bzImage")
            + " && cp arch/x86/boot/bzImage /out/bzImage",
        ),
        tool=project.tree("build"),
        inputs=tuple(inputs),
        outputs=("bzImage",),
        environment=_KBUILD,
    )
    result = project.store.run(step)
    digest.write_if_changed(target, result.path("bzImage").read_bytes())


def _make(goal: str) -> str:
    return f'make -C /src O=/build -j"$JOBS" ARCH=x86_64 {goal}'
