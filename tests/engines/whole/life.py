# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What happens to containers that stay: stopped, killed, paused, waited for, restarted, removed."""

import signal
import subprocess
import time

import pytest

from tests.engines.box import send, wait
from tests.engines.kit import Docker

TRAP = "trap 'echo asked; exit 4' TERM; trap 'echo other' USR1; echo ready; while :; do sleep 0.1; done"


def started(docker: Docker, *options: str, script: str = TRAP) -> str:
    name = docker.detached("--network=none", *options, argv=["sh", "-c", script])
    docker.until_log(name, "ready")
    return name


def test_stop(docker: Docker) -> None:
    name = started(docker)
    docker("stop", name)
    assert docker.inspect(name, ".State.ExitCode") == 4
    assert docker.inspect(name, ".State.Status") == "exited"
    assert docker.logs(name) == ("ready\nasked\n", "")


def test_stop_of_one_that_does_not_listen(docker: Docker) -> None:
    name = started(docker, script="trap '' TERM; echo ready; while :; do sleep 0.1; done")
    docker("stop", "--time=1", name)
    assert docker.inspect(name, ".State.ExitCode") == 137


def test_signals(docker: Docker) -> None:
    name = started(docker)
    docker("kill", "--signal=USR1", name)
    docker.until_log(name, "other")
    assert docker.inspect(name, ".State.Running") is True
    docker("kill", name)
    wait(lambda: not docker.inspect(name, ".State.Running"), why="the end")
    assert docker.inspect(name, ".State.ExitCode") == 137
    assert docker.box.run("docker", "kill", name).status == 1


def test_stop_signal(docker: Docker) -> None:
    name = started(
        docker, "--stop-signal=USR1", script="trap 'echo usr; exit 3' USR1; echo ready; while :; do sleep 0.1; done"
    )
    docker("stop", name)
    assert docker.inspect(name, ".State.ExitCode") == 3


def test_pause(docker: Docker) -> None:
    """A paused one makes no progress, says so, and goes on where it was."""
    name = started(docker, script="echo ready; i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done")
    docker("pause", name)
    assert docker.inspect(name, ".State.Status") == "paused"
    time.sleep(0.5)
    before = docker.logs(name)
    time.sleep(1)
    assert docker.logs(name) == before
    assert docker.box.run("docker", "exec", name, "true").status != 0
    docker("unpause", name)
    assert docker.inspect(name, ".State.Status") == "running"
    wait(lambda: docker.logs(name) != before, why="progress")


def test_logs_follow(docker: Docker) -> None:
    name = started(docker, script="echo ready; for i in 1 2 3; do sleep 0.3; echo $i; echo e$i >&2; done")
    done = docker.box.run("docker", "logs", "--follow", name)
    assert (done.text, done.complaint) == ("ready\n1\n2\n3\n", "e1\ne2\ne3\n")


def test_top(docker: Docker) -> None:
    lines = docker("top", started(docker)).splitlines()
    assert "PID" in lines[0]
    assert len(lines) >= 2


def test_wait(docker: Docker) -> None:
    name = started(docker, script="echo ready; sleep 2; exit 8")
    assert docker("wait", name) == "8"


def test_restart(docker: Docker) -> None:
    name = started(docker)
    before = docker.inspect(name, ".State.StartedAt")
    docker("restart", name)
    assert docker.inspect(name, ".State.StartedAt") != before
    wait(lambda: docker.logs(name)[0] == "ready\nasked\nready\n", why="a second life")


def test_start_again(docker: Docker) -> None:
    name = docker.detached("--network=none", argv=["sh", "-c", "echo again; exit 2"])
    docker("wait", name)
    assert docker.box.run("docker", "start", "--attach", name).status == 2
    assert docker.logs(name)[0] == "again\nagain\n"
    # The second time while it runs: nothing happens.
    name = started(docker)
    assert docker.box.run("docker", "start", name).status == 0


def test_restart_policy(docker: Docker) -> None:
    name = docker.detached("--network=none", "--restart=on-failure:2", argv=["sh", "-c", "echo try; exit 3"])
    wait(lambda: docker.inspect(name, ".State.Status") == "exited", why="the last try")
    assert docker.logs(name)[0] == "try\n" * 3
    assert docker.inspect(name, ".RestartCount") == 2


def test_restart_always(docker: Docker) -> None:
    name = started(docker, "--restart=always", script="echo ready; while ! rm /tmp/go 2>/dev/null; do sleep 0.1; done")
    docker("exec", name, "touch", "/tmp/go")
    wait(lambda: docker.logs(name)[0] == "ready\nready\n", why="another life")
    assert docker.inspect(name, ".RestartCount") == 1
    docker("stop", "--time=1", name)
    assert docker.inspect(name, ".State.Running") is False


def test_rm(docker: Docker) -> None:
    name = started(docker)
    done = docker.box.run("docker", "rm", name)
    assert done.status == 1
    docker("rm", "--force", name)
    assert docker("ps", "--all", "--quiet") == ""
    assert docker.run("--rm", "--network=none", argv=["true"]).status == 0
    assert docker("ps", "--all", "--quiet") == ""


@pytest.mark.parametrize("status", [0, 5])
def test_health_check(docker: Docker, status: int) -> None:
    """It is an exec, which an unprotected container's host may do."""
    name = started(docker, f"--health-cmd=exit {status}", "--health-interval=1s", "--health-retries=1")
    expected = "unhealthy" if status else "healthy"
    wait(lambda: docker.inspect(name, ".State.Health.Status") == expected, why=expected)


def test_update_and_stats(docker: Docker) -> None:
    name = started(docker)
    assert name[:12] in docker("stats", "--no-stream", "--no-trunc", name)


def test_interrupted_by_the_user(docker: Docker) -> None:
    """Ctrl-C at `docker run` without a terminal is handed on as a signal."""
    argv = docker.box.argv(*docker.words("--rm", "--network=none", argv=["sh", "-c", TRAP]))
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    send(process, signal.SIGTERM)
    assert process.communicate()[0] == b"asked\n"
    assert process.returncode == 4
