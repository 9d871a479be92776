# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From create to delete, as the OCI runtime specification has it (runtime.md), on real guests."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.runtime.life.lab import Lab, gone, wait


def test_a_container_from_create_to_delete(lab: Lab) -> None:
    """Streams are separate and exact, the status is the workload's, and nothing is left."""
    read, write = os.pipe()
    one = lab.script("cat; echo err >&2; exit 7").created(stdin=read)
    os.close(read)
    assert (one.bundle / "pid").read_bytes() == str(one.pid).encode()  # without a newline
    assert one.state["status"] == "created"
    assert one.state["pid"] == one.pid
    assert one.state["id"] == one.name
    assert one.state["ociVersion"] == "1.2.0"
    assert one.state["bundle"] == str(one.bundle)
    qemu = one.qemu
    assert os.getsid(one.pid) == one.pid
    assert one.stdout == b""
    # What the engine changes in the bundle now has no effect.
    (one.bundle / "config.json").write_text("{}")
    lab.says("start", one.name)
    assert one.state["status"] == "running"
    os.write(write, bytes(range(256)))
    os.close(write)
    assert one.ended() == 7
    assert one.stdout == bytes(range(256))
    assert one.stderr == "err\n"
    assert one.state["status"] == "stopped"
    assert gone(qemu)
    lab.says("delete", one.name)
    assert not list(lab.root.iterdir())
    assert "no such container" in lab.refuses("state", one.name)
    assert "no such container" in lab.refuses("delete", one.name)
    lab.says("delete", "--force", one.name)  # as engines do to be sure


def test_what_may_not_be_done_in_a_state(lab: Lab) -> None:
    one = lab.script("trap 'exit 9' TERM; echo up; while :; do sleep 0.1; done").created()
    assert "exists" in lab.refuses("create", "--bundle", one.bundle, one.name)
    assert "cannot be deleted: it is created" in lab.refuses("delete", one.name)
    assert "not running" in lab.refuses("pause", one.name)
    lab.says("start", one.name)
    assert "started before" in lab.refuses("start", one.name)
    assert "cannot be deleted: it is running" in lab.refuses("delete", one.name)
    assert "not paused" in lab.refuses("resume", one.name)
    one.until(b"up\n")
    lab.says("pause", one.name)
    assert one.state["status"] == "paused"
    lab.says("resume", one.name)
    one.kill(19)
    wait(lambda: Path(f"/proc/{one.qemu}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    one.kill(18)
    one.kill(15)
    assert one.ended() == 9
    assert "it is stopped" in lab.refuses("kill", one.name, "15")
    assert "is stopped" in lab.refuses("start", one.name)
    assert "is no signal" in lab.refuses("kill", one.name, "NONE")


@pytest.mark.parametrize(("signal", "status"), [("KILL", -9), ("SIGTERM", 143)])
def test_a_container_that_was_never_started_is_killed(lab: Lab, signal: str, status: int) -> None:
    one = lab.script("true").created()
    qemu = one.qemu
    lab.says("kill", "--all", one.name, signal)
    assert one.ended() == status
    wait(lambda: gone(qemu))
    lab.says("delete", one.name)


def test_what_cannot_be_run_ends_the_start_with_the_words_that_engines_look_for(lab: Lab) -> None:
    for name, argv, words, status in (
        ("a", ["nosuch"], 'exec: "nosuch": executable file not found in $PATH', 127),
        ("b", ["/etc"], "permission denied", 126),
    ):
        one = lab.container(argv, name=name).created()
        assert words in lab.refuses("start", name)
        # Gone already: engines delete it at once.
        assert one.state["status"] == "stopped"
        assert one.ended() == status
        lab.says("delete", name)


@pytest.mark.parametrize("name", ["a", "with.dots_and+more-", "l" * 255])
def test_odd_and_long_ids(lab: Lab, name: str) -> None:
    """The state folder's path is longer than a socket's may be (108 bytes)."""
    one = lab.script("exit 3", name=name).started()
    assert one.ended() == 3
    lab.says("delete", name)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "ü", "a b", "l" * 256, "a\n"])
def test_ids_that_are_none(lab: Lab, name: str) -> None:
    one = lab.script("true", name=name)
    assert one.create().returncode == 1
    assert "is no container id" in str(lab.logged()[-1]["msg"])
    assert not lab.root.exists()
    lab.containers.clear()


def test_a_create_that_fails_leaves_nothing(lab: Lab) -> None:
    one = lab.script("true", linux={"namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")]})
    assert one.create().returncode == 1
    assert "the host's network" in str(lab.logged()[-1]["msg"])
    assert not lab.root.exists() or not list(lab.root.iterdir())


def test_an_unprotected_start_is_said_each_time_and_a_protected_one_refused_here(lab: Lab) -> None:
    one = lab.script("true").started()
    assert one.ended() == 0
    said = [line for line in lab.logged() if line["level"] == "warning"]
    assert any("UNPROTECTED, NOT ENCRYPTED" in line["msg"] for line in said)
    assert "UNPROTECTED" not in one.stderr
    lab.config.write_text(lab.config.read_text().replace('protection = "unprotected"\n', ""))
    two = lab.script("true", name="two")
    assert two.create().returncode == 1
    assert "this host cannot run a container in mode snp" in str(lab.logged()[-1]["msg"])


def test_the_disk_full_while_an_image_is_made(lab: Lab, small_disk: Path) -> None:
    lab.config.write_text(lab.config.read_text() + f'cache = "{small_disk}"\n')
    text = lab.config.read_text().splitlines()
    lab.config.write_text("\n".join(line for n, line in enumerate(text) if n != 4) + "\n")
    one = lab.script("true")
    assert one.create().returncode == 1
    assert "No space left" in str(lab.logged()[-1]["msg"])
    assert not list(lab.root.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path):  # type: ignore[no-untyped-def]
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "small", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_control_groups_are_made_with_their_limits_and_removed(lab: Lab) -> None:
    """Of version 1, as this machine has them; a guest that fills its memory is not killed by its own group."""
    path = f"/sev-runtime-test-{os.getpid()}/one"
    resources = {"memory": {"limit": 256 << 20}, "cpu": {"quota": 150_000, "period": 100_000}}
    linux = {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
        "cgroupsPath": path,
        "resources": resources,
    }
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/big", "type": "tmpfs", "source": "tmpfs", "options": ["size=1000m"]},
    ]
    script = "nproc; head -n 1 /proc/meminfo; dd if=/dev/zero of=/big/x bs=1M; rm -f /big/x; echo after"
    one = lab.script(f"({script}) 2>/dev/null; sleep 1000", linux=linux, mounts=mounts).started()
    memory = Path("/sys/fs/cgroup/memory" + path)
    assert {one.pid, one.qemu} <= set(map(int, (memory / "cgroup.procs").read_text().split()))
    assert int((memory / "memory.limit_in_bytes").read_text()) == (256 + 512) << 20
    assert int(Path(f"/sys/fs/cgroup/cpu{path}/cpu.cfs_quota_us").read_text()) == 150_000
    one.until(b"after")
    assert one.stdout.startswith(b"2\nMemTotal:")
    assert int((memory / "memory.failcnt").read_text()) == 0
    lab.says("delete", "--force", one.name)
    assert one.ended() == -9
    assert not memory.exists()
    for folder in Path("/sys/fs/cgroup").glob(f"*/sev-runtime-test-{os.getpid()}"):
        folder.rmdir()


def test_features_are_json_of_the_specification(lab: Lab) -> None:
    found = json.loads(lab.says("features"))
    assert found["ociVersionMin"] == "1.0.0"
    assert "startContainer" not in found["hooks"]
    assert b"spec: 1.2.0" in lab.says("--version")
