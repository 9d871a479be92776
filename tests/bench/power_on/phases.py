# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""From samples to phases and functions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from tests.bench.power_on.sampler import HIGH, Sample, Trail

_FLASH = (1 << 32) - (16 << 20)  # flash ends at 4 GiB; nothing else that runs lies as close below
_DXE, _UNPACKER = "DxeCore", "unpacker"


class Phase(StrEnum):
    """Of a start, in the order in which they come; each begins with its first sample."""

    FLASH = "firmware in flash"
    PEI = "firmware, PEI"
    DXE = "firmware, DXE"
    STUB = "EFI stub and decompression"
    KERNEL = "kernel"
    AGENT = "agent"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A sample with its phase, and the program and function that it is in."""

    sample: Sample
    phase: Phase
    program: str
    function: str


def finder(trail: Trail) -> Callable[[int], tuple[str, str]]:
    """A function from an address of the guest to program and function; "?" where it is not known."""
    ranges = sorted(((place.start, place.end, place) for place in trail.places), key=lambda item: item[:2])

    def find(address: int) -> tuple[str, str]:
        for start, end, place in ranges:
            if start <= address < end:
                function = place.function(address)
                if function is not None:
                    return place.program, function
        if address >= HIGH:
            return "kernel", "?"
        return ("flash", "?") if _FLASH <= address < 1 << 32 else ("?", "?")

    return find


def label(trail: Trail) -> Iterator[Step]:
    """Each sample of a trail, in order."""
    find = finder(trail)
    phase = Phase.FLASH
    order = list(Phase)
    for sample in trail.samples:
        program, function = find(sample.address)
        if sample.user and program == "?":
            program = "agent"
        reached = _phase(sample, program)
        if reached is not None and order.index(reached) > order.index(phase):
            phase = reached
        yield Step(sample=sample, phase=phase, program=program, function=function)


def _phase(sample: Sample, program: str) -> Phase | None:
    """The phase that such a sample begins at the latest."""
    if sample.user:
        return Phase.AGENT
    if sample.address >= HIGH:
        return Phase.KERNEL
    if program == _UNPACKER:
        return Phase.STUB
    if program == _DXE:
        return Phase.DXE
    return None if sample.address >= _FLASH or sample.address < 1 << 20 else Phase.PEI
