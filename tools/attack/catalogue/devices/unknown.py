# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Devices that an owner did not ask for: the kernel finds them on its bus, and no driver takes them."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part
from tools.attack.base.target import Target
from tools.attack.vhost.play import DECIDE, RIGHT, Play, Seen, play
from tools.pipeline.base.errors import BuildError

_PARTS = frozenset({Part.FIRMWARE, Part.KERNEL, Part.AGENT})
# PCI functions with their drivers, then virtio devices with theirs.
_LIST = (
    "for d in /sys/bus/pci/devices/* /sys/bus/virtio/devices/*; do "
    'echo "@ $(cat $d/vendor) $(cat $d/device) $(basename "$(readlink $d/driver)")"; done'
)
# The transport takes every virtio function; what counts is the driver behind it.
_NEEDED = {"virtio-pci", "virtio_blk", "virtio_console"}
_EXPECTED = _NEEDED | {"virtio_rng"}

_NETWORK = [
    ("-netdev", "user,id=net0"), ("-netdev", "user,id=net1"), ("-netdev", "user,id=net2"),
    ("-netdev", "user,id=net3"),
    ("-device", "e1000,netdev=net0,romfile="), ("-device", "e1000e,netdev=net1,romfile="),
    ("-device", "igb,netdev=net2"), ("-device", "rtl8139,netdev=net3,romfile="),
]  # fmt: skip
_STORAGE = [
    ("-blockdev", "driver=null-co,node-name=null0,size=1048576"),
    ("-device", "nvme,serial=x,drive=null0"), ("-device", "ich9-ahci"), ("-device", "sdhci-pci"),
    ("-device", "virtio-scsi-pci"), ("-device", "lsi53c895a,romfile="), ("-device", "megasas,romfile="),
]  # fmt: skip
_DISPLAYS = [
    ("-audiodev", "none,id=sound0"), ("-device", "VGA,romfile="), ("-device", "virtio-gpu-pci"),
    ("-device", "virtio-keyboard-pci"), ("-device", "intel-hda"), ("-device", "hda-duplex,audiodev=sound0"),
    ("-device", "AC97,audiodev=sound0"), ("-device", "qemu-xhci"), ("-device", "ich9-usb-ehci1"),
]  # fmt: skip
_MEMORY = [
    ("-m", "512M,slots=2,maxmem=4G"),
    ("-object", "memory-backend-ram,id=more0,size=16M,share=on"),
    ("-object", "memory-backend-ram,id=more1,size=128M"), ("-object", "memory-backend-ram,id=more2,size=16M"),
    ("-device", "ivshmem-plain,memdev=more0"), ("-device", "virtio-mem-pci,memdev=more1"),
    ("-device", "virtio-pmem-pci,memdev=more2"), ("-device", "virtio-balloon-pci"),
]  # fmt: skip
_OTHERS = [
    ("-object", "cryptodev-backend-builtin,id=crypto0"), ("-device", "virtio-crypto-pci,cryptodev=crypto0"),
    ("-device", "pvpanic-pci"), ("-device", "i6300esb"), ("-device", "edu"), ("-device", "virtio-iommu-pci"),
    ("-chardev", "null,id=null1"), ("-device", "pci-serial,chardev=null1"),
    ("-device", "pcie-root-port,id=port0,chassis=1"), ("-device", "pci-bridge,id=bridge0,chassis_nr=2"),
]  # fmt: skip
_VIRTIO = [
    ("-netdev", "user,id=net0"), ("-device", "virtio-net-pci,netdev=net0,romfile="),
    ("-fsdev", "local,id=files0,path=/tmp,security_model=none"),
    ("-device", "virtio-9p-pci,fsdev=files0,mount_tag=files"),
]  # fmt: skip
_WINDOWS = [("-device", f"pci-testdev,membar={size}") for size in ("1M", "256M", "8G", "64G")]

_ROWS: dict[str, tuple[Sequence[tuple[str, str]], str]] = {
    "network-cards": (_NETWORK, "adds network cards: e1000, e1000e, igb, rtl8139"),
    "storage": (_STORAGE, "adds storage: NVMe, AHCI, SD, SCSI (virtio, LSI, MegaRAID)"),
    "displays-sound-usb": (_DISPLAYS, "adds displays, a keyboard, sound cards, USB controllers"),
    "memory": (_MEMORY, "adds memory: ivshmem, virtio-mem, virtio-pmem, a balloon"),
    "others": (_OTHERS, "adds crypto, pvpanic, a watchdog, edu, an IOMMU, a serial port, a root port, a bridge"),
    "virtio-network-and-files": (_VIRTIO, "adds virtio-net and a 9p folder of its own"),
    "huge-windows": (_WINDOWS, "adds functions with windows of up to 64 GiB"),
}


def _listed(seen: Seen) -> tuple[list[str], set[str]]:
    """Devices, and the drivers that have taken some."""
    lines = [line for line in seen.output.splitlines() if line.startswith("@ ")]
    return lines, {words[3] for line in lines if len(words := line.split()) > 3}


def attempt(lab: Lab, target: Target, folder: Path, *, more: Sequence[tuple[str, str]]) -> Outcome:
    """A driver takes one of them."""
    # -sandbox is QEMU's own; what the host asks of its own devices is its business.
    words = [word for option in more for word in option]
    what = Play(lies=[], script=f"{_LIST}; {DECIDE}", more=words, append="")
    seen = play(lab, target, folder, what)
    lines, drivers = _listed(seen)
    if seen.status != 0 or not seen.output.endswith(RIGHT):
        raise BuildError(f"{seen.became}: {' '.join(seen.said.split())[-200:]}")
    if len(lines) < _OWN + sum(option == "-device" for option, _ in more):
        raise BuildError(f"only {len(lines)} devices are there")
    alien = sorted(drivers - _EXPECTED)
    guest = f"{len(lines)} devices; drivers for {', '.join(alien) or 'its own only'}; {RIGHT}"
    return Outcome(succeeded=bool(alien), guest=guest)


# q35's host bridge and LPC, and two entries for each of the launcher's virtio devices.
_OWN = 2 + 2 * 3


def honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The launcher's own devices have their drivers."""

    def run() -> Seen:
        return play(lab, target, folder, Play(lies=[], script=f"{_LIST}; {DECIDE}", append=""))

    seen = lab.once(f"devices of {target.name}", run)
    _, drivers = _listed(seen)
    return Outcome(succeeded=_NEEDED <= drivers <= _EXPECTED, guest=f"drivers: {', '.join(sorted(drivers))}")


def attacks() -> Iterator[Attack]:
    """One for each family."""
    for name, (more, host) in _ROWS.items():
        yield Attack(
            name=name,
            host=host,
            attempt=partial(attempt, more=more),
            control=Honest(what="the launcher's own devices", attempt=honest),
            parts=_PARTS,
        )
