# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What goes wrong below a container: QEMU or the monitor is killed, hooks fail, callers leave."""

import json
import os
import signal
import stat
import subprocess
from pathlib import Path

import pytest

from tests.runtime.life.lab import Lab, gone, kill_now, wait


def test_qemu_that_dies_ends_the_container_with_a_status_and_a_reason(lab: Lab) -> None:
    one = lab.script("echo up; sleep 1000").started()
    one.until(b"up")
    kill_now(one.qemu)
    assert one.ended() == 137
    assert "QEMU ended before the workload ended" in str(lab.logged()[-1]["msg"])
    record = json.loads((lab.root / one.name / "exit.json").read_text())
    assert record["exit_status"] == 137
    lab.says("delete", one.name)


def test_qemu_that_dies_while_booting_ends_create(lab: Lab, tmp_path: Path) -> None:
    broken = tmp_path / "qemu"
    broken.write_text(
        '#!/bin/sh\ncase "$*" in *-append*) echo broken >&2; exit 3;; *-version*) echo version 9.9.9;; esac\n'
    )
    broken.chmod(0o755)
    tmp_path.chmod(0o755)
    lab.config.write_text("\n".join(
        f'qemu = "{broken}"' if line.startswith("qemu") else line for line in lab.config.read_text().splitlines()
    ))  # fmt: skip
    one = lab.script("true")
    assert one.create().returncode == 1
    message = str(lab.logged()[-1]["msg"])
    assert "QEMU ended before its agent spoke" in message
    assert not list(lab.root.iterdir())


def test_a_monitor_that_is_killed_leaves_no_qemu(lab: Lab) -> None:
    one = lab.script("sleep 1000").started()
    qemu = one.qemu
    kill_now(one.pid)
    assert one.ended() == -signal.SIGKILL
    wait(lambda: gone(qemu))
    assert one.state["status"] == "stopped"
    assert "is stopped" in lab.refuses("kill", one.name, "9")
    lab.says("delete", one.name)
    assert not list(lab.root.iterdir())


def test_delete_by_force_of_one_that_runs(lab: Lab, reachable: Path) -> None:
    one = lab.script("sleep 1000").started()
    qemu = one.qemu
    lab.says("delete", "--force", one.name)
    assert one.ended() == -signal.SIGKILL
    wait(lambda: gone(qemu))
    assert not list(lab.root.iterdir())
    assert not list(reachable.iterdir())


def test_create_that_is_killed_leaves_no_process(lab: Lab) -> None:
    one = lab.script("true")
    words = lab.words("create", "--bundle", one.bundle, "--pid-file", one.bundle / "pid", one.name)
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as it:
        wait((lab.root / one.name / "monitor").exists)
        monitor = int((lab.root / one.name / "monitor").read_text().split()[0])
        it.kill()
    wait(lambda: gone(monitor), seconds=10)
    os.waitpid(monitor, 0)
    lab.says("delete", "--force", one.name)
    assert not list(lab.root.iterdir())


def test_a_start_that_takes_too_long_says_so(lab: Lab) -> None:
    lab.config.write_text(lab.config.read_text() + "timeout = 1\n")
    one = lab.script("true")
    if one.create().returncode == 0:
        pytest.fail("a guest came up within a second under emulation")
    assert "within 1 s" in str(lab.logged()[-1]["msg"])


def _hook(folder: Path, name: str, script: str) -> dict[str, object]:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"path": str(path), "args": [name, "word"], "env": ["KEY=value"]}


def test_hooks_run_in_their_order_with_the_state(lab: Lab, tmp_path: Path) -> None:
    log = tmp_path / "hooks.log"

    def hook(name: str) -> list[dict[str, object]]:
        return [_hook(tmp_path, name, f'state=$(cat); echo "{name} $1 $KEY $state" >>{log}')]

    kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    one = lab.script("exit 0", hooks={kind: hook(kind) for kind in kinds}).created()
    assert [line.split()[0] for line in log.read_text().splitlines()] == kinds[:3]
    lab.says("start", one.name)
    assert one.ended() == 0
    lab.says("delete", one.name)
    lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
    assert [line[0] for line in lines] == kinds
    assert {(line[1], line[2]) for line in lines} == {("word", "value")}
    states = [json.loads(line[3]) for line in lines]
    assert [state["status"] for state in states] == ["creating", "creating", "creating", "running", "stopped"]
    assert {state["pid"] for state in states} == {one.pid}
    assert {state["id"] for state in states} == {one.name}


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_hook_that_fails_ends_create_and_poststop_hooks_run(lab: Lab, tmp_path: Path, kind: str) -> None:
    hooks = {
        kind: [_hook(tmp_path, "fails", "echo why >&2; exit 3")],
        "poststop": [_hook(tmp_path, "bad", "exit 1"), _hook(tmp_path, "after", f"cat >{tmp_path}/after.json")],
    }
    one = lab.script("true", hooks=hooks)
    assert one.create().returncode == 1
    assert f"hook {kind}[0]" in str(lab.logged()[-1]["msg"])
    assert "status 3: why" in str(lab.logged()[-1]["msg"])
    assert json.loads((tmp_path / "after.json").read_text())["status"] == "stopped"
    assert not list(lab.root.iterdir())


def test_a_poststart_hook_that_fails_ends_the_container(lab: Lab, tmp_path: Path) -> None:
    one = lab.script("sleep 1000", hooks={"poststart": [_hook(tmp_path, "fails", "exit 1")]}).created()
    assert "hook poststart[0]" in lab.refuses("start", one.name)
    assert one.ended() == 137


def test_a_hook_has_its_time_and_those_of_the_guest_are_refused(lab: Lab, tmp_path: Path) -> None:
    slow = _hook(tmp_path, "slow", "exec sleep 100") | {"timeout": 1}
    assert lab.script("true", hooks={"prestart": [slow]}).create().returncode == 1
    assert "longer than its 1 s" in str(lab.logged()[-1]["msg"])
    assert lab.script("true", hooks={"startContainer": [slow]}).create().returncode == 1
    assert "startContainer" in str(lab.logged()[-1]["msg"])
