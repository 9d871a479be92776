# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What forbids sandboxes is told before the first step: what containers do, done here without an engine.

In containers of docker and podman themselves: engines.py, `./doit test_containers`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.pipeline.sandbox.test_confine import may_mount
from tools.pipeline.sandbox import seccomp

AVAILABLE = """
import ctypes, sys
from tools.pipeline.base.errors import UserError
from tools.pipeline.sandbox import sandbox
if program := bytes.fromhex(sys.argv[1]):
    class Program(ctypes.Structure):
        _fields_ = [("count", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0) == 0  # PR_SET_SECCOMP
try:
    sandbox.available()
except UserError as error:
    print(error)
"""
AS_ROOT = ("unshare", "--user", "--map-root-user", "--mount")
IN_FOLDER = ("sh", "-euc", 'cd "$0"; exec "$@"')


def refusal(repository: Path, *before: str, program: bytes = b"") -> str:
    """What is said under the program `before`, and under a filter for system calls; nothing if all is well."""
    argv = [*before, sys.executable, "-c", AVAILABLE, program.hex()]
    return subprocess.run(argv, cwd=repository, capture_output=True, text=True, check=True).stdout


def shell(script: str) -> tuple[str, ...]:
    """As root of a user namespace, where more can be forbidden."""
    return (*AS_ROOT, "sh", "-euc", f'{script}; exec "$@"', "sh")


def test_where_nothing_forbids_it(repository: Path) -> None:
    assert refusal(repository) == ""
    assert refusal(repository, *shell(":")) == ""


def test_a_setting(repository: Path) -> None:
    said = refusal(repository, *shell("echo 0 >/proc/sys/user/max_user_namespaces"))
    assert said.startswith("bubblewrap cannot make a sandbox")
    assert said.endswith("; as root on the host: sysctl -w user.max_user_namespaces=15000\n")


def test_a_filter_like_dockers(repository: Path) -> None:
    said = refusal(repository, program=seccomp.program())
    assert said.startswith("bubblewrap cannot make a sandbox")
    assert said.count("\n") == 1
    # The first is what root is told, the second what others are.
    assert "(sandbox: making a user namespace: Operation not permitted); " in said or (
        "(bwrap: No permissions to create new namespace); " in said
    )
    assert "run as root" not in said


def test_a_filter_like_podmans(repository: Path) -> None:
    """It allows namespaces, but not to name one: what is tried before the first step is all that a step needs."""
    call = seccomp._code(seccomp._LOAD, seccomp._NUMBER)
    refuse, allow = seccomp._code(seccomp._RETURN, seccomp._ERRNO | 1), seccomp._code(seccomp._RETURN, seccomp._ALLOW)
    set_host_name = 170  # asm/unistd_64.h
    said = refusal(repository, program=call + seccomp._code(seccomp._EQUAL, set_host_name, 0, 1) + refuse + allow)
    assert "(bwrap: Can't set hostname to sandbox: Operation not permitted); " in said


def test_a_masked_proc(repository: Path) -> None:
    """As both engines mask it: one file is enough."""
    said = refusal(repository, *shell("mount --bind /dev/null /proc/timer_list"))
    assert "(bwrap: Can't mount proc on /newroot/proc: Operation not permitted); " in said


def test_a_chroot(repository: Path, tmp_path: Path) -> None:
    same = (
        f'to={tmp_path}; for path in /*; do if [ -L "$path" ]; then cp -P "$path" $to; '
        'elif [ -d "$path" ]; then mkdir $to"$path"; mount --rbind "$path" $to"$path"; fi; done'
    )
    words = (*IN_FOLDER, str(repository))
    said = refusal(repository, *shell(same), "chroot", str(tmp_path), *words)
    assert said.startswith("bubblewrap cannot make a sandbox in a chroot (")
    assert "; enter it with bwrap --dev-bind FOLDER / " in said
    # As is advised there.
    for folder in tmp_path.iterdir():
        folder.unlink() if folder.is_symlink() else folder.rmdir()
    assert refusal(repository, *shell(same), "bwrap", "--dev-bind", str(tmp_path), "/", *words) == ""


@pytest.mark.parametrize("lacks", ["sys_ptrace", "sys_admin", "sys_chroot"])
def test_a_root_with_few_capabilities(repository: Path, lacks: str) -> None:
    """Root of a container has neither of these, and may have been given one. Others cannot take them away."""
    before = ("setpriv", f"--bounding-set=-{lacks}") if may_mount() else ()
    assert refusal(repository, *before) == ""


def test_a_root_with_too_few_capabilities(repository: Path) -> None:
    """Who is not root needs none."""
    before = ("setpriv", "--bounding-set=-setfcap,-setgid") if may_mount() else ()
    said = refusal(repository, *before)
    assert said.endswith(": SETGID, SETFCAP\n") == may_mount()
