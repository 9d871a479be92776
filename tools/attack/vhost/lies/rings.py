# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Lies in the rings: identities, lengths, indices, and descriptors that change after they were read."""

from tools.attack.vhost.disk import HONEST, Disk, Feature, Read, Status
from tools.attack.vhost.ring import DESCRIPTOR, INDIRECT, NEXT, WRITE, Chain, Ring

_STORM = 20_000  # interrupts
_PATIENCE = 0.05  # seconds


class _Used(Disk):
    """The data are right; what stands in the used ring is not."""

    def lie(self, ring: Ring, read: Read) -> None:
        """Everything but the used ring as an honest device does it."""
        self.lies += 1
        written = self.write(ring, read.data, self.answer(read))
        ring.memory.at(read.status.address, 1)[0] = Status.OK
        self.used(ring, read.chain, written + 1)
        ring.interrupt()

    def used(self, ring: Ring, chain: Chain, written: int) -> None:
        """Write the used ring."""
        raise NotImplementedError


class LengthHuge(_Used):
    """A length of 4 GiB less one byte."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:  # noqa: ARG002
        """More than the buffer holds."""
        ring.complete(chain.head, 0xFFFFFFFF)


class LengthZero(_Used):
    """A length of nothing, though data were written."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:  # noqa: ARG002
        """Less than was written."""
        ring.complete(chain.head, 0)


class IdentityBeyond(_Used):
    """The identity of a descriptor beyond the table."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:  # noqa: ARG002
        """The first that does not exist."""
        ring.complete(ring.size, written)


class IdentityHuge(_Used):
    """An identity that is negative to whoever takes it for a signed number."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:  # noqa: ARG002
        """All bits set."""
        ring.complete(0xFFFFFFFF, written)


class IdentityNeverGiven(_Used):
    """The identity of a descriptor that the driver has not made available."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:
        """The one before, which is free or in the middle of a chain."""
        ring.complete((chain.head - 1) % ring.size, written)


class Twice(_Used):
    """The same completion twice."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:
        """Both are published at once."""
        ring.entry(ring.used_index, chain.head, written)
        ring.entry(ring.used_index + 1, chain.head, written)
        ring.publish(ring.used_index + 2)


class IndexAhead(_Used):
    """The used index runs half a ring ahead of what was written."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:
        """Entries of long ago count again."""
        ring.entry(ring.used_index, chain.head, written)
        ring.publish(ring.used_index + ring.size // 2)


class IndexFarAhead(_Used):
    """The used index runs many rings ahead."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:
        """32,768: neither ahead nor behind."""
        ring.entry(ring.used_index, chain.head, written)
        ring.publish(ring.used_index + 0x8000)


class IndexBack(_Used):
    """The used index goes backwards."""

    def used(self, ring: Ring, chain: Chain, written: int) -> None:
        """By two."""
        ring.entry(ring.used_index, chain.head, written)
        ring.publish(ring.used_index - 2)


class Swapped(Disk):
    """Two requests under way, one of them for the bait: each gets what the other asked for."""

    def serve(self, ring: Ring) -> None:
        """A short while later, so that the driver has the time to make more than one available."""
        self.later(_PATIENCE, lambda: self._batch(ring))

    def _batch(self, ring: Ring) -> None:
        chains = list(ring.chains())
        pair = (
            [read for chain in chains if (read := self.reading(ring, chain)) is not None][:2] if len(chains) > 1 else []
        )
        if len(pair) == 2 and any(map(self.baited, pair)):
            self.lies += 1
            for one, other in (pair, reversed(pair)):
                self.write(ring, one.data, self.answer(other)[: one.size])
                ring.memory.at(one.status.address, 1)[0] = Status.OK
                ring.complete(one.chain.head, one.size + 1)
            ring.interrupt()
            chains = [chain for chain in chains if chain not in [read.chain for read in pair]]
        for chain in chains:
            self.request(ring, chain)


class Storm(Disk):
    """Interrupts without end, nothing completed; then the honest answer."""

    def lie(self, ring: Ring, read: Read) -> None:
        """Spurious interrupts."""
        self.lies += 1
        for _ in range(_STORM // (1 + self.lies)):
            ring.interrupt()
        self.read(ring, read)


class _Table(Disk):
    """The descriptors of a chain are rewritten after they were read, before it is completed."""

    def lie(self, ring: Ring, read: Read) -> None:
        """The data are honest and lie where the driver wanted them."""
        self.lies += 1
        self.write(ring, read.data, self.answer(read))
        self.rewrite(ring, read)
        self.finish(ring, read.chain, read.status, Status.OK, read.size + 1)

    def rewrite(self, ring: Ring, read: Read) -> None:
        """Change descriptors in the guest's memory."""
        raise NotImplementedError

    @staticmethod
    def put(ring: Ring, place: int, descriptor: tuple[int, int, int, int]) -> None:
        """Write one descriptor: address, length, flags, next."""
        DESCRIPTOR.pack_into(ring.memory.at(place, DESCRIPTOR.size), 0, *descriptor)


class TableAddresses(_Table):
    """Other addresses and lengths in a chain's descriptors, direct and indirect."""

    def rewrite(self, ring: Ring, read: Read) -> None:
        """Kernel memory at 16 MiB, with a length of 4 GiB less one byte."""
        for segment in read.chain.segments:
            self.put(ring, segment.descriptor, (0x1000000, 0xFFFFFFFF, segment.flags, 0))


class TableEndless(_Table):
    """Every descriptor of the ring says that another one follows."""

    def rewrite(self, ring: Ring, read: Read) -> None:  # noqa: ARG002
        """The driver's walk along a chain would have no end, if it believed the table."""
        for index in range(ring.size):
            address, length, flags, following = ring.descriptor(ring.table, index, ring.size)
            self.put(ring, ring.table + index * DESCRIPTOR.size, (address, length, flags | NEXT, following))


class TableMerged(_Table):
    """The head of a chain says that another descriptor follows: the next chain's, which is under way."""

    def rewrite(self, ring: Ring, read: Read) -> None:
        """Only one."""
        last = read.chain.segments[-1].descriptor
        if not ring.table <= last < ring.table + ring.size * DESCRIPTOR.size:  # indirect
            last = ring.table + read.chain.head * DESCRIPTOR.size
        address, length, flags, following = DESCRIPTOR.unpack(ring.memory.at(last, DESCRIPTOR.size))
        self.put(ring, last, (address, length, flags | NEXT, following))


class TableCut(_Table):
    """No descriptor says any more that another one follows, and none is indirect."""

    def rewrite(self, ring: Ring, read: Read) -> None:  # noqa: ARG002
        """The driver would lose what comes after."""
        for index in range(ring.size):
            address, length, flags, following = ring.descriptor(ring.table, index, ring.size)
            cut = flags & ~(NEXT | INDIRECT | WRITE)
            self.put(ring, ring.table + index * DESCRIPTOR.size, (address, length, cut, following))


class _Direct(_Table):
    """Offers no indirect descriptors: chains lie in the ring itself."""

    def features(self) -> int:
        """All but that one."""
        return HONEST & ~Feature.INDIRECT_DESC


class TableMergedDirect(_Direct, TableMerged):
    """TableMerged, in the ring itself."""


class TableCutDirect(_Direct, TableCut):
    """TableCut, in the ring itself."""


class TableEndlessDirect(_Direct, TableEndless):
    """TableEndless, in the ring itself."""


LIES: dict[str, type[Disk]] = {
    "length-huge": LengthHuge,
    "length-zero": LengthZero,
    "id-beyond-the-table": IdentityBeyond,
    "id-huge": IdentityHuge,
    "id-never-given": IdentityNeverGiven,
    "completed-twice": Twice,
    "index-ahead": IndexAhead,
    "index-far-ahead": IndexFarAhead,
    "index-back": IndexBack,
    "ids-swapped": Swapped,
    "interrupt-storm": Storm,
    "table-addresses": TableAddresses,
    "table-endless": TableEndless,
    "table-merged": TableMerged,
    "table-cut": TableCut,
    "table-endless-direct": TableEndlessDirect,
    "table-merged-direct": TableMergedDirect,
    "table-cut-direct": TableCutDirect,
}
