# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An engine's name server that listens on the loopback of the container's namespace (docker: 127.0.0.11).

A guest has a loopback of its own, so a relay in the namespace passes its queries on:

    guest 169.254.53.2 ──▶ tap, 169.254.53.1 ── relay ──▶ 127.0.0.11, in the namespace ──▶ … the names of a network

For names that it does not know, the engine's server asks others from the namespace itself. So the namespace's kernel
keeps what those need: answers of name servers to ports that it alone uses (KEPT), and its neighbours' answers.
"""

import contextlib
import ipaddress
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.runtime.network import netlink
from tools.runtime.network.netlink import Netlink
from tools.runtime.network.redirect import Fate, Match, Protocol, Rule

RELAY, GUEST, PREFIX = bytes((169, 254, 53, 1)), bytes((169, 254, 53, 2)), 30
"""Link-local addresses of a network that goes from the guest to its own tap and no further."""

KEPT = 0xF000
"""The first of 4096 ports that the namespace's kernel uses itself; Linux, the guest's too, gives out 32768 to 60999."""

_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ADDRESS = struct.Struct("=BBBBI")  # struct ifaddrmsg: family, prefix, flags, scope, index
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_PORT = 53
_DATAGRAM = 65535
_PIECE = 1 << 16
_QUERIES_MAX, _CONNECTIONS_MAX = 64, 16
_CONNECT = 1.0  # seconds
_TCP, _UDP = 6, 17

Handler = Callable[[], None]
Watch = Callable[[int, Handler | None], None]
"""Have the handler called whenever a descriptor can be read; None ends that (channel.session.Session.watch)."""


def rewritten(content: bytes) -> tuple[bytes, str | None]:
    """A resolv.conf as the guest needs it, and the server that its relay must ask; None: none, and it stays as it is.

    Of several servers on the loopback the first counts: engines have one.
    """
    lines, found = [], None
    for line in content.split(b"\n"):
        words = line.split()
        if len(words) > 1 and words[0] == b"nameserver" and (server := _on_loopback(words[1])):
            if found is None:
                lines.append(b"nameserver " + socket.inet_ntoa(RELAY).encode())
            found = found or server
            continue
        lines.append(line)
    return (content, None) if found is None else (b"\n".join(lines), found)


def _on_loopback(text: bytes) -> str | None:
    try:
        address = ipaddress.ip_address(text.decode("ascii").partition("%")[0])
    except ValueError:
        return None
    return str(address) if address.is_loopback else None


def rules_outside() -> list[Rule]:
    """For what arrives at the container's interface: what the namespace's kernel needs as well, or alone."""
    ports = Match(offset=0, mask=0xFFFF_F000, value=_PORT << 16 | KEPT)
    answers = [
        Rule(protocol=protocol, matches=(kind, Match(offset=at, mask=ports.mask, value=ports.value)), fate=Fate.KEEP)
        for transport in (_UDP, _TCP)
        for protocol, kind, at in (
            (Protocol.IPV4, Match(offset=8, mask=0x00FF_0000, value=transport << 16), 20),
            (Protocol.IPV6, Match(offset=4, mask=0x0000_FF00, value=transport << 8), 40),
        )
    ]
    arp_reply = Match(offset=4, mask=0x0000_FFFF, value=2)
    advertisement = (
        Match(offset=4, mask=0x0000_FF00, value=socket.IPPROTO_ICMPV6 << 8),
        Match(offset=40, mask=0xFF00_0000, value=136 << 24),  # NDISC_NEIGHBOUR_ADVERTISEMENT
    )
    return [
        Rule(protocol=Protocol.ARP, matches=(arp_reply,), fate=Fate.BOTH),
        Rule(protocol=Protocol.IPV6, matches=advertisement, fate=Fate.BOTH),
        *answers,
    ]


def rules_inside() -> list[Rule]:
    """For what the guest sends: what is for the relay stays here."""
    relay = int.from_bytes(RELAY, "big")
    return [
        Rule(protocol=Protocol.ARP, matches=(Match(offset=24, mask=0xFFFF_FFFF, value=relay),), fate=Fate.KEEP),
        Rule(protocol=Protocol.IPV4, matches=(Match(offset=16, mask=0xFFFF_FFFF, value=relay),), fate=Fate.KEEP),
    ]


def keep_ports() -> None:
    """Have the namespace's own kernel use no ports but those that it keeps."""
    _PORTS.write_text(f"{KEPT} 65535")


class Resolver:
    """The relay at a tap (by its number); made and served in the namespace of that tap."""

    def __init__(self, kernel: Netlink, index: int, name_server: str) -> None:
        body = _ADDRESS.pack(socket.AF_INET, PREFIX, 0, 0, index)
        body += netlink.attribute(_IFA_LOCAL, RELAY) + netlink.attribute(_IFA_ADDRESS, RELAY)
        kernel.ask(netlink.NEW_ADDRESS, body, create=True)
        self._family = socket.AF_INET6 if ":" in name_server else socket.AF_INET
        self._server = (name_server, _PORT)
        here = (socket.inet_ntoa(RELAY), _PORT)
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        # Queries that no answer has come to, oldest first: socket to the server → the guest's address.
        self._queries: dict[socket.socket, tuple[str, int]] = {}
        # Both ends of each connection.
        self._peers: dict[socket.socket, socket.socket] = {}
        self._watch: Watch | None = None
        for each in (self._datagrams, self._listener):
            each.setblocking(False)
            each.bind(here)
        self._listener.listen(_CONNECTIONS_MAX)

    def serve(self, watch: Watch) -> None:
        """Answer from now on whatever comes, by way of `watch`."""
        self._watch = watch
        watch(self._datagrams.fileno(), self._on_query)
        watch(self._listener.fileno(), self._on_connection)

    def close(self) -> None:
        """Stop it."""
        for each in (self._datagrams, self._listener, *self._queries, *self._peers):
            self._drop(each)

    def _drop(self, end: socket.socket) -> None:
        if self._watch is not None and end.fileno() >= 0:
            self._watch(end.fileno(), None)
        end.close()

    def _on_query(self) -> None:
        assert self._watch is not None
        with contextlib.suppress(OSError):
            query, guest = self._datagrams.recvfrom(_DATAGRAM)
            while len(self._queries) >= _QUERIES_MAX:
                oldest = next(iter(self._queries))
                del self._queries[oldest]
                self._drop(oldest)
            upstream = socket.socket(self._family, socket.SOCK_DGRAM)
            self._queries[upstream] = guest
            self._watch(upstream.fileno(), partial(self._on_answer, upstream))
            upstream.setblocking(False)
            upstream.connect(self._server)
            upstream.send(query)

    def _on_answer(self, upstream: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._datagrams.sendto(upstream.recv(_DATAGRAM), self._queries[upstream])
        self._queries.pop(upstream, None)
        self._drop(upstream)

    def _on_connection(self) -> None:
        assert self._watch is not None
        with contextlib.suppress(OSError):
            guest, _ = self._listener.accept()
            upstream = socket.socket(self._family, socket.SOCK_STREAM)
            if len(self._peers) >= 2 * _CONNECTIONS_MAX:
                guest.close()
                upstream.close()
                return
            for one, other in ((guest, upstream), (upstream, guest)):
                self._peers[one] = other
                self._watch(one.fileno(), partial(self._on_piece, one))
            upstream.settimeout(_CONNECT)  # of this machine's own loopback
            try:
                upstream.connect(self._server)
            except OSError:
                self._hang_up(guest)
                return
            for each in (guest, upstream):
                each.setblocking(False)

    def _on_piece(self, one: socket.socket) -> None:
        """Pass on what has come. A message has at most 64 KiB: who leaves that unread is left."""
        try:
            piece = one.recv(_PIECE)
            if piece and self._peers[one].send(piece) == len(piece):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._hang_up(one)

    def _hang_up(self, one: socket.socket) -> None:
        other = self._peers.pop(one)
        del self._peers[other]
        self._drop(one)
        self._drop(other)
