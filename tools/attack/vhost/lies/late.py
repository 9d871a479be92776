# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A lie that comes when everybody has stopped looking: data are overwritten long after they were verified."""

from collections.abc import Callable

from tools.attack.vhost.disk import HONEST, Disk, Feature, Read
from tools.attack.vhost.memory import Memory
from tools.attack.vhost.ring import Ring, Segment
from tools.pipeline.base.errors import BuildError


class Patient(Disk):
    """Serves honestly, and keeps in mind where the guest wanted the bait."""

    def __init__(self, content: memoryview, *, serial: bytes, bait: range) -> None:
        super().__init__(content, serial=serial, bait=bait)
        self._kept: list[Segment] = []
        self._memory = Memory()

    def lie(self, ring: Ring, read: Read) -> None:
        """Not yet."""
        self._memory = ring.memory
        self._kept += read.data
        self.read(ring, read)

    def strike(self) -> None:
        """Zeros into all buffers that ever held the bait."""
        if not self._kept:
            raise BuildError("the guest has not read the bait")
        self.lies += 1
        for segment in self._kept:
            self._memory.at(segment.address, segment.length)[:] = bytes(segment.length)


class PatientWithoutPlatform(Patient):
    """Does not offer VIRTIO_F_ACCESS_PLATFORM: it takes all of the guest's memory for its own."""

    def features(self) -> int:
        """All but that one."""
        return HONEST & ~Feature.ACCESS_PLATFORM


class Holder:
    """Makes one such disk, and holds it for whoever says when to strike."""

    def __init__(self, kind: type[Patient]) -> None:
        self._kind = kind
        self._disk: Patient | None = None

    def __call__(self, content: memoryview, /, *, serial: bytes, bait: range) -> Disk:
        """The disk."""
        self._disk = self._kind(content, serial=serial, bait=bait)
        return self._disk

    @property
    def strike(self) -> Callable[[], None]:
        """That of the disk."""
        if self._disk is None:
            raise BuildError("there is no disk yet")
        return self._disk.strike
