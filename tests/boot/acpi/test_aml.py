# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""AML reaches no memory but what the firmware's map gives to ACPI (kernel-patches/6.12/0002 and 0004).

One SSDT of the host's, in no launch digest, tries each kind of memory. Debian's kernel obeys it.
"""

from pathlib import Path

from tools.attack.acpi import memory
from tools.attack.acpi.host import Side
from tools.attack.acpi.machine import MARKER, Machine
from tools.attack.acpi.memory import KINDS


def test_an_undefended_kernel_obeys(undefended: Side, iasl: Path, tmp_path: Path) -> None:
    """The control: every access is made, and the kernel's command line is another."""
    tried = memory.attempt(undefended, tmp_path, iasl)
    assert tried.ran
    assert all(tried.made(letter) for letter in KINDS)
    assert tried.changed >= set("FBESTDN")
    assert tried.command_line


def test_the_shipped_kernel_refuses(shipped: Side, iasl: Path, tmp_path: Path) -> None:
    """The AML runs, and what is given to ACPI is open to it: nothing else is."""
    tried = memory.attempt(shipped, tmp_path, iasl)
    assert tried.ran
    assert {letter for letter in KINDS if tried.made(letter)} == set("tnh")
    assert not tried.changed
    assert not tried.command_line
    assert tried.boot.find(MARKER.encode())


def test_a_refusal_is_a_line_in_the_log(undefended: Side, debug_artifacts: Path, iasl: Path, tmp_path: Path) -> None:
    """Seen with the debug kernel, which has a console; an honest start says nothing of the kind."""
    machine = Machine(
        qemu=undefended.machine.qemu, kernel=debug_artifacts / "vmlinuz", firmware=undefended.machine.firmware
    )
    debug = Side.undefended(machine, tmp_path / "honest")
    assert "ACPI: memory: refused" not in debug.honest.log
    tried = memory.attempt(debug, tmp_path / "attack", iasl)
    first = memory.accesses(debug)[0].address
    assert f"ACPI: memory: refused reading 1 bytes at {first:#x}: the firmware's memory map" in tried.boot.log
