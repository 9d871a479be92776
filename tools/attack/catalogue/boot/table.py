# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Another hashes table than the one that belongs to the blobs: damaged, cut, incomplete, exchanged, absent.

Where it has another content it has another launch digest, too; none of these may start what it does not vouch for.
"""

import struct
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part, Reach, Undefended
from tools.attack.base.target import Target
from tools.attack.catalogue.boot.blobs import Change, attempt, flip, given, other_kernel
from tools.attack.guests.firmware import Host
from tools.attack.undefended.firmware import unverified, upstream

# QEMU target/i386/sev.c, SevHashTable: GUID and length of the table, then entries of GUID, length, SHA-256.
_HEAD, _ENTRY = 18, 50
_CMDLINE, _INITRD, _KERNEL = range(3)
_ALL = _HEAD + 3 * _ENTRY
_UNVERIFIED = Undefended(what="firmware that verifies nothing", target=unverified)
_UPSTREAM = Undefended(what="firmware without patch 0001", target=upstream)


def attacks() -> Iterator[Attack]:
    """The rows."""
    for name, (host, change) in _TABLES.items():
        yield _attack(name, host, change, _UPSTREAM if name in _OPEN_UPSTREAM else _UNVERIFIED)
    yield _attack("none-in-flash", "firmware in flash; puts no table there", _none, _UNVERIFIED, flash=True)
    for name, (host, change) in _NOTHING.items():
        yield _attack(name, host, change, Honest(what="the same with all of it", attempt=_honest))


def _attack(name: str, host: str, change: Change, control: Undefended | Honest, *, flash: bool = False) -> Attack:
    return Attack(
        name=name,
        host=host,
        attempt=partial(attempt, change=change, flash=flash),
        control=control,
        parts=frozenset({Part.FIRMWARE}),
        reach=Reach.KERNEL,
        short=name in _SHORT,
    )


def _honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    return attempt(lab, target, folder, change=lambda _, host: host)


def entries(table: bytes | None) -> list[bytes]:
    """Those of a table: command line, initramfs, kernel."""
    return [given(table)[_HEAD + i * _ENTRY :][:_ENTRY] for i in range(3)]


def with_table(host: Host, new: list[bytes], *, length: int | None = None) -> Host:
    """A table of these entries; `length` is what it says of itself in place of what it has."""
    body = b"".join(new)
    size = _HEAD + len(body) if length is None else length
    head = given(host.table)[:16] + struct.pack("<H", size)
    return replace(host, table=(head + body).ljust(176, b"\0"))


def _none(_: Lab, host: Host) -> Host:
    return replace(host, table=None)


def _guid(_: Lab, host: Host) -> Host:
    return replace(host, table=flip(host.table, 0))


def _length(_: Lab, host: Host, *, length: int) -> Host:
    return with_table(host, entries(host.table), length=length)


def _without(_: Lab, host: Host, *, index: int) -> Host:
    return with_table(host, [entry for i, entry in enumerate(entries(host.table)) if i != index])


def _empty(_: Lab, host: Host) -> Host:
    return with_table(host, [])


def _bit(_: Lab, host: Host, *, index: int, at: int) -> Host:
    return with_table(host, [flip(entry, at) if i == index else entry for i, entry in enumerate(entries(host.table))])


def _resized(_: Lab, host: Host, *, index: int, by: int) -> Host:
    new = entries(host.table)
    new[index] = new[index][:16] + struct.pack("<H", _ENTRY + by) + new[index][18:]
    return with_table(host, new)


def _exchanged(_: Lab, host: Host, *, one: int, other: int) -> Host:
    old = entries(host.table)
    order = {one: other, other: one}
    return with_table(host, [old[i][:18] + old[order.get(i, i)][18:] for i in range(3)])


def _reordered(_: Lab, host: Host) -> Host:
    changed = with_table(host, entries(host.table)[::-1])
    return replace(changed, kernel=other_kernel(host.kernel))


_TABLES: dict[str, tuple[str, Change]] = {
    "none": ("puts no table into the guest's memory", _none),
    "other-guid": ("gives the table another GUID", _guid),
    "without-cmdline": ("leaves out the command line's entry", partial(_without, index=_CMDLINE)),
    "without-initramfs": ("leaves out the initramfs' entry", partial(_without, index=_INITRD)),
    "without-kernel": ("leaves out the kernel's entry", partial(_without, index=_KERNEL)),
    "empty": ("leaves out all entries", _empty),
    "other-entry-guid": ("gives the kernel's entry another GUID", partial(_bit, index=_KERNEL, at=0)),
    "cut": ("lets the table end within its last entry", partial(_length, length=_ALL - 1)),
    "shorter-than-header": ("says that the table is shorter than its header", partial(_length, length=_HEAD - 1)),
    "longer-than-area": ("says that the table is longer than its area", partial(_length, length=0x401)),
    "entry-short": ("makes an entry too short", partial(_resized, index=_CMDLINE, by=-1)),
    "entry-long": ("makes an entry too long", partial(_resized, index=_INITRD, by=1)),
    "last-entry-long": ("makes the last entry reach behind the table", partial(_resized, index=_KERNEL, by=1)),
    "cmdline-hash-bit": ("flips a bit of the command line's hash", partial(_bit, index=_CMDLINE, at=18)),
    "initramfs-hash-bit": ("flips a bit of the initramfs' hash", partial(_bit, index=_INITRD, at=18)),
    "kernel-hash-bit": ("flips a bit of the kernel's hash", partial(_bit, index=_KERNEL, at=18)),
    "kernel-initramfs-exchanged": (
        "exchanges kernel's and initramfs' hashes",
        partial(_exchanged, one=_KERNEL, other=_INITRD),
    ),
    "initramfs-cmdline-exchanged": (
        "exchanges initramfs' and command line's hashes",
        partial(_exchanged, one=_INITRD, other=_CMDLINE),
    ),
    "reordered-other-kernel": ("puts the entries into another order, and hands out another kernel", _reordered),
}
_OPEN_UPSTREAM = {"without-cmdline", "without-initramfs", "without-kernel", "other-entry-guid", "cut"}
_NOTHING: dict[str, tuple[str, Change]] = {
    "no-initramfs": (
        "hands out no initramfs, though the table names one",
        lambda _, host: replace(host, initramfs=None),
    ),
    "no-kernel": (
        "hands out no kernel",
        lambda _, host: replace(host, kernel=None, initramfs=None),
    ),
}
_SHORT = {"none", "without-kernel", "cut"}
