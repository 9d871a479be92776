# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A memory map of the host's (etc/e820 in fw_cfg) that overlaps what it must not, has no end, or no room.

What the firmware makes of it is seen in the map that a kernel gets; Debian's says so on its serial console. There the
pages with secrets and hashes must be reserved, and flash and addresses beyond what a page table reaches must be no
memory. A firmware that stops is fine; one that goes on where there is no memory is not.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from tools.attack.base.lab import Lab
from tools.attack.base.model import Attack, Honest, Outcome, Part, Reach, Undefended
from tools.attack.base.target import Target
from tools.attack.guests.firmware import Became
from tools.attack.lies.start import size_of_memory, start
from tools.attack.undefended import kernel
from tools.attack.undefended.firmware import upstream
from tools.pipeline.base.errors import BuildError
from tools.sev.footer import parse_footer

_RAM, _RESERVED, _RECLAIM, _NVS = 1, 2, 3, 4
_MIB = 1 << 20
_FLASH = (1 << 32) - _MIB
_REACH = 1 << 46  # edk2 uses no addresses above with four levels of page tables (OvmfPkg, MemDetect.c)
_LINE = re.compile(r"BIOS-e820: \[mem 0x([0-9a-f]+)-0x([0-9a-f]+)\] (\S+)")
_FILE = "etc/e820"
_MOST = 64 * 20  # bytes: 64 pieces (recipes/firmware/patches/0007)
_Entry = tuple[int, int, int]


def attempt(lab: Lab, target: Target, folder: Path, *, entries: Sequence[_Entry], honest: bool, size: int) -> Outcome:
    """The map is `entries`, after an honest one if `honest`; the directory says `size`, 0: as long as it is."""
    speaks = lab.once(f"{target.name}, a kernel that speaks", partial(_speaking, lab, target))
    ram = [(0, size_of_memory(lab, target), _RAM)] if honest else []
    data = b"".join(struct.pack("<QQI", *entry) for entry in (*ram, *entries))
    lies = [f"size {_FILE} 1 {size or len(data)}", f"item {_FILE} 1 @map"]
    ended = start(lab, speaks, folder, lies, files={"map": data}, until="NX (Execute Disable)")
    # By its length alone the firmware may refuse it; any other must have been read.
    if not size and len(data) <= _MOST and _FILE not in ended.chosen:
        raise BuildError(f"the map was not read; {ended.became}")
    if ended.became is Became.STUCK and honest:
        raise BuildError(ended.became)  # too slow to say, or lost: neither is a firmware that stops
    if ended.became is not Became.STARTED:
        wild = not honest and ended.became is not Became.REFUSED
        return Outcome(succeeded=wild, guest=f"{ended.became}, where there is no memory" if wild else ended.became)
    wrong = _wrong(_LINE.findall(ended.serial), parse_footer(target.firmware.read_bytes(), where="").hashes.base)
    return Outcome(succeeded=bool(wrong), guest=wrong or "the kernel's map is right")


def _speaking(lab: Lab, target: Target) -> Target:
    debian = kernel.debian(lab, target)
    name = f"{target.name}, a kernel that speaks"
    return debian.derive(name, lab.folder(name) / "out", cmdline=f"{target.cmdline} console=ttyS0 ignore_loglevel")


def _wrong(areas: Sequence[tuple[str, str, str]], hashes: int) -> str:
    """What must not be in a map, empty if it is not."""
    if not areas:
        raise BuildError("the kernel said nothing of its memory")
    kinds = set()
    for first, last, kind in areas:
        start_, end = int(first, 16), int(last, 16) + 1
        if start_ <= hashes < end:
            kinds.add(kind)
        if kind == "usable" and end > _REACH:
            return f"memory at {start_:#x}"
        if kind != "reserved" and start_ < 1 << 32 and end > _FLASH:
            return f"flash is {kind}"
    return "" if kinds == {"reserved"} else f"the page of secrets and hashes is {' '.join(sorted(kinds)) or 'nowhere'}"


_HASHES = 0x810000  # in edk2's AmdSevX64.fdf; the host reads it in the firmware's footer
_HONEST = Honest(
    what="an honest map",
    attempt=lambda lab, target, folder: _right(attempt(lab, target, folder, entries=(), honest=True, size=0)),
)
_UPSTREAM = Undefended(what="firmware without patch 0004", target=upstream)
_ROWS: dict[str, tuple[str, Sequence[_Entry]]] = {
    "over-secrets": (
        "gives the page of secrets and hashes as memory, as tables, and as reserved",
        [(_HASHES, 4096, kind) for kind in (_RAM, _RECLAIM, _NVS, _RESERVED)],
    ),
    "over-firmware": ("reserves the firmware's own memory", [(0x800000, 14 * _MIB, _RESERVED)]),
    "over-everything": ("reserves all memory, twice", [(0, 1 << 40, _RESERVED)] * 2),
    "over-flash": ("gives the firmware's flash as memory above 4 GiB less a byte", [(_FLASH, _MIB + 4096, _RAM)]),
    "c-bit": ("gives memory at 2^47 and 2^51, where encrypted memory lies once more", [
        (1 << 47, 1 << 30, _RAM), (1 << 51, 1 << 30, _RAM),
    ]),
    "beyond": ("gives memory at 2^46, 2^52 and 2^63", [(1 << bit, 1 << 30, _RAM) for bit in (46, 52, 63)]),
    "wraps": ("gives memory that ends where it began to count", [
        ((1 << 64) - 4096, 8192, _RAM), (4096, (1 << 64) - 4096, _RAM),
    ]),
    # The honest one beside them is the last that the firmware takes (recipes/firmware/patches/0007).
    "empty": ("gives 63 pieces of memory of no bytes", [(i << 30, 0, i % 5) for i in range(63)]),
    "hundreds": ("gives 420 pieces of memory", [((1 << 32) + i * 8192, 4096, _RESERVED) for i in range(420)]),
    "pieces": ("gives 20,000 pieces of memory", [((1 << 32) + i * 8192, 4096, _RESERVED) for i in range(20000)]),
}  # fmt: skip
_LOW = {
    "low-below-firmware": ("says that low memory ends below the firmware's own", 8 * _MIB),
    "low-within-firmware": ("says that low memory ends within the firmware's own", 9 * _MIB),
    "low-a-page": ("says that there is a page of memory", 4096),
}


def _right(outcome: Outcome) -> Outcome:
    return Outcome(succeeded=outcome.guest == "the kernel's map is right", guest=outcome.guest)


def attacks() -> Iterator[Attack]:
    """The rows; they need the lying QEMU."""
    for name, (host, entries) in _ROWS.items():
        yield _row(name, host, _HONEST, partial(attempt, entries=entries, honest=True, size=0))
    for name, size, host in (("odd", 41, "in the middle of an entry"), ("huge", 4294967280, "after 4 GiB")):
        made = partial(attempt, entries=(), honest=True, size=size)
        yield _row(name, f"says that its map ends {host}", _HONEST, made)
    for name, (host, end) in _LOW.items():
        made = partial(attempt, entries=[(0, end, _RAM)], honest=False, size=0)
        yield _row(name, host, _UPSTREAM, made)


def _row(name: str, host: str, control: Honest | Undefended, made: partial[Outcome]) -> Attack:
    return Attack(
        name=name,
        host=f"{host} (etc/e820)",
        attempt=made,
        control=control,
        parts=frozenset({Part.FIRMWARE}),
        reach=Reach.KERNEL,
    )
