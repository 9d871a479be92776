# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes in one booted guest, and a guest that a monitor keeps: what an OCI runtime builds on."""

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tools.launcher.base.errors import WorkloadError
from tools.launcher.channel.requests import Process
from tools.launcher.channel.session import Session
from tools.launcher.channel.streams import Streams
from tools.launcher.guest import monitor
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


def test_a_guest_that_waits_for_its_start(up: Up, tmp_path: Path) -> None:
    """What `create` and `start` of an OCI runtime are; monitors whose caller ends: tests/launcher/guest."""
    pid = monitor.create(tmp_path, up, sh("exit 9"))
    assert monitor.ask(tmp_path, "state")["state"] == "created"
    monitor.ask(tmp_path, "start")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
