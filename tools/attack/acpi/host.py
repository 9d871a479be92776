# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a host knows before it attacks: it has started the same guest once, and has looked at its memory."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tools.attack.acpi import tables
from tools.attack.acpi.machine import MARKER, Area, Boot, Machine
from tools.pipeline.base.errors import BuildError

FREE = 0x8000000
"""Memory that nothing uses in guests of this size while they start: whatever appears here, a payload put there."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A kernel and an honest start of it. `kernel_memory`: where it keeps copies of its command line."""

    machine: Machine
    honest: Boot
    tables: Mapping[str, bytes]
    kernel_memory: tuple[int, ...]

    @classmethod
    def undefended(cls, machine: Machine, folder: Path) -> Self:
        """A kernel that speaks on the serial port, in the new `folder`; Debian's is without defence.

        What it says of the memory map holds for every kernel behind the same firmware.
        """
        # By then map, tables and command line are where they stay; the rest of its start takes the most time.
        boot = machine.start(folder, until=lambda boot: "ACPI: Interpreter enabled" in boot.log)
        return cls._of(machine, boot, boot, tables.of(boot))

    def beside(self, machine: Machine, folder: Path) -> Self:
        """A kernel without a console, in the new `folder`: map and tables are this one's, for the same firmware."""
        return self._of(machine, machine.start(folder), self.honest, self.tables)

    @classmethod
    def _of(cls, machine: Machine, boot: Boot, mapped: Boot, found: Mapping[str, bytes]) -> Self:
        ram = mapped.areas("usable")
        copies = tuple(at for at in boot.find(MARKER.encode()) if any(area.start <= at < area.end for area in ram))
        boot.memory.unlink()
        if not copies:
            raise BuildError("did not start", where=str(machine.kernel), details=boot.log.splitlines()[-20:])
        honest = dataclasses.replace(boot, log=mapped.log)
        return cls(machine=machine, honest=honest, tables=found, kernel_memory=copies)

    def area(self, kind: str, *, least: int = 0x1000) -> Area:
        """The first of this kind and size, in bytes."""
        return next(area for area in self.honest.areas(kind) if area.end - area.start >= least)
