# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Each engine starts containers with our runtime: a short part of `./doit test_engines`, which is whole/.

What is expected is first seen to hold with runc or crun. Nothing stays in the box behind a container.
"""

from pathlib import Path

import pytest

from tests.engines.kit import Containerd, Docker, Engine, Podman, Runtime
from tests.engines.leaks import Rest
from tests.engines.whole.conftest import NAMES
from tests.launcher.terminal_kit import Desk


def shell(engine: Engine, folder: Path, *options: str) -> None:
    """A shell at a terminal."""
    desk = Desk(engine.box.argv(*engine.words("--rm", *options, argv=["sh"]), env=["TERM=vt100"]), cwd=folder)
    try:
        desk.until(b"# ")
        desk.resize_the_shell(17, 63)
        desk.type(b"id -u\n", b"0\r\n")
        desk.type(b"exit 5\n", b"")
        assert desk.process.wait(180) == 5
    finally:
        desk.close()


@pytest.mark.parametrize("name", NAMES)
def test_docker(dockerd: Docker, runtimes: dict[str, Runtime], name: str, tmp_path: Path) -> None:
    docker = dockerd.using(runtimes[name])
    assert docker.says("--rm", "-i", argv=["md5sum"], stdin=b"data\n") == "6137cde4893c59f76f005a8123d8e8e6  -\n"
    before = Rest.of(docker.box)
    done = docker.run("--rm", "--network=none", argv=["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.status, done.out, done.err) == (7, b"out\n", b"err\n")
    shell(docker, tmp_path, "-ti", "--network=none")
    web = docker.detached("--publish=8080:80", argv=["sh", "-c", "echo ready; httpd -f -p 80 -h /var/www"])
    docker.until_log(web, "ready")
    page = docker.box.check("curl", "--silent", "--retry", "20", "--retry-all-errors", "--retry-delay", "1",
                            "--max-time", "60", "http://127.0.0.1:8080/")  # fmt: skip
    assert page == "a page of the image\n"
    assert docker("exec", web, "cat", "/var/www/index.html") == "a page of the image"
    docker("stop", "--time=1", web)
    assert docker.inspect(web, ".State.ExitCode") in {137, 143}
    docker("rm", web)
    before.check(docker.box)


@pytest.mark.parametrize("name", [name.replace("runc", "crun") for name in NAMES])
def test_podman(podman_engine: Podman, runtimes: dict[str, Runtime], name: str, tmp_path: Path) -> None:
    podman = podman_engine.using(runtimes[name])
    done = podman.run("--rm", "-i", argv=["sh", "-c", "md5sum; echo err >&2; exit 7"], stdin=b"data\n")
    assert (done.status, done.text, done.err) == (7, "6137cde4893c59f76f005a8123d8e8e6  -\n", b"err\n")
    shell(podman, tmp_path, "-ti", "--network=none")


@pytest.mark.parametrize("name", NAMES)
def test_containerd(containerd_engine: Containerd, runtimes: dict[str, Runtime], name: str, tmp_path: Path) -> None:
    containerd = containerd_engine.using(runtimes[name])
    done = containerd.run("--rm", argv=["sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (done.status, done.out, done.err) == (7, b"out\n", b"err\n")
    desk = Desk(containerd.box.argv(*containerd.words("--rm", "-t", argv=["sh"])), cwd=tmp_path)
    try:
        desk.until(b"# ")
        desk.type(b"echo $((40+2))\n", b"42\r")
        desk.type(b"exit 5\n", b"")
        assert desk.process.wait(180) == 5
    finally:
        desk.close()
