# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the network namespace of this process has, as a guest can have it too.

UserError for what cannot be handed to a guest: it would be missing there without a word.
"""

import socket
import struct
from dataclasses import dataclass

from tools.launcher.base.errors import UserError
from tools.launcher.channel.network import Address, Interface, Route
from tools.runtime.network import netlink
from tools.runtime.network.netlink import Netlink

# struct ifinfomsg, ifaddrmsg, rtmsg; linux/rtnetlink.h, if_link.h, if_addr.h, if_arp.h.
LINK = struct.Struct("=BxHiII")  # family, type, index, flags, mask of changes
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, protocol, scope, type, flags
UP, _LOOPBACK = 0x1, 0x8
_ETHERNET = 1
IFLA_ADDRESS, IFLA_NAME, IFLA_MTU = 1, 3, 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_DST, _OIF, _GATEWAY, _PRIORITY, _SOURCE, _MULTIPATH, _VIA = 1, 4, 5, 6, 7, 9, 18
_MAIN, _KERNEL, _UNICAST = 254, 2, 1
_CLONED, _ONLINK = 0x200, 0x4
_BYTES = {socket.AF_INET: 4, socket.AF_INET6: 16}


@dataclass(frozen=True, kw_only=True)
class Link:
    """An interface of the namespace, by its number there, and what the guest is told of it."""

    index: int
    interface: Interface


def read(kernel: Netlink) -> tuple[list[Link], list[Route]]:
    """The interfaces that are up, but for the loopback, in the order of their numbers; and their routes."""
    addresses = _addresses(kernel)
    found = []
    for body in kernel.dump(netlink.GET_LINK, LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)):
        _, kind, index, flags, _ = LINK.unpack_from(body)
        values = netlink.attributes(body[LINK.size :])
        name = values[IFLA_NAME].rstrip(b"\0").decode("ascii", "replace")
        if flags & _LOOPBACK or not flags & UP:
            continue
        mac = values.get(IFLA_ADDRESS, b"")
        if kind != _ETHERNET or len(mac) != 6:
            raise UserError(f"{name} of the container's network is no Ethernet interface", hint="use a bridge network")
        (mtu,) = struct.unpack("=I", values[IFLA_MTU])
        own = _whole(addresses.get(index, []), mac)
        found.append(Link(index=index, interface=Interface(name=name, mac=mac, mtu=mtu, addresses=own)))
    found.sort(key=lambda link: link.index)
    return found, _routes(kernel, {link.index: number for number, link in enumerate(found)})


def _whole(addresses: list[Address], mac: bytes) -> tuple[Address, ...]:
    """With IPv6 there is a link-local address, which the kernel makes of the MAC a moment after an interface is up."""
    six = [one.address for one in addresses if len(one.address) == 16]
    if not six or any(address[:2] == b"\xfe\x80" for address in six):
        return tuple(addresses)
    # RFC 4291, appendix A.
    made = b"\xfe\x80" + bytes(6) + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
    return (*addresses, Address(address=made, prefix=64))


def _addresses(kernel: Netlink) -> dict[int, list[Address]]:
    found: dict[int, list[Address]] = {}
    for family in _BYTES:
        for body in kernel.dump(netlink.GET_ADDRESS, _ADDRESS.pack(family, 0, 0, 0, 0)):
            _, prefix, _, _, index = _ADDRESS.unpack_from(body)
            values = netlink.attributes(body[_ADDRESS.size :])
            peer = values[_IFA_ADDRESS]
            local = values.get(_IFA_LOCAL, peer)
            if local != peer:
                shown = socket.inet_ntop(family, local)
                raise UserError(f"{shown} of the container's network is an address with a peer, which no guest gets")
            found.setdefault(index, []).append(Address(address=local, prefix=prefix))
    return found


def _routes(kernel: Netlink, numbers: dict[int, int]) -> list[Route]:
    """Those of the main table, but for what the kernel makes of addresses; those to gateways last."""
    found = []
    for family, size in _BYTES.items():
        for body in kernel.dump(netlink.GET_ROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, length, _, _, table, protocol, _, kind, flags = _ROUTE.unpack_from(body)
            values = netlink.attributes(body[_ROUTE.size :])
            if table != _MAIN or protocol == _KERNEL or flags & _CLONED:
                continue
            destination = values.get(_DST, bytes(size))
            shown = f"{socket.inet_ntop(family, destination)}/{length}"
            if kind != _UNICAST or _MULTIPATH in values or _VIA in values:
                raise UserError(f"the container's network has a route to {shown} of a kind that no guest gets")
            index = int.from_bytes(values.get(_OIF, b""), "little")
            if index not in numbers:
                continue  # of an interface that is down, or the loopback's
            found.append(
                Route(
                    interface=numbers[index],
                    destination=Address(address=destination, prefix=length),
                    gateway=values.get(_GATEWAY),
                    source=values.get(_SOURCE),
                    metric=int.from_bytes(values.get(_PRIORITY, b""), "little"),
                    on_link=bool(flags & _ONLINK),
                )
            )
    return sorted(found, key=lambda route: route.gateway is not None)
