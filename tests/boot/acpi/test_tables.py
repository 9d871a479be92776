# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Tables that name memory by themselves, without AML: the kernel does not touch what they must not have.

Each test starts Debian's kernel with the payload first, and sees the memory change.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import replace as with_fields
from pathlib import Path

import pytest

from tests.boot.acpi import aml, tables
from tests.boot.acpi.aml import DONE, Access
from tests.boot.acpi.host import FREE, Side
from tests.boot.acpi.machine import PORT, Boot

_PAGE = 4096
_MISSING = bytes(_PAGE)
# Says that tables of the host's making were taken, and AML ran.
_HELLO = Access(letter="H", address=PORT, value=None, space="SystemIO")
# Offsets in the FADT and in the MADT (ACPI 6.5, tables 5.9 and 5.19 and following).
_GPE0_BLOCK, _GPE0_LENGTH, _FLAGS, _RESET_REGISTER, _RESET_VALUE, _X_GPE0_BLOCK = 80, 92, 112, 116, 128, 220
_RESET_SUPPORTED = 1 << 10
_LOCAL_APIC = 36
_IO_APIC = struct.pack("<I", 0xFEC00000)
_MCFG_ENTRY = 44


@dataclass(frozen=True, kw_only=True)
class Try:
    """What was done before a kernel, and the memory that was aimed at, afterwards."""

    boot: Boot
    memory: bytes


def _try(
    side: Side,
    folder: Path,
    iasl: Path,
    fields: Mapping[str, Mapping[int, bytes]],
    *,
    payload: Access | str = _HELLO,
    aim: int = FREE,
    before: bytes = _MISSING,
    cpus: int = 1,
    facs: int | None = None,
    more: tuple[str, ...] = (),
) -> Try:
    """Start with changed fields in these tables; stop when the memory at `aim` is not `before` any more."""
    changed = {name: tables.patched(table, fields.get(name, {})) for name, table in side.tables.items()}
    ssdt = aml.table(folder / "aml", iasl, [payload])
    options = tables.options(folder / "tables", changed, ssdt, facs=facs)

    def until(boot: Boot) -> bool:
        return boot.read(aim, len(before)) not in (before, b"")

    boot = side.machine.start(folder / "guest", *options, *more, cpus=cpus, until=until)
    return Try(boot=boot, memory=boot.read(aim, len(before)))


@pytest.fixture
def attempt(iasl: Path, tmp_path: Path) -> Callable[..., Try]:
    """_try() of a side, in a folder of its own."""
    return lambda name, side, *args, **kwargs: _try(side, tmp_path / name, iasl, *args, **kwargs)


def test_registers_in_memory(undefended: Side, shipped: Side, attempt: Callable[..., Try]) -> None:
    """The FADT's general-purpose events, which the kernel switches off when it starts, and its reset register."""
    (flags,) = struct.unpack_from("<I", undefended.tables["FACP"], _FLAGS)
    reset = FREE + 0x100
    fadt = {
        _GPE0_BLOCK: bytes(4),
        _GPE0_LENGTH: b"\x10",
        _X_GPE0_BLOCK: tables.register(FREE, bits=128),
        _FLAGS: struct.pack("<I", flags | _RESET_SUPPORTED),
        _RESET_REGISTER: tables.register(reset, bits=8),
        _RESET_VALUE: b"\x77",
    }
    # Not until something changes: the reset register is written last, when the kernel panics.
    broken = attempt("undefended", undefended, {"FACP": fadt}, aim=reset, before=b"\0")
    assert broken.memory == b"\x77"
    assert broken.boot.read(FREE + 1, 7) == b"\xff" * 7
    held = attempt("shipped", shipped, {"FACP": fadt})
    assert held.boot.said == "H" + DONE
    assert held.memory == _MISSING


def test_interrupt_controllers_in_memory(undefended: Side, shipped: Side, attempt: Callable[..., Try]) -> None:
    """The MADT's local APIC and I/O APIC."""
    madt = undefended.tables["APIC"]
    for name, field in (("local", {_LOCAL_APIC: FREE}), ("io", {madt.index(_IO_APIC): FREE})):
        fields = {"APIC": {at: struct.pack("<I", value) for at, value in field.items()}}
        broken = attempt(f"undefended-{name}", undefended, fields)
        assert broken.memory != _MISSING
        held = attempt(f"shipped-{name}", shipped, fields)
        assert held.memory == _MISSING


def test_wakeup_mailbox(undefended: Side, shipped: Side, attempt: Callable[..., Try]) -> None:
    """A mailbox in the MADT for starting processors: written to, and processors sent to an address of the host's."""
    second = struct.pack("<BBBBI", 0, 8, 1, 1, 1)
    mailbox = struct.pack("<BBHIQ", 16, 16, 0, 0, FREE)
    fields = {"APIC": {len(undefended.tables["APIC"]): second + mailbox}}
    broken = attempt("undefended", undefended, fields, cpus=2)
    assert broken.memory != _MISSING
    held = attempt("shipped", shipped, fields, cpus=2)
    assert held.boot.said == "H" + DONE
    assert held.memory == _MISSING


def test_pci_configuration_over_efi_runtime_memory(
    undefended: Side, shipped: Side, attempt: Callable[..., Try]
) -> None:
    """The MCFG says where PCI's configuration lies; AML writes to that of the host bridge."""
    runtime = undefended.area("reserved", least=2 << 20)
    base = (runtime.start + (1 << 20) - 1) & -(1 << 20)
    assert base + (1 << 20) <= runtime.end
    fields = {"MCFG": {_MCFG_ENTRY: struct.pack("<QHBB", base, 0, 0, 0)}}
    payload = Access(
        letter="P",
        address=0x100,
        value=0xABADCAFE,
        bits=32,
        space="PCI_Config",
        place=r"\_SB.PCI0",
        name="Name (_ADR, 0)",
    )
    new = struct.pack("<I", 0xABADCAFE)
    broken = attempt("undefended", undefended, fields, payload=payload, aim=base + 0x100, before=b"")
    assert broken.boot.read(base + 0x100, 4) == new
    held = attempt("shipped", shipped, fields, payload=payload, aim=base + 0x100, before=b"")
    assert held.boot.said.startswith("P")
    assert held.boot.read(base + 0x100, 4) != new


def test_facs_in_memory(undefended: Side, shipped: Side, attempt: Callable[..., Try], tmp_path: Path) -> None:
    """The global lock is a word in the FACS, at the FADT's address. OVMF puts its own there, SeaBIOS does not."""
    lock = 0x12345671
    facs = struct.pack("<4sIIII", b"FACS", 64, 0, 0, lock).ljust(64, b"\0")
    (tmp_path / "facs").write_bytes(facs)
    more = ("-device", f"loader,file={tmp_path / 'facs'},addr={FREE:#x},force-raw=on")
    take = rf"""Scope (\_SB) {{ Device (GLCK) {{ Name (_HID, "SEVT0002") Method (_INI) {{
        \SAY ({ord("G"):#x}) Acquire (\_GL, 0xFFFF) Release (\_GL) \SAY ({ord(DONE):#x}) }} }} }}"""

    def run(name: str, side: Side) -> Try:
        other = with_fields(side, machine=with_fields(side.machine, firmware=None))
        return attempt(name, other, {}, payload=take, facs=FREE, more=more, aim=FREE + 16, before=b"")

    broken = run("undefended", undefended)
    assert broken.boot.said == "G" + DONE
    assert broken.boot.read(FREE + 16, 4) == struct.pack("<I", lock - 1)
    held = run("shipped", shipped)
    assert held.boot.said.startswith("G")
    assert held.boot.read(FREE, len(facs)) == facs
