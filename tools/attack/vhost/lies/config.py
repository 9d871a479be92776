# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Lies in the configuration space and in the feature bits."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from tools.attack.vhost.disk import HONEST, Config, Disk, Feature, Read
from tools.attack.vhost.ring import Ring

_ALL_ONES = 0xFFFFFFFF
_EVERY_BIT = (1 << 64) - 1


class Configured(Disk):
    """An honest disk with other values in its configuration space, and with what makes the driver read them."""

    offered: Feature = Feature(0)
    values: Mapping[str, int] = MappingProxyType({})

    def features(self) -> int:
        """What the values need to be looked at."""
        return HONEST | self.offered

    def config(self) -> Config:
        """With the values."""
        self.lies += 1
        return dataclasses.replace(super().config(), **self.values)


def configured(offered: Feature = Feature(0), **values: int) -> type[Disk]:  # noqa: B008 (a number)
    """A class of disks."""
    return type("ConfiguredDisk", (Configured,), {"offered": offered, "values": values})


class _Resized(Disk):
    """Another capacity from the moment in which the bait is asked for."""

    _capacity: int | None = None

    def config(self) -> Config:
        """With the capacity of now."""
        honest = super().config()
        return honest if self._capacity is None else dataclasses.replace(honest, capacity=self._capacity)

    def lie(self, ring: Ring, read: Read) -> None:
        """Says so by an interrupt, and serves."""
        if not self.lies:
            self._capacity = self.resized()
            self.config_changed()
        self.lies += 1
        self.read(ring, read)

    def resized(self) -> int:
        """The other capacity, in sectors."""
        raise NotImplementedError


class Shrinks(_Resized):
    """Down to eight sectors."""

    def resized(self) -> int:
        """A block."""
        return 8


class Vanishes(_Resized):
    """Down to nothing."""

    def resized(self) -> int:
        """None."""
        return 0


class Grows(_Resized):
    """Up to all that a number can say."""

    def resized(self) -> int:
        """As many sectors as 64 bits."""
        return _EVERY_BIT


class EveryFeature(Disk):
    """Offers every feature bit there is; QEMU lets through those that it has a word for."""

    def features(self) -> int:
        """All 64 but two which change the rings: this device would only seem to be dead."""
        self.lies += 1
        return _EVERY_BIT & ~(Feature.EVENT_IDX | Feature.RING_PACKED)


class NoVersion(Disk):
    """Does not offer VIRTIO_F_VERSION_1, on a device that has no other face."""

    def features(self) -> int:
        """All but that one."""
        self.lies += 1
        return HONEST & ~Feature.VERSION_1


_TOPOLOGY = Feature.TOPOLOGY
_DISCARD = Feature.DISCARD
_ZEROES = Feature.WRITE_ZEROES

LIES: dict[str, type[Disk]] = {
    "capacity-zero": configured(capacity=0),
    "capacity-huge": configured(capacity=_EVERY_BIT),
    "capacity-sign": configured(capacity=1 << 63),
    "capacity-short": configured(capacity=64),
    "capacity-shrinks": Shrinks,
    "capacity-vanishes": Vanishes,
    "capacity-grows": Grows,
    "block-size-zero": configured(blk_size=0),
    "block-size-odd": configured(blk_size=3),
    "block-size-no-power": configured(blk_size=513),
    "block-size-page": configured(blk_size=4096),
    "block-size-beyond-page": configured(blk_size=1 << 20),
    "block-size-sign": configured(blk_size=1 << 31),
    "block-size-huge": configured(blk_size=_ALL_ONES),
    "segments-zero": configured(seg_max=0),
    "segments-huge": configured(seg_max=_ALL_ONES),
    "segment-size-zero": configured(Feature.SIZE_MAX, size_max=0),
    "segment-size-one": configured(Feature.SIZE_MAX, size_max=1),
    "segment-size-huge": configured(Feature.SIZE_MAX, size_max=_ALL_ONES),
    "topology-exponent": configured(_TOPOLOGY, physical_block_exp=255, alignment_offset=255),
    "topology-31": configured(_TOPOLOGY, physical_block_exp=31),
    "topology-sizes": configured(_TOPOLOGY, min_io_size=0xFFFF, opt_io_size=_ALL_ONES, alignment_offset=200),
    "discard-zero": configured(_DISCARD),
    "discard-huge": configured(
        _DISCARD, max_discard_sectors=_ALL_ONES, max_discard_seg=_ALL_ONES, discard_sector_alignment=_ALL_ONES
    ),
    "zeroes-huge": configured(_ZEROES, max_write_zeroes_sectors=_ALL_ONES, max_write_zeroes_seg=_ALL_ONES),
    "cache-no-such": configured(Feature.CONFIG_WCE, wce=0xFF),
    "every-feature": EveryFeature,
    "no-version-1": NoVersion,
}
