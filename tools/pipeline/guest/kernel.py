# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The guest kernel.

linux tarball ─┐
kernel-patches ┴─ source ─┐
recipes/kernel fragments ─┴─ .config, audited ─┐
initramfs.cpio (when it is built in) ──────────┴─ bzImage
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tools.pipeline.base import files as digest
from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.sandbox import EPOCH
from tools.pipeline.engine.store import Input, Result, Step
from tools.pipeline.guest import kconfig, patches
from tools.pipeline.guest import source_tree as source
from tools.pipeline.recipes import kernels
from tools.pipeline.recipes.kernels import KernelRecipe
from tools.pipeline.recipes.profiles import Carry, Profile
from tools.pipeline.tasks.project import Project

BUILTIN_FRAGMENT = "builtin-initramfs"
"""The fragment that is added when the initramfs is built into the kernel."""

BUILTIN_CPIO = "/inputs/initramfs.cpio"
"""Where that fragment looks for the archive."""

_OBJECTS = "objects.tar.zst"
_KCONFIG = "kconfig.tar"
# Every patch becomes part of the kernel, so it is under the kernel's own licence (COPYING).
_LICENCE = "GPL-2.0-only"
# The same archive for the same files, whoever packs it and when.
_TAR = "--create --format=gnu --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX"

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


def config_log(profile: Profile) -> str:
    """The name of the log of the profile's configuration."""
    return f"kernel-config-{profile.name}"


def logs(profile: Profile) -> tuple[str, ...]:
    """The names of the logs of what builds the profile's kernel from its configuration."""
    if profile.carry is Carry.BUILTIN:
        return (f"{config_log(profile)}-plain", f"kernel-{profile.name}", f"kernel-link-{profile.name}")
    return (f"kernel-{profile.name}",)


def patch_folder(project: Project, recipe: KernelRecipe) -> Path:
    """Where the series' patches lie."""
    return project.root / recipe.patches


def fragments(project: Project, profile: Profile) -> list[Path]:
    """The profile's configuration fragments, with the one that builds the initramfs in where it applies."""
    found = project.fragments(profile)
    if profile.carry is Carry.BUILTIN:
        found.append(project.root / kernels.fragment(BUILTIN_FRAGMENT))
    return found


def source_tree(project: Project, recipe: KernelRecipe) -> Result:
    """The patched source tree.

    Raises UserError for a bad series, and naming the hunk for a patch that does not fit.
    """
    series = patches.load_series(project.root, recipe.patches, licence=_LICENCE)
    step = source.step(
        name=f"source-{recipe.source}",
        title=f"source: {recipe.source} {project.source(recipe.source).pin.version}",
        tool=project.tree("build"),
        archive=project.source_input(recipe.source, inside="/inputs/source"),
        extra=[
            Input.file(project.root / path, f"/inputs/{path}") for path in (patches.SCRIPT, *[p.path for p in series])
        ],
        script=patches.apply(patches.inside(series)),
    )
    return project.store.run(step, judge=source.judge)


def configure(project: Project, profile: Profile, target: Path) -> None:
    """Write the profile's .config to `target`.

    Raises UserError naming fragment and line for each requested symbol that Kconfig did not honour.
    """
    _configure(project, profile, files=fragments(project, profile), target=target)


def _configure(project: Project, profile: Profile, *, files: list[Path], target: Path) -> None:
    requests = kconfig.load_fragments(files, label=lambda path: path.relative_to(project.root).as_posix())
    allconfig = target.with_name(f"{target.name}.requested")
    digest.write_if_changed(allconfig, kconfig.merge(requests).encode())
    tree = source_tree(project, profile.kernel)
    step = Step(
        name="kernel-config",
        log=config_log(profile) if target.name == "config" else f"{config_log(profile)}-plain",
        title=f"kernel configuration, {profile.name}",
        argv=(
            "/bin/sh",
            "-euc",
            # What Kconfig says of each symbol goes with the result, so that the audit needs no source tree.
            _make("KCONFIG_ALLCONFIG=/inputs/allconfig allnoconfig && cp .config /out/config")
            + " && cd /src && find . -name 'Kconfig*' -type f | LC_ALL=C sort >/build/kconfig.list"
            + f" && tar {_TAR} --files-from=/build/kconfig.list --file=/out/{_KCONFIG}",
        ),
        tool=project.tree("build"),
        inputs=(tree.input(source.FOLDER, inside="/src"), Input.file(allconfig, "/inputs/allconfig")),
        outputs=("config", _KCONFIG),
        environment=_KBUILD,
    )
    result = project.store.run(step)
    text = result.path("config").read_text()
    symbols = kconfig.read_symbols(kconfig.archive_reader(result.path(_KCONFIG)))
    kconfig.raise_findings(kconfig.audit(requests, symbols=symbols, result=kconfig.parse_config(text, where=".config")))
    digest.write_if_changed(target, text.encode())


def build(project: Project, profile: Profile, *, config: Path, cpio: Path, target: Path) -> None:
    """Compile the kernel to `target`; `cpio` is used only when the profile builds the initramfs in.

    Such a kernel differs from one without in a single object: it is linked anew from the objects of the
    kernel with the same fragments, which is mostly compiled already. check_whole() compares.
    """
    if profile.carry is Carry.BUILTIN:
        plain = config.with_name("config-plain")
        _configure(project, profile, files=project.fragments(profile), target=plain)
        step = link_step(project, profile, config=config, plain=plain, cpio=cpio)
    else:
        step = compile_step(project, profile, config)
    result = project.store.run(step)
    digest.write_if_changed(target, result.path("bzImage").read_bytes())


def check_whole(project: Project, profile: Profile, *, config: Path, cpio: Path, linked: Path) -> None:
    """Compile a kernel with its initramfs whole; BuildError unless it equals the one that was linked."""
    step = compile_step(project, profile, config, Input.file(cpio, BUILTIN_CPIO))
    whole = project.store.run(step).path("bzImage")
    if digest.of_file(whole) != digest.of_file(linked):
        raise BuildError("differs from the kernel that was compiled whole", where=str(linked), hint=str(whole))
    ui.line(f"   {linked.parent.name}: linked and compiled whole are the same bytes, {digest.of_file(whole)}")


def compile_step(project: Project, profile: Profile, config: Path, *extra: Input) -> Step:
    """The step that compiles a whole kernel, and keeps its objects for link_step. `extra`: further inputs."""
    return Step(
        name="kernel",
        log=f"kernel-{profile.name}",
        title=f"kernel, {profile.name}",
        argv=("/bin/sh", "-euc", f"{COMPILE} && tar {_TAR} --zstd -C /build --file=/out/{_OBJECTS} ."),
        tool=project.tree("build"),
        inputs=(
            source_tree(project, profile.kernel).input(source.FOLDER, inside="/src"),
            Input.file(config, "/inputs/config"),
            *extra,
        ),
        outputs=("bzImage", _OBJECTS),
        environment={**_KBUILD, "ZSTD_CLEVEL": "1"},
        keep=6,  # 100 MB each
    )


def link_step(project: Project, profile: Profile, *, config: Path, plain: Path, cpio: Path) -> Step:
    """The step that links the kernel of `config`, with `cpio` in it, from the objects of that of `plain`."""
    compiled = project.store.run(compile_step(project, profile, plain))
    return Step(
        name="kernel-link",
        log=f"kernel-link-{profile.name}",
        title=f"kernel with its initramfs, {profile.name}",
        argv=(
            "/bin/sh",
            "-euc",
            f"tar --zstd --extract --file=/inputs/{_OBJECTS} -C /build && "
            # All of one time and younger than the sources: make rebuilds what the configuration changes.
            "touch /tmp/now && find /build -type f -exec touch --reference=/tmp/now {} + && " + COMPILE,
        ),
        tool=project.tree("build"),
        inputs=(
            source_tree(project, profile.kernel).input(source.FOLDER, inside="/src"),
            compiled.input(_OBJECTS, inside=f"/inputs/{_OBJECTS}"),
            Input.file(config, "/inputs/config"),
            Input.file(cpio, BUILTIN_CPIO),
        ),
        outputs=("bzImage",),
        environment=_KBUILD,
    )


def _make(goal: str) -> str:
    return f'make -C /src O=/build -j"$JOBS" ARCH=x86_64 {goal}'


COMPILE = (
    # olddefconfig must not change a byte: the configuration was audited as it is.
    "cp /inputs/config .config && "
    + _make("olddefconfig")
    + " && cmp .config /inputs/config && "
    + _make("bzImage")
    + " && cp arch/x86/boot/bzImage /out/bzImage"
)
"""Shell: compiles, in /build, the kernel of /inputs/config and /src."""
