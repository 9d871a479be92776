# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A split virtqueue from the device's side (virtio 1.2, 2.7).

What the specification forbids a device to do is possible here: every field of the used ring and of the descriptors
can be written at any time.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tools.attack.vhost.memory import Memory

NEXT, WRITE, INDIRECT = 1, 2, 4
DESCRIPTOR = struct.Struct("<QIHH")  # address, length, flags, next
_USED = struct.Struct("<II")  # id, length
_WRAP = 0xFFFF


@dataclass(frozen=True, kw_only=True)
class Segment:
    """One buffer of a chain, and where its descriptor lies."""

    address: int
    length: int
    flags: int
    descriptor: int

    @property
    def writable(self) -> bool:
        """For the device to write, not to read."""
        return bool(self.flags & WRITE)


@dataclass(frozen=True, kw_only=True)
class Chain:
    """What the driver has made available at once."""

    head: int
    segments: tuple[Segment, ...]

    @property
    def readable(self) -> tuple[Segment, ...]:
        """What the driver wrote for the device."""
        return tuple(segment for segment in self.segments if not segment.writable)

    @property
    def writable(self) -> tuple[Segment, ...]:
        """What the device is to write."""
        return tuple(segment for segment in self.segments if segment.writable)


class Ring:
    """One queue that the driver has set up."""

    def __init__(self, memory: Memory, *, size: int, table: int, available: int, used: int, base: int = 0) -> None:
        """Guest-physical addresses of the three parts; `base` is the index at which the device goes on."""
        self.memory = memory
        self.size = size
        self.table = table
        # Indices are read and written by single instructions: the driver looks at them at the same time.
        self._available = memory.at(available, 4 + 2 * size).cast("H")
        self._used_bytes = memory.at(used, 4 + _USED.size * size)
        self._used = memory.at(used, 4).cast("H")
        self.next_available = base
        self.used_index = self._used[1]
        self.call: int | None = None  # an eventfd: interrupts the guest

    def take(self) -> Chain | None:
        """The next chain that the driver has made available."""
        if self.next_available == self._available[1]:
            return None
        head = self._available[2 + self.next_available % self.size]
        self.next_available = (self.next_available + 1) & _WRAP
        return Chain(head=head, segments=tuple(self._walk(head)))

    def chains(self) -> Iterator[Chain]:
        """All that are there now."""
        while (chain := self.take()) is not None:
            yield chain

    def _walk(self, head: int) -> Iterator[Segment]:
        table, size = self.table, self.size
        address, length, flags, following = self.descriptor(table, head, size)
        if flags & INDIRECT:
            table, size, head = address, length // DESCRIPTOR.size, 0
        for _ in range(size):
            address, length, flags, following = self.descriptor(table, head, size)
            yield Segment(address=address, length=length, flags=flags, descriptor=table + head * DESCRIPTOR.size)
            if not flags & NEXT:
                return
            head = following
        raise ValueError("descriptors in a circle")

    def descriptor(self, table: int, index: int, size: int) -> tuple[int, int, int, int]:
        """A descriptor's address, length, flags and next."""
        if index >= size:
            raise ValueError(f"descriptor {index} of {size}")
        address, length, flags, following = DESCRIPTOR.unpack(
            self.memory.at(table + index * DESCRIPTOR.size, DESCRIPTOR.size)
        )
        return address, length, flags, following

    def entry(self, index: int, identity: int, length: int) -> None:
        """Write an entry of the used ring; the driver does not look at it before the index says so."""
        _USED.pack_into(self._used_bytes, 4 + (index % self.size) * _USED.size, identity, length)

    def publish(self, index: int) -> None:
        """Set the used ring's index."""
        self.used_index = index & _WRAP
        self._used[1] = self.used_index

    def complete(self, identity: int, length: int) -> None:
        """Hand a chain back, as the specification says."""
        self.entry(self.used_index, identity, length)
        self.publish(self.used_index + 1)

    def interrupt(self) -> None:
        """Tell the driver to look at the used ring."""
        if self.call is not None:
            os.write(self.call, (1).to_bytes(8, "little"))
