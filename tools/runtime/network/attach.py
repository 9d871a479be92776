# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From the network namespace of this process to what a guest is given of it.

    eth0 ── ingress ──▶ sev0 (tap) ── descriptor ──▶ QEMU ── virtio-net ── eth0 of the guest
         ◀── ingress ──                                       with the same MAC, MTU, addresses and routes

Nothing outlives the descriptors and the namespace: the taps go with the former, the rest with the latter.
"""

import contextlib
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, replace

from tools.launcher.base.errors import UserError
from tools.launcher.channel.network import INTERFACES_MAX, Address, Network
from tools.launcher.guest.spec import Nic
from tools.runtime.network import links, tap
from tools.runtime.network.links import Link
from tools.runtime.network.netlink import Netlink
from tools.runtime.network.redirect import redirect
from tools.runtime.network.resolver import GUEST, PREFIX, Resolver, keep_ports, rules_inside, rules_outside

_VHOST = "/dev/vhost-net"
_MTU_MAX = 65535  # of virtio-net (VIRTIO_NET_F_MTU)


@dataclass(kw_only=True)
class Attached:
    """What a guest is given: `nics` for guest.spec.Spec.network, `network` for bring_up.brought_up().

    `resolver`: must be served (Resolver.serve()) while the guest runs, where one was asked for.
    """

    nics: tuple[Nic, ...]
    network: Network
    resolver: Resolver | None = None

    def close(self) -> None:
        """Close all descriptors; with the last copy of its own each tap goes."""
        _close(self.nics)
        if self.resolver is not None:
            self.resolver.close()


def attach(*, name_server: str | None = None) -> Attached | None:
    """Hand the interfaces of this process's network namespace to a guest; None where there is none but the loopback.

    `name_server`: one of the container's that listens on the namespace's own loopback, so that a guest needs a relay
    to it (resolver.rewritten()). UserError for what no guest can have, or this host cannot do.
    """
    with Netlink() as kernel:
        found, routes = links.read(kernel)
        if not found:
            return None
        if len(found) > INTERFACES_MAX:
            raise UserError(f"the container has {len(found)} network interfaces, a guest gets {INTERFACES_MAX}")
        interfaces = [link.interface for link in found]
        nics: list[Nic] = []
        resolver = None
        try:
            for number, link in enumerate(found):
                nics.append(_nic(kernel, link, _tap(number), first=number == 0, relayed=name_server is not None))
            if name_server is not None:
                own = Address(address=GUEST, prefix=PREFIX)
                interfaces[0] = replace(interfaces[0], addresses=(*interfaces[0].addresses, own))
                keep_ports()
                resolver = Resolver(kernel, socket.if_nametoindex(_tap(0)), name_server)
        except OSError as error:
            _close(nics)
            raise UserError(f"the container's network cannot be handed to a guest: {error.strerror or error}") from None
        except UserError:
            _close(nics)
            raise
    return Attached(
        nics=tuple(nics), network=Network(interfaces=tuple(interfaces), routes=tuple(routes)), resolver=resolver
    )


def _tap(number: int) -> str:
    return f"sev{number}"


def _nic(kernel: Netlink, link: Link, name: str, *, first: bool, relayed: bool) -> Nic:
    """A tap for an interface, and the way between them."""
    mtu = min(link.interface.mtu, _MTU_MAX)
    nic = Nic(mac=link.interface.mac, mtu=mtu, tap=tap.create(kernel, name, mtu=mtu), vhost=_vhost())
    try:
        index = socket.if_nametoindex(name)
        outside, inside = rules_outside() if relayed else (), rules_inside() if relayed and first else ()
        redirect(kernel, source=link.index, target=index, rules=outside)
        redirect(kernel, source=index, target=link.index, rules=inside)
    except OSError:
        _close([nic])
        raise
    return nic


def _vhost() -> int | None:
    """The host's kernel as the device's other end, where it offers that."""
    try:
        return os.open(_VHOST, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None


def _close(nics: Iterable[Nic]) -> None:
    for descriptor in (fd for nic in nics for fd in nic.descriptors):
        with contextlib.suppress(OSError):
            os.close(descriptor)
