# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-runtime install`: engines take what it writes, and start containers by the name that it gives."""

import signal

from tests.engines import machine
from tests.engines.box import wait
from tests.engines.kit import Containerd, Docker, Podman, Runtime

PROGRAM = f"{machine.OUT}/sev-runtime"
INSTALL = (PROGRAM, "install")


def test_docker_learns_of_it_and_shows_the_demonstration(dockerd: Docker) -> None:
    """A reload is enough; what stood in the file before stays. Then `sev-launch demo` starts its guest with docker."""
    before = dockerd.box.read("/etc/docker/daemon.json")
    assert "sev-runtime" not in dockerd("info", "--format", "{{json .Runtimes}}").replace(PROGRAM, "")
    dockerd.box.check(*INSTALL, "--docker", "--write")
    try:
        dockerd.box.check("sh", "-c", f"kill -{signal.SIGHUP} $(cat /run/docker.pid)")
        wait(lambda: '"sev-runtime":' in dockerd("info", "--format", "{{json .Runtimes}}"), why="the reload")
        ours = dockerd.using(Runtime(name="sev-runtime", path=PROGRAM))
        assert ours.says("--rm", "--network=none", argv=["echo", "here"]) == "here\n"
        assert "sev-enforce" in dockerd("info", "--format", "{{json .Runtimes}}")
        # The original's steps, to their end; it says that nothing is encrypted here.
        dockerd("tag", dockerd.image, "busybox:latest")
        done = dockerd.box.run(f"{machine.OUT}/sev-launch", "demo", "--docker", "yes", limit=900)
        # 1: it ran to its end, and the memory is open, which is so here.
        assert (done.status, done.err) == (1, b""), done
        assert "plaintext: the marker, which only the guest made, can be read from this host" in done.text
    finally:
        dockerd.box.write("/etc/docker/daemon.json", before)
        dockerd.box.check("sh", "-c", f"kill -{signal.SIGHUP} $(cat /run/docker.pid)")


def test_podman_knows_its_name(podman_engine: Podman) -> None:
    box = podman_engine.box
    argv = ("podman", "--runtime=installed", "run", "--rm", "--network=none", podman_engine.image, "echo", "here")
    assert box.run(*argv).status != 0
    box.check(*INSTALL, "--podman", "--name", "installed", "--write")
    try:
        assert box.check(*argv) == "here\n"
    finally:
        box.check("rm", "/etc/containers/containers.conf.d/sev-runtime.conf")


def test_containerd_reads_what_is_written(containerd_engine: Containerd) -> None:
    """For CRI, which nothing here speaks: containerd has the runtime in its configuration."""
    box = containerd_engine.box
    box.write("/etc/containerd/config.toml", 'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n')
    assert PROGRAM not in box.check("containerd", "config", "dump")
    box.check(*INSTALL, "--containerd", "--write")
    try:
        assert PROGRAM in box.check("containerd", "config", "dump")
    finally:
        box.check("rm", "/etc/containerd/conf.d/sev-runtime.toml", "/etc/containerd/config.toml")
