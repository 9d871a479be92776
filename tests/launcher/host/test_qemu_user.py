# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0

"""Who QEMU is, what it can still do, and what is said where that is more than it needs.

Started by root it must be somebody else; an ordinary user's is that user.
"""

import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.launcher.channel.test_session import gone, wait_for
from tests.launcher.conftest import OWN, REPOSITORY, Answer
from tests.launcher.launcher_kit import Out
from tools.launcher.base.errors import UserError
from tools.launcher.guest.qemu import before_exec
from tools.launcher.host import qemu_user
from tools.launcher.host.qemu_program import ENVIRONMENT
from tools.launcher.host.qemu_user import QemuUser

Call = Callable[..., Answer]
Words = Callable[..., list[str]]
ROOT = os.geteuid() == 0
# In QEMU's place: says on stderr what it is and can do, and ends.
FAKE = """\
#!/bin/sh
case "$*" in
    *-version*) echo 'QEMU emulator version 10.0.13'; exit;;
    *loader,help*) [ -z "$STANDIN_NO_SANDBOX" ] || { echo 'seccomp: nothing of that kind' >&2; exit 1; }; exit;;
esac
#SLEEP
{
    grep -E '^(Uid|Gid|Groups|CapEff|NoNewPrivs):' /proc/self/status | tr '\\t' ' '
    cat vmlinuz OVMF.fd initramfs.cpio.zst hashes.bin >/dev/null && echo reads what it needs
    (: >>vmlinuz && echo writes) 2>/dev/null
    (: >new && echo makes files) 2>/dev/null
    (: <lock && echo reads the rest) 2>/dev/null
    for word; do
        case "$word" in fd=*,set=1) fd=${word#fd=}; readlink "/proc/$$/fd/${fd%,*}";; esac
    done
} >&2
exit 1
"""


@pytest.fixture
def fake(reachable: Path) -> Path:
    path = reachable / "qemu"
    path.write_text(FAKE)
    path.chmod(0o755)
    return path


@pytest.fixture
def words(out: Out, fake: Path, tar: Path) -> Words:
    """The command line of a run with the fake; the root is a file that only we can read, in a folder of ours."""
    tar.chmod(0o600)

    def make(*options: str, qemu: Path = fake) -> list[str]:
        made = ["run", "--unprotected", "--accel", "tcg", "--config", str(out.config), "--qemu", str(qemu)]
        return [*made, "--rootfs", str(tar), *options, "--", "true"]

    return make


def said(answer: Answer) -> list[str]:
    """What the fake said."""
    assert answer.status == 125, answer.err
    return [line.strip() for line in answer.err.splitlines() if line.startswith("  ")]


def test_qemu_is_not_root(call: Call, words: Words, tar: Path) -> None:
    answer = call(*words())
    lines = said(answer)
    uids = next(line for line in lines if line.startswith("Uid:")).split()[1:]
    assert len(set(uids)) == 1
    assert int(uids[0]) == os.geteuid() if not ROOT else int(uids[0]) >= 0x70000000 or int(uids[0]) in qemu_user._POOL
    assert "reads what it needs" in lines
    assert "keeps root" not in answer.err
    if not ROOT:
        return
    assert "CapEff: 0000000000000000" in lines
    assert "NoNewPrivs: 1" in lines
    assert not {"writes", "makes files", "reads the rest"} & set(lines)
    assert str(tar) in lines  # open, though it can go there no more than into our folder
    # Control: what it can do as root.
    lines = said(call(*words("--qemu-user", "0")))
    assert "Uid: 0 0 0 0" in lines
    assert {"reads what it needs", "writes", "makes files", "reads the rest"} <= set(lines)


def test_a_user_of_ones_own_choice(call: Call, words: Words) -> None:
    if ROOT:
        lines = said(call(*words("--qemu-user", "54321:54322")))
        assert "Uid: 54321 54321 54321 54321" in lines
        assert "Gid: 54322 54322 54322 54322" in lines
    else:
        assert "reads what it needs" in said(call(*words("--qemu-user", OWN)))
        answer = call(*words("--qemu-user", "0"))
        assert answer.status == 2
        assert "only root can start QEMU as somebody else" in answer.one_line()
    assert call(*words("--qemu-user", "qemu")).status == 2


def test_each_launcher_has_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = set()
    for number in range(2, 12):
        monkeypatch.setattr(os, "getpid", lambda number=number: number)
        chosen.add(qemu_user._own())
    assert len(chosen) == (10 if ROOT else len(chosen))


def test_a_root_with_no_ids_to_spare() -> None:
    """Root of a user namespace is an ordinary user by another name; QEMU is that one."""
    code = "from tools.launcher.host import qemu_user; print(qemu_user.choose(None))"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", sys.executable, "-c", code],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "(None, 'this user namespace has no ids to spare')\n"


def test_a_qemu_where_only_root_may_go(call: Call, words: Words, fake: Path, tmp_path: Path) -> None:
    private = tmp_path / "qemu"
    private.parent.chmod(0o700)
    shutil.copy(fake, private)
    answer = call(*words(qemu=private))
    assert "reads what it needs" in said(answer)
    told = f"QEMU keeps root: {private} cannot be run by uid"
    assert (told in answer.err) is ROOT
    refused = call(*words("--confined", qemu=private))
    assert refused.status == (2 if ROOT else 125)
    if ROOT:
        assert "QEMU would not be confined (--confined)" in refused.err
        assert told in refused.err
        asked = call(*words("--qemu-user", "54321", qemu=private))
        assert asked.status == 2
        assert "cannot be run by uid 54321 (Permission denied); 0 leaves QEMU root" in asked.one_line()
    # Control: where everybody may go.
    assert "reads what it needs" in said(call(*words("--confined")))


def test_a_filter_that_does_not_work_is_said(call: Call, words: Words, monkeypatch: pytest.MonkeyPatch) -> None:
    told = "QEMU runs without its seccomp filter, which does not work here: seccomp: nothing of that kind"
    assert told not in call(*words()).err
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_NO_SANDBOX", "1")
    answer = call(*words("--quiet"))
    assert said(answer)
    assert f"sev-launch: {told}\n" in answer.err
    refused = call(*words("--confined"))
    assert refused.status == 2
    assert f"  {told}\n" in refused.err


def test_doctor_says_how_qemu_is_confined(out: Out, call: Call, fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["doctor", "--quiet", "--config", str(out.config), "--qemu", str(fake), "--accel", "kvm", "--timeout", "1"]
    assert "ok  QEMU's confinement  runs as " in " ".join(call(*line).out.split(" ")).replace("   ", "  ")
    monkeypatch.setitem(ENVIRONMENT, "STANDIN_NO_SANDBOX", "1")
    assert "without its seccomp filter" in call(*line).out


def node(path: Path, mode: int, group: int = 0) -> Path:
    """A device as /dev/sev is one, but harmless: /dev/full."""
    os.mknod(path, stat.S_IFCHR, os.makedev(1, 7))
    os.chown(path, 0, group)
    path.chmod(mode)
    return path


def opened(user: QemuUser | None, device: Path) -> str:
    """What becomes of opening the device where QEMU would: its owner, or the error."""
    script = f"stat -c %u {device}; exec 3<>{device}"
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False, preexec_fn=before_exec(user)
    )
    return done.stdout + done.stderr


def test_devices_that_only_root_may_open(reachable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not ROOT:
        assert qemu_user.choose(None) == (None, None)
        with pytest.raises(UserError, match="only root"):
            qemu_user.choose((1, 1))
        return
    device = node(reachable / "sev", 0o600)
    monkeypatch.setattr(qemu_user, "DEVICES", (str(device),))
    user, reason = qemu_user.choose(None)
    assert reason is None
    assert user is not None
    assert user.nodes == (str(device),)
    assert opened(user, device) == f"{user.uid}\n"
    # Only it sees that; without its private copy it is refused.
    assert opened(None, device) == "0\n"
    assert "Permission denied" in opened(QemuUser(uid=user.uid, gid=user.gid), device)
    # A group's device is had by way of the group, and root's group is nobody's.
    device.unlink()
    node(device, 0o660, group=54399)
    user, _ = qemu_user.choose(None)
    assert user is not None
    assert (user.groups, user.nodes) == ((54399,), ())
    assert opened(user, device) == "0\n"
    os.chown(device, 0, 0)
    user, _ = qemu_user.choose(None)
    assert user is not None
    assert (user.groups, user.nodes) == ((), (str(device),))


def test_qemu_does_not_outlive_a_killed_launcher(words: Words, fake: Path) -> None:
    """The change of user would undo what sees to that."""
    fake.write_text(FAKE.replace("#SLEEP", "exec sleep 1000"))
    command = [sys.executable, "-m", "tools.launcher", *words()]
    with subprocess.Popen(command, cwd=REPOSITORY) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        try:
            wait_for(lambda: [pid for pid in children.read_text().split() if sleeps(int(pid))])
            (pid,) = map(int, children.read_text().split())
        finally:
            process.send_signal(signal.SIGKILL)
    wait_for(lambda: gone(pid))


def sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
