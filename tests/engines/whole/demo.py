# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`sev-launch demo` with a real docker and a bound guest; `memcheck` finds QEMU below a container's process."""

import json

from tests.engines.kit import Docker
from tests.engines.machine import OUT


def test_the_demonstration(dockerd: Docker) -> None:
    """To its end, and the memory is open: nothing here encrypts it."""
    words = ("demo", "--docker=yes", "--runtime=sev-enforce", f"--image={dockerd.image}")
    done = dockerd.box.run(f"{OUT}/sev-launch", *words)
    assert done.status == 1, done
    assert [line[0] for line in done.text.splitlines() if line[1:3] == ". "] == list("123456")
    assert "   uid=0(root) gid=0(root)" in done.text
    assert "plaintext: the marker, which only the guest made, can be read from this host" in done.text
    assert "\nThis machine encrypted nothing" in done.text
    # No container is left.
    assert "sev-demo-" not in dockerd("ps", "--all")


def test_memcheck_by_a_containers_process(dockerd: Docker) -> None:
    script = "marker=$(echo $MASKED | tr a-z n-za-m); echo ready; sleep 1000; echo $marker"
    masked, marker = "gur-znexre-bs-guvf-thrfg-nybar", "the-marker-of-this-guest-alone"
    docker = dockerd.using(next(runtime for runtime in dockerd.runtimes if runtime.name == "sev-enforce"))
    name = docker.detached("--network=none", f"--env=MASKED={masked}", argv=["sh", "-c", script])
    try:
        docker.until_log(name, "ready")
        pid = str(docker.inspect(name, ".State.Pid"))
        done = docker.box.run(f"{OUT}/sev-launch", "memcheck", "--json", "--pid", pid, "--marker", marker)
        assert json.loads(done.out)["verdict"] == "plaintext", done
    finally:
        docker("rm", "--force", name)
