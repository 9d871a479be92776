# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""fw_cfg whose sizes, counts and contents are lies: the firmware reads it before anything is verified.

A row looks for the host's bytes in the guest's memory, beyond what the firmware made room for, and for a guest that
boots though its kernel was not handed out as it is.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part, Reach, Undefended
from tools.attack.base.target import Target
from tools.attack.guests.firmware import Became
from tools.attack.lies.start import MARK, size_of_memory, start
from tools.attack.undefended.firmware import upstream
from tools.pipeline.base.errors import BuildError

_KERNEL = "etc/boot/kernel"
_UPSTREAM = Undefended(what="firmware without patch 0002", target=upstream)
# Keys of items that are no files (QEMU, include/standard-headers/linux/qemu_fw_cfg.h).
_KERNEL_SIZE, _KERNEL_DATA, _SETUP_SIZE, _SETUP_DATA, _DIRECTORY = 0x08, 0x11, 0x17, 0x18, 0x19
_ENTRY = 64  # bytes of a file's entry in the directory
_MARKS = MARK * 65536
# Files with a number in them that this firmware looks for, each with one that changes nothing.
_NUMBERS = {
    "etc/reserved-memory-end": struct.pack("<Q", 8 << 30),
    "etc/msr_feature_control": bytes(8),
    "opt/ovmf/X-PciMmio64Mb": b"32768",
    "opt/ovmf/PcdSetNxForStack": b"no",
}


@dataclass(frozen=True, kw_only=True)
class Lie:
    """Lines for the lying QEMU, the files in them, and more of QEMU's options.

    `room`: bytes of the host's that the firmware has a place for. `boots`: the guest may start, for what is lied about
    is not measured. `read`: files that it must have chosen, or the row shows nothing.
    """

    lies: Sequence[str] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    more: Mapping[str, bytes] = field(default_factory=dict)
    room: int = 0
    boots: bool = False
    read: Sequence[str] = ()


def attempt(lab: Lab, target: Target, folder: Path, *, make: Callable[[Lab, Target], Lie]) -> Outcome:
    """The host's bytes are where nobody asked for them, or something unverified boots."""
    lie = make(lab, target)
    options = []
    for number, (name, data) in enumerate(lie.more.items()):
        (folder / str(number)).write_bytes(data)
        options.append(("-fw_cfg", f"name={name},file={folder / str(number)}"))
    ended = start(lab, target, folder, lie.lies, files=lie.files, options=options)
    unread = sorted(set(lie.read) - ended.chosen)
    if unread:
        raise BuildError(f"the firmware did not read {', '.join(unread)}; {ended.became}")
    over = ended.marks * len(MARK) > lie.room
    if ended.became is Became.STUCK and not over:
        raise BuildError(ended.became)  # too slow to say, or lost: neither is a refusal
    booted = ended.became in {Became.BOOTED, Became.STARTED} and not lie.boots
    words = f"{ended.became}; {ended.marks * len(MARK)} bytes of the host's in its memory"
    return Outcome(succeeded=over or booted, guest=words if over else ended.became)


def honest(lab: Lab, target: Target, folder: Path) -> Outcome:
    """The same QEMU without a lie; once for all rows."""

    def run() -> Outcome:
        became = start(lab, target, folder, ()).became
        return Outcome(succeeded=became is Became.BOOTED, guest=became)

    return lab.once(f"qemu-liar, honest, {target.name}", run)


HONEST = Honest(what="the same QEMU, honest", attempt=honest)


def numbers(lab: Lab, target: Target, folder: Path) -> Outcome:
    """Numbers as long as they should be are read: that the firmware looks at these files is seen by that alone."""
    outcome = attempt(lab, target, folder, make=lambda *_: Lie(more=_NUMBERS, boots=True, read=tuple(_NUMBERS)))
    return Outcome(succeeded=not outcome.succeeded and outcome.guest == Became.BOOTED, guest=outcome.guest)


def loader_reads_directory(lab: Lab, target: Target) -> int:
    """How often the directory was read when the firmware looks in it for files that boot."""

    def run() -> int:
        readings = start(lab, target, lab.folder(f"readings of {target.name}"), ()).liar.readings
        before = readings[: next(at for at, line in enumerate(readings) if line.endswith(_KERNEL))]
        return sum(line.startswith(f"read {_DIRECTORY:#x} ") for line in before)

    return lab.once(f"readings of {target.name}", run)


def _wraps(lab: Lab, target: Target) -> Lie:  # noqa: ARG001 (all lies are called alike)
    """4096 and 2^32 - 2048 bytes: 2048 in 32 bits."""
    return Lie(
        lies=[
            f"name {_KERNEL} 1 x",
            f"item {_SETUP_SIZE:#x} 1 @setup-size",
            f"item {_SETUP_DATA:#x} 1 @marks",
            f"item {_KERNEL_SIZE:#x} 1 @kernel-size",
            f"item {_KERNEL_DATA:#x} 1 @marks",
        ],
        files={
            "setup-size": struct.pack("<I", 4096),
            "kernel-size": struct.pack("<I", (1 << 32) - 2048),
            "marks": _MARKS,
        },
        room=2048,
    )


def _many(lab: Lab, target: Target) -> Lie:
    """A directory that takes all of the memory."""
    count = size_of_memory(lab, target) // _ENTRY
    at = loader_reads_directory(lab, target)
    return Lie(
        lies=[f"item {_DIRECTORY:#x} {at} @directory"],
        files={"directory": struct.pack(">I", count) + _MARKS},
        room=4096,  # a few entries at a time
    )


def _endless_names(lab: Lab, target: Target) -> Lie:
    at = loader_reads_directory(lab, target)
    entry = struct.pack(">IHH56s", 64, 0x20, 0, b"etc/boot/".ljust(56, b"A"))
    return Lie(lies=[f"item {_DIRECTORY:#x} {at} @directory"], files={"directory": struct.pack(">I", 3) + entry * 3})


def _size(_: Lab, target: Target, *, more: int) -> Lie:
    size = target.kernel.stat().st_size + more
    return Lie(lies=[f"size {_KERNEL} 1 {size:#x}"], read=[_KERNEL])


def _fixed(lab: Lab, target: Target, *, lie: Lie) -> Lie:  # noqa: ARG001 (all lies are called alike)
    return lie


def _huge(_: Lab, target: Target) -> Lie:  # noqa: ARG001 (all lies are called alike)
    names = ("etc/acpi/tables", "etc/acpi/rsdp")
    return Lie(
        # The script asks for them by their names, and for as much memory as they are long.
        read=["etc/table-loader"],
        lies=[*(f"size {name} 1 0xffffffff" for name in names), *(f"item {name} 1 @marks" for name in names)],
        files={"marks": _MARKS},
        boots=True,
    )


_Make = Callable[[Lab, Target], Lie]
_ROWS: dict[str, tuple[str, _Make, Undefended | Honest]] = {
    "kernel-sizes-wrap": (
        "says that the kernel's two parts are 4,096 and 2^32 - 2,048 bytes long",
        _wraps,
        _UPSTREAM,
    ),
    "files-beyond-memory": ("says that there are more files than memory for their names", _many, _UPSTREAM),
    "names-without-end": ("names files that boot, with names that do not end", _endless_names, HONEST),
    "kernel-longer": (
        "says that the kernel is a page longer than it is",
        partial(_size, more=4096),
        HONEST,
    ),
    "kernel-shorter": (
        "says that the kernel is a page shorter than it is",
        partial(_size, more=-4096),
        HONEST,
    ),
    "kernel-empty": (
        "says that the kernel has no bytes",
        partial(_fixed, lie=Lie(lies=[f"size {_KERNEL} 1 0"])),
        HONEST,
    ),
    "kernel-huge": (
        "says that the kernel has 2^32 - 1 bytes",
        partial(_fixed, lie=Lie(lies=[f"size {_KERNEL} 1 0xffffffff"])),
        HONEST,
    ),
    "kernel-twice": (
        "names a second file etc/boot/kernel, which is another",
        partial(_fixed, lie=Lie(lies=[f"name etc/acpi/rsdp 1 {_KERNEL}"], read=["etc/acpi/rsdp"])),
        HONEST,
    ),
    "kernel-silent": (
        "ends the transfer of the kernel without writing a byte",
        partial(_fixed, lie=Lie(lies=[f"silent {_KERNEL} 1 0"])),
        HONEST,
    ),
    "kernel-cut": (
        "ends the transfer of the kernel in its middle",
        partial(_fixed, lie=Lie(lies=[f"silent {_KERNEL} 1 0x100000"])),
        HONEST,
    ),
    "files-huge": ("says that tables of ACPI have 2^32 - 1 bytes", _huge, HONEST),
    "numbers-long": (
        "hands out a page where the firmware expects a number",
        partial(_fixed, lie=Lie(more=dict.fromkeys(_NUMBERS, MARK * 256), boots=True)),
        Honest(what="numbers as long as they should be, which it reads", attempt=numbers),
    ),
    "hardware-info-wraps": (
        "describes PCI host bridges whose lengths wrap",
        partial(
            _fixed,
            lie=Lie(
                more={"etc/hardware-info": struct.pack("<QQ", 1, (1 << 64) - 4096) + MARK * 256},
                room=3 * 4112,
                boots=True,
                read=["etc/hardware-info"],
            ),
        ),
        HONEST,
    ),
}  # fmt: skip


def attacks() -> Iterator[Attack]:
    """The rows; they need the lying QEMU, which takes minutes to build, so none is in the short form."""
    for name, (host, make, control) in _ROWS.items():
        yield Attack(
            name=name,
            host=f"{host} (fw_cfg)",
            attempt=partial(attempt, make=make),
            control=control,
            parts=frozenset({Part.FIRMWARE}),
            reach=Reach.KERNEL,
        )
