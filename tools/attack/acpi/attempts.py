# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tables that name memory by themselves: registers, interrupt controllers, a mailbox, PCI's configuration, the FACS."""

import dataclasses
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.attack.acpi import aml, tables
from tools.attack.acpi.aml import DONE, Access
from tools.attack.acpi.host import FREE, Side
from tools.attack.acpi.machine import PORT, Boot

_PAGE = 4096
_EMPTY = bytes(_PAGE)
_MIB = 1 << 20
# Says that tables of the host's making were taken, and AML ran.
_HELLO = Access(letter="H", address=PORT, value=None, space="SystemIO")
# Offsets in the FADT and in the MADT (ACPI 6.5, tables 5.9 and 5.19 and following).
_GPE0_BLOCK, _GPE0_LENGTH, _FLAGS, _RESET_REGISTER, _RESET_VALUE, _X_GPE0_BLOCK = 80, 92, 112, 116, 128, 220
_RESET_SUPPORTED = 1 << 10
_LOCAL_APIC = 36
_IO_APIC = struct.pack("<I", 0xFEC00000)
_MCFG_ENTRY = 44


@dataclass(frozen=True, kw_only=True)
class Result:
    """What became of one start. `ran`: the host's tables were taken; `obeyed`: the memory aimed at is another."""

    boot: Boot
    ran: bool
    obeyed: bool


Attempt = Callable[[Side, Path, Path], Result]
"""A kernel, a new folder, iasl: one start with the payload."""


def _try(
    side: Side,
    folder: Path,
    iasl: Path,
    fields: Mapping[str, Mapping[int, bytes]],
    *,
    payload: Access | str = _HELLO,
    aim: int = FREE,
    before: bytes = _EMPTY,
    cpus: int = 1,
    facs: int | None = None,
    more: tuple[str, ...] = (),
    obeyed: bytes | None = None,
) -> Result:
    """Start with changed fields in these tables; stop when the memory at `aim` is not `before` any more.

    It counts as obeyed when it is `obeyed`, None: anything else than before.
    """
    changed = {name: tables.patched(table, fields.get(name, {})) for name, table in side.tables.items()}
    ssdt = aml.table(folder / "aml", iasl, [payload])
    options = tables.options(folder / "tables", changed, ssdt, facs=facs)

    def until(boot: Boot) -> bool:
        return boot.read(aim, len(before)) not in (before, b"")

    boot = side.machine.start(folder / "guest", *options, *more, cpus=cpus, until=until)
    there = boot.read(aim, len(before if obeyed is None else obeyed))
    return Result(boot=boot, ran=bool(boot.said), obeyed=there != before if obeyed is None else there == obeyed)


def events(side: Side, folder: Path, iasl: Path) -> Result:
    """The FADT's registers of general-purpose events, which the kernel switches off when it starts."""
    fadt = {_GPE0_BLOCK: bytes(4), _GPE0_LENGTH: b"\x10", _X_GPE0_BLOCK: tables.register(FREE, bits=128)}
    return _try(side, folder, iasl, {"FACP": fadt})


def reset(side: Side, folder: Path, iasl: Path) -> Result:
    """The FADT's reset register, written to when the kernel panics: these guests have no root, so they do."""
    (flags,) = struct.unpack_from("<I", side.tables["FACP"], _FLAGS)
    fadt = {
        _FLAGS: struct.pack("<I", flags | _RESET_SUPPORTED),
        _RESET_REGISTER: tables.register(FREE, bits=8),
        _RESET_VALUE: b"\x77",
    }
    return _try(side, folder, iasl, {"FACP": fadt}, before=b"\0", obeyed=b"\x77")


def local_apic(side: Side, folder: Path, iasl: Path) -> Result:
    """The MADT's address of the local APIC."""
    return _try(side, folder, iasl, {"APIC": {_LOCAL_APIC: struct.pack("<I", FREE)}})


def io_apic(side: Side, folder: Path, iasl: Path) -> Result:
    """The MADT's address of the I/O APIC."""
    return _try(side, folder, iasl, {"APIC": {side.tables["APIC"].index(_IO_APIC): struct.pack("<I", FREE)}})


def mailbox(side: Side, folder: Path, iasl: Path) -> Result:
    """A mailbox in the MADT for starting processors: written to, and processors sent to an address of the host's."""
    second = struct.pack("<BBBBI", 0, 8, 1, 1, 1)
    box = struct.pack("<BBHIQ", 16, 16, 0, 0, FREE)
    return _try(side, folder, iasl, {"APIC": {len(side.tables["APIC"]): second + box}}, cpus=2)


def pci_configuration(side: Side, folder: Path, iasl: Path) -> Result:
    """The MCFG puts PCI's configuration over EFI runtime memory; AML writes to that of the host bridge."""
    runtime = side.area("reserved", least=2 * _MIB)
    base = (runtime.start + _MIB - 1) & -_MIB
    new = struct.pack("<I", 0xABADCAFE)
    payload = Access(
        letter="P",
        address=0x100,
        value=0xABADCAFE,
        bits=32,
        space="PCI_Config",
        place=r"\_SB.PCI0",
        name="Name (_ADR, 0)",
    )
    fields = {"MCFG": {_MCFG_ENTRY: struct.pack("<QHBB", base, 0, 0, 0)}}
    return _try(side, folder, iasl, fields, payload=payload, aim=base + 0x100, before=b"", obeyed=new)


def facs(side: Side, folder: Path, iasl: Path) -> Result:
    """The global lock is a word in the FACS, at the FADT's address. OVMF puts its own there, SeaBIOS does not."""
    lock = 0x12345671
    folder.mkdir(parents=True)
    image = struct.pack("<4sIIII", b"FACS", 64, 0, 0, lock).ljust(64, b"\0")
    (folder / "facs").write_bytes(image)
    take = rf"""Scope (\_SB) {{ Device (GLCK) {{ Name (_HID, "SEVT0002") Method (_INI) {{
        \SAY ({ord("G"):#x}) Acquire (\_GL, 0xFFFF) Release (\_GL) \SAY ({ord(DONE):#x}) }} }} }}"""
    return _try(
        dataclasses.replace(side, machine=dataclasses.replace(side.machine, firmware=None)),
        folder,
        iasl,
        {},
        payload=take,
        facs=FREE,
        more=("-device", f"loader,file={folder / 'facs'},addr={FREE:#x},force-raw=on"),
        aim=FREE + 16,
        before=b"",
        obeyed=struct.pack("<I", lock - 1),
    )


TABLES: Mapping[str, Attempt] = {
    "general-purpose events": events,
    "reset register": reset,
    "local APIC": local_apic,
    "I/O APIC": io_apic,
    "wakeup mailbox": mailbox,
    "PCI configuration": pci_configuration,
    "FACS": facs,
}
"""All of them, by what the table names."""
