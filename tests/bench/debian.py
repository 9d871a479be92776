# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Debian's cloud kernel and an initrd by initramfs-tools, made in the sandbox on the pinned bench tree."""

import shutil
from pathlib import Path

from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.sandbox import sandbox
from tools.pipeline.sandbox.sandbox import Mount
from tools.pipeline.tasks.project import Project

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


def build(project: Project, folder: Path) -> tuple[Path, Path, str]:
    """Make both in an empty folder: kernel, initrd, and the kernel's version."""
    tree = project.trees.checked("bench").path
    version = _version(tree)
    out = folder / "out"
    out.mkdir(parents=True)
    _run(f"Debian's kernel {version}, module dependencies", _MODULES, folder, tree, {"VERSION": version})
    _run(
        "Debian's initrd by initramfs-tools",
        _INITRD,
        folder,
        tree,
        {"VERSION": version, "SCRIPT": _SCRIPT, "TMPDIR": "/build"},
        # Over those of the tree, which lack what depmod makes.
        Mount(host=out / "modules", inside="/usr/lib/modules"),
    )
    return out / "vmlinuz", out / "initrd.img", version


def _run(title: str, script: str, folder: Path, tree: Path, environment: dict[str, str], *mounts: Mount) -> None:
    work = folder / "build"
    if work.exists():
        shutil.rmtree(work)
    work.mkdir()
    command = sandbox.Command(
        argv=("/bin/sh", "-euc", script),
        tree=tree,
        mounts=(
            Mount(host=work, inside="/build", writable=True),
            Mount(host=folder / "out", inside="/out", writable=True),
            *mounts,
        ),
        environment=environment,
        personality=sandbox.PERSONALITY,
    )
    with ui.working(title):
        sandbox.output_of(command)


def _version(tree: Path) -> str:
    prefix = "vmlinuz-"
    names = sorted(path.name for path in (tree / "boot").glob(f"{prefix}*"))
    if len(names) != 1:
        raise BuildError(f"has {len(names)} kernels in boot/, not one", where=str(tree))
    return names[0].removeprefix(prefix)
