# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""Folders of the host's by way of the launcher, whose QEMU may go nowhere itself: an archive, and a share."""

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.boot.test_qemu_user import QEMU
from tools.attack.guests.run import Guest
from tools.pipeline.engine.tree import Tree
from tools.sev.workload.document import Document, HostFolder, Process, Tar

SCRIPT = "cat /given/hello /mnt/here; echo made > /mnt/made && cat /mnt/made"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "given.tar"
    with tarfile.open(path, "w") as stream:
        folder = tarfile.TarInfo("data")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        stream.addfile(folder)
        member = tarfile.TarInfo("data/hello")
        member.size, member.mode = 6, 0o644
        stream.addfile(member, io.BytesIO(b"hello\n"))
    path.chmod(0o600)
    return path


def test_an_archive_and_a_share(
    kata_artifacts: Path, boot_tree: Tree, root_tar: Path, reachable: Path, archive: Path, tmp_path: Path
) -> None:
    """QEMU is somebody who may not go to either: it gets them open. What it writes to, it must be allowed to."""
    root = os.geteuid() == 0
    usr = reachable / "usr" if root else boot_tree.path / "usr"
    program = reachable / "qemu"
    program.write_text(QEMU.format(usr=usr))
    program.chmod(0o755)
    shared = tmp_path / "shared, with a comma"
    shared.mkdir()
    shared.chmod(0o777)
    (shared / "here").write_bytes(b"here\n")
    assert not tmp_path.parent.stat().st_mode & 0o077
    data = root_tar.read_bytes()
    document = Document(
        root=Tar(length=len(data), sha256=hashlib.sha256(data).hexdigest()),
        process=Process(argv=("sh", "-c", SCRIPT), environment=("PATH=/bin",)),
        folders=(HostFolder(target="/given", length=1 << 16), HostFolder(target="/mnt", write=True)),
    )
    workload = tmp_path / "workload.json"
    workload.write_bytes(document.data)
    emulated = Guest(launcher=kata_artifacts / "sev-launch", qemu=program, rootfs=root_tar)

    def run(*folders: str) -> subprocess.CompletedProcess[bytes]:
        argv = emulated.argv([], "--confined", "--workload", str(workload), *folders)
        if root:
            usr.mkdir(exist_ok=True)
            script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
            argv = ["unshare", "--mount", "sh", "-c", script, "sh", str(boot_tree.path / "usr"), str(usr), *argv]
        return subprocess.run(argv, capture_output=True, check=False)

    given, share = f"--folder=/given={archive}", f"--folder=/mnt={shared}"
    done = run(share, given)
    assert (done.returncode, done.stdout) == (0, b"hello\nhere\nmade\n"), done.stderr
    assert (shared / "made").read_bytes() == b"made\n"
    if root:
        assert (shared / "made").stat().st_uid >= 65520
    for words, said in (
        ((given,), b"has 2 folders of the host's, 1 are given"),
        ((given, f"--folder=/mnt={archive}"), b"is not a folder, to be shared"),
        ((f"--folder=/given={shared}", share), b"is not a file: an archive"),
        ((given, share, f"--folder=/etc={archive}"), b"is no folder of the workload document"),
    ):
        done = run(*words)
        assert (done.returncode, done.stdout) == (2, b""), words
        assert said in done.stderr
        assert b"Traceback" not in done.stderr
