# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Another disk in the owner's disk's place: a tar, another image, a shorter one, a second one beside it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part, Weaker
from tools.attack.base.target import Target
from tools.attack.catalogue.storage.blocks import BLOCK, where
from tools.attack.guests import bound, disks
from tools.attack.guests.disks import HONEST, LIST, Disk
from tools.attack.guests.roots import MOTD
from tools.sev.workload.document import Tar

Make = Callable[[Lab], Disk]
_TAR, _EROFS = 1, 2
_CONTROL = "the same disk in an unbound guest"
_VIRTIO = "iommu_platform=on,disable-legacy=on"


def attempt(
    lab: Lab, target: Target, folder: Path, *, owners: Make, hosts: Make, free: bool = False, beside: bool = False
) -> Outcome:
    """Bind a guest to the owner's disk and hand it the host's. `free`: bind it to nothing. `beside`: hand out both."""
    disk, given = owners(lab), hosts(lab)
    if not free:
        bound.honest(lab, target, folder, disk)
    options = _second(folder, disk) if beside else []
    document = None if free else disk.document
    with bound.guest(lab, target, folder, disk=given.data, document=document, options=options) as guest:
        if free:
            told = disks.unbound(guest, kind=_TAR if isinstance(given.root, Tar) else _EROFS)
        else:
            told = disks.bound(guest, disk.document)
    # Of what has the same content, it is enough that it runs.
    same = given in (disks.plain(lab), disks.hashed(lab)) or given == _shorter(lab)
    return Outcome(succeeded=told.out == HONEST, guest=told.words) if same else bound.outcome(told)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, (host, owners, hosts) in _DISKS.items():
        how = partial(attempt, owners=owners, hosts=hosts, beside=name == "second-disk")
        yield Attack(
            name=name,
            host=host,
            attempt=how,
            # Two of them no agent takes, bound or not.
            control=_ALONE if name == "second-disk" else Weaker(what=_CONTROL, attempt=partial(how, free=True)),
            parts=frozenset({Part.KERNEL, Part.AGENT}),
            short=name in {"tar-bit", "tar-for-image"},
        )


def _second(folder: Path, disk: Disk) -> list[str]:
    """The owner's disk, of the same name, behind the host's."""
    (folder / "second").write_bytes(disk.data)
    return [
        "-drive", f"if=none,id=second,readonly=on,format=raw,file={folder / 'second'}",
        "-device", f"virtio-blk-pci,drive=second,serial=rootfs,{_VIRTIO}",
    ]  # fmt: skip


def _changed(disk: Disk, old: bytes, new: bytes) -> Disk:
    data = bytearray(disk.data)
    at = where(data, old)
    data[at : at + len(old)] = new
    return replace(disk, data=bytes(data))


def _another(lab: Lab) -> Disk:
    return disks.other(lab, "of the host", {"etc/motd": b"from the host's own root!\n"})


def _shorter(lab: Lab) -> Disk:
    """Without the tree's last block: the guest's processes never read what it is for."""
    disk = disks.hashed(lab)
    return replace(disk, data=disk.data[:-BLOCK])


def _honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    bound.honest(lab, target, folder, disks.hashed(lab))
    return Outcome(succeeded=True, guest="its program said what its owner's disk holds")


_ALONE = Honest(what="the owner's disk alone", attempt=_honest)
_DISKS: dict[str, tuple[str, Make, Make]] = {
    "tar-bit": (
        "flips a bit of a file in a tar",
        disks.plain,
        lambda lab: _changed(disks.plain(lab), MOTD, b"FROM" + MOTD[4:]),
    ),
    "tar-list": (
        "takes a name from a list in a tar",
        disks.plain,
        lambda lab: _changed(disks.plain(lab), LIST[-16:], b"trudy__\n" * 2),
    ),
    "tar-for-image": ("hands out a tar in the image's place", disks.hashed, disks.plain),
    "image-for-tar": ("hands out an image in the tar's place", disks.plain, disks.hashed),
    "other-image": ("hands out an image of its own with a hash tree of its own", disks.hashed, _another),
    "second-disk": ("puts a disk of the same name before the owner's", disks.hashed, _another),
    "tree-cut": ("cuts the disk within the hash tree", disks.hashed, _shorter),
}
