# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Frames that arrive at one interface leave by another: tc's ingress and mirred, as Kata Containers does it.

The namespace's own kernel sees none of them but those that a filter passes; so that it may keep the addresses, which
engines look at and publish ports to. linux/pkt_sched.h, pkt_cls.h, tc_act/tc_mirred.h.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from tools.runtime.network import netlink
from tools.runtime.network.netlink import Netlink

_TRAFFIC = struct.Struct("=BxxxiIII")  # struct tcmsg: family, interface, handle, parent, info
_INGRESS_PARENT, _INGRESS = 0xFFFFFFF1, 0xFFFF0000
_KIND, _OPTIONS = 1, 2
_U32_CLASS, _U32_SELECTOR, _U32_ACTION = 1, 5, 7
_SELECTOR = struct.Struct("=BBBxHHhhI")
_TERMINAL = 1
_KEY, _PLACE = struct.Struct("!II"), struct.Struct("=ii")  # mask, value; offset, mask of the offset
_ACTION_KIND, _ACTION_OPTIONS, _MIRRED_PARAMETERS = 1, 2, 2
_MIRRED = struct.Struct("=IIiiiiI")  # index, capabilities, action, two counts, what to do, interface
_OK, _STOLEN = 0, 4
_LAST = 10  # preference of the filter that takes what no other did


class Protocol(IntEnum):
    """What a frame carries; linux/if_ether.h."""

    ALL = 0x0003
    IPV4 = 0x0800
    ARP = 0x0806
    IPV6 = 0x86DD


class Fate(IntEnum):
    """What becomes of a frame: to the namespace's kernel, to the other interface (REDIRECT of mirred), to both."""

    KEEP = 0
    MOVE = 1
    BOTH = 2


@dataclass(frozen=True, kw_only=True)
class Match:
    """32 bits of a packet, big-endian, at this offset from its network header: `value` under `mask`."""

    offset: int
    mask: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A fate for packets of a protocol that match in all these places."""

    protocol: Protocol
    matches: tuple[Match, ...]
    fate: Fate


def redirect(kernel: Netlink, *, source: int, target: int, rules: Sequence[Rule] = ()) -> None:
    """All frames that arrive at one interface (by its number) go to the other, but for what rules, in order, say."""
    body = _TRAFFIC.pack(0, source, _INGRESS, _INGRESS_PARENT, 0) + netlink.text(_KIND, "ingress")
    kernel.ask(netlink.NEW_QDISC, body, create=True)
    for preference, rule in enumerate(rules, 1):
        _filter(kernel, rule, preference, source=source, target=target)
    everything = Rule(protocol=Protocol.ALL, matches=(Match(offset=0, mask=0, value=0),), fate=Fate.MOVE)
    _filter(kernel, everything, _LAST, source=source, target=target)


def _filter(kernel: Netlink, rule: Rule, preference: int, *, source: int, target: int) -> None:
    protocol = int.from_bytes(rule.protocol.to_bytes(2, "big"), "little")
    head = _TRAFFIC.pack(0, source, 0, _INGRESS, preference << 16 | protocol)
    keys = b"".join(_KEY.pack(match.mask, match.value) + _PLACE.pack(match.offset, 0) for match in rule.matches)
    selector = _SELECTOR.pack(_TERMINAL, 0, len(rule.matches), 0, 0, 0, 0, 0) + keys
    options = netlink.attribute(_U32_SELECTOR, selector)
    # A filter without an action keeps what it matches.
    options += netlink.number(_U32_CLASS, 1) if rule.fate is Fate.KEEP else _mirred(rule.fate, target)
    body = head + netlink.text(_KIND, "u32") + netlink.attribute(_OPTIONS, options)
    kernel.ask(netlink.NEW_FILTER, body, create=True)


def _mirred(fate: Fate, target: int) -> bytes:
    after = _STOLEN if fate is Fate.MOVE else _OK
    parameters = netlink.attribute(_MIRRED_PARAMETERS, _MIRRED.pack(0, 0, after, 0, 0, fate, target))
    action = netlink.text(_ACTION_KIND, "mirred") + netlink.attribute(_ACTION_OPTIONS, parameters)
    return netlink.attribute(_U32_ACTION, netlink.attribute(1, action))
