# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A guest that is bound to a disk's document, on a host that hands it another disk."""

from collections.abc import Sequence
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Outcome
from tools.attack.base.target import Target
from tools.attack.guests import disks
from tools.attack.guests.agent import Guest
from tools.attack.guests.disks import HONEST, Disk, Told
from tools.pipeline.base.errors import BuildError
from tools.sev.workload.document import Document


def guest(
    lab: Lab,
    target: Target,
    folder: Path,
    *,
    disk: bytes,
    document: Document | None,
    options: Sequence[str] = (),
    drive: str = "",
) -> Guest:
    """Started, not yet spoken to. `document` None: unbound. `drive`: for what hands out the file `disk` otherwise."""
    (folder / "disk").write_bytes(disk)
    return Guest(
        qemu=lab.qemu,
        kernel=target.kernel,
        initrd=target.initramfs,
        disk=folder / "disk",
        folder=folder,
        binding=disks.word(document),
        options=options,
        drive=drive,
    )


def honest(lab: Lab, target: Target, folder: Path, disk: Disk) -> None:
    """Raise unless the target runs the program on its owner's disk; tried once a lab."""

    def run() -> Told:
        place = folder / "honest"
        place.mkdir()
        with guest(lab, target, place, disk=disk.data, document=disk.document) as started:
            return disks.bound(started, disk.document)

    told = lab.once(f"honest disk {target.name} {disk.root}", run)
    if told.out != HONEST:
        raise BuildError(f"with its owner's disk {told.words}")


def outcome(told: Told) -> Outcome:
    """The program must say what it says of its owner's disk, or nothing: else the host had its way."""
    return Outcome(succeeded=told.out not in {b"", HONEST, HONEST[: len(told.out)]}, guest=told.words)
