# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Lies about data: what a request brought, or did not bring."""

from tools.attack.vhost.disk import SECTOR, Disk, Read, Status
from tools.attack.vhost.ring import Ring

_LATER = 0.2  # seconds; long for a driver that has been told that the data are there


class Nothing(Disk):
    """Completed, status OK, not a byte written."""

    def lie(self, ring: Ring, read: Read) -> None:
        """Done, it says."""
        self.lies += 1
        self.finish(ring, read.chain, read.status, Status.OK, read.size + 1)


class Early(Disk):
    """Completed first; the data come later."""

    def lie(self, ring: Ring, read: Read) -> None:
        """Data into buffers that the driver has taken back."""
        self.lies += 1
        content = self.answer(read)
        self.finish(ring, read.chain, read.status, Status.OK, read.size + 1)
        self.later(_LATER, lambda: void(self.write(ring, read.data, content)))


class Silent(Disk):
    """Completed with neither data nor status."""

    def lie(self, ring: Ring, read: Read) -> None:
        """The status byte stays what it was in the driver's memory."""
        self.lies += 1
        ring.complete(read.chain.head, 0)
        ring.interrupt()


class Zeros(Disk):
    """Zeros instead of what lies on the disk."""

    def lie(self, ring: Ring, read: Read) -> None:
        """As a disk of somebody else's."""
        self.lies += 1
        written = self.write(ring, read.data, bytes(read.size))
        self.finish(ring, read.chain, read.status, Status.OK, written + 1)


class Elsewhere(Disk):
    """Each request is answered with the sectors that lie before it."""

    def answer(self, read: Read) -> memoryview:
        """Genuine data of this very disk, from another place."""
        if not self.baited(read):
            return super().answer(read)
        self.lies += 1
        start = (self.bait.start - 256) * SECTOR
        return self.content[start : start + read.size]


class Half(Disk):
    """The second half of the data is missing, and the used length says so."""

    def lie(self, ring: Ring, read: Read) -> None:
        """A short read, which virtio-blk does not know."""
        self.lies += 1
        written = self.write(ring, read.data, self.answer(read)[: read.size // 2])
        self.finish(ring, read.chain, read.status, Status.OK, written)


class Scribble(Disk):
    """Honest at first; what was handed over is written over as soon as the driver has it."""

    def lie(self, ring: Ring, read: Read) -> None:
        """A time of check, and a time of use."""
        self.read(ring, read)
        self.lies += 1
        self.write(ring, read.data, bytes(read.size))


class Wavering(Disk):
    """The bait changes while it is read: right the first time that a sector is asked for, zeros afterwards."""

    _seen: frozenset[int] = frozenset()

    def lie(self, ring: Ring, read: Read) -> None:
        """Whoever checks one read and uses another is deceived."""
        asked = frozenset(range(read.sector, read.sector + read.size // SECTOR)) & frozenset(self.bait)
        again = asked & self._seen
        self._seen |= asked
        if not again:
            self.read(ring, read)
            return
        self.lies += 1
        written = self.write(ring, read.data, bytes(read.size))
        self.finish(ring, read.chain, read.status, Status.OK, written + 1)


class IoErrors(Disk):
    """Status IOERR for the bait."""

    status = 1

    def lie(self, ring: Ring, read: Read) -> None:
        """An error, where a program might go on without."""
        self.lies += 1
        self.finish(ring, read.chain, read.status, self.status, 1)


class Unsupported(IoErrors):
    """Status UNSUPP."""

    status = 2


class NoSuchStatus(IoErrors):
    """A status that does not exist."""

    status = 0xA5


class Never(Disk):
    """The bait is never answered."""

    def lie(self, ring: Ring, read: Read) -> None:  # noqa: ARG002
        """Nothing."""
        self.lies += 1


class Gone(Disk):
    """The device disappears in the middle of a request."""

    def lie(self, ring: Ring, read: Read) -> None:  # noqa: ARG002
        """Its socket is closed."""
        self.lies += 1
        self.hang_up()


def void(_: object) -> None:
    """For a callback whose result nobody wants."""


LIES: dict[str, type[Disk]] = {
    "completes-without-data": Nothing,
    "completes-before-data": Early,
    "completes-without-status": Silent,
    "zeros": Zeros,
    "other-sectors": Elsewhere,
    "half-the-data": Half,
    "overwrites-after-completion": Scribble,
    "changes-between-reads": Wavering,
    "status-io-error": IoErrors,
    "status-unsupported": Unsupported,
    "status-no-such": NoSuchStatus,
    "never-answers": Never,
    "hangs-up": Gone,
}
