# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Network cards and networks that the owner did not ask for, and frames that no network carries."""

import os
import select
import socket
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part, Undefended, UnjudgedError, Weaker
from tools.attack.base.target import Target
from tools.attack.guests import agent, bound
from tools.attack.guests.agent import Guest
from tools.attack.guests.disks import ENVIRONMENT, plain
from tools.pipeline.base.errors import BuildError
from tools.sev.formats import KERNEL_NAME, NETWORK
from tools.sev.workload.document import Document, Doors, Process

_KIND = 0x1C  # NETWORK of docs/protocol.md
_MAC, _HOST_MAC = bytes.fromhex("02000a090002"), bytes.fromhex("02000a090001")
_OWN, _OTHER, _HOST = bytes((10, 9, 0, 2)), bytes((10, 9, 9, 9)), bytes((10, 9, 0, 1))
_OWN6, _HOST6 = (bytes.fromhex("fd09" + "00" * 13) + bytes([last]) for last in (2, 1))
_CARD = (
    "-netdev", "stream,id=net0,server=on,addr.type=unix,addr.path=net.sock",
    "-device", f"virtio-net-pci,netdev=net0,mac={_MAC.hex(':')},romfile=,iommu_platform=on,disable-legacy=on",
)  # fmt: skip
_ADDRESSES = "grep -o -w -e 10.9.0.2 -e 10.9.9.9 /proc/net/fib_trie | sort | uniq; echo done"
_WAITS = "echo up; read x; echo works $x"
_FRAMES = 20_000
_SECONDS, _PIECE = 120.0, 1 << 16


def networked(lab: Lab, target: Target) -> Target:
    """The target with the kernel for guests with a network in its kernel's place."""
    name = f"{target.name}, with a network"

    def make() -> Target:
        path = target.folder / f"{KERNEL_NAME}{NETWORK}"
        if not path.is_file():
            raise UnjudgedError(f"{target.folder.name}/ has no {path.name}")
        return target.derive(name, lab.folder(name) / "out", kernel=path.read_bytes())

    return lab.once(name, make)


def card(lab: Lab, target: Target, folder: Path) -> Outcome:
    """A guest whose document has no network finds a card all the same."""
    document = _document(lab, "ls /sys/class/net | grep ^eth; echo done", network="none")
    with _guest(lab, target, folder, document) as guest:
        guest.bound(document.data).expect(agent.READY)
        said = _said(guest)
    return Outcome(succeeded="eth0" in said, guest=f"it has {said!r}")


def told(lab: Lab, target: Target, folder: Path, *, network: str, before: tuple[bytes, ...], late: bool) -> Outcome:
    """The host says which addresses there are: more than once, late, or where the document has no network."""
    document = _document(lab, _ADDRESSES, network=network)
    with _guest(lab, networked(lab, target), folder, document) as guest:
        guest.bound(document.data, *((_KIND, _network(address)) for address in before))
        heard = guest.hear(lambda heard: heard[0].ready or heard[0].error is not None)[0]
        if late and heard.ready:
            guest.send(_KIND, payload=_network(_OTHER))
        if heard.error is not None:
            return Outcome(succeeded=False, guest=heard.error[1])
        guest.send(agent.RUN, 1, agent.run_entry())
        result = guest.hear(lambda heard: heard[1].over or heard[0].error is not None)
    said = result[1].out.decode("utf-8", "replace").split()
    shown = result[0].error[1] if result[0].error else f"it has the addresses {said[:-1]}"
    return Outcome(succeeded="10.9.9.9" in said, guest=shown)


def frames(lab: Lab, target: Target, folder: Path, *, hostile: bool) -> Outcome:
    """Frames without end, and then an honest one, which must be answered; the workload goes on."""
    document = _document(lab, _WAITS, network="ethernet")
    with _guest(lab, networked(lab, target), folder, document) as guest, socket.socket(socket.AF_UNIX) as wire:
        guest.bound(document.data, (_KIND, _network(_OWN))).expect(agent.READY)
        _connect(wire, folder / "net.sock")
        wire.setblocking(False)
        guest.send(agent.RUN, 1, agent.run_entry(flags=0))
        guest.hear(lambda heard: heard[1].out == b"up\n")
        for frame in _hostile() if hostile else _HONEST:
            _send(wire, frame)
        answered = _answered(wire)
        guest.send(agent.STDIN, 1, b"on\n")
        result = guest.hear(lambda heard: heard[1].over)[1]
    right = answered and result.out == b"works on\n" and result.exited == (0, 0, 0, 0)
    words = f"{'answered' if answered else 'silent'} behind them; its program said {result.out!r}"
    return Outcome(succeeded=right is not hostile, guest=words)


def attacks() -> Iterator[Attack]:
    """The rows."""
    yield Attack(
        name="card",
        host="adds a network card",
        attempt=card,
        control=Undefended(what="the kernel with a network", target=networked),
        parts=frozenset({Part.KERNEL}),
        short=True,
    )
    agents = frozenset({Part.KERNEL, Part.AGENT})
    first = Weaker(
        what="a document with a network, and these addresses said first",
        attempt=partial(told, network="ethernet", before=(_OTHER,), late=False),
    )
    for name, host, network, before, late in (
        ("uninvited", "says which addresses a guest has whose document has no network", "none", (_OTHER,), False),
        ("twice", "says which addresses there are, and then others", "ethernet", (_OWN, _OTHER), False),
        ("late", "says other addresses when the container is there", "ethernet", (_OWN,), True),
    ):
        attempt = partial(told, network=network, before=before, late=late)
        yield Attack(name=name, host=host, attempt=attempt, control=first, parts=agents, short=name == "uninvited")
    yield Attack(
        name="frames",
        host=f"sends {_FRAMES:,} frames that are wrong in one place or in many",
        attempt=partial(frames, hostile=True),
        control=Honest(what="frames as a network carries them", attempt=partial(frames, hostile=False)),
        parts=agents,
    )


# ---- the guest and its host


def _document(lab: Lab, script: str, *, network: str) -> Document:
    process = Process(argv=("sh", "-c", script), environment=ENVIRONMENT, host=Doors(stdin=True))
    return Document(root=plain(lab).root, process=process, network=network)


def _guest(lab: Lab, target: Target, folder: Path, document: Document) -> Guest:
    return bound.guest(lab, target, folder, disk=plain(lab).data, document=document, options=_CARD)


def _said(guest: Guest) -> str:
    guest.send(agent.RUN, 1, agent.run_entry())
    result = guest.hear(lambda heard: heard[1].over)[1]
    if not result.out.endswith(b"done\n"):
        raise BuildError(f"the workload did not come so far: {result.out!r} {result.error}")
    return result.out.decode("utf-8", "replace")


def _network(address: bytes) -> bytes:
    """NETWORK with one interface that has that address, and IPv6."""
    addresses = b"\4" + address + bytes([16]) + b"\6" + _OWN6 + bytes([64])
    return struct.pack("<B3x6sH", 1, _MAC, 1500) + agent.counted(b"eth0") + struct.pack("<H", 2) + addresses + bytes(2)


def _connect(wire: socket.socket, path: Path) -> None:
    """However long the path is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        wire.connect(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)


def _send(wire: socket.socket, frame: bytes) -> None:
    """One frame, while the guest's own are thrown away: a host that does not read is not read from either."""
    data = struct.pack(">I", len(frame)) + frame
    while data:
        readable, writable, _ = select.select([wire], [wire], [], _SECONDS)
        if readable:
            wire.recv(_PIECE)
        if writable:
            data = data[wire.send(data) :]
        if not readable and not writable:
            raise BuildError("the guest's card takes no more frames")


def _answered(wire: socket.socket) -> bool:
    """Whether the guest says where its address is; what else it sends is not looked at."""
    _send(wire, _arp(_OWN, request=True))
    buffered = b""
    wanted = _HOST_MAC + _MAC + b"\x08\x06\0\1\x08\0\6\4\0\2" + _MAC + _OWN
    while wanted not in buffered:
        if not select.select([wire], [], [], _SECONDS)[0]:
            return False
        data = wire.recv(_PIECE)
        if not data:
            return False
        buffered = buffered[-len(wanted) :] + data
    return True


# ---- frames


def _arp(target: bytes, *, request: bool) -> bytes:
    to = b"\xff" * 6 if request else _MAC
    kind = struct.pack(">HHBBH", 1, 0x0800, 6, 4, 1 if request else 2)
    return to + _HOST_MAC + b"\x08\x06" + kind + _HOST_MAC + _HOST + bytes(6) + target + bytes(18)


def _sum(data: bytes) -> int:
    """The checksum of RFC 1071."""
    padded = data + bytes(len(data) & 1)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _v4(protocol: int, payload: bytes, *, options: bytes = b"", fragment: int = 0) -> bytes:
    words, length = 5 + len(options) // 4, 20 + len(options) + len(payload)
    head = struct.pack(">BBHHHBBH", 0x40 | words, 0, length, 7, fragment, 64, protocol, 0) + _HOST + _OWN + options
    head = head[:10] + struct.pack(">H", _sum(head)) + head[12:]
    return _MAC + _HOST_MAC + b"\x08\0" + head + payload


def _v6(following: int, payload: bytes) -> bytes:
    head = struct.pack(">IHBB", 6 << 28, len(payload), following, 255) + _HOST6 + _OWN6
    return _MAC + _HOST_MAC + b"\x86\xdd" + head + payload


def _icmp6(kind: int, body: bytes) -> bytes:
    message = bytes([kind, 0, 0, 0]) + body
    pseudo = _HOST6 + _OWN6 + struct.pack(">II", len(message), 58)
    return message[:2] + struct.pack(">H", _sum(pseudo + message)) + message[4:]


def _tcp(flags: int, options: bytes = b"") -> bytes:
    words = 5 + len(options) // 4
    return struct.pack(">HHIIBBHHH", 40000, 80, 1, 0, words << 4, flags, 1024, 0, 0) + options


_ECHO = struct.pack(">BBHHH", 8, 0, 0xF7FF - 0x0100, 0x0100, 0x0100) + bytes(56)
_LINK_ADDRESS = b"\1\1" + _HOST_MAC
_PREFIX = struct.pack(">BBBBIII", 3, 4, 64, 0xC0, 3600, 3600, 0) + _HOST6
_HONEST = (
    _arp(_OWN, request=True),
    _arp(_OWN, request=False),
    _v4(1, _ECHO),
    _v4(6, _tcp(2, b"\2\4\5\xb4\1\3\3\7")),
    _v4(17, struct.pack(">HHHH", 53, 40000, 8 + 100, 0) + bytes(100)),
    _v4(17, struct.pack(">HHHH", 53, 40000, 1400, 0) + bytes(1000), fragment=0x2000),
    _v4(1, _ECHO, options=b"\7\x0b\4" + bytes(8) + b"\0"),
    _v4(2, b"\x11\x64\xee\x9b" + bytes(4)),
    _v6(58, _icmp6(128, b"\0\1\0\1" + bytes(56))),
    _v6(58, _icmp6(135, bytes(4) + _OWN6 + _LINK_ADDRESS)),
    _v6(58, _icmp6(136, b"\x60\0\0\0" + _HOST6 + b"\2\1" + _HOST_MAC)),
    _v6(58, _icmp6(134, struct.pack(">BBHII", 64, 0, 1800, 0, 0) + _LINK_ADDRESS + _PREFIX)),
    _v6(0, b"\x3a\0\5\2\0\0\1\0" + _icmp6(128, bytes(8))),
    _v6(43, b"\x3a\2\0\1" + bytes(4) + _OWN6 + _icmp6(128, bytes(8))),
    _v6(44, b"\x3a\0\0\1\0\0\0\7" + _icmp6(128, bytes(512))),
    _v6(60, b"\x3a\1" + b"\1\x0c" + bytes(12) + _icmp6(128, bytes(8))),
    _MAC + _HOST_MAC + b"\x81\0\0\5\x08\0" + _v4(1, _ECHO)[14:],
    _MAC + _HOST_MAC + b"\x88\xb5" + bytes(64),
)


def _hostile() -> Iterator[bytes]:
    """The honest ones with bytes exchanged, cut short, made long; the same each time (xorshift64*, Vigna 2016)."""
    state = 0x5EED_0010

    def below(bound: int) -> int:
        nonlocal state
        state ^= state >> 12
        state = (state ^ state << 25) & (1 << 64) - 1
        state ^= state >> 27
        return (state * 0x2545_F491_4F6C_DD1D >> 32 & 0xFFFF_FFFF) % bound

    for _ in range(_FRAMES):
        frame = bytearray(_HONEST[below(len(_HONEST))])
        for _ in range(1 + below(4)):
            # The addresses of the card mostly stay: what is for somebody else is dropped at once.
            frame[12 + below(len(frame) - 12) if below(16) else below(12)] = below(256)
        if below(4) == 0:
            del frame[14 + below(len(frame) - 14) :]
        if below(16) == 0:
            frame += bytes(below(1400))
        if frame[12:14] == b"\x08\0" and len(frame) >= 34 and below(4):
            # Without a right checksum nothing behind it would be looked at.
            frame[24:26] = bytes(2)
            frame[24:26] = struct.pack(">H", _sum(bytes(frame[14:34])))
        yield bytes(frame[:1514])
