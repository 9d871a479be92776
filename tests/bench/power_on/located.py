# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Where programs lie in a guest's memory, found by their bytes: addresses are drawn anew at every start."""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.power_on.elf import Elf
from tests.bench.power_on.programs import Programs
from tools.pipeline.base.errors import BuildError

_PAGE = 4096
LOW = 16 << 20
"""edk2's early volumes lie below; there a module may begin anywhere."""
_WINDOW = 48  # bytes by which code is known
_MAP = 0xFFFFFFFF80000000  # __START_KERNEL_map
_FOUR = 1 << 32
Memory = mmap.mmap | bytes | bytearray
"""A guest's memory, from physical address 0 on."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A program at addresses that are `bias` above those that it was linked for."""

    program: str
    elf: Elf
    bias: int

    @property
    def start(self) -> int:
        """The guest's first address of its code."""
        return self.elf.start + self.bias

    @property
    def end(self) -> int:
        """The first address behind its code."""
        return self.elf.end + self.bias

    def function(self, address: int) -> str | None:
        """The function at an address of the guest."""
        return self.elf.function(address - self.bias)


def modules(programs: Programs, memory: Memory, extents: list[tuple[int, int]]) -> list[Place]:
    """The firmware's modules and the kernel's unpacker, wherever they lie; a copy in a volume counts, too."""
    wanted = {**programs.modules, "unpacker": programs.unpacker}
    windows = {name: _windows(elf) for name, elf in wanted.items()}
    found: dict[tuple[str, int], Place] = {}

    def take(name: str, at: int, data: Memory, base: int) -> None:
        first = windows[name][0][0]
        if all(_at(data, at + place - first) == text for place, text in windows[name]):
            bias = base + at - first
            found[(name, bias)] = Place(program=name, elf=wanted[name], bias=bias)

    low = memory[:LOW]
    for name, texts in windows.items():
        for data, base in ((programs.flash, _FOUR - len(programs.flash)), (low, 0)):
            for at in _all(data, texts[0][1]):
                take(name, at, data, base)
    heads: dict[int, dict[bytes, list[str]]] = {}
    for name, texts in windows.items():
        heads.setdefault(texts[0][0] % _PAGE, {}).setdefault(texts[0][1], []).append(name)
    for start, end in extents:
        for page in range(max(start, LOW), end, _PAGE):
            for offset, texts_at in heads.items():
                for name in texts_at.get(_at(memory, page + offset), ()):
                    take(name, page + offset, memory, 0)
    return list(found.values())


def kernel(programs: Programs, memory: Memory, extents: list[tuple[int, int]]) -> list[Place]:
    """Where the kernel lies: as linked, moved at random, and in physical memory, from where its first code runs.

    Its banner says where it was put, its own phys_base (arch/x86/kernel/head64.c) for which addresses.
    """
    elf = programs.kernel
    banner = elf.symbols["linux_banner"]
    text = elf.bytes_at(banner, 160)
    for start, end in extents:
        for at in _all(memory[start:end], text):
            physical = start + at - (banner - _MAP)
            where = physical + elf.symbols["phys_base"] - _MAP
            base = int.from_bytes(memory[where : where + 8], "little", signed=True)
            moved = physical - base
            if moved % (2 << 20) == 0 and 0 <= moved < 1 << 30:
                return [
                    Place(program="kernel", elf=elf, bias=moved),
                    Place(program="kernel", elf=elf, bias=physical - _MAP),
                ]
    raise BuildError("is nowhere in the guest's memory", where="vmlinux", hint="measure what is built")


def agent(programs: Programs, code: bytes, address: int) -> list[Place]:
    """Where the agent lies, by what stands at an address of its code; none where that is not in it, or twice."""
    elf = programs.agent
    places = [s.address + at for s in elf.sections if s.code for at in _all(s.data, code)] if code else []
    return [Place(program="agent", elf=elf, bias=address - places[0])] if len(places) == 1 else []


def extents(descriptor: int) -> list[tuple[int, int]]:
    """The parts of a guest's memory that were ever written, in pages."""
    found, at, size = [], 0, os.fstat(descriptor).st_size
    while at < size:
        try:
            at = os.lseek(descriptor, at, os.SEEK_DATA)
        except OSError:  # none behind it
            break
        end = os.lseek(descriptor, at, os.SEEK_HOLE)
        found.append((at, end))
        at = end
    return found


def _windows(elf: Elf) -> list[tuple[int, bytes]]:
    """Addresses of code and what stands there: the first is the program's entry, which calls what is its own."""
    code = max((s for s in elf.sections if s.code), key=lambda s: len(s.data))
    entry = elf.symbols.get("_ModuleEntryPoint", code.address + len(code.data) // 3)
    if not code.holds(entry, _WINDOW):
        entry = code.address
    places = [entry, *(code.address + len(code.data) * part // 8 for part in (1, 3, 5))]
    return [(place, elf.bytes_at(place, _WINDOW)) for place in places if code.holds(place, _WINDOW)]


def _at(data: Memory, place: int) -> bytes:
    return bytes(data[max(0, place) : max(0, place + _WINDOW)])


def _all(data: Memory, text: bytes) -> Iterator[int]:
    at = data.find(text)
    while at >= 0:
        yield at
        at = data.find(text, at + 1)
