# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The kernel's steps: a small source in the sandbox, the real configuration and its audit; nothing is compiled."""

import re
from pathlib import Path

import pytest

from tests.pipeline import sample
from tests.pipeline.alone import alone, engine, output
from tests.pipeline.guest import tree_kit
from tools.pipeline.base.errors import UserError
from tools.pipeline.engine.step import Literal, Step
from tools.pipeline.guest import kernel, source_tree
from tools.pipeline.tasks.project import Project

FRAGMENT = "recipes/kernel/fragments/virtio.config"
PATCH = """\
Subject: change x
SPDX-FileCopyrightText: The sev-artifacts authors
SPDX-License-Identifier: GPL-2.0-only
Upstream: no
Tested: yes

Because.
---
--- a/drivers/x.c
+++ b/drivers/x.c
@@ -1 +1 @@
-int x;
+int y;
"""
SOURCE = {
    "linux/Makefile": b"all:\n",
    "linux/Kbuild": b"",
    "linux/Kconfig": b'source "drivers/Kconfig"\n',
    "linux/drivers/Kconfig": b"config X\n",
    "linux/drivers/x.c": b"int x;\n",
    "linux/scripts/cc.sh": b"#!/bin/sh\n",
    "linux/arch/x86/Makefile": b"",
    "linux/arch/x86/Kconfig.cpu": b"",
    "linux/arch/Kconfig": b"",
    "linux/usr/gen_init_cpio.c": b"int main(void) { return 0; }\n",
}
FOREIGN = {
    "linux/arch/arm/boot/dts/x.dts": b"",
    "linux/Documentation/arch/x86/tdx.rst": b"",
    "linux/tools/testing/nvdimm/test.c": b"",
}


def source(root: Path, archive: bytes) -> Step:
    recipe = sample.recipes(root).profile("production").kernel
    return kernel.source(root, recipe, archive=Literal(data=archive), version="1")


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    """A checkout with the sample's recipes: a series of one patch."""
    root = tmp_path / "checkout"
    for path in (*sample.ROOT.glob("*/**/*"), repository / "recipes/apply-patches.sh"):
        target = root / path.relative_to(sample.ROOT if path.is_relative_to(sample.ROOT) else repository)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    (root / "kernel-patches/6.12/series").write_text("0001-x.patch\n")
    (root / "kernel-patches/6.12/0001-x.patch").write_text(PATCH)
    return root


def test_the_source_is_patched_and_packed(root: Path, project: Project, tmp_path: Path) -> None:
    """Beside the tree: what Kconfig reads on x86, and the program that packs the initramfs."""
    made, step = engine(project, tmp_path, root=root), source(root, tree_kit.tar(SOURCE))
    patched = {name.removeprefix("linux/"): data for name, data in SOURCE.items()} | {"drivers/x.c": b"int y;\n"}
    assert tree_kit.contents(output(made, step, source_tree.ARCHIVE)) == patched
    assert output(made, step, kernel.GEN_INIT_CPIO) == patched["usr/gen_init_cpio.c"]
    assert tree_kit.contents(output(made, step, "kconfig.tar")).keys() == patched.keys() - {
        "drivers/x.c",
        "usr/gen_init_cpio.c",
    }


def test_what_no_kernel_for_x86_is_made_of_is_left_out(root: Path, project: Project, tmp_path: Path) -> None:
    """A third of the tree, which each step that compiles a kernel would unpack and delete."""
    kept = {
        "linux/arch/arm/Kconfig": b"",
        "linux/arch/um/scripts/Makefile.rules": b"",
        "linux/tools/arch/x86/lib/insn.c": b"",
        **SOURCE,
    }
    step = source(root, tree_kit.tar({**kept, **FOREIGN}))
    packed = tree_kit.contents(output(engine(project, tmp_path, root=root), step, source_tree.ARCHIVE))
    assert packed.keys() == {name.removeprefix("linux/") for name in kept}


def test_the_same_bytes_however_the_archive_was_packed(root: Path, project: Project, tmp_path: Path) -> None:
    """Another order, other times, modes and compression: all of it ends in the archives that later steps take."""
    other = tree_kit.tar(dict(reversed(SOURCE.items())), compress="xz", mode=0o600, mtime=10**9)
    found = []
    for number, archive in enumerate((tree_kit.tar(SOURCE), other)):
        made, step = engine(project, tmp_path / str(number), root=root), source(root, archive)
        found.append([output(made, step, name) for name in step.outputs])
    assert found[0] == found[1]
    members = tree_kit.metadata(found[0][0])
    assert [name for name, *_ in members] == sorted(name for name, *_ in members)
    assert {tuple(rest) for _, *rest in members} == {(0o755, 0, 0, 0), (0o644, 0, 0, 0)}


def test_a_patch_that_does_not_fit(root: Path, project: Project, tmp_path: Path) -> None:
    archive = tree_kit.tar(SOURCE | {"linux/drivers/x.c": b"int z;\n"})
    with pytest.raises(UserError) as caught:
        engine(project, tmp_path, root=root).ensure(source(root, archive))
    assert str(caught.value) == (
        "kernel-patches/6.12/0001-x.patch: drivers/x.c: hunk 1 does not fit at line 1; "
        "refresh the patch against the pinned source"
    )


@pytest.fixture
def config(project: Project) -> Step:
    """The real configuration's step, on the source that the build has made."""
    recipe = project.recipes.profile("production").kernel
    step = project.plan.kernel(recipe, builtin=False).needs[0]
    assert step.name == f"kernel-config-{recipe.name}"
    return step


def changed(project: Project, root: Path) -> Step:
    """The same with the fragments of another checkout."""
    recipe = project.recipes.profile("production").kernel
    return alone(project, kernel.config(recipe, source=project.plan.kernel_source(recipe), root=root, builtin=False))


def test_the_configuration_comes_out_again(project: Project, config: Step, tmp_path: Path) -> None:
    known = project.engine.find(config)
    assert known is not None
    assert engine(project, tmp_path).ensure(alone(project, config)).outputs == known.outputs


def test_what_kconfig_did_not_honour_ends_the_build(project: Project, copied: Path, tmp_path: Path) -> None:
    """Every such line by fragment and number, as the user's mistake; and nothing is kept of it."""
    path = copied / FRAGMENT
    first = len(path.read_text().splitlines()) + 1
    # Misspelt; its dependencies are not met; nobody selects it.
    symbols = ("CONFIG_VIRTIO_CPI", "CONFIG_VHOST_NET", "CONFIG_LZ4_COMPRESS")
    path.write_text(path.read_text() + "{}=y\n{}=y\n# expect: {}=y\n".format(*symbols))
    made, step = engine(project, tmp_path, root=copied), changed(project, copied)
    with pytest.raises(UserError) as caught:
        made.ensure(step)
    for number, symbol in enumerate(symbols, first):
        assert f"{FRAGMENT}:{number}: {symbol}: " in str(caught.value)
    assert made.find(step) is None


def test_a_fragment_that_cannot_be_read_is_told_before_anything_runs(project: Project, copied: Path) -> None:
    path = copied / FRAGMENT
    path.write_text("CONFIG_VIRTIO_PCI=m\n")
    with pytest.raises(UserError, match=rf"^{FRAGMENT}:1: cannot read .*this kernel has no modules"):
        changed(project, copied)


def test_what_decides_bytes_of_the_kernel_besides_its_inputs(project: Project) -> None:
    """Date, user, host and count of the build are constants; the audited configuration is the one that is compiled."""
    steps = [step for step in project.plan.default_steps if step.name.startswith("kernel-")]
    steps += [whole for _, whole in project.plan.whole_kernels.values()]
    for step in steps:
        assert step.environment == {
            "KBUILD_BUILD_TIMESTAMP": "2025-01-01 00:00:00 UTC",
            "KBUILD_BUILD_USER": "sev-artifacts",
            "KBUILD_BUILD_HOST": "sandbox",
            "KBUILD_BUILD_VERSION": "1",
            "LOCALVERSION": "",
        }
        assert step.argv[:2] == ("/bin/sh", "-euc")
        assert "O=/build/obj" in step.argv[2]
        assert ("cmp /build/obj/.config /inputs/config" in step.argv[2]) == (not step.name.startswith("kernel-config-"))
    threads = [
        found
        for step in project.plan.default_steps
        for word in step.argv
        for found in re.findall(r"zstd -\d+ (\S+?)[' ]", word)
    ]
    assert set(threads) == {"--threads=1"}, "their number must not decide a byte"
