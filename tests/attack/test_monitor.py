# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The client of QEMU's monitor, against the real QEMU and against what is none."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.attack.guests.monitor import GoneError, Monitor, RefusedError


@pytest.fixture
def monitor(tmp_path: Path, qemu: Path) -> Iterator[Monitor]:
    """The monitor of a machine that is stopped before its first instruction."""
    door = "unix:qmp.sock,server=on,wait=off"
    argv = [str(qemu), "-nodefaults", "-display", "none", "-S", "-accel", "tcg", "-machine", "q35", "-qmp", door]
    with subprocess.Popen(argv, cwd=tmp_path, stdin=subprocess.DEVNULL) as process:
        try:
            with Monitor.connect(tmp_path / "qmp.sock", alive=lambda: process.poll() is None) as connected:
                yield connected
        finally:
            process.kill()


def test_what_a_command_returns(monitor: Monitor) -> None:
    assert monitor.status() == "prelaunch"
    assert "EIP=" in monitor.human("info registers")
    assert Path(f"/proc/{monitor.pid}/comm").read_text().startswith("qemu-system")


def test_a_command_that_qemu_refuses_and_one_that_it_takes_after_it(monitor: Monitor) -> None:
    with pytest.raises(RefusedError, match="no-such-driver"):
        monitor.execute("device_add", driver="no-such-driver")
    assert monitor.status() == "prelaunch"


def test_events_wait_until_they_are_asked_for(monitor: Monitor) -> None:
    monitor.execute("cont")
    monitor.execute("stop")
    assert monitor.event("STOP") == {}
    assert monitor.event("RESUME") == {}
    assert monitor.event("STOP", limit=0.1) is None
    monitor.execute("cont")
    monitor.execute("system_reset")
    assert monitor.event("RESET") == {"guest": False, "reason": "host-qmp-system-reset"}
    assert "RESUME" in monitor.drain()
    assert monitor.drain() == []


def test_a_qemu_that_ends(monitor: Monitor) -> None:
    monitor.execute("quit")
    with pytest.raises(GoneError, match="QEMU"):
        monitor.event("nothing of that name")


def test_nobody_and_somebody_else(tmp_path: Path) -> None:
    with pytest.raises(GoneError, match="nobody listens"):
        Monitor.connect(tmp_path / "qmp.sock", alive=lambda: False)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "other"))
        listener.listen(1)
        thread = threading.Thread(target=lambda: listener.accept()[0].sendall(b'{"hello": 1}\n'))
        thread.start()
        with pytest.raises(GoneError, match="no QMP server"):
            Monitor.connect(tmp_path / "other")
        thread.join()
