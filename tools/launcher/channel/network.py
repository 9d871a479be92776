# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""NETWORK: the interfaces of a guest's network, their addresses and routes (docs/protocol.md)."""

import struct
from dataclasses import dataclass

INTERFACES_MAX = 8
ADDRESSES_MAX = 64
ROUTES_MAX = 256
NAME_MAX = 15
_GATEWAY, _SOURCE, _ON_LINK = 1, 2, 4


@dataclass(frozen=True, kw_only=True)
class Address:
    """An IP address, 4 or 16 bytes, with the length of its network's prefix in bits."""

    address: bytes
    prefix: int


@dataclass(frozen=True, kw_only=True)
class Interface:
    """One Ethernet interface, recognised by its MAC; `name` is what the guest calls it, `mtu` in bytes."""

    name: str
    mac: bytes
    mtu: int
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Route:
    """A route by way of an interface, which counts from 0; those that come with an address are not listed.

    `source`: the address to send from; `on_link`: the gateway is reached though no address says so.
    """

    interface: int
    destination: Address
    gateway: bytes | None = None
    source: bytes | None = None
    metric: int = 0
    on_link: bool = False


@dataclass(frozen=True, kw_only=True)
class Network:
    """All of it."""

    interfaces: tuple[Interface, ...]
    routes: tuple[Route, ...] = ()

    def encode(self) -> bytes:
        """The payload of NETWORK; ValueError for what the protocol cannot carry."""
        if not 1 <= len(self.interfaces) <= INTERFACES_MAX:
            raise ValueError(f"a guest has 1 to {INTERFACES_MAX} network interfaces, not {len(self.interfaces)}")
        if len(self.routes) > ROUTES_MAX:
            raise ValueError(f"a guest has at most {ROUTES_MAX} routes, not {len(self.routes)}")
        parts = [struct.pack("<B3x", len(self.interfaces)), *map(_interface, self.interfaces)]
        return b"".join([*parts, struct.pack("<H", len(self.routes)), *map(_route, self.routes)])


def _interface(one: Interface) -> bytes:
    name = one.name.encode()
    if not 1 <= len(name) <= NAME_MAX or len(one.mac) != 6:
        raise ValueError(f"{one.name!r} is no Ethernet interface of a guest's")
    if len(one.addresses) > ADDRESSES_MAX:
        raise ValueError(f"{one.name}: a guest's interface has at most {ADDRESSES_MAX} addresses")
    head = struct.pack("<6sHI", one.mac, one.mtu, len(name)) + name + struct.pack("<H", len(one.addresses))
    return head + b"".join(map(_with_prefix, one.addresses))


def _ip(address: bytes) -> bytes:
    return bytes([{4: 4, 16: 6}[len(address)]]) + address


def _with_prefix(one: Address) -> bytes:
    return _ip(one.address) + bytes([one.prefix])


def _route(one: Route) -> bytes:
    flags = _GATEWAY * (one.gateway is not None) | _SOURCE * (one.source is not None) | _ON_LINK * one.on_link
    parts = [struct.pack("<BBI", one.interface, flags, one.metric), _with_prefix(one.destination)]
    return b"".join([*parts, *(_ip(given) for given in (one.gateway, one.source) if given is not None)])
