# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A tap device in the network namespace of this process; it is there for as long as its descriptor is open.

Frames carry a header of virtio's (IFF_VNET_HDR): checksums that are still to be made, and segments that are still to
be cut, go through it as they are. Without it either end would have to compute and cut them, or send wrong ones.
"""

import fcntl
import os
import socket
import struct

from tools.launcher.base.errors import UserError
from tools.runtime.network import netlink
from tools.runtime.network.links import IFLA_MTU, LINK, UP
from tools.runtime.network.netlink import Netlink

DEVICE = "/dev/net/tun"
# linux/if_tun.h, if_link.h.
_SET_INTERFACE = 0x400454CA  # TUNSETIFF
_TAP, _NO_PACKET_INFO, _VNET_HEADER, _EXCLUSIVE = 0x2, 0x1000, 0x4000, 0x8000
_IPV6_MTU_MIN = 1280  # below, an interface has no IPv6: RFC 8200, 5
_AF_SPEC, _GENERATE_MODE, _GENERATE_NONE = 26, 8, 1


def create(kernel: Netlink, name: str, *, mtu: int) -> int:
    """The descriptor of a new one, which is up; UserError where this host has none to give."""
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        hint = "load the kernel module tun" if isinstance(error, FileNotFoundError) else None
        raise UserError(error.strerror or "cannot be opened", where=DEVICE, hint=hint) from None
    try:
        flags = _TAP | _NO_PACKET_INFO | _VNET_HEADER | _EXCLUSIVE
        fcntl.ioctl(descriptor, _SET_INTERFACE, struct.pack("=16sH22x", name.encode(), flags))
        index = socket.if_nametoindex(name)
        # No IPv6 address of its own, with which it would speak to the guest by itself.
        silent = netlink.attribute(socket.AF_INET6, netlink.attribute(_GENERATE_MODE, bytes([_GENERATE_NONE])))
        silent = netlink.attribute(_AF_SPEC, silent) if mtu >= _IPV6_MTU_MIN else b""
        # One after the other: an interface makes itself an address as soon as it is up.
        for flags, changes in ((0, netlink.number(IFLA_MTU, mtu)), (0, silent), (UP, b"")):
            kernel.ask(netlink.NEW_LINK, LINK.pack(socket.AF_UNSPEC, 0, index, flags, flags) + changes)
    except OSError as error:
        os.close(descriptor)
        raise UserError(f"a tap device cannot be made: {error.strerror}", where=DEVICE) from None
    return descriptor
