# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch demo` on real guests. Nothing encrypts them here, and it says so."""

import os
import re
import subprocess
from pathlib import Path

from tools.attack.guests.run import Guest

HEADINGS = [
    "1. A shell in a guest",
    "2. Who it runs as",
    "3. What the kernel says",
    "4. Bounce buffers",
    "5. QEMU's heap, read from the host",
    "6. The guest's memory, read from the host",
]
OPEN = "This machine encrypted nothing: its root reads all of the guest. On one with SEV the last step differs."


def demo(guest: Guest, *words: str, path: str | None = None) -> tuple[int, str, str]:
    argv = [str(guest.launcher), "demo", "--unprotected", "--accel", "tcg", *words]
    if guest.qemu is not None:
        argv += ["--qemu", str(guest.qemu)]
    environment = os.environ | ({} if path is None else {"PATH": path})
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, check=False, timeout=1200)
    return done.returncode, done.stdout, done.stderr


def test_all_steps(guest: Guest, root_folder: Path) -> None:
    """With more memory than 32-bit devices reach, so that the kernel says where its bounce buffers are."""
    status, out, err = demo(guest, "--docker", "no", "--rootfs", str(root_folder), "--memory", "5G")
    assert [line for line in out.splitlines() if re.match(r"\d\. ", line)] == HEADINGS, out + err
    assert "NOT ENCRYPTED, because:\n     --unprotected was given\n" in out
    assert "   uid=0 gid=0\n" in out
    assert "software IO TLB: mapped [mem 0x" in out
    used = re.search(r"In use: what was just sent to the guest lies in them, at (\w+), within (\w+)-(\w+)\.", out)
    assert used, out
    at, start, end = (int(text, 16) for text in used.groups())
    assert start <= at < end
    assert out.count("|panic=-1 quiet l|") >= 1
    assert "plaintext: the marker, which only the guest made, can be read from this host" in out
    assert out.endswith(f"\n{OPEN}\n")
    # It ran to its end, and the memory is open.
    assert status == 1
    assert "stopped by signal" not in err


DOCKER = """\
#!/bin/sh
# What docker does with sev-runtime, as far as the demonstration sees it.
echo "$@" >>{log}
case "$1" in
info) echo '{{"runc":{{}},"sev-runtime":{{}}}}' ;;
inspect) cat {log}.pid ;;
run)
    while [ "$1" != busybox ]; do [ "$1" = -e ] && variable=$2; shift; done
    shift
    echo $$ >{log}.pid
    exec {launcher} run --unprotected --accel tcg {qemu} --rootfs {root} --cap-add syslog --open stdin \\
        --env "$variable" -- "$@" ;;
*) exit 1 ;;
esac
"""


def test_by_docker(guest: Guest, root_folder: Path, tmp_path: Path) -> None:
    """Where docker knows the runtime. Whether the guest is encrypted, QEMU's command line says."""
    program, log = tmp_path / "bin/docker", tmp_path / "log"
    program.parent.mkdir()
    qemu = "" if guest.qemu is None else f"--qemu {guest.qemu}"
    program.write_text(DOCKER.format(log=log, launcher=guest.launcher, qemu=qemu, root=root_folder))
    program.chmod(0o755)
    status, out, err = demo(guest, path=f"{program.parent}:{os.environ['PATH']}")
    assert [line for line in out.splitlines() if re.match(r"\d\. ", line)] == HEADINGS, out + err
    assert "The kernel has no bounce buffers: devices reach all of the guest's memory." in out
    assert out.endswith(f"\n{OPEN}\n")
    assert status == 1
    commands = log.read_text()
    assert re.search(
        r"^run --rm -i --name sev-demo-\w{8} --runtime sev-runtime --network none --cap-add SYSLOG -e MASKED=\w{32} "
        r"busybox sh -c ", commands, re.MULTILINE,
    )  # fmt: skip


def test_a_guest_that_ends_too_soon(guest: Guest, tmp_path: Path) -> None:
    """Without the programs that it needs: one line, and the launcher's own before it."""
    (tmp_path / "root/bin").mkdir(parents=True)
    status, out, err = demo(guest, "--docker", "no", "--rootfs", str(tmp_path / "root"))
    assert out.splitlines()[0] == HEADINGS[0]
    assert err.splitlines()[-1] == "sev-launch: the guest: ended too soon, with status 127"
    assert status == 125
