# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""AML reaches no memory but what the firmware's map gives to ACPI (kernel-patches/6.12/0002).

One SSDT of the host's, in no launch digest, tries each kind of memory. Debian's kernel obeys it.
"""

from pathlib import Path

from tests.boot.acpi import aml
from tests.boot.acpi.aml import DONE, Access
from tests.boot.acpi.host import FREE, Side
from tests.boot.acpi.machine import MARKER, Boot

_MARK = MARKER.encode()
_AT = 16  # where in the marker a letter is changed
_NEW = ord("x")
_HPET = 0xFED00000  # a device's registers: in no memory map
_RAM_END = 0xA0000  # the end of low memory; behind it lies the window of the VGA


def _payload(side: Side) -> list[Access]:
    """Letters in capitals must be refused, the others must not."""
    runtime, secret = side.area("reserved", least=0x200000), side.area("reserved")
    nvs, tables = side.area("ACPI NVS", least=0x80000), side.area("ACPI data")
    return [
        *(Access(letter="K", address=at + _AT, value=_NEW) for at in side.kernel_memory),
        Access(letter="R", address=side.kernel_memory[0], value=None),
        # Boot services' memory, which the kernel has reclaimed.
        Access(letter="F", address=FREE, value=_NEW),
        # Half in memory, half in a window.
        Access(letter="B", address=_RAM_END - 4, value=_NEW, bits=64),
        Access(letter="E", address=runtime.start + 0x1000, value=_NEW),
        # Where QEMU puts injected secrets; the CPUID page is next to it in an SNP guest, reserved in the same way.
        Access(letter="S", address=secret.start, value=_NEW),
        Access(letter="L", address=secret.start, value=None),
        Access(letter="T", address=tables.end - 1, value=_NEW),
        Access(letter="t", address=tables.start, value=None),
        Access(letter="n", address=nvs.start + 0x40000, value=_NEW),
        Access(letter="h", address=_HPET, value=None, bits=32),
    ]


def _attack(side: Side, folder: Path, iasl: Path) -> tuple[list[Access], Boot]:
    payload = _payload(side)
    aml.table(folder, iasl, payload)

    def obeyed(boot: Boot) -> bool:
        return boot.said.count(DONE) == len(payload)

    option = f"file={folder / 'payload.aml'}"
    return payload, side.machine.start(folder / "guest", "-acpitable", option, until=obeyed)


def _changed(boot: Boot, payload: list[Access]) -> str:
    """The letters of the accesses whose value is in memory."""
    written = (access for access in payload if access.value is not None)
    return "".join(a.letter for a in written if boot.read(a.address, 1) == bytes([_NEW]))


def test_an_undefended_kernel_obeys(undefended: Side, iasl: Path, tmp_path: Path) -> None:
    """The control: every access is made, and the kernel's command line is another."""
    payload, boot = _attack(undefended, tmp_path, iasl)
    assert boot.said == "".join(access.letter + DONE for access in payload)
    assert set("FBESTn") <= set(_changed(boot, payload))
    assert boot.find(_MARK[:_AT] + b"x" + _MARK[_AT + 1 :])


def test_the_shipped_kernel_refuses(shipped: Side, iasl: Path, tmp_path: Path) -> None:
    """The AML runs, and what is given to ACPI is open to it: nothing else is."""
    payload, boot = _attack(shipped, tmp_path, iasl)
    assert boot.said == "".join(access.letter + (DONE if access.letter.islower() else "") for access in payload)
    assert _changed(boot, payload) == "n"
    assert not boot.find(_MARK[:_AT] + b"x" + _MARK[_AT + 1 :])
    assert boot.find(_MARK)
