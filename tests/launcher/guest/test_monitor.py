# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: PLR0917  pytest hands fixtures over by name
"""A monitor owns QEMU: whoever asked for the guest ends, later processes start, signal and ask."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.launcher.channel.test_session import gone, wait_for
from tests.launcher.conftest import REPOSITORY
from tests.launcher.launcher_kit import Out
from tools.launcher.base.errors import UserError
from tools.launcher.guest import monitor

# A caller as an OCI runtime's `create` is one: it ends as soon as the guest is there.
CALLER = """
    import functools, sys
    from pathlib import Path
    from tools.launcher.base.errors import LauncherError
    from tools.launcher.channel.requests import Process
    from tools.launcher.guest import bring_up, monitor
    from tools.launcher.guest.binding import UNBOUND
    from tools.launcher.guest.spec import Accel, Wanted, resolve
    from tools.launcher.host import facts
    from tools.launcher.host.qemu_program import find_qemu

    folder, config, qemu, root, *argv = sys.argv[1:]
    wanted = Wanted(config=Path(config), unprotected=True, binding=UNBOUND)
    spec = resolve(wanted, wanted.configure(), qemu=find_qemu(qemu), cbit=None)
    guest = functools.partial(
        bring_up.brought_up, spec, root=Path(root), facts=facts.gather(), note=print, accel=Accel.TCG, timeout=20.0
    )
    process = Process(argv=[word.encode() for word in argv], env=[b"PATH=/usr/bin:/bin"])
    try:
        print("monitor", monitor.create(Path(folder), guest, process), file=sys.stderr)
    except LauncherError as error:
        print("refused", type(error).__name__, error, file=sys.stderr)
        sys.exit(error.exit_status)
"""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    folder: Path
    out: Out
    standin: Path
    tar: Path
    log: Path

    def create(self, *argv: str, root: Path | None = None, **env: str) -> subprocess.CompletedProcess[bytes]:
        """Run a caller to its end. Its streams, which the workload gets, are files: nobody waits for their end."""
        words: list[str | Path] = [sys.executable, "-c", textwrap.dedent(CALLER)]
        words += [self.folder, self.out.config, self.standin]
        parent = self.folder.parent
        with (parent / "stdout").open("wb") as stdout, (parent / "stderr").open("wb") as stderr:
            return subprocess.run(
                [*words, root or self.tar, *argv],
                cwd=REPOSITORY,
                env=os.environ | {"STANDIN_LOG": str(self.log)} | env,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                check=False,
                timeout=60,
            )

    @property
    def stdout(self) -> bytes:
        return (self.folder.parent / "stdout").read_bytes()

    @property
    def stderr(self) -> str:
        return (self.folder.parent / "stderr").read_text()

    @property
    def pid(self) -> int:
        return int(self.stderr.split("monitor ")[1].split()[0])

    @property
    def qemu(self) -> int:
        return int(json.loads(self.log.read_text())["pid"])

    def status(self) -> dict[str, Any]:
        """What is recorded, once the monitor has ended."""
        wait_for((self.folder / "status.json").exists)
        wait_for(lambda: gone(self.pid))
        found: dict[str, Any] = json.loads((self.folder / "status.json").read_text())
        return found


@pytest.fixture
def bundle(tmp_path: Path, out: Out, standin: Path, tar: Path) -> Iterator[Bundle]:
    folder = tmp_path / "state"
    folder.mkdir()
    made = Bundle(folder=folder, out=out, standin=standin, tar=tar, log=tmp_path / "log")
    yield made
    if "monitor " in made.stderr and not gone(made.pid):
        os.kill(made.pid, signal.SIGKILL)


def test_the_guest_outlives_its_caller_and_is_started_by_another_process(bundle: Bundle, tmp_path: Path) -> None:
    assert bundle.create("sh", "-c", "cat; echo out; echo err >&2; exit 7").returncode == 0
    assert os.getsid(bundle.pid) == bundle.pid
    assert not gone(bundle.qemu)
    assert bundle.stdout == b""
    assert monitor.ask(bundle.folder, "state") == {"state": "created", "pid": bundle.pid}
    other = (
        "import sys; from tools.launcher.guest import monitor; from pathlib import Path;"
        "print(monitor.ask(Path(sys.argv[1]), 'start'))"
    )
    words: list[str | Path] = [sys.executable, "-c", other, bundle.folder]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "'state': 'running'" in done.stdout
    assert bundle.status() == {"schema": 1, "error": None, "exit_status": 7}
    assert bundle.stdout == b"out\n"
    assert bundle.stderr.endswith("err\n")
    assert gone(bundle.qemu)
    assert not list((tmp_path / "tmp").iterdir())
    assert [path.name for path in bundle.folder.iterdir()] == ["status.json"]
    with pytest.raises(UserError, match="no monitor answers"):
        monitor.ask(bundle.folder, "state")


def test_the_monitors_exit_status_is_the_workloads(bundle: Bundle) -> None:
    """For a parent, or a subreaper as conmon is one: this test is it."""
    assert ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER
    try:
        bundle.create("sh", "-c", "exit 42")
        monitor.ask(bundle.folder, "start")
        assert os.waitstatus_to_exitcode(os.waitpid(bundle.pid, 0)[1]) == 42
    finally:
        ctypes.CDLL(None).prctl(36, 0, 0, 0, 0)


def test_signals_and_a_second_start(bundle: Bundle) -> None:
    bundle.create("sh", "-c", "trap 'echo got; exit 9' TERM; echo up; while :; do sleep 0.05; done")
    with pytest.raises(UserError, match="no signal"):
        monitor.ask(bundle.folder, "signal", number=15)
    monitor.ask(bundle.folder, "start")
    with pytest.raises(UserError, match="started before"):
        monitor.ask(bundle.folder, "start")
    wait_for(lambda: bundle.stdout == b"up\n")
    for nonsense in ({"number": 0}, {"number": "9"}, {"number": True}, {}):
        with pytest.raises(UserError, match="cannot be done"):
            monitor.ask(bundle.folder, "signal", **nonsense)
    with pytest.raises(UserError, match="cannot be done"):
        monitor.ask(bundle.folder, "fly")
    monitor.ask(bundle.folder, "signal", number=15)
    assert bundle.status()["exit_status"] == 9
    assert bundle.stdout == b"up\ngot\n"


@pytest.mark.parametrize("started", [True, False])
def test_stop(bundle: Bundle, *, started: bool) -> None:
    bundle.create("sleep", "1000")
    qemu = bundle.qemu
    if started:
        monitor.ask(bundle.folder, "start")
    assert monitor.ask(bundle.folder, "stop")["state"] == "stopped"
    assert bundle.status()["exit_status"] == (137 if started else 0)
    assert gone(qemu)


def test_qemu_does_not_outlive_its_monitor(bundle: Bundle) -> None:
    bundle.create("sleep", "1000")
    qemu = bundle.qemu
    monitor.ask(bundle.folder, "start")
    os.kill(bundle.pid, signal.SIGKILL)
    wait_for(lambda: gone(qemu))


def test_a_guest_that_dies_is_recorded(bundle: Bundle) -> None:
    bundle.create("sleep", "1000")
    monitor.ask(bundle.folder, "start")
    time.sleep(0.2)
    os.kill(bundle.qemu, signal.SIGKILL)
    status = bundle.status()
    assert status["exit_status"] == 125
    assert "ended before the workload" in status["error"]


@pytest.mark.parametrize(
    ("behaviour", "root", "status", "said"),
    [
        ("dies", None, 125, "refused GuestError QEMU ended before its agent spoke"),
        ("agent", "missing", 2, "refused UserError --rootfs"),
        ("raw:debug", None, 125, "the agent says that it runs as debug"),
    ],
)
def test_what_goes_wrong_while_it_is_created_is_the_callers(
    bundle: Bundle, tmp_path: Path, behaviour: str, root: str | None, status: int, said: str
) -> None:
    done = bundle.create("true", root=None if root is None else tmp_path / root, STANDIN=behaviour)
    assert done.returncode == status
    assert said in bundle.stderr
    assert "Traceback" not in bundle.stderr
    assert not list((tmp_path / "tmp").iterdir())


def test_a_client_that_says_nothing_holds_nobody_up(bundle: Bundle) -> None:
    bundle.create("sh", "-c", "exit 3")
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(bundle.folder / "monitor.sock"))
        assert monitor.ask(bundle.folder, "start")["state"] == "running"
    assert bundle.status()["exit_status"] == 3
