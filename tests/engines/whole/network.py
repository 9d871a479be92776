# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Networks of docker: addresses, names, published ports, none at all, and what travels through them."""

import json
from collections.abc import Iterator

import pytest

from tests.engines.kit import Docker, Runtime

SERVE = "httpd -p 80 -h /var/www; echo ready; while :; do sleep 1; done"
# Says when it has sent all, and waits until the other end has read it.
SEND = """
import socket, sys
left, block = int(sys.argv[1]), bytes(1 << 20)
with socket.create_connection(("127.0.0.1", 9000)) as other:
    while left:
        left -= other.send(block[:left])
    other.shutdown(socket.SHUT_WR)
    while other.recv(1 << 16):
        pass
"""
LISTENS = "until netstat -ltn | grep -q :9000; do sleep 0.1; done"
LINK = "ip -o link show eth0 | grep -Eo 'mtu [0-9]+|link/ether [^ ]*'; ip -o addr show eth0 | awk '{print $3, $4, $6}'"
ROUTES = "ip route; ip -6 route show default; ip -6 addr show dev eth0 scope global | grep -o 'inet6 [^ ]*'"


@pytest.fixture
def net(dockerd: Docker) -> Iterator[str]:
    """A user-defined network with IPv4 and IPv6, its own MTU."""
    name = "lan"
    dockerd("network", "create", "--ipv6", "--subnet=fd00:5ef::/64", "--subnet=10.123.0.0/24",
            "--opt=com.docker.network.driver.mtu=1400", name)  # fmt: skip
    yield name
    for one in dockerd("ps", "--all", "--quiet").split():
        dockerd("rm", "--force", one)
    dockerd("network", "rm", name)


def serving(docker: Docker, *options: str) -> str:
    name = docker.detached(*options, argv=["sh", "-c", SERVE])
    docker.until_log(name, "ready")
    return name


def test_a_published_port(docker: Docker) -> None:
    serving(docker, "--publish=8080:80")
    for host in ("127.0.0.1", "[::1]"):
        argv = ("curl", "--silent", "--show-error", "--max-time", "60", f"http://{host}:8080/")
        assert docker.box.check(*argv) == "a page of the image\n"


def test_a_hundred_requests_at_once(docker: Docker) -> None:
    serving(docker, "--publish=8080:80")
    # curl makes up to --parallel-max at once.
    many = ("--parallel", "--parallel-immediate", "--parallel-max", "100", "--max-time", "120", "--no-keepalive")
    url = "http://127.0.0.1:8080/index.html?[1-100]"
    done = docker.box.run("curl", "--silent", "--show-error", *many, url)
    assert (done.status, done.text) == (0, "a page of the image\n" * 100), done.complaint


def test_what_the_interface_has(dockerd: Docker, runtimes: dict[str, Runtime], net: str) -> None:
    """Address, MAC, MTU and routes are those that the engine gave, as inspect has them."""
    fixed = (f"--network={net}", "--ip=10.123.0.77", "--ip6=fd00:5ef::77", "--mac-address=02:42:00:00:00:77")
    answers = []
    for name in ("runc", "sev"):
        argv = ["sh", "-c", f"sleep 2; {LINK}; {ROUTES}"]
        answers.append(dockerd.using(runtimes[name]).says("--rm", *fixed, argv=argv).splitlines())
    # The guest asks for names at a link-local address, where the engine's server is reached (docs/runtime-network.md).
    assert sorted(line for line in answers[1] if "169.254.53." not in line) == sorted(answers[0])
    assert {"mtu 1400", "link/ether 02:42:00:00:00:77"} <= set(answers[0])


def test_three_containers_by_name(dockerd: Docker, runtimes: dict[str, Runtime], net: str) -> None:
    """Two of ours and one of runc reach each other, each as client and as server."""
    kinds = {"one": "sev", "two": "sev", "three": "runc"}
    for name, kind in kinds.items():
        serving(dockerd.using(runtimes[kind]), f"--name={name}", f"--network={net}", "--network-alias=any")
    for client in kinds:
        for server in kinds:
            page = dockerd("exec", client, "wget", "-T", "60", "-qO-", f"http://{server}/")
            assert page == "a page of the image", (client, server)


def test_a_network_that_is_taken_away(docker: Docker, net: str) -> None:
    """Who is on another network cannot be reached by name."""
    serving(docker, "--name=one", f"--network={net}")
    done = docker.run("--rm", argv=["wget", "-T", "5", "-qO-", "http://one/"])
    assert done.status == 1


def test_none(docker: Docker) -> None:
    """No interface but the loopback."""
    assert docker.says("--rm", "--network=none", argv=["ls", "/sys/class/net"]) == "lo\n"


def test_none_has_no_device(dockerd: Docker, runtimes: dict[str, Runtime]) -> None:
    """Neither a network device nor a driver for one; the control is the same guest with a network."""
    ours = dockerd.using(runtimes["sev"])
    script = "cat /sys/bus/virtio/devices/*/device | sort -u; ls /sys/bus/virtio/drivers"
    network_card = "0x0001"  # VIRTIO_ID_NET
    without = ours.says("--rm", "--network=none", argv=["sh", "-c", script]).split()
    assert network_card not in without
    assert "virtio_net" not in without
    having = ours.says("--rm", argv=["sh", "-c", script]).split()
    assert {network_card, "virtio_net"} <= set(having)


def test_a_gibibyte(docker: Docker) -> None:
    """To a container, through a published port, and every byte of it."""
    name = docker.detached("--publish=9000:9000", argv=["sh", "-c", "echo ready; nc -l -p 9000 | md5sum"])
    docker.until_log(name, "ready")
    docker("exec", name, "sh", "-c", LISTENS)
    assert docker.box.run("python3", "-c", SEND, str(1 << 30), limit=3600).status == 0
    assert docker("wait", name) == "0"
    assert docker.logs(name)[0] == "ready\ncd573cfaace07e7949bc0c46028904ff  -\n"  # md5sum of a GiB of zeros


def test_connected_to_two(dockerd: Docker, runtimes: dict[str, Runtime], net: str) -> None:
    """Either both are there, or the second is refused in words: never dropped in silence."""
    ours = dockerd.using(runtimes["sev"])
    name = dockerd.box.check("docker", "create", f"--runtime={ours.runtime.name}", f"--network={net}", "busybox:test",
                             "ls", "/sys/class/net").strip()  # fmt: skip
    dockerd("network", "connect", "bridge", name)
    done = dockerd.box.run("docker", "start", "--attach", name)
    assert done.text.split() == ["eth0", "eth1", "lo"] or "refused" in done.complaint, done
    dockerd("rm", "--force", name)


def test_ports_of_a_stopped_one(docker: Docker) -> None:
    """Nothing answers any more, and the port may be taken again."""
    name = serving(docker, "--publish=8080:80")
    docker("rm", "--force", name)
    assert docker.box.run("curl", "--silent", "--max-time", "5", "http://127.0.0.1:8080/").status != 0
    serving(docker, "--publish=8080:80")


def test_inspect(docker: Docker, net: str) -> None:
    """The engine's view has the address that the container has."""
    name = serving(docker, f"--network={net}")
    found = json.loads(docker("network", "inspect", net))[0]["Containers"]
    address = next(iter(found.values()))["IPv4Address"]
    assert address in docker("exec", name, "ip", "addr")
