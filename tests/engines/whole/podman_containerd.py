# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""podman as root and as somebody else, and containerd with its client ctr: what docker's tests show, in short."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines.box import wait
from tests.engines.kit import Containerd, Podman, Runtime
from tests.engines.whole.conftest import NAMES
from tests.launcher.terminal_kit import Desk


@pytest.fixture(params=[name.replace("runc", "crun") for name in NAMES])
def podman(request: pytest.FixtureRequest, podman_engine: Podman, runtimes: dict[str, Runtime]) -> Iterator[Podman]:
    """podman; a test leaves no container."""
    podman = podman_engine.using(runtimes[request.param])
    yield podman
    podman("rm", "--all", "--force", "--time=0")


@pytest.fixture(params=NAMES)
def containerd(
    request: pytest.FixtureRequest, containerd_engine: Containerd, runtimes: dict[str, Runtime]
) -> Containerd:
    return containerd_engine.using(runtimes[request.param])


def test_podman_streams_and_status(podman: Podman) -> None:
    blob = bytes(range(256)) * 4096
    done = podman.run("--rm", "-i", argv=["sh", "-c", "cat; echo err >&2; exit 7"], stdin=blob)
    assert (done.status, done.out == blob, done.err) == (7, True, b"err\n")


def test_podman_terminal(podman: Podman, tmp_path: Path) -> None:
    desk = Desk(podman.box.argv(*podman.words("--rm", "-ti", argv=["sh"])), cwd=tmp_path)
    try:
        desk.until(b"# ")
        desk.resize_the_shell(17, 63)
        desk.type(b"exit 5\n", b"")
        assert desk.end() == 5
    finally:
        desk.close()


def test_podman_life(podman: Podman) -> None:
    script = "trap 'echo asked; exit 4' TERM; echo ready; while :; do sleep 0.1; done"
    name = podman.detached("--name=one", argv=["sh", "-c", script])
    podman.until_log(name, "ready")
    done = podman.box.run("podman", "exec", "-i", "one", "sh", "-c", "cat; exit 6", stdin=b"in")
    assert (done.status, done.out) == (6, b"in")
    podman("pause", "one")
    assert podman.inspect("one", ".State.Status") == "paused"
    podman("unpause", "one")
    podman("stop", "one")
    assert podman.inspect("one", ".State.ExitCode") == 4
    assert podman.logs("one")[0] == "ready\nasked\n"
    podman("start", "one")
    wait(lambda: podman.logs("one")[0] == "ready\nasked\nready\n", why="a second life")
    podman("kill", "one")
    assert podman("wait", "one") == "137"


def test_podman_options(podman: Podman) -> None:
    options = ("--user=33:29", "--env=A=b", "--workdir=/var", "--hostname=h", "--read-only", "--tmpfs=/t:size=1m",
               "--cap-drop=all", "--volume=/srv/folder:/data:ro")  # fmt: skip
    podman.box.write("/srv/folder/one", "first\n")
    script = "id -u; id -g; echo $A; pwd; hostname; touch /x 2>&1; cat /data/one; grep CapEff /proc/self/status"
    lines = podman.says("--rm", *options, argv=["sh", "-c", script]).splitlines()
    assert lines == ["33", "29", "b", "/var", "h", "touch: /x: Read-only file system", "first",
                     "CapEff:\t0000000000000000"]  # fmt: skip


def test_podman_defaults(podman_engine: Podman, runtimes: dict[str, Runtime]) -> None:
    """Capabilities and filter are the engine's own, whichever they are; limits may be its host's."""
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status; umask; env | sort"
    found = [
        podman_engine.using(runtimes[name]).says("--rm", "--hostname=h", argv=["sh", "-c", script])
        for name in ("crun", "sev")
    ]
    assert found[1] == found[0]


def test_podman_publishes(podman: Podman) -> None:
    name = podman.detached("--publish=8081:80", argv=["sh", "-c", "echo ready; httpd -f -p 80 -h /var/www"])
    podman.until_log(name, "ready")
    page = "curl --silent --max-time 60 http://127.0.0.1:8081/"
    wait(lambda: podman.box.run("sh", "-c", page).text == "a page of the image\n", why="the page")


def test_podman_pod_is_refused(podman_engine: Podman, runtimes: dict[str, Runtime]) -> None:
    """Containers of a pod share namespaces, which guests cannot."""
    podman_engine("pod", "create", "--infra=false", "--name=pod")
    done = podman_engine.using(runtimes["sev"]).run("--rm", "--network=host", argv=["true"])
    podman_engine("pod", "rm", "pod")
    assert (done.status in {125, 126, 127}, "network" in done.complaint) == (True, True), done


def test_podman_rootless(podman_engine: Podman, runtimes: dict[str, Runtime]) -> None:
    """Of somebody who is not root: with crun it runs, ours says that it does not."""
    box = podman_engine.box
    home, run = "/var/lib/someone", "/run/user/1000"
    box.check("sh", "-euc", f"mkdir -p {home} {run}; chown 1000:1000 {home} {run}; chmod 700 {run}")
    env = (f"HOME={home}", f"XDG_RUNTIME_DIR={run}")
    assert box.run("podman", "load", "-i", "/srv/image.tar", user=1000, env=env).status == 0
    options = ("--rm", "--network=none", "--cgroups=disabled")
    words = podman_engine.using(runtimes["crun"]).words(*options, argv=["id", "-u"])
    assert box.run(*words, user=1000, env=env).text == "0\n"
    words = podman_engine.using(runtimes["sev"]).words("--rm", "--network=none", argv=["id", "-u"])
    done = box.run(*words, user=1000, env=env)
    assert (done.status, done.text) == (0, "0\n") or "rootless" in done.complaint, done
    assert "Traceback" not in done.complaint


def test_containerd_streams_and_status(containerd: Containerd) -> None:
    done = containerd.run("--rm", argv=["sh", "-c", "id -u; echo err >&2; exit 7"])
    assert (done.status, done.out, done.err) == (7, b"0\n", b"err\n")


def test_containerd_terminal(containerd: Containerd, tmp_path: Path) -> None:
    desk = Desk(containerd.box.argv(*containerd.words("--rm", "-t", argv=["sh"])), cwd=tmp_path)
    try:
        desk.until(b"# ")
        desk.until(b"# ")
        desk.type(b"stty size\n", b"31 97")
        desk.type(b"exit 5\n", b"")
        assert desk.process.wait(180) == 5
    finally:
        desk.close()


def test_containerd_tasks(containerd: Containerd) -> None:
    """Exec, pause, kill, delete by themselves."""
    words = containerd.words("--detach", argv=["sh", "-c", "while :; do sleep 0.1; done"])
    name = words[-4]
    ctr = ("ctr", "tasks")
    containerd.box.check(*words)
    try:
        done = containerd.box.run(*ctr, "exec", "--exec-id=e1", name, "sh", "-c", "echo out; exit 3")
        assert (done.status, done.out) == (3, b"out\n")
        containerd.box.check(*ctr, "pause", name)
        assert "PAUSED" in containerd.box.check(*ctr, "ls")
        containerd.box.check(*ctr, "resume", name)
        assert len(containerd.box.check(*ctr, "ps", name).splitlines()) >= 2
        containerd.box.check(*ctr, "kill", "--signal=KILL", name)
        wait(lambda: "STOPPED" in containerd.box.check(*ctr, "ls"), why="its end")
    finally:
        containerd.box.run(*ctr, "kill", "--signal=KILL", name)
        containerd.box.run(*ctr, "delete", "--force", name)
        containerd.box.check("ctr", "containers", "delete", name)
