# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a guest is given of a container's namespace, and where its frames go; the guest is the test."""

import contextlib
import fcntl
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.runtime.network.spaces import Space, Wire, packed
from tools.launcher.base.errors import UserError
from tools.launcher.channel.network import Address, Interface, Route
from tools.runtime.network import netlink, tap
from tools.runtime.network.attach import Attached, attach
from tools.runtime.network.netlink import attribute
from tools.runtime.network.resolver import GUEST, RELAY, rewritten

BROADCAST, OTHER = b"\xff" * 6, bytes.fromhex("020000000099")
TYPE = b"\x88\xb5"  # IEEE 802: for experiments
VNET_HEADER = 10  # struct virtio_net_hdr of linux/virtio_net.h
WAIT = 5.0


def address(text: str, prefix: int) -> Address:
    return Address(address=packed(text)[1], prefix=prefix)


@contextlib.contextmanager
def attached(space: Space, name_server: str | None = None) -> Iterator[Attached]:
    found = space.run(lambda: attach(name_server=name_server))
    assert found is not None
    yield found
    found.close()


def test_a_guest_gets_what_the_namespace_has(wire: Wire) -> None:
    with attached(wire.inside) as given:
        (nic,) = given.nics
        assert (nic.mac, nic.mtu) == (Wire.MAC, Wire.MTU)
        own = (address("10.7.0.2", 24), address("fd07::2", 64), address("fe80::42:aff:fe07:2", 64))
        everywhere = [address("192.168.9.0", 24), address("0.0.0.0", 0), address("::", 0)]
        gateways = [packed(text)[1] for text in ("10.7.0.1", "10.7.0.1", "fd07::1")]
        routes = tuple(
            Route(interface=0, destination=to, gateway=gateway, metric=metric)
            for to, gateway, metric in zip(everywhere, gateways, (7, 0, 1024), strict=True)
        )
        assert set(given.network.routes) == set(routes)
        assert len(given.network.routes) == len(routes)
        assert given.network.interfaces == (Interface(name="eth0", mac=Wire.MAC, mtu=Wire.MTU, addresses=own),)
        assert given.network.encode()
        assert given.resolver is None


def test_a_namespace_with_nothing_but_its_loopback_has_no_network(wire: Wire) -> None:
    """What is down does not count: tunnels that hosts have in each namespace are."""
    empty = Space()
    assert empty.run(attach) is None
    with attached(wire.inside):
        pass
    empty.close()


def test_several_interfaces_up_to_eight(wire: Wire) -> None:
    for number in range(1, 8):
        wire.inside.cable(f"eth{number}", wire.outside, f"out{number}")
    with attached(wire.inside) as given:
        assert [interface.name for interface in given.network.interfaces] == [f"eth{number}" for number in range(8)]
        assert len({nic.mac for nic in given.nics}) == 8
    wire.inside.cable("eth8", wire.outside, "out8")
    with pytest.raises(UserError, match="has 9 network interfaces, a guest gets 8"):
        wire.inside.run(attach)
    assert not [name for name in wire.inside.names() if name.startswith("sev")]


def with_peer(space: Space) -> None:
    space.address("eth0", "10.8.0.1", 32, peer="10.8.0.2")


def with_two_next_hops(space: Space) -> None:
    index = space.index("eth0")
    hops = [struct.pack("=HBBi", 16, 0, 0, index) + attribute(5, packed(f"10.7.0.{last}")[1]) for last in (8, 9)]
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 16, 0, 0, 254, 4, 0, 1, 0) + attribute(1, packed("10.9.0.0")[1])
    space.ask(netlink.NEW_ROUTE, body + attribute(9, b"".join(hops)), create=True)


def with_a_hole(space: Space) -> None:
    body = struct.pack("=BBBBBBBBI", socket.AF_INET, 16, 0, 0, 254, 4, 0, 6, 0)  # RTN_BLACKHOLE
    space.ask(netlink.NEW_ROUTE, body + attribute(1, packed("10.9.0.0")[1]), create=True)


def with_a_tunnel(space: Space) -> int:
    def make() -> int:
        descriptor = os.open(tap.DEVICE, os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("=16sH22x", b"tun0", 0x1001))  # IFF_TUN, IFF_NO_PI
        return descriptor

    descriptor = space.run(make)
    space.up("tun0")
    return descriptor


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_peer, r"10\.8\.0\.1 of the container's network is an address with a peer"),
        (with_two_next_hops, r"a route to 10\.9\.0\.0/16 of a kind that no guest gets"),
        (with_a_hole, r"a route to 10\.9\.0\.0/16 of a kind that no guest gets"),
        (with_a_tunnel, "tun0 of the container's network is no Ethernet interface"),
    ],
)
def test_what_no_guest_can_have_is_refused(wire: Wire, change: Callable[[Space], object], words: str) -> None:
    with attached(wire.inside):
        pass
    descriptor = change(wire.inside)
    with pytest.raises(UserError, match=words):
        wire.inside.run(attach)
    assert not [name for name in wire.inside.names() if name.startswith("sev")]
    if isinstance(descriptor, int):
        os.close(descriptor)


def listener(space: Space, name: str) -> socket.socket:
    """Hears every frame that an interface gets."""

    def make() -> socket.socket:
        heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        heard.bind((name, 0x88B5))
        heard.settimeout(WAIT)
        return heard

    return space.run(make)


def read(descriptor: int, wanted: bytes) -> bytes:
    """The first frame of that type that a tap gives to its reader."""
    while select.select([descriptor], [], [], WAIT)[0]:
        data = os.read(descriptor, 1 << 16)[VNET_HEADER:]
        if data[12:14] == wanted:
            return data
    raise TimeoutError(wanted)


def test_frames_go_both_ways_as_they_are(wire: Wire) -> None:
    with attached(wire.inside) as given, listener(wire.outside, "out0") as outside:
        descriptor = given.nics[0].tap
        for target in (Wire.MAC, OTHER, BROADCAST):
            frame = target + OTHER + TYPE + os.urandom(1000)
            outside.send(frame)
            assert read(descriptor, TYPE) == frame
        frame = BROADCAST + Wire.MAC + TYPE + os.urandom(Wire.MTU)
        os.write(descriptor, bytes(VNET_HEADER) + frame)
        assert outside.recv(1 << 16) == frame


def answers(wire: Wire) -> bool:
    """Whether the namespace's own kernel takes what is for its address."""
    with (
        wire.inside.run(lambda: socket.create_server(("10.7.0.2", 7))) as server,
        wire.outside.run(socket.socket) as out,
    ):
        out.settimeout(1.0)
        with contextlib.suppress(OSError):
            out.connect(server.getsockname())
            return True
    return False


def test_the_namespaces_kernel_hears_nothing_more(wire: Wire) -> None:
    """And all is as before when the guest has gone: no tap, and nobody who would take its frames."""
    assert answers(wire)
    with attached(wire.inside):
        assert wire.inside.names() == ["eth0", "lo", "sev0"]
        assert not answers(wire)
    assert wire.inside.names() == ["eth0", "lo"]


def test_nothing_stays_open(wire: Wire) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with attached(wire.inside, "127.0.0.11"):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_name_server_on_the_loopback_gets_a_relay(wire: Wire) -> None:
    """The guest has an address more, which leads to its tap; the namespace's kernel keeps ports of its own."""
    with attached(wire.inside, "127.0.0.11") as given:
        assert given.network.interfaces[0].addresses[-1] == Address(address=GUEST, prefix=30)
        assert given.resolver is not None
        ports = wire.inside.run(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text)
        assert ports.split() == ["61440", "65535"]
    own = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    assert own.split() != ["61440", "65535"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"nameserver 10.0.0.1\nsearch x\n", None),
        (b"", None),
        (b"nameserver nonsense\nnameserver\n", None),
        (b"# nameserver 127.0.0.11\n", None),
        (b"search x\nnameserver 127.0.0.11\noptions ndots:0\n", "127.0.0.11"),
        (b"nameserver 127.0.0.11\nnameserver ::1\nnameserver 9.9.9.9", "127.0.0.11"),
        (b"nameserver ::1\n", "::1"),
    ],
)
def test_resolv_conf_is_rewritten_where_it_must_be(text: bytes, expected: str | None) -> None:
    changed, server = rewritten(text)
    assert server == expected
    relay = b"nameserver " + socket.inet_ntoa(RELAY).encode()
    if expected is None:
        assert changed == text
    else:
        assert changed.count(relay) == 1
        assert b"127." not in changed
        assert b"::1" not in changed
        lines = [line for line in text.split(b"\n") if b"127." not in line and b"::1" not in line]
        assert [line for line in changed.split(b"\n") if line != relay] == lines
