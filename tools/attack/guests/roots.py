# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Root file systems of containers: busybox and a few files, as a folder, a tar, an EROFS image."""

import subprocess
import tarfile
from pathlib import Path

MOTD = b"from the container's root\n"


def folder(busybox: Path, place: Path) -> Path:
    """The new folder `place`: busybox, links for its applets, one data file."""
    (place / "bin").mkdir(parents=True)
    for name in ("dev", "proc", "sys", "tmp", "etc"):
        (place / name).mkdir()
    (place / "bin/busybox").write_bytes(busybox.read_bytes())
    (place / "bin/busybox").chmod(0o755)
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in sorted(set(listed.stdout.split()) - {"busybox"}):
        (place / "bin" / applet).symlink_to("busybox")
    (place / "etc/motd").write_bytes(MOTD)
    return place


def tar(root: Path, path: Path) -> Path:
    """The same as a plain tar."""
    with tarfile.open(path, "w") as archive:
        for member in sorted(root.rglob("*")):
            archive.add(member, member.relative_to(root), recursive=False)
    return path


def erofs(root: Path, path: Path, *, mkfs: Path) -> Path:
    """The same as an EROFS image; `mkfs` is mkfs.erofs."""
    subprocess.run([mkfs, "-T0", "--all-root", path, root], check=True, capture_output=True)
    return path
