# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""QEMU's own disk and random numbers, whose completions lie: packed rings, and a source that nobody else plays.

The disk beside QEMU (devices/rings, devices/data) has split rings only. The agent's serial device has rows of its own
(devices/serial): a lie about its completions leaves nobody who could say what became of the guest.
"""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part
from tools.attack.base.target import Target
from tools.attack.catalogue.devices.rings import SCRIPT, outcome
from tools.attack.lies.qemu import liar
from tools.attack.vhost.play import RIGHT, Play, play
from tools.pipeline.base.errors import BuildError

_PARTS = frozenset({Part.KERNEL, Part.AGENT})
_PACKED = ("-global", "virtio-device.packed=on")
# Another one than the launcher's, if that has one: both lie.
_RANDOM = (
    "-object", "rng-random,id=liar,filename=/dev/urandom",
    "-device", "virtio-rng-pci,rng=liar,iommu_platform=on,disable-legacy=on",
)  # fmt: skip
_DISK, _RNG = "virtio-blk 0", "virtio-rng 0"
# The first completion that lies. Of a disk's thirty the last ones are what the program reads, when it is running.
_FROM = {_DISK: 27, _RNG: 1}
_WHAT = {_DISK: "reads of the disk", _RNG: "random numbers"}
_HOW = {
    "id-beyond": ("id 0x7fff", "names a descriptor that does not exist when it completes"),
    "id-huge": ("id 0xffffffff", "names descriptor 2^32 - 1 when it completes"),
    "id-other": ("other 1", "names the descriptor before when it completes"),
    "length-huge": ("length 0xffffffff", "gives a length of 4 GiB when it completes"),
    "length-zero": ("length 0", "gives a length of 0 when it completes"),
    "twice": ("twice 0", "completes twice"),
    "ahead": ("ahead 0", "runs half a ring ahead when it completes"),
    "never": ("never 0", "never completes"),
    "zeros": ("zeros 0", "writes zeros when it completes"),
    "short": ("short 8", "writes 8 bytes, and says so, when it completes"),
}


def attempt(lab: Lab, target: Target, folder: Path, *, lies: tuple[str, ...], packed: bool) -> Outcome:
    """Behind dm-verity."""
    with tempfile.TemporaryDirectory(prefix="sev-liar-") as name:
        place = Path(name)
        place.chmod(0o755)
        program = liar(lab, place, lies)
        more = (*(_PACKED if packed else ()), *_RANDOM)
        what = Play(lies=[], script=SCRIPT, more=more, qemu=program.path, lied=lambda: len(program.told))
        seen = play(lab, target, folder, what)
        if lies and not program.told:
            raise BuildError(f"the lie was not told: {seen.became}")
    return outcome(seen)


def honest(lab: Lab, target: Target, folder: Path, *, packed: bool) -> Outcome:
    """The same QEMU, which tells the truth; once for all rows."""

    def run() -> Outcome:
        seen = attempt(lab, target, folder, lies=(), packed=packed)
        return Outcome(succeeded=not seen.succeeded and seen.guest == RIGHT, guest=seen.guest)

    return lab.once(f"qemu-liar's devices, {target.name}, {packed}", run)


def attacks() -> Iterator[Attack]:
    """Each lie by each queue."""
    for queue, start in _FROM.items():
        for name, (how, host) in _HOW.items():
            for packed in (False, True) if queue == _RNG else (True,):
                kind = "packed" if packed else "split"
                yield Attack(
                    name=f"{queue[7:10]}-{name}-{kind}",
                    host=f"{host} {_WHAT[queue]}; {kind} rings",
                    attempt=partial(attempt, lies=(f"used {queue} {start} {how}",), packed=packed),
                    control=Honest(what=f"the same QEMU, honest, {kind} rings", attempt=partial(honest, packed=packed)),
                    parts=_PARTS,
                )
