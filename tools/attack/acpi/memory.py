# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One SSDT of the host's, in no launch digest, tries each kind of memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.attack.acpi import aml
from tools.attack.acpi.aml import DONE, Access
from tools.attack.acpi.host import FREE, Side
from tools.attack.acpi.machine import MARKER, Boot

KINDS = {
    "K": "the kernel's command line, written",
    "R": "the kernel's command line, read",
    "F": "memory of boot services, which the kernel has reclaimed",
    "B": "half memory, half a device's window",
    "E": "EFI runtime memory",
    "S": "the page of injected secrets, written",
    "L": "the page of injected secrets, read",
    "T": "ACPI tables, written",
    "D": "a table by its name (DataTableRegion), written",
    "t": "ACPI tables, read",
    "N": "ACPI NVS, written: a table whose length AML changes may lie there",
    "n": "ACPI NVS, read",
    "h": "a device's registers, read and written",
}
"""What each letter tries. Those in capitals must be refused, the others must not."""

_MARK = MARKER.encode()
_AT = 16  # where in the marker a letter is changed
_NEW = ord("x")
_HPET = 0xFED00000  # a device's registers: in no memory map
_RAM_END = 0xA0000  # the end of low memory; behind it lies the window of the VGA
_OEM_REVISION = 24  # in the header of every table, behind the names (ACPI 6.5, table 5.4)
_OWN_NAMES = b"SEVTST" + b"PAYLOAD\0"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of a start with the payload.

    `said`: letter by letter what AML came to, DONE after those that were made. `changed`: letters whose value is in
    memory. `command_line`: the kernel's is another.
    """

    boot: Boot
    expected: Sequence[str]
    changed: frozenset[str]
    command_line: bool

    def made(self, letter: str) -> bool:
        """Whether the accesses of that letter were made."""
        return f"{letter}{DONE}" in self.boot.said

    @property
    def ran(self) -> bool:
        """Whether AML came to all of them."""
        return self.boot.said.replace(DONE, "") == "".join(self.expected)


def accesses(side: Side) -> list[Access]:
    """All of them, for this kernel."""
    runtime, secret = side.area("reserved", least=0x200000), side.area("reserved")
    nvs, tables = side.area("ACPI NVS", least=0x80000), side.area("ACPI data")
    return [
        *(Access(letter="K", address=at + _AT, value=_NEW) for at in side.kernel_memory),
        Access(letter="R", address=side.kernel_memory[0], value=None),
        Access(letter="F", address=FREE, value=_NEW),
        Access(letter="B", address=_RAM_END - 4, value=_NEW, bits=64),
        Access(letter="E", address=runtime.start + 0x1000, value=_NEW),
        # Where QEMU puts injected secrets; the CPUID page is next to it in an SNP guest, reserved in the same way.
        Access(letter="S", address=secret.start, value=_NEW),
        Access(letter="L", address=secret.start, value=None),
        Access(letter="T", address=tables.end - 1, value=_NEW),
        # Its own table; the length in the header is four bytes of it like any others.
        Access(letter="D", address=_OEM_REVISION, value=_NEW, space=aml.OWN_TABLE),
        Access(letter="t", address=tables.start, value=None),
        Access(letter="N", address=nvs.start + 0x40000, value=_NEW),
        Access(letter="n", address=nvs.start, value=None),
        # Its capabilities, which writing does not change.
        Access(letter="h", address=_HPET, value=0, bits=32),
    ]


def attempt(side: Side, folder: Path, iasl: Path) -> Tried:
    """Start the kernel with all of them, in the new `folder`."""
    payload = accesses(side)
    aml.table(folder, iasl, payload)

    def obeyed(boot: Boot) -> bool:
        return boot.said.count(DONE) == len(payload)

    boot = side.machine.start(folder / "guest", "-acpitable", f"file={folder / 'payload.aml'}", until=obeyed)
    written = [access for access in payload if access.value is not None and access.space == "SystemMemory"]
    changed = {a.letter for a in written if boot.read(a.address, 1) == bytes([_NEW])}
    if boot.find(_OWN_NAMES + bytes([_NEW])):
        changed.add("D")
    return Tried(
        boot=boot,
        expected=[access.letter for access in payload],
        changed=frozenset(changed),
        command_line=bool(boot.find(_MARK[:_AT] + bytes([_NEW]) + _MARK[_AT + 1 :])),
    )
