# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The guest kernel.

    linux tarball ─┐
    kernel-patches ┴─ source ─┬─────────────────────────────┐
    fragments ────────────────┴─ config, audited ── compiled ┴─ bzImage, objects
                                                       objects ┬─ linked ── bzImage with the initramfs in it
    initramfs.cpio, config with it ────────────────────────────┘

A kernel with its initramfs in it differs from one without in a single object: it is linked anew from the objects of
the plain one. whole() compiles it from nothing, for a comparison.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tools.pipeline.engine.step import CheckoutFile, Output, Reference, Step
from tools.pipeline.guest import kconfig, patches, source_tree
from tools.pipeline.guest.kconfig import Request
from tools.pipeline.recipes import kernels
from tools.pipeline.recipes.kernels import KernelRecipe
from tools.pipeline.sandbox.sandbox import EPOCH

BUILTIN_FRAGMENT = kernels.fragment("builtin-initramfs")
"""The fragment that is added when the initramfs is built into the kernel."""

BUILTIN_CPIO = "/inputs/initramfs.cpio"
"""Where that fragment looks for the archive."""

IMAGE = "bzImage"
GEN_INIT_CPIO = "gen_init_cpio.c"
_LICENCE = "GPL-2.0-only"
OBJECTS = "objects.tar.zst"
_KCONFIG = "kconfig.tar"

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
# Shell: lists what `make allnoconfig` needs, a sixtieth of the tree. Were it too little, the configuration would be
# another than the one that olddefconfig demands of the whole tree, and compiling would end with that.
_CONFIGURES = (
    "find . -name 'Kconfig*' -type f && find scripts ! -type d && find arch/x86 -name 'Makefile*' && ls Makefile Kbuild"
)
_FRAGMENTS = "/inputs/fragments"
# Shell: lists what no kernel for x86 is made of, a third of the files: each step that compiles a kernel would unpack
# and delete them. Kconfig reads its files of all architectures, and make some of arch/um's.
_FOREIGN = (
    r"find . \( -path './arch/*/*' ! -path './arch/x86/*' -o -path './Documentation/*/*'"
    r" -o -path './tools/testing/*' \) ! -type d ! -name 'Kconfig*' ! -name 'Makefile*'"
)


def source(root: Path, recipe: KernelRecipe, *, archive: Reference, version: str) -> Step:
    """The patched tree; what Kconfig and the initramfs need of it comes out by itself, too.

    Raises UserError for a patch of the series that is not what it must be.
    """
    series = patches.load_series(root, recipe.patches, licence=_LICENCE)
    files = (patches.SCRIPT, *(patch.path for patch in series))
    return source_tree.step(
        # The name of a source may say its series already.
        name=f"source-{recipe.source.removesuffix(f'-{recipe.series}')}-{recipe.series}",
        title=f"source: {recipe.source} {version}",
        archive=archive,
        extra={f"/inputs/{path}": CheckoutFile(path=path) for path in files},
        script="\n".join(
            [
                patches.apply(patches.inside(series)),
                f"cp usr/{GEN_INIT_CPIO} /out/",
                f"{{ {_CONFIGURES}; }} | LC_ALL=C sort -u >/build/list",
                f"{source_tree.TAR} --create --files-from=/build/list --file=/out/{_KCONFIG}",
                f"{_FOREIGN} >{source_tree.LEFT_OUT}",
            ]
        ),
        outputs=(_KCONFIG, GEN_INIT_CPIO),
    )


def config(recipe: KernelRecipe, *, source: Step, root: Path, builtin: bool) -> Step:
    """The audited configuration. UserError for a fragment that cannot be read, by its path from `root`, and line."""
    fragments = [*recipe.fragments, *([BUILTIN_FRAGMENT] if builtin else [])]
    requests = kconfig.load_fragments(
        [root / path for path in fragments], label=lambda path: path.relative_to(root).as_posix()
    )
    name = _name(recipe, builtin=builtin)
    # The order of lines has no effect: no symbol is set twice.
    pick = rf"grep -hE '^(CONFIG_\w+=|# CONFIG_\w+ is not set$)' {_FRAGMENTS}/* >/build/allconfig"
    return Step(
        name=f"kernel-config-{name}",
        title=f"kernel configuration, {name}",
        argv=_shell(
            f"mkdir {source_tree.TREE} && tar --extract --file=/inputs/{_KCONFIG} --directory={source_tree.TREE}"
            f" && {pick} && {_make('KCONFIG_ALLCONFIG=/build/allconfig allnoconfig')}"
            f" && cp /build/obj/.config /out/config && cp /inputs/{_KCONFIG} /out/"
        ),
        tools="build",
        inputs={
            f"/inputs/{_KCONFIG}": source.output(_KCONFIG),
            **{f"{_FRAGMENTS}/{Path(path).name}": CheckoutFile(path=path) for path in fragments},
        },
        # What Kconfig says of each symbol goes with the result, so that the audit needs no source tree.
        outputs=("config", _KCONFIG),
        environment=_KBUILD,
        parallel=True,
        checks=(partial(_audit, requests),),
    )


def _audit(requests: Sequence[Request], outputs: Mapping[str, Path]) -> None:
    """Raise UserError naming fragment and line for each requested symbol that Kconfig did not honour."""
    kconfig.raise_findings(
        kconfig.audit(
            requests,
            symbols=kconfig.read_symbols(kconfig.archive_reader(outputs[_KCONFIG])),
            result=kconfig.parse_config(outputs["config"].read_text(), where=".config"),
        )
    )


def compiled(recipe: KernelRecipe, *, source: Step, config: Step) -> Step:
    """The step that compiles a whole kernel without initramfs, and keeps its objects for linked()."""
    name = _name(recipe, builtin=False)
    pack = f"{source_tree.TAR} --create --use-compress-program='zstd -1 --threads=1' --directory=/build/obj"
    return Step(
        name=f"kernel-{name}",
        title=f"kernel, {name}",
        argv=_shell(f"{source_tree.UNPACK} && mkdir /build/obj && {_COMPILE} && {pack} --file=/out/{OBJECTS} ."),
        tools="build",
        inputs=_inputs(source, config),
        outputs=(IMAGE, OBJECTS),
        environment=_KBUILD,
        parallel=True,
    )


def linked(recipe: KernelRecipe, *, source: Step, config: Step, plain: Step, cpio: Output) -> Step:
    """The step that links the kernel of `config`, with `cpio` in it, from the objects of `plain`."""
    name = _name(recipe, builtin=True)
    return Step(
        name=f"kernel-{name}",
        title=f"kernel with its initramfs, {name}",
        argv=_shell(
            f"{source_tree.UNPACK} && mkdir /build/obj"
            f" && tar --zstd --extract --file=/inputs/{OBJECTS} -C /build/obj && "
            # All of one time and younger than the sources: make rebuilds what the configuration changes.
            f"touch /tmp/now && find /build/obj -type f -exec touch --reference=/tmp/now {{}} + && {_COMPILE}"
        ),
        tools="build",
        inputs={**_inputs(source, config), f"/inputs/{OBJECTS}": plain.output(OBJECTS), BUILTIN_CPIO: cpio},
        outputs=(IMAGE,),
        environment=_KBUILD,
        parallel=True,
    )


def whole(recipe: KernelRecipe, *, source: Step, config: Step, cpio: Output) -> Step:
    """The kernel of linked(), compiled from nothing: its bytes must be the same."""
    name = _name(recipe, builtin=True)
    return Step(
        name=f"kernel-{name}-whole",
        title=f"kernel with its initramfs, {name}, whole",
        argv=_shell(f"{source_tree.UNPACK} && mkdir /build/obj && {_COMPILE}"),
        tools="build",
        inputs={**_inputs(source, config), BUILTIN_CPIO: cpio},
        outputs=(IMAGE,),
        environment=_KBUILD,
        parallel=True,
    )


def _inputs(source: Step, config: Step) -> dict[str, Reference]:
    return {**source_tree.inputs(source), "/inputs/config": config.output("config")}


def _name(recipe: KernelRecipe, *, builtin: bool) -> str:
    return f"{recipe.name}-builtin" if builtin else recipe.name


def _shell(script: str) -> tuple[str, ...]:
    return ("/bin/sh", "-euc", script)


def _make(goal: str) -> str:
    return f"mkdir -p /build/obj && make -C {source_tree.TREE} O=/build/obj ARCH=x86_64 {goal}"


# Shell: compiles, in /build/obj, the kernel of /inputs/config. olddefconfig must not change a byte: the configuration
# was audited as it is.
_COMPILE = (
    "cp /inputs/config /build/obj/.config && "
    + _make("olddefconfig")
    + " && cmp /build/obj/.config /inputs/config && "
    + _make("bzImage")
    + f" && cp /build/obj/arch/x86/boot/bzImage /out/{IMAGE}"
)
