# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that `sev-launch bundle` made, in a guest that insists on its root hash."""

import dataclasses
import json
import subprocess
from pathlib import Path

from tests.boot.conftest import Guest


def test_a_bundle_of_one_layer_boots(guest: Guest, root_tar: Path, root_folder: Path, tmp_path: Path) -> None:
    """Made from a tar and from the folder that it was packed from: the same disk; one bit of it, and it is refused."""
    disks = []
    for source in (root_tar, root_folder):
        folder = tmp_path / source.name
        argv: list[str | Path] = [guest.launcher, "bundle", source, "-o", folder, "--owner", "0:0"]
        subprocess.run(argv, check=True, capture_output=True)
        disks.append((folder / "disk.img").read_bytes())
    assert disks[0] == disks[1]
    document = json.loads((folder / "bundle.json").read_text())
    root_hash, blocks = document["verity"]["root_hash"], document["verity"]["blocks"]
    bundled = dataclasses.replace(guest, rootfs=folder / "disk.img")
    done = bundled.sh("cat /etc/motd; stat -c '%u:%g %a %Y' /bin /etc/motd", "--verity", root_hash)
    time = int((root_folder / "etc/motd").stat().st_mtime)
    lines = done.stdout.decode().splitlines()
    assert lines == ["from the container's root", "0:0 755 0", f"0:0 644 {time}"], done.stderr
    changed = bytearray(disks[1])
    for block in range(1, blocks):
        changed[block * 4096 + 100] ^= 1
    (tmp_path / "changed").write_bytes(changed)
    done = dataclasses.replace(guest, rootfs=tmp_path / "changed").sh("cat /etc/motd", "--verity", root_hash)
    assert (done.stdout, done.returncode) == (b"", 125), done.stderr
