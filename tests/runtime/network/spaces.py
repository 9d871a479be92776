# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Network namespaces of a test's own, and cables between them; they go when nothing has them open any more."""

import ctypes
import os
import socket
import struct
import threading
from collections.abc import Callable
from typing import TypeVar

from tools.runtime.network import netlink
from tools.runtime.network.links import IFLA_ADDRESS, IFLA_MTU, IFLA_NAME, LINK, UP
from tools.runtime.network.netlink import Netlink, attribute, number, text

T = TypeVar("T")
_NEW_NET = 0x40000000  # CLONE_NEWNET
_LINK_INFO, _KIND, _DATA, _PEER, _NET_NS_FD = 18, 1, 2, 1, 28  # IFLA_… of linux/if_link.h, VETH_INFO_PEER
_NODAD = 2
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_libc = ctypes.CDLL(None, use_errno=True)


def packed(address: str) -> tuple[int, bytes]:
    """Family and bytes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def _in_thread(work: Callable[[], T]) -> T:
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001  it is raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class Space:
    """A network namespace. What is made in run() stays in it: sockets, processes."""

    def __init__(self) -> None:
        def make() -> int:
            if _libc.unshare(_NEW_NET) != 0:
                raise OSError(ctypes.get_errno(), "unshare (network namespace)")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self.descriptor = _in_thread(make)
        self.up("lo")

    def close(self) -> None:
        os.close(self.descriptor)

    def run(self, work: Callable[[], T]) -> T:
        """Do something in it, in a thread of its own."""

        def inside() -> T:
            if _libc.setns(self.descriptor, _NEW_NET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            return work()

        return _in_thread(inside)

    def ask(self, kind: int, body: bytes, *, create: bool = False) -> None:
        def work() -> None:
            with Netlink() as kernel:
                kernel.ask(kind, body, create=create)

        self.run(work)

    def index(self, name: str) -> int:
        return self.run(lambda: socket.if_nametoindex(name))

    def names(self) -> list[str]:
        return sorted(self.run(lambda: [name for _, name in socket.if_nameindex()]))

    def up(self, name: str) -> None:
        self.ask(netlink.NEW_LINK, LINK.pack(0, 0, self.index(name), UP, UP))

    def cable(self, name: str, other: "Space", peer: str, *, mac: bytes = b"", mtu: int = 1500) -> None:
        """A pair of interfaces, one here, one there, both up; `mac` is the one's here."""
        far = (
            LINK.pack(0, 0, 0, 0, 0)
            + text(IFLA_NAME, peer)
            + number(_NET_NS_FD, other.descriptor)
            + number(IFLA_MTU, mtu)
        )
        info = text(_KIND, "veth") + attribute(_DATA, attribute(_PEER, far))
        body = LINK.pack(0, 0, 0, 0, 0) + text(IFLA_NAME, name) + number(IFLA_MTU, mtu)
        body += attribute(IFLA_ADDRESS, mac) if mac else b""
        self.ask(netlink.NEW_LINK, body + attribute(_LINK_INFO, info), create=True)
        self.up(name)
        other.up(peer)

    def address(self, name: str, address: str, prefix: int, *, peer: str | None = None) -> None:
        family, own = packed(address)
        far = own if peer is None else packed(peer)[1]
        body = _ADDRESS.pack(family, prefix, _NODAD, 0, self.index(name)) + attribute(2, own) + attribute(1, far)
        self.ask(netlink.NEW_ADDRESS, body, create=True)

    def route(self, name: str, to: str, prefix: int, *, gateway: str, metric: int = 0, more: bytes = b"") -> None:
        family, destination = packed(to)
        body = _ROUTE.pack(family, prefix, 0, 0, 254, 4, 0, 1, 0) + attribute(1, destination)
        body += number(4, self.index(name)) + attribute(5, packed(gateway)[1]) + (number(6, metric) if metric else b"")
        self.ask(netlink.NEW_ROUTE, body + more, create=True)


class Wire:
    """A container's namespace with eth0, and what is outside of it, by way of out0; IPv4 and IPv6, an odd MTU."""

    MAC = bytes.fromhex("02420a070002")
    MTU = 1400

    def __init__(self) -> None:
        self.inside, self.outside = Space(), Space()
        self.inside.cable("eth0", self.outside, "out0", mac=self.MAC, mtu=self.MTU)
        for space, name, last in ((self.inside, "eth0", 2), (self.outside, "out0", 1)):
            space.address(name, f"10.7.0.{last}", 24)
            space.address(name, f"fd07::{last}", 64)
        self.outside.address("lo", "192.168.9.1", 32)
        self.inside.route("eth0", "0.0.0.0", 0, gateway="10.7.0.1")
        self.inside.route("eth0", "192.168.9.0", 24, gateway="10.7.0.1", metric=7)
        self.inside.route("eth0", "::", 0, gateway="fd07::1")

    def close(self) -> None:
        self.inside.close()
        self.outside.close()
