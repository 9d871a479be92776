# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest's driver as the specification describes it, in plain memory: the other side of what is tested."""

import struct
from dataclasses import dataclass, field

from tools.attack.vhost.memory import Memory, Region
from tools.attack.vhost.ring import DESCRIPTOR, INDIRECT, NEXT, WRITE, Ring

BASE, SIZE = 0x10000, 1 << 20
TABLE, AVAILABLE, USED, BUFFERS = BASE, BASE + 0x4000, BASE + 0x6000, BASE + 0x10000


@dataclass(frozen=True)
class Buffer:
    """What the driver hands over."""

    length: int
    writable: bool


@dataclass
class Driver:
    """One split queue of `size`."""

    size: int = 8
    start: int = 0  # where both indices begin
    memory: Memory = field(init=False)
    ring: Ring = field(init=False)
    _free: int = 0
    _place: int = BUFFERS
    _seen: int = field(init=False)

    def __post_init__(self) -> None:
        view = memoryview(bytearray(SIZE))
        self.memory = Memory([Region(guest=BASE, size=SIZE, user=0x7F0000000000, view=view)])
        for part in (AVAILABLE, USED):
            self.write(part + 2, struct.pack("<H", self.start))
        self._seen = self.start
        self.ring = Ring(self.memory, size=self.size, table=TABLE, available=AVAILABLE, used=USED, base=self.start)

    def write(self, address: int, data: bytes) -> None:
        self.memory.at(address, len(data))[:] = data

    def read(self, address: int, size: int) -> bytes:
        return bytes(self.memory.at(address, size))

    def allocate(self, size: int) -> int:
        place, self._place = self._place, self._place + size
        return place

    def give(self, buffers: list[Buffer], *, indirect: bool = False) -> tuple[int, list[int]]:
        """Make a chain available; its head, and where its buffers lie."""
        places = [self.allocate(buffer.length) for buffer in buffers]
        head = self._free
        table = self.allocate(DESCRIPTOR.size * len(buffers)) if indirect else TABLE
        for number, (buffer, place) in enumerate(zip(buffers, places, strict=True)):
            more = NEXT if number + 1 < len(buffers) else 0
            flags = more | (WRITE if buffer.writable else 0)
            index = number if indirect else (head + number) % self.size
            following = (index + 1 if indirect else (index + 1) % self.size) if more else 0
            self.write(table + index * DESCRIPTOR.size, DESCRIPTOR.pack(place, buffer.length, flags, following))
        if indirect:
            self.write(TABLE + head * 16, DESCRIPTOR.pack(table, 16 * len(buffers), INDIRECT, 0))
        self._free = (head + (1 if indirect else len(buffers))) % self.size
        (index,) = struct.unpack("<H", self.read(AVAILABLE + 2, 2))
        self.write(AVAILABLE + 4 + 2 * (index % self.size), struct.pack("<H", head))
        self.write(AVAILABLE + 2, struct.pack("<H", (index + 1) & 0xFFFF))
        return head, places

    @property
    def used_index(self) -> int:
        return int.from_bytes(self.read(USED + 2, 2), "little")

    def entries(self) -> list[tuple[int, int]]:
        """What has come back since the last look: identities and lengths."""
        found = []
        while self._seen != self.used_index:
            found.append(struct.unpack("<II", self.read(USED + 4 + 8 * (self._seen % self.size), 8)))
            self._seen = (self._seen + 1) & 0xFFFF
        return found


def request(kind: int, sector: int) -> bytes:
    """A block request's header."""
    return struct.pack("<IIQ", kind, 0, sector)


def ask(driver: Driver, sector: int, size: int, *, kind: int = 0, indirect: bool = False) -> tuple[int, int, int]:
    """A request for `size` bytes; the chain's head, and where data and status are to lie."""
    driver_buffers = [Buffer(16, writable=False), Buffer(size, writable=True), Buffer(1, writable=True)]
    head, (header, data, status) = driver.give(driver_buffers, indirect=indirect)
    driver.write(header, request(kind, sector))
    driver.write(status, b"\xff")
    return head, data, status
