# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that lies about itself: capacity, block size, segments, topology, limits, feature bits."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part
from tools.attack.base.target import Target
from tools.attack.catalogue.devices.rings import HONEST, SCRIPT, outcome
from tools.attack.vhost.disk import Disk
from tools.attack.vhost.lies import LIES
from tools.attack.vhost.play import Lie, Play, play
from tools.pipeline.base.errors import BuildError

_PARTS = frozenset({Part.KERNEL, Part.AGENT})
# Everything that the kernel shows of a disk, so that all of it is computed.
_LOOK = "cat /sys/block/vd*/* /sys/block/vd*/queue/* >/dev/null 2>&1"
_ROOT = {
    "capacity-zero": "says that the root disk has no sectors",
    "capacity-short": "says that the root disk ends in the middle of the root",
    "capacity-huge": "says that the root disk has 2^64 - 1 sectors",
    "capacity-shrinks": "shrinks the root disk to a block while it is read",
    "capacity-vanishes": "shrinks the root disk to nothing while it is read",
    "capacity-grows": "grows the root disk to 2^64 - 1 sectors while it is read",
    "segments-huge": "lets a request have 4,294,967,295 segments",
}
_BLOCKS = [
    "block-size-zero", "block-size-odd", "block-size-no-power", "block-size-page", "block-size-beyond-page",
    "block-size-sign", "block-size-huge",
]  # fmt: skip
_SEGMENTS = ["segments-zero", "segments-huge", "segment-size-zero", "segment-size-one", "segment-size-huge"]
_TOPOLOGY = ["topology-exponent", "topology-31", "topology-sizes"]
_LIMITS = ["discard-zero", "discard-huge", "zeroes-huge", "every-feature"]
_CAPACITIES = ["capacity-zero", "capacity-short", "capacity-sign", "capacity-huge"]
_BESIDE = {
    "spare-block-sizes": (_BLOCKS, "adds disks with block sizes of 0, 3, 513, 4,096, 2^20, 2^31, 2^32 - 1"),
    "spare-segments": (_SEGMENTS, "adds disks with 0 or 2^32 - 1 segments, of 0, 1 or 2^32 - 1 bytes"),
    "spare-topologies": (_TOPOLOGY, "adds disks whose topology overflows: exponents of 31 and 255"),
    "spare-limits": (_LIMITS, "adds disks with nonsense for discard and write zeroes, and one with every feature"),
    "spare-capacities": (_CAPACITIES, "adds disks of 0, 64, 2^63, 2^64 - 1 sectors"),
    "spare-cache-mode": (["cache-no-such"], "adds a disk whose cache mode is 255, which is none"),
}


def attempt(
    lab: Lab, target: Target, folder: Path, *, kind: type[Disk], spare: Sequence[str] = (), look: str = ""
) -> Outcome:
    """Behind dm-verity; `spare` disks stand beside the root's."""
    lies = [Lie(kind=kind), *(Lie(kind=LIES[name], serial=f"spare{at}") for at, name in enumerate(spare))]
    script = f"{look}; {SCRIPT}" if look else SCRIPT
    seen = play(lab, target, folder, Play(lies=lies, script=script, end_stuck=not spare and kind is not Disk))
    told = seen.told[1:] if spare else seen.told
    if not all(told):
        raise BuildError(f"not every lie was told: {seen.became}")
    return outcome(seen)


def attacks() -> Iterator[Attack]:
    """The root disk's lies, each in a guest of its own; those of other disks together."""
    for name, host in _ROOT.items():
        yield Attack(
            name=name,
            host=f"{host} (vhost-user disk)",
            attempt=partial(attempt, kind=LIES[name]),
            control=HONEST,
            parts=_PARTS,
        )
    for name, (spare, host) in _BESIDE.items():
        yield Attack(
            name=name,
            host=f"{host} (vhost-user disks)",
            attempt=partial(attempt, kind=Disk, spare=spare, look=_LOOK),
            control=HONEST,
            parts=_PARTS,
        )
