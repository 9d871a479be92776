# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest whose QEMU root started is run by nobody, and one that an ordinary user started by that user."""

import os
import subprocess
from pathlib import Path

import pytest

from tools.attack.guests.run import Guest
from tools.pipeline.engine.tree import Tree

# The pinned QEMU by way of its own loader, which takes no privilege.
QEMU = """\
#!/bin/sh
usr={usr}
exec $usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path $usr/lib/x86_64-linux-gnu \\
    $usr/bin/qemu-system-x86_64 -L $usr/share/qemu -L $usr/share/seabios "$@"
"""


@pytest.mark.parametrize("kind", ["tar", "folder", "erofs"])
def test_the_uid_of_qemu(
    guest: Guest, boot_tree: Tree, reachable: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    """While the guest runs, its QEMU has no privilege; what it boots lies where only its starter may go."""
    rootfs: Path = request.getfixturevalue(f"root_{kind}")
    assert not rootfs.parent.parent.stat().st_mode & 0o077
    root = os.geteuid() == 0
    usr = reachable / "usr" if root else boot_tree.path / "usr"
    qemu = reachable / "qemu"
    qemu.write_text(QEMU.format(usr=usr))
    qemu.chmod(0o755)
    emulated = Guest(launcher=guest.launcher, qemu=qemu, rootfs=rootfs)
    argv = emulated.argv(["sh", "-c", "echo up; cat"], "--confined", "--unbound")
    prefix: list[str] = []
    if root:
        # The tree lies where only root may go: seen by these processes alone, it lies elsewhere as well.
        usr.mkdir()
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        prefix = ["unshare", "--mount", "sh", "-c", script, "sh", str(boot_tree.path / "usr"), str(usr)]
    pipe = subprocess.PIPE
    environment = os.environ | {"SECRET_TOKEN": "hunter2"}
    with subprocess.Popen([*prefix, *argv], stdin=pipe, stdout=pipe, stderr=pipe, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n", process.communicate()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        (status,) = [Path(f"/proc/{pid}/status").read_text() for pid in children]
        # Control: what the launcher was started with is seen where it is.
        assert b"SECRET_TOKEN=hunter2" in Path(f"/proc/{process.pid}/environ").read_bytes()
        (known,) = [Path(f"/proc/{pid}/environ").read_bytes() for pid in children]
        out, err = process.communicate(b"bye\n")
    assert (out, process.returncode) == (b"bye\n", 0), err
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    uids = set(map(int, fields["Uid"].split()))
    assert len(uids) == 1
    assert min(uids) >= 65520 if root else uids == {os.geteuid()}
    assert int(fields["CapEff"], 16) == 0
    assert fields["Seccomp"] == "2"
    # PWD: the script in QEMU's place is a shell's.
    assert {entry.partition(b"=")[0] for entry in known.split(b"\0") if entry} == {b"LC_ALL", b"PATH", b"PWD"}
