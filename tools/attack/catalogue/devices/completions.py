# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""QEMU's own disk, serial device and random numbers, whose completions lie: in split and in packed rings.

The disk beside QEMU (devices/rings, devices/data) has split rings only, and there is no such serial device or source of
random numbers.
"""

import dataclasses
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
# Queues: a disk's first; of a serial device with many ports, the agent's port's (virtio 1.2, 5.3.2).
_DISK, _RNG, _INTO, _OUT = "virtio-blk 0", "virtio-rng 0", "virtio-serial 4", "virtio-serial 5"
# The first that lies: a disk's must come while the program reads, behind what the mount has read.
_FROM = {_DISK: 20, _RNG: 1, _INTO: 4, _OUT: 6}
_WHAT = {
    _DISK: "reads of the disk",
    _RNG: "random numbers",
    _INTO: "what the agent hears",
    _OUT: "what the agent says",
}
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
# What a lie about data says of a device that speaks to the agent is the agent's own: rows channel/.
_LEFT_OUT = {(_INTO, "zeros"), (_INTO, "short"), (_OUT, "zeros"), (_OUT, "short")}


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
    # A host that spoils its own channel to the agent hears nothing any more: that is no sign of a guest that hangs.
    deaf = any("virtio-serial" in lie for lie in lies)
    return outcome(dataclasses.replace(seen, alive=seen.alive or deaf))


def honest(lab: Lab, target: Target, folder: Path, *, packed: bool) -> Outcome:
    """The same QEMU, which tells the truth; once for all rows."""

    def run() -> Outcome:
        seen = attempt(lab, target, folder, lies=(), packed=packed)
        return Outcome(succeeded=not seen.succeeded and seen.guest == RIGHT, guest=seen.guest)

    return lab.once(f"qemu-liar's devices, {target.name}, {packed}", run)


def attacks() -> Iterator[Attack]:
    """Each lie by each queue. Disks and the serial device have rows with split rings elsewhere."""
    for queue, start in _FROM.items():
        for name, (how, host) in _HOW.items():
            if (queue, name) in _LEFT_OUT:
                continue
            for packed in (False, True) if queue == _RNG else (True,):
                kind = "packed" if packed else "split"
                word = queue.split(" ")[0].removeprefix("virtio-") + {_INTO: "-in", _OUT: "-out"}.get(queue, "")
                yield Attack(
                    name=f"{word}-{name}-{kind}",
                    host=f"{host} {_WHAT[queue]}; {kind} rings",
                    attempt=partial(attempt, lies=(f"used {queue} {start} {how}",), packed=packed),
                    control=Honest(what=f"the same QEMU, honest, {kind} rings", attempt=partial(honest, packed=packed)),
                    parts=_PARTS,
                )
