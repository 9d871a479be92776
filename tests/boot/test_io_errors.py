# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that fails where the host wants: a guest behind dm-verity ends, it does not go on without the block."""

import dataclasses
import hashlib
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.attack.guests.run import Guest
from tools.attack.guests.verity import Verity, with_tree
from tools.pipeline.engine.tree import Tree

# A program as many are: whoever is not found in the list is let in.
DECIDE = "if grep -q mallory /etc/denied; then echo DENIED; else echo ACCEPTED; fi"
# Long enough that nobody who reads what lies beside it meets the sector in its middle.
LIST = b"trudy__\n" * 65536 + b"mallory\n"
NOW, BEFORE = b" 2 panic_on_corruption panic_on_error", b" 1 panic_on_corruption               "
# In QEMU's place: QEMU, whose disk has one sector that cannot be read.
FAILING = """\
#!{python}
import os, sys
words = sys.argv[1:]
for at, word in enumerate(words):
    if word.startswith("driver=raw,node-name=rootfs,"):
        error = "file.inject-error.0.event=none,file.inject-error.0.iotype=read,file.inject-error.0.errno=5"
        where = "file.inject-error.0.sector={sector},file.inject-error.0.once=off"
        disk = word.replace("file.driver=file,file.filename=", "file.image.driver=file,file.image.filename=")
        assert disk != word
        words[at] = f"{{disk}},file.driver=blkdebug,{{error}},{{where}}"
os.execv({qemu!r}, [{qemu!r}, *words])
"""


@pytest.fixture(scope="session")
def denied(root_folder: Path, host_tool: Callable[[str], Path]) -> Verity:
    """A root with a list that lies in blocks of its own."""
    root = root_folder.parent / "with-list"
    shutil.copytree(root_folder, root, symlinks=True)
    (root / "etc/denied").write_bytes(LIST)
    erofs = root_folder.parent / "with-list.erofs"
    subprocess.run([host_tool("mkfs.erofs"), "-T0", "--all-root", erofs, root], check=True, capture_output=True)
    return with_tree(erofs, host_tool("veritysetup"))


@pytest.fixture
def failing(tmp_path: Path, qemu: Path, denied: Verity) -> Path:
    """A QEMU on whose disk a sector in the middle of the list fails."""
    start = denied.image.read_bytes().index(LIST[: 512 << 10])
    assert start % 4096 == 0
    at = start + (256 << 10)
    path = tmp_path / "failing-qemu"
    path.write_text(FAILING.format(python=sys.executable, qemu=str(qemu), sector=at // 512))
    path.chmod(0o755)
    return path


@pytest.fixture
def before(tmp_path: Path, guest: Guest, build_tree: Tree, host_tool: Callable[..., Path]) -> Path:
    """A launcher whose agent, otherwise the same, asks dm-verity to panic at corruption only."""
    out = tmp_path / "out"
    shutil.copytree(guest.launcher.parent, out)
    image = out / "initramfs.cpio.zst"
    packed = image.read_bytes()
    words = shlex.join([str(host_tool("zstd", build_tree)), "-dc", str(image)])
    data = subprocess.run(["sh", "-c", words], capture_output=True, check=True).stdout
    assert data.count(NOW) == 1
    # The kernel takes it uncompressed as well.
    image.write_bytes(changed := data.replace(NOW, BEFORE))
    config = (out / "runtime.toml").read_text()
    for old, new in (
        (hashlib.sha256(packed).hexdigest(), hashlib.sha256(changed).hexdigest()),
        (f"size = {len(packed)}", f"size = {len(changed)}"),
    ):
        assert config.count(old) == 1
        config = config.replace(old, new)
    (out / "runtime.toml").write_text(config)
    return out / "sev-launch"


def decide(guest: Guest, denied: Verity) -> subprocess.CompletedProcess[bytes]:
    return dataclasses.replace(guest, rootfs=denied.image).sh(DECIDE, "--verity", denied.root_hash)


def test_the_honest_disk(guest: Guest, denied: Verity) -> None:
    done = decide(guest, denied)
    assert (done.stdout, done.returncode) == (b"DENIED\n", 0), done.stderr


def test_a_sector_that_fails_ends_the_guest(guest: Guest, denied: Verity, failing: Path) -> None:
    done = decide(dataclasses.replace(guest, qemu=failing), denied)
    assert (done.stdout, done.returncode) == (b"", 125), done.stderr


def test_without_panic_on_error_the_program_goes_on(guest: Guest, denied: Verity, failing: Path, before: Path) -> None:
    """The control: the same failing sector, and the agent as it was."""
    done = decide(dataclasses.replace(guest, qemu=failing, launcher=before), denied)
    assert (done.stdout, done.returncode) == (b"ACCEPTED\n", 0), done.stderr
