# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A disk that fails where the host wants: what cannot be read must not be taken for not there."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Outcome, Part, Undefended
from tools.attack.base.target import Target
from tools.attack.catalogue.storage.blocks import the_list
from tools.attack.guests import bound, disks
from tools.attack.guests.disks import Disk
from tools.attack.undefended.agent import ignoring_errors

_EIO, _ENOSPC = 5, 28
_CONTROL = Undefended(what="an agent whose dm-verity does not panic at errors", target=ignoring_errors)


def attempt(lab: Lab, target: Target, folder: Path, *, sector: Callable[[Disk], int], errno: int = _EIO) -> Outcome:
    """Hand out the owner's disk, on which reading one sector fails (QEMU's blkdebug)."""
    disk = disks.hashed(lab)
    bound.honest(lab, target, folder, disk)
    error = f"file.inject-error.0.event=none,file.inject-error.0.iotype=read,file.inject-error.0.errno={errno}"
    where = f"file.inject-error.0.sector={sector(disk)},file.inject-error.0.once=off"
    image = f"file.image.driver=file,file.image.filename={folder / 'disk'}"
    drive = f"driver=raw,file.driver=blkdebug,{image},{error},{where},rerror=report"
    with bound.guest(lab, target, folder, disk=disk.data, document=disk.document, drive=drive) as guest:
        told = disks.bound(guest, disk.document)
    return bound.outcome(told)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, host, how in (
        ("sector", "fails to read a sector in the middle of the list", partial(attempt, sector=_middle)),
        ("no-space", "says so with another error", partial(attempt, sector=_middle, errno=_ENOSPC)),
    ):
        yield Attack(
            name=name,
            host=host,
            attempt=how,
            control=_CONTROL,
            parts=frozenset({Part.KERNEL, Part.AGENT}),
            short=name == "sector",
        )


def _middle(disk: Disk) -> int:
    """In bytes 256 KiB behind the list's begin: nobody who reads what lies beside it meets it."""
    return (the_list(disk.data) + (256 << 10)) // 512
