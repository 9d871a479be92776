# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A real guest in a container's network: its addresses, traffic both ways, names; and one without a network."""

import concurrent.futures
import contextlib
import hashlib
import http.client
import os
import shutil
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.runtime.network.spaces import Space, Wire
from tools.attack.guests import roots

MANY = 100
BIG = 128 << 20
END = "-- done\n"


@pytest.fixture(scope="module")
def program(artifacts: Path) -> Iterator[Path]:
    """QEMU, one static file, where everybody may go: started by root it is nobody, who has only what he inherits."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield Path(shutil.copy(artifacts / "qemu-lite", folder))
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def root(busybox: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = roots.folder(busybox, tmp_path_factory.mktemp("network") / "root")
    return roots.tar(folder, folder.parent / "root.tar")


@dataclass
class Shell:
    """A shell in a guest in a container's namespace."""

    process: subprocess.Popen[str]

    def __call__(self, script: str) -> str:
        """What a script prints."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # What a script prints may end without a newline.
        self.process.stdin.write(f"{script}\necho; echo '{END.strip()}'\n")
        self.process.stdin.flush()
        lines: list[str] = []
        for line in self.process.stdout:
            if line == END:
                return "".join(lines)[:-1]
            lines.append(line)
        raise AssertionError(f"the guest ended: {''.join(lines)}")

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(60)


@contextlib.contextmanager
def shell(
    space: Space, *, artifacts: Path, program: Path, root: Path, name_server: str | None = None
) -> Iterator[Shell]:
    module = "tests.runtime.network.container"
    argv: list[str | Path] = [sys.executable, "-m", module, artifacts, program, root, "exec sh 2>&1"]
    argv += [] if name_server is None else [name_server]
    process = space.run(lambda: subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    try:
        yield Shell(process)
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


class Page(BaseHTTPRequestHandler):
    """Answers with as many bytes as the path says, and says who asked and what their digest is."""

    def do_GET(self) -> None:
        self._answer(os.urandom(1 << 16) * (int(self.path[1:]) >> 16) or b"x" * int(self.path[1:]))

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Peer", self.client_address[0])
        self.send_header("X-Digest", hashlib.sha256(body).hexdigest())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its base class's name
        """Nothing."""


class Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6
    request_queue_size = MANY


class Names(socketserver.ThreadingUDPServer):
    """A name server: one address for each name that begins as it likes; others it asks another for, or refuses."""

    def __init__(self, address: tuple[str, int], known: bytes, answer: str, other: tuple[str, int] | None) -> None:
        self.known, self.answer, self.other = known, socket.inet_aton(answer), other
        super().__init__(address, Query)


class Query(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        data, sock = self.request
        server = self.server
        assert isinstance(server, Names)
        if data[13:].startswith(server.known):
            end = data.index(b"\0", 12) + 5
            address = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + server.answer
            kind = data[end - 4 : end - 2]
            records = address if kind == b"\0\1" else b""
            head = data[:2] + b"\x81\x80\0\1" + struct.pack(">H", bool(records)) + bytes(4)
            sock.sendto(head + data[12:end] + records, self.client_address)
        elif server.other is not None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as further:
                further.settimeout(5)
                further.sendto(data, server.other)
                sock.sendto(further.recv(4096), self.client_address)


def served(space: Space, make: Callable[[], socketserver.BaseServer], stack: contextlib.ExitStack) -> None:
    """A server in a namespace, whose threads stay there, for as long as the stack."""
    ready: list[socketserver.BaseServer] = []

    def inside() -> None:
        server = make()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        ready.append(server)

    space.run(inside)
    stack.callback(ready[0].server_close)
    stack.callback(ready[0].shutdown)


@dataclass
class World:
    wire: Wire
    guest: Shell


@pytest.fixture(scope="module")
def world(artifacts: Path, program: Path, root: Path) -> Iterator[World]:
    """A guest in a network, servers outside, a name server as docker has it."""
    wire = Wire()
    # A second network, as docker's `network connect` makes it; under a name that no kernel gives by itself.
    wire.inside.cable("net7", wire.outside, "out7", mac=bytes.fromhex("020000000007"), mtu=900)
    wire.inside.address("net7", "10.8.0.2", 24)
    wire.outside.address("out7", "10.8.0.1", 24)
    with contextlib.ExitStack() as stack:
        served(wire.outside, lambda: Server(("::", 8000), Page), stack)
        served(wire.outside, lambda: Names(("10.7.0.1", 53), b"far", "10.7.0.1", None), stack)
        served(wire.inside, lambda: Names(("127.0.0.11", 53), b"near", "10.7.0.9", ("10.7.0.1", 53)), stack)
        guest = stack.enter_context(
            shell(wire.inside, artifacts=artifacts, program=program, root=root, name_server="127.0.0.11")
        )
        guest("mkdir -p /tmp/www; echo hello >/tmp/www/hello; httpd -p [::]:80 -h /tmp/www")
        yield World(wire, guest)
    wire.close()


def test_the_guest_has_what_the_namespace_has(world: World) -> None:
    shown = world.guest("ip addr show eth0; cat /proc/sys/net/ipv6/conf/eth0/accept_ra")
    words = shown.split()
    for expected in ("02:42:0a:07:00:02", "10.7.0.2/24", "10.7.0.255", "fd07::2/64", "fe80::42:aff:fe07:2/64"):
        assert expected in words
    assert words[words.index("mtu") + 1] == str(Wire.MTU)
    assert words[-1] == "0"
    # Usable at once: neither tentative nor a duplicate.
    assert "tentative" not in shown
    assert world.guest("ip route").split("\n")[:-1] == [
        "default via 10.7.0.1 dev eth0 ",
        "10.7.0.0/24 dev eth0 scope link  src 10.7.0.2 ",
        "10.8.0.0/24 dev net7 scope link  src 10.8.0.2 ",
        "169.254.53.0/30 dev eth0 scope link  src 169.254.53.2 ",
        "192.168.9.0/24 via 10.7.0.1 dev eth0  metric 7 ",
    ]
    assert "default via fd07::1 dev eth0  metric 1024" in world.guest("ip -6 route")
    assert world.guest("ls /sys/class/net") == "eth0\nlo\nnet7\n"


def test_a_second_interface_has_its_own(world: World) -> None:
    """And no IPv6, which wants longer frames."""
    shown = world.guest("ip addr show net7").split()
    for expected in ("02:00:00:00:00:07", "10.8.0.2/24"):
        assert expected in shown
    assert (shown[shown.index("mtu") + 1], "inet6" in shown) == ("900", False)
    assert "X-Peer: ::ffff:10.8.0.2\n" in world.guest("wget -S -q -O - http://10.8.0.1:8000/9")


@pytest.mark.parametrize("host", ["10.7.0.1", "[fd07::1]", "192.168.9.1"])
def test_the_guest_reaches_others(world: World, host: str) -> None:
    """By both protocols, by a route; and from its own address, not from one that somebody translated."""
    shown = world.guest(f"wget -S -q -O - http://{host}:8000/9")
    peer = "fd07::2" if ":" in host else "::ffff:10.7.0.2"
    assert f"X-Peer: {peer}\n" in shown.replace("\r", "")
    assert "xxxxxxxxx" in shown


def fetch(wire: Wire, host: str, path: str = "/hello") -> bytes:
    def work() -> bytes:
        connection = http.client.HTTPConnection(host, 80, timeout=60)
        connection.request("GET", path)
        return connection.getresponse().read()

    return wire.outside.run(work)


def test_others_reach_the_guest_a_hundred_at_once(world: World) -> None:
    with concurrent.futures.ThreadPoolExecutor(MANY) as pool:
        hosts = ["10.7.0.2", "fd07::2"] * (MANY // 2)
        assert list(pool.map(lambda host: fetch(world.wire, host), hosts)) == [b"hello\n"] * MANY


def test_much_arrives_as_it_was_sent(world: World) -> None:
    """Both ways: what is segmented and checksummed late on one side is whole on the other."""
    shown = world.guest(f"wget -S -q -O - http://10.7.0.1:8000/{BIG} 2>/tmp/head | sha256sum; grep X-Digest /tmp/head")
    words = shown.split()
    assert words[0] == words[-1]
    shown = world.guest(f"head -c {BIG} /dev/urandom | tee /tmp/www/big | sha256sum")
    assert hashlib.sha256(fetch(world.wire, "fd07::2", "/big")).hexdigest() == shown.split()[0]
    world.guest("rm /tmp/www/big")


def test_names_of_the_engines_server_and_of_others(world: World) -> None:
    """The relay, and behind it a server in the namespace that asks one outside from there."""
    assert "10.7.0.9" in world.guest("nslookup -type=a near.test 169.254.53.1")
    assert "10.7.0.1" in world.guest("nslookup -type=a far.test 169.254.53.1")


def test_packets_that_are_no_streams(world: World) -> None:
    """Fragments of a datagram larger than any frame; IPv6, whose neighbours are discovered."""
    assert "1 packets received" in world.guest("ping -c 1 -s 8000 10.7.0.1")
    assert "1 packets received" in world.guest("ping -6 -c 1 -s 8000 fd07::1")


def test_a_container_without_a_network_has_no_device(artifacts: Path, program: Path, root: Path, world: World) -> None:
    """And its kernel no network at all; with one, the same questions have other answers."""
    empty = Space()
    asked = "ls /sys/class/net; cat /sys/bus/pci/devices/*/class | grep -c ^0x02; wget -q http://127.0.0.1/"
    with shell(empty, artifacts=artifacts, program=program, root=root) as guest:
        shown = guest(asked)
        assert guest.end() == 0
    empty.close()
    assert "eth" not in shown
    assert "\n0\n" in f"\n{shown}"
    assert "Address family not supported" in shown
    shown = world.guest(f"cd /tmp; {asked}")
    assert "eth0" in shown
    assert "\n2\n" in shown
    assert "Address family" not in shown
