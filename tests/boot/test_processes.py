# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes in one booted guest, on terminals too."""

import contextlib
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.launcher.terminal_kit import Desk
from tools.attack.guests.run import Guest
from tools.launcher.base.errors import WorkloadError
from tools.launcher.channel.requests import Process
from tools.launcher.channel.session import Session
from tools.launcher.channel.streams import Streams
from tools.launcher.guest.binding import UNBOUND
from tools.launcher.guest.bring_up import brought_up
from tools.launcher.guest.spec import Accel, Wanted, resolve
from tools.launcher.host import facts
from tools.launcher.host.qemu_program import find_qemu

Up = Callable[[], AbstractContextManager[tuple[Session, float]]]


@pytest.fixture
def up(artifacts: Path, qemu: Path, root_tar: Path) -> Up:
    """Starts the production guest, emulated."""
    wanted = Wanted(config=artifacts / "runtime.toml", unprotected=True, binding=UNBOUND)
    spec = resolve(wanted, wanted.configure(), qemu=find_qemu(str(qemu)), cbit=None)
    return functools.partial(brought_up, spec, root=root_tar, facts=facts.gather(), note=print, accel=Accel.TCG)


def sh(script: str) -> Process:
    return Process(argv=[b"/bin/sh", b"-c", script.encode()], stdin_at_end=True)


def test_processes_come_and_go_while_the_first_runs(up: Up, tmp_path: Path) -> None:
    files = {name: (tmp_path / name).open("w+b", buffering=0) for name in ("first", "second", "none")}
    streams = {name: Streams(stdin=None, stdout=file.fileno(), stderr=2) for name, file in files.items()}
    with up() as (session, limit):
        session.wait_ready(limit)
        first = session.start(
            sh("echo up >/tmp/mark; while test -e /tmp/mark; do sleep 0.1; done; exit 3"), streams["first"]
        )
        session.serve(lambda: bool(first.process.life))
        second = session.start(sh("cat /tmp/mark; rm /tmp/mark; exit 4"), streams["second"])
        none = session.start(Process(argv=[b"/bin/nope"], stdin_at_end=True), streams["none"])
        session.serve(lambda: all(relay.finished for relay in (first, second, none)))
        session.shut_down()
    assert (first.status(), second.status()) == (3, 4)
    with pytest.raises(WorkloadError, match="No such file"):
        none.status()
    assert (tmp_path / "second").read_bytes() == b"up\n"
    for file in files.values():
        file.close()


def test_a_shell_on_a_terminal(guest: Guest, tmp_path: Path) -> None:
    """Line editing, interrupts and sizes are the guest's; the end is the shell's, and the terminal as before."""
    argv = guest.argv(["sh", "-i"], "--tty", "--open", "stdin", "--open", "resize")
    with contextlib.closing(Desk(argv, cwd=tmp_path)) as desk:
        desk.until(b"# ")
        assert desk.raw
        desk.type(b"tty; stty size\r", b"\r\n/dev/pts/0\r\n31 97\r\n")
        desk.resize(43, 111)
        desk.type(b"while [ \"$(stty size)\" != '43 111' ]; do sleep 0.1; done; echo re''sized\r", b"resized")
        # An interrupt ends the command and neither the shell nor the launcher. A command of its own says that it runs:
        # between two of them the shell itself has the terminal, and an interrupt that comes as it forks ends nothing.
        desk.type(b"sh -c \"echo wai''ting; exec sleep 1000\"\r", b"waiting")
        desk.type(b"\x03", b"# ")
        desk.type(b"echo $((40 + 2))\r", b"\r\n42\r\n")
        desk.type(b"exit 9\r", b"exit")
        assert desk.end() == 9


def test_a_terminal_without_keys(guest: Guest) -> None:
    """Standard output need not be one; both streams come as one, and lines end as terminals have it."""
    done = guest.sh("tty; stty size; echo err >&2", "--tty")
    assert (done.returncode, done.stdout) == (0, b"/dev/pts/0\r\n24 80\r\nerr\r\n")
