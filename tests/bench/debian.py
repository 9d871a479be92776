# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Debian's cloud kernel and an initrd by initramfs-tools, made in the sandbox on the pinned bench tree."""

from pathlib import Path

from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store import Result, Step
from tools.pipeline.tasks.project import Project
from tools.pipeline.toolchain.tool_tree import Tree

MARKER = b"sev-artifacts bench: init-premount\n"
"""What the initrd writes to the agent's port."""

# Runs as the first script after /init has started udev, has let it settle, and has loaded its modules: before
# the root file system is looked for. virtio_pci and virtio_console are built into this kernel.
_SCRIPT = f"""#!/bin/sh
case "$1" in prereqs) exit 0 ;; esac
for port in /dev/vport*p*; do echo '{MARKER.decode().strip()}' > "$port"; done
"""

# What the package's maintainer script does on a Debian system.
_MODULES = """
mkdir -p /out/modules
cp -R "/usr/lib/modules/$VERSION" /out/modules/
mkdir -p /build/lib && ln -s /out/modules /build/lib/modules
depmod -b /build "$VERSION"
cp "/boot/vmlinuz-$VERSION" /out/vmlinuz
"""

# Debian's defaults: MODULES=most, zstd. The configuration folder is copied because the tree is read-only.
_INITRD = """
cp -R /etc/initramfs-tools /build/conf
cp /usr/share/initramfs-tools/modules /build/conf/modules
mkdir -p /build/conf/scripts/init-premount
printf %s "$SCRIPT" > /build/conf/scripts/init-premount/bench
chmod 755 /build/conf/scripts/init-premount/bench
mkinitramfs -d /build/conf -o /out/initrd.img "$VERSION"
"""


def build(project: Project) -> tuple[Path, Path, str]:
    """Kernel, initrd, and the kernel's version."""
    tree = project.tree("bench")
    version = _version(tree)
    modules = project.store.run(
        Step(
            name="bench-modules",
            title=f"Debian's kernel {version}, module dependencies",
            argv=("/bin/sh", "-euc", _MODULES),
            tool=tree,
            inputs=(),
            outputs=("modules", "vmlinuz"),
            environment={"VERSION": version},
            keep=1,
        )
    )
    initrd = _initrd(project, tree, modules, version)
    return modules.path("vmlinuz"), initrd.path("initrd.img"), version


def _initrd(project: Project, tree: Tree, modules: Result, version: str) -> Result:
    return project.store.run(
        Step(
            name="bench-initrd",
            title="Debian's initrd by initramfs-tools",
            argv=("/bin/sh", "-euc", _INITRD),
            tool=tree,
            inputs=(modules.input("modules", inside="/usr/lib/modules"),),
            outputs=("initrd.img",),
            environment={"VERSION": version, "SCRIPT": _SCRIPT, "TMPDIR": "/build"},
            keep=1,
        )
    )


def _version(tree: Tree) -> str:
    prefix = "vmlinuz-"
    names = sorted(path.name for path in (tree.path / "boot").glob(f"{prefix}*"))
    if len(names) != 1:
        raise BuildError(f"has {len(names)} kernels in boot/, not one", where=str(tree.path))
    return names[0].removeprefix(prefix)
