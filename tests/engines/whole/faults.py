# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, and what the engine sees of it: nothing hangs, and nothing is left behind."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.box import Box, send, wait
from tests.engines.kit import Docker, Runtime, guests
from tests.engines.leaks import Rest

STAYS = ("sh", "-c", "echo ready; while :; do sleep 0.2; done")


@pytest.fixture
def sev(dockerd: Docker, runtimes: dict[str, Runtime]) -> Iterator[Docker]:
    """docker with our runtime; each test leaves nothing at all: no process, mount, interface, folder, group."""
    docker = dockerd.using(runtimes["sev"])
    # Once before: what stays for good (caches, the bridge) is there.
    docker.says("--rm", "--network=none", argv=["true"])
    before = Rest.of(docker.box)
    yield docker
    for name in docker("ps", "--all", "--quiet").split():
        docker("rm", "--force", name)
    before.check(docker.box)


def started(docker: Docker, *options: str) -> str:
    name = docker.detached("--network=none", *options, argv=STAYS)
    docker.until_log(name, "ready")
    return name


def qemu(box: Box) -> int:
    """QEMU's pid in the box: there is one guest."""
    found = guests(box)
    assert len(found) <= 1, found
    return next(iter(found), 0)


def test_qemu_dies_while_it_runs(sev: Docker) -> None:
    name = started(sev)
    sev.box.check("kill", "-KILL", str(qemu(sev.box)))
    wait(lambda: not sev.inspect(name, ".State.Running"), why="docker to see it")
    assert sev.inspect(name, ".State.ExitCode") != 0
    assert sev.box.run("docker", "exec", name, "true").status != 0
    # Started again it is a new guest.
    sev("start", name)
    wait(lambda: sev.logs(name)[0] == "ready\nready\n", why="its second life")


def test_qemu_dies_while_it_boots(sev: Docker) -> None:
    """`docker run` ends, with a reason."""
    argv = sev.box.argv(*sev.words("--rm", "--network=none", argv=STAYS))
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pid = wait(lambda: qemu(sev.box), why="QEMU")
    sev.box.check("kill", "-KILL", str(pid))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (125, b"") or process.returncode in {126, 127}, err
    assert b"OCI runtime create failed" in err
    assert b"the guest ended before its agent spoke" in err
    assert b"Traceback" not in err


def test_the_monitor_is_killed(sev: Docker) -> None:
    """No orphan: QEMU goes with it."""
    name = started(sev)
    sev.box.check("kill", "-KILL", str(sev.inspect(name, ".State.Pid")))
    wait(lambda: not sev.inspect(name, ".State.Running"), why="docker to see it")
    assert sev.inspect(name, ".State.ExitCode") == 137
    wait(lambda: not qemu(sev.box), why="QEMU's end")


def test_a_guest_that_hangs(sev: Docker) -> None:
    """QEMU stands still while it boots: after the time that is configured there is an end, and a reason."""
    slow = sev.using(Runtime(name="sev-hang", path=sev.runtime.path))
    argv = sev.box.argv(*slow.words("--rm", "--network=none", argv=STAYS))
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    pid = wait(lambda: qemu(sev.box), why="QEMU")
    sev.box.check("kill", "-STOP", str(pid))
    _, err = process.communicate(timeout=120)
    assert process.returncode in {125, 126, 127}, err
    assert b"OCI runtime create failed" in err
    assert b"no word from the guest's agent within 20 s" in err
    assert not qemu(sev.box)


def test_a_guest_that_hangs_is_killed(sev: Docker) -> None:
    """`docker kill` and `docker rm` need nothing of the guest."""
    name = started(sev)
    sev.box.check("kill", "-STOP", str(qemu(sev.box)))
    sev("kill", name)
    wait(lambda: not sev.inspect(name, ".State.Running"), why="its end")
    assert sev.inspect(name, ".State.ExitCode") == 137


def test_a_full_disk(sev: Docker, runtimes: dict[str, Runtime]) -> None:
    """While an image's disk is made: said, nothing half-made stays, and it works once there is room."""
    box = sev.box
    box.check("sh", "-euc", "mkdir -p /run/small && mount -t tmpfs -o size=1m small /run/small")
    try:
        done = sev.using(runtimes["sev-small"]).run("--rm", "--network=none", argv=["true"])
        assert done.status in {125, 126, 127}, done
        assert "No space left" in done.complaint
        assert "OCI runtime create failed" in done.complaint
        assert box.check("sh", "-c", "find /run/small -size +1 -type f") == ""
        box.check("mount", "-o", "remount,size=64m", "/run/small")
        assert sev.using(runtimes["sev-small"]).run("--rm", "--network=none", argv=["true"]).status == 0
    finally:
        box.check("sh", "-euc", "umount /run/small && rmdir /run/small")


def test_odd_names_and_long_ids(sev: Docker) -> None:
    """docker's ids have 64 digits, and its folders are deep: sockets have 107 bytes for their path at most."""
    name = started(sev, f"--name={'n' * 200}._-9")
    assert len(sev.inspect(name, ".Id")) == 64
    sev("exec", name, "true")


def test_dockerd_restarts(dockerd: Docker, sev: Docker) -> None:
    """Without live-restore containers end with the daemon; the restart policy starts them again."""
    again, once = started(sev, "--restart=always"), started(sev)
    dockerd.stop()
    assert not qemu(sev.box)
    dockerd.start()
    wait(lambda: sev.logs(again)[0] == "ready\nready\n", why="the one that is always started")
    assert sev.inspect(once, ".State.Running") is False


def test_live_restore(dockerd: Docker, sev: Docker) -> None:
    """With it they go on: the same guest, seen by the new daemon, which can do everything with it."""
    plain = dict(dockerd.settings)
    dockerd.stop()
    dockerd.settings = {**plain, "live-restore": True}
    dockerd.start()
    try:
        name = started(sev)
        pid = qemu(sev.box)
        dockerd.stop()
        assert qemu(sev.box) == pid
        dockerd.start()
        assert sev.inspect(name, ".State.Running") is True
        sev("exec", name, "true")
        sev("stop", "--time=1", name)
        # One that ends while no daemon is there.
        other = started(sev)
        dockerd.stop()
        sev.box.check("kill", "-KILL", str(qemu(sev.box)))
        dockerd.start()
        wait(lambda: not sev.inspect(other, ".State.Running"), why="docker to see it")
        sev("rm", "--force", name, other)
    finally:
        dockerd.stop()
        dockerd.settings = plain
        dockerd.start()


def test_fifty_one_after_the_other(sev: Docker) -> None:
    for number in range(50):
        done = sev.run("--rm", "--network=none", argv=["sh", "-c", f"exit {number}"])
        assert (done.status, done.complaint) == (number, "")


def test_eight_at_once(sev: Docker) -> None:
    argv = [sev.box.argv(*sev.words("--rm", argv=["sh", "-c", f"echo {n}; exit {n}"])) for n in range(8)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE) for words in argv]
    assert [process.communicate()[0] for process in started] == [f"{n}\n".encode() for n in range(8)]
    assert [process.returncode for process in started] == list(range(8))


def test_interrupted_at_twenty_moments(sev: Docker) -> None:
    """The client is killed, the container removed: at moments spread over a whole run, and one after it."""
    begin = time.monotonic()
    sev.says("--rm", "--network=none", argv=["true"])
    took = time.monotonic() - begin
    for number in range(20):
        name = f"moment{number}"
        argv = sev.box.argv(*sev.words("--rm", f"--name={name}", "--network=none", argv=["sleep", "0.3"]))
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(took * number / 18)
        send(process, signal.SIGKILL if number % 2 else signal.SIGINT)
        process.wait(timeout=60)
        sev.box.run("docker", "rm", "--force", name)
        wait(lambda: sev("ps", "--all", "--quiet") == "", limit=60, why="the container to be gone")


def test_the_hosts_clock_jumps(sev: Docker, runtimes: dict[str, Runtime], repro_tree: Path) -> None:
    """Ten days ahead while a guest boots, and back while it runs: no limit runs out, and all goes on."""
    box = sev.box
    shutil.copy(next(iter(sorted(repro_tree.glob("usr/lib/*/faketime/libfaketime.so.1")))), box.share)
    (box.share / "time").write_text("+0")
    argv = box.argv(*sev.using(runtimes["sev-clock"]).words("--detach", "--network=none", "--name=clock", argv=STAYS))
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
    wait(lambda: qemu(box), why="QEMU")
    (box.share / "time").write_text("+10d")
    environment = ("LD_PRELOAD=/srv/libfaketime.so.1", "FAKETIME_TIMESTAMP_FILE=/srv/time")
    ahead = int(box.run("date", "+%s", env=environment).text) - int(box.check("date", "+%s"))
    assert ahead > 9 * 86400, "the clock does not jump"
    assert process.wait(timeout=180) == 0
    sev.until_log("clock", "ready")
    (box.share / "time").write_text("-10d")
    assert sev("exec", "clock", "echo", "still") == "still"
    sev("stop", "--time=1", "clock")
    assert sev.inspect("clock", ".State.ExitCode") in {137, 143}
    # The library's own, of every process that has it.
    sev("rm", "clock")
    box.check("sh", "-c", "rm -f /dev/shm/*faketime*")
