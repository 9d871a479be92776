# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""An honest virtio-blk device (virtio 1.2, 5.2) that serves a file, read-only.

Lies are classes that override one method (lies/).
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag

from tools.attack.vhost.ring import Chain, Ring, Segment

SECTOR = 512
IDENTITY_BYTES = 20  # VIRTIO_BLK_ID_BYTES
_REQUEST = struct.Struct("<IIQ")  # type, reserved, sector


class Feature(IntFlag):
    """Feature bits of block devices, of rings, and vhost-user's own."""

    SIZE_MAX = 1 << 1
    SEG_MAX = 1 << 2
    RO = 1 << 5
    BLK_SIZE = 1 << 6
    FLUSH = 1 << 9
    TOPOLOGY = 1 << 10
    CONFIG_WCE = 1 << 11
    MQ = 1 << 12
    DISCARD = 1 << 13
    WRITE_ZEROES = 1 << 14
    INDIRECT_DESC = 1 << 28
    EVENT_IDX = 1 << 29
    PROTOCOL_FEATURES = 1 << 30
    VERSION_1 = 1 << 32
    ACCESS_PLATFORM = 1 << 33
    RING_PACKED = 1 << 34
    IN_ORDER = 1 << 35


NEEDED = Feature.PROTOCOL_FEATURES | Feature.VERSION_1 | Feature.ACCESS_PLATFORM
HONEST = NEEDED | Feature.SEG_MAX | Feature.RO | Feature.BLK_SIZE | Feature.FLUSH | Feature.INDIRECT_DESC


class Kind(IntEnum):
    """What a request asks for."""

    READ = 0
    WRITE = 1
    FLUSH = 4
    GET_ID = 8


class Status(IntEnum):
    """A request's last byte."""

    OK = 0
    IO_ERROR = 1
    UNSUPPORTED = 2


@dataclass(frozen=True, kw_only=True)
class Config:
    """The device's configuration space (struct virtio_blk_config)."""

    capacity: int
    size_max: int = 0
    seg_max: int = 126
    blk_size: int = SECTOR
    physical_block_exp: int = 0
    alignment_offset: int = 0
    min_io_size: int = 0
    opt_io_size: int = 0
    wce: int = 0
    num_queues: int = 1
    max_discard_sectors: int = 0
    max_discard_seg: int = 0
    discard_sector_alignment: int = 0
    max_write_zeroes_sectors: int = 0
    max_write_zeroes_seg: int = 0

    def pack(self) -> bytes:
        """As it lies in the configuration space."""
        return struct.pack(
            "<QIIHBBIBBHIBBHIIIII4x",
            self.capacity & (1 << 64) - 1, self.size_max, self.seg_max, 0, 0, 0, self.blk_size,
            self.physical_block_exp, self.alignment_offset, self.min_io_size, self.opt_io_size,
            self.wce, 0, self.num_queues,
            self.max_discard_sectors, self.max_discard_seg, self.discard_sector_alignment,
            self.max_write_zeroes_sectors, self.max_write_zeroes_seg,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Read:
    """A request to read, and where its parts lie."""

    sector: int
    chain: Chain
    data: tuple[Segment, ...]
    status: Segment

    @property
    def size(self) -> int:
        """Bytes of data."""
        return sum(segment.length for segment in self.data)


class Disk:
    """Serves `content`. `bait`: the sectors for which a lie is kept; outside of them it serves honestly."""

    def __init__(self, content: memoryview, *, serial: bytes, bait: range) -> None:
        self.content = content
        self.serial = serial
        self.bait = bait
        self.reads = 0
        self.lies = 0  # how often this device has lied
        self.config_changed: Callable[[], None] = lambda: None
        self.hang_up: Callable[[], None] = lambda: None
        self.later: Callable[[float, Callable[[], None]], None] = lambda _, action: action()

    @property
    def capacity(self) -> int:
        """In sectors."""
        return len(self.content) // SECTOR

    def features(self) -> int:
        """What the device offers."""
        return HONEST

    def config(self) -> Config:
        """What stands in its configuration space."""
        return Config(capacity=self.capacity)

    def accepted(self, features: int) -> None:
        """What the driver has chosen."""

    def serve(self, ring: Ring) -> None:
        """The driver has kicked: everything that is there."""
        for chain in ring.chains():
            self.request(ring, chain)

    def request(self, ring: Ring, chain: Chain) -> None:
        """One request of any kind."""
        read = self.reading(ring, chain)
        if read is None:
            self.other(ring, chain)
            return
        self.reads += 1
        if self.baited(read):
            self.lie(ring, read)
        else:
            self.read(ring, read)

    @staticmethod
    def header(ring: Ring, chain: Chain) -> tuple[int, int]:
        """What is asked for, and the sector."""
        header = b"".join(ring.memory.at(part.address, part.length) for part in chain.readable)
        kind, _, sector = _REQUEST.unpack_from(header)
        return kind, sector

    def reading(self, ring: Ring, chain: Chain) -> Read | None:
        """The chain as a request to read, if it is one."""
        kind, sector = self.header(ring, chain)
        if kind != Kind.READ:
            return None
        *data, status = chain.writable
        return Read(sector=sector, chain=chain, data=tuple(data), status=status)

    def other(self, ring: Ring, chain: Chain) -> None:
        """A request that reads nothing from the disk."""
        kind, _ = self.header(ring, chain)
        *data, status = chain.writable
        written = 1
        result = Status.OK
        if kind == Kind.GET_ID:
            written += self.write(ring, tuple(data), self.serial.ljust(IDENTITY_BYTES, b"\0"))
        elif kind != Kind.FLUSH:
            result = Status.UNSUPPORTED
        self.finish(ring, chain, status, result, written)

    def baited(self, read: Read) -> bool:
        """Whether the request is one for which the lie is kept."""
        end = read.sector + read.size // SECTOR
        return read.sector < self.bait.stop and end > self.bait.start

    def lie(self, ring: Ring, read: Read) -> None:
        """A request for the bait. An honest device serves it as any other."""
        self.read(ring, read)

    def read(self, ring: Ring, read: Read) -> None:
        """The honest answer."""
        content = self.answer(read)
        if len(content) < read.size:
            self.finish(ring, read.chain, read.status, Status.IO_ERROR, 1)
            return
        written = self.write(ring, read.data, content)
        self.finish(ring, read.chain, read.status, Status.OK, written + 1)

    def answer(self, read: Read) -> memoryview:
        """What lies on the disk at the request's place."""
        return self.content[read.sector * SECTOR : read.sector * SECTOR + read.size]

    @staticmethod
    def write(ring: Ring, segments: tuple[Segment, ...], content: bytes | memoryview) -> int:
        """Fill the buffers from the front; how many bytes were written."""
        done = 0
        for segment in segments:
            part = content[done : done + segment.length]
            ring.memory.at(segment.address, len(part))[:] = part
            done += len(part)
        return done

    @staticmethod
    def finish(ring: Ring, chain: Chain, status: Segment, result: int, written: int) -> None:
        """Status, used ring, interrupt: how an honest device ends a request."""
        ring.memory.at(status.address, 1)[0] = result
        ring.complete(chain.head, written)
        ring.interrupt()
