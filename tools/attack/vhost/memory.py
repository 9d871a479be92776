# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The guest's memory as its host sees it: files that QEMU shares, mapped, found by guest-physical address."""

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

_REGION = struct.Struct("<QQQQ")  # guest-physical address, size, QEMU's own address, offset in the file
_HEADER = struct.Struct("<II")


class OutsideError(Exception):
    """An address at which the guest has no memory."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A piece of memory at a guest-physical and at a QEMU-virtual address."""

    guest: int
    size: int
    user: int
    view: memoryview


class Memory:
    """All regions of one guest."""

    def __init__(self, regions: Sequence[Region] = ()) -> None:
        self.regions = tuple(regions)

    @classmethod
    def mapped(cls, table: bytes, descriptors: Sequence[int]) -> Self:
        """From a SET_MEM_TABLE message; the descriptors are closed."""
        count, _ = _HEADER.unpack_from(table)
        if count != len(descriptors):
            raise ValueError(f"{count} memory regions with {len(descriptors)} descriptors")
        regions = []
        for number, descriptor in enumerate(descriptors):
            guest, size, user, offset = _REGION.unpack_from(table, _HEADER.size + number * _REGION.size)
            whole = mmap.mmap(descriptor, offset + size)
            os.close(descriptor)
            regions.append(Region(guest=guest, size=size, user=user, view=memoryview(whole)[offset:]))
        return cls(regions)

    def at(self, guest: int, size: int) -> memoryview:
        """Bytes at a guest-physical address."""
        for region in self.regions:
            if region.guest <= guest and guest + size <= region.guest + region.size:
                return region.view[guest - region.guest : guest - region.guest + size]
        raise OutsideError(f"no {size} bytes of memory at {guest:#x}")

    def guest_address(self, user: int) -> int:
        """The guest-physical address for one of QEMU's own."""
        for region in self.regions:
            if region.user <= user < region.user + region.size:
                return user - region.user + region.guest
        raise OutsideError(f"no memory at QEMU's {user:#x}")
