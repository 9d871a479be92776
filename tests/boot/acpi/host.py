# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a host knows before it attacks: it has started the same guest once, and has looked at its memory."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from tests.boot.acpi.machine import MARKER, Area, Boot, Machine

FREE = 0x8000000
"""Memory that nothing uses in guests of this size while they start: whatever appears here, a payload put there."""


@dataclass(frozen=True, kw_only=True)
class Side:
    """A kernel and an honest start of it."""

    machine: Machine
    honest: Boot
    tables: Mapping[str, bytes]
    kernel_memory: tuple[int, ...]

    @staticmethod
    def of(machine: Machine, boot: Boot, mapped: Boot, tables: Mapping[str, bytes]) -> "Side":
        """With the memory map that the log of `mapped` shows."""
        ram = mapped.areas("usable")
        copies = tuple(at for at in boot.find(MARKER.encode()) if any(area.start <= at < area.end for area in ram))
        boot.memory.unlink()
        honest = dataclasses.replace(boot, log=mapped.log)
        return Side(machine=machine, honest=honest, tables=tables, kernel_memory=copies)

    def area(self, kind: str, *, least: int = 0x1000) -> Area:
        """The first of this kind and size."""
        return next(area for area in self.honest.areas(kind) if area.end - area.start >= least)
