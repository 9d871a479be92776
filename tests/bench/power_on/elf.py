# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a profile needs of an ELF file (64 bits, little-endian): functions by address, and the bytes of code."""

import bisect
import re
import struct
from dataclasses import dataclass, field
from functools import cached_property

from tools.pipeline.base.errors import BuildError

_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _NOBITS, _ALLOC, _EXEC = 2, 8, 2, 4  # sh_type, sh_flags (System V ABI, "Sections")
_NOTYPE, _FUNC = 0, 2  # the low half of st_info
_LAST = 0xFF00  # SHN_LORESERVE: from here on no section


def readable(name: str) -> str:
    """A name of Rust's (_ZN5agent5serve17h8304fc2cc96d44adE) as people write it, agent::serve; others as they are."""
    parts, rest = [], name.removeprefix("_ZN")
    while rest != name and (length := re.match(r"[1-9][0-9]*", rest)):
        end = length.end() + int(length[0])
        parts.append(rest[length.end() : end])
        rest = rest[end:]
    if rest == name or not rest.startswith("E") or len(parts) < 2:
        return name
    # The last part is a hash of the whole.
    return "::".join(parts[:-1])


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section that is in memory: its address as linked, and its bytes."""

    address: int
    data: bytes
    code: bool

    def holds(self, address: int, size: int = 1) -> bool:
        """Whether `size` bytes at an address lie in it."""
        return self.address <= address and address + size <= self.address + len(self.data)


@dataclass(frozen=True, kw_only=True)
class Elf:
    """A program with its symbols; addresses are those that it was linked for."""

    sections: tuple[Section, ...]
    symbols: dict[str, int] = field(repr=False)
    functions: tuple[tuple[int, str], ...] = field(repr=False)

    @classmethod
    def read(cls, data: bytes, *, where: str) -> "Elf":
        """Of a file's bytes. BuildError for what is no such file, or has no symbols."""
        if data[:6] != b"\x7fELF\x02\x01":
            raise BuildError("is no ELF file of 64 bits", where=where)
        fields = _HEADER.unpack_from(data)
        offset, size, count = fields[5], fields[10], fields[11]
        heads = [_SECTION.unpack_from(data, offset + number * size) for number in range(count)]
        tables = [head for head in heads if head[1] == _SYMTAB]
        if not tables:
            raise BuildError("has no symbols", where=where)
        names = heads[tables[0][6]]
        sections = tuple(
            Section(address=at, data=data[start : start + length], code=bool(flags & _EXEC))
            for _, kind, flags, at, start, length, *_ in heads
            if flags & _ALLOC and kind != _NOBITS
        )
        symbols: dict[str, int] = {}
        functions: dict[int, str] = {}
        for place in range(tables[0][4], tables[0][4] + tables[0][5], _SYMBOL.size):
            name_at, info, _, section, value, _ = _SYMBOL.unpack_from(data, place)
            start = names[4] + name_at
            name = data[start : data.index(b"\0", start)].decode("ascii", "replace")
            if not name or not 0 < section < _LAST:
                continue
            symbols.setdefault(name, value)
            # Labels of assembly have no type. __pfx_ is the padding before a function of the kernel.
            if heads[section][2] & _EXEC and info & 15 in (_NOTYPE, _FUNC) and not name.startswith((".", "__pfx_")):
                functions.setdefault(value, readable(name))
        return cls(sections=sections, symbols=symbols, functions=tuple(sorted(functions.items())))

    @cached_property
    def _starts(self) -> list[int]:
        return [address for address, _ in self.functions]

    def function(self, address: int) -> str | None:
        """The function that an address of code lies in; None where there is no code."""
        if not any(section.code and section.holds(address) for section in self.sections):
            return None
        place = bisect.bisect_right(self._starts, address)
        return self.functions[place - 1][1] if place else "?"

    def bytes_at(self, address: int, size: int) -> bytes:
        """What the file has there; empty where it has not all of it."""
        for section in self.sections:
            if section.holds(address, size):
                return section.data[address - section.address :][:size]
        return b""

    @cached_property
    def start(self) -> int:
        """The first address of its code."""
        return min((s.address for s in self.sections if s.code), default=0)

    @cached_property
    def end(self) -> int:
        """The first address behind its code."""
        return max((s.address + len(s.data) for s in self.sections if s.code), default=0)
