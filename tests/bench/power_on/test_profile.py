# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The profile's parts that need no guest: symbols, where programs lie, phases, QEMU's logs."""

import struct
from collections import Counter

import pytest

from tests.bench.power_on import accesses, intercepted, located, phases, profile, scale
from tests.bench.power_on.accesses import Access
from tests.bench.power_on.elf import Elf, readable
from tests.bench.power_on.located import Place
from tests.bench.power_on.phases import Phase
from tests.bench.power_on.programs import Programs
from tests.bench.power_on.sampler import Sample, Trail
from tools.pipeline.base.errors import BuildError

BASE = 0x1000


def program(code: bytes, names: dict[str, int], *, address: int = BASE, symbols: bool = True) -> bytes:
    """An ELF file with one section of code at an address, and functions there by their offset in it."""
    texts, table = b"\0", bytes(24)
    for name, offset in names.items():
        table += struct.pack("<IBBHQQ", len(texts), 2, 0, 1, address + offset, 0)
        texts += name.encode() + b"\0"
    parts = [code, table, texts]
    heads, at = [bytes(64)], 64
    kinds = [(1, 6, address, 0), (2 if symbols else 3, 0, 0, 3), (3, 0, 0, 0)]
    for part, (kind, flags, where, link) in zip(parts, kinds, strict=True):
        heads.append(struct.pack("<IIQQQQIIQQ", 0, kind, flags, where, at, len(part), link, 0, 1, 0))
        at += len(part)
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 0, at, 0, 64, 0, 0, 64, 4, 0)
    return head + b"".join(parts) + b"".join(heads)


def code(seed: int, size: int = 512) -> bytes:
    return bytes((seed * 31 + place * 7 + place // 5) % 251 for place in range(size))


def elf(seed: int, **names: int) -> Elf:
    return Elf.read(program(code(seed), names), where="sample")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("_ZN5agent5serve17h8304fc2cc96d44adE", "agent::serve"),
        ("_ZN5agent", "_ZN5agent"),
        ("start_kernel", "start_kernel"),
    ],
)
def test_names_of_rust_are_readable(name: str, shown: str) -> None:
    assert readable(name) == shown


def test_functions_are_found_by_address() -> None:
    found = elf(1, first=0, __pfx_second=0x30, second=0x40)
    assert found.function(BASE) == "first"
    assert found.function(BASE + 0x3F) == "first"
    assert found.function(BASE + 0x40) == "second"
    assert found.function(BASE + 511) == "second"
    assert found.function(BASE + 512) is None
    assert found.function(BASE - 1) is None
    assert found.symbols["second"] == BASE + 0x40


@pytest.mark.parametrize("data", [b"MZ" + bytes(200), program(code(1), {}, symbols=False)], ids=["PE", "stripped"])
def test_a_file_without_symbols_is_refused(data: bytes) -> None:
    with pytest.raises(BuildError, match=r"sample: (is no ELF|has no symbols)"):
        Elf.read(data, where="sample")


def test_modules_are_found_by_their_bytes() -> None:
    early, late, other = elf(2, _ModuleEntryPoint=16), elf(3, _ModuleEntryPoint=64), elf(4)
    memory = bytearray(located.LOW + (1 << 20))
    memory[0x820123 : 0x820123 + 512] = code(2)
    there = located.LOW + 0x5000 + BASE
    memory[there : there + 512] = code(3)
    # The entry of the third alone: no such module lies here.
    memory[0x900000 : 0x900000 + 200] = code(4)[:200]
    programs = Programs(
        kernel=other, unpacker=other, modules={"Early": early, "Late": late}, agent=other, flash=bytes(4096) + code(2)
    )
    places = located.modules(programs, memory, [(0, len(memory))])
    flash = (1 << 32) - 4096 - 512 + 4096
    assert {(place.program, place.start) for place in places} == {
        ("Early", 0x820123),
        ("Early", flash),
        ("Late", there),
    }


def test_phases_begin_with_their_first_sample_and_never_go_back() -> None:
    places = [
        Place(program="PeiCore", elf=elf(5, pei=0), bias=0x820000 - BASE),
        Place(program="DxeCore", elf=elf(6, dxe=0), bias=0x1000000 - BASE),
        Place(program="unpacker", elf=elf(7, unpack=0), bias=0x2000000 - BASE),
        Place(program="kernel", elf=elf(8, start_kernel=0), bias=0xFFFFFFFF81000000 - BASE),
    ]
    addresses = [0xFFFFF000, 0x820000, 0x1000010, 0x820020, 0x2000000, 0x1000000, 0xFFFFFFFF81000000, 0x400000]
    samples = [
        Sample(at=float(at), cpu=0.5, address=address, user=address == 0x400000, halted=False)
        for at, address in enumerate(addresses)
    ]
    steps = list(phases.label(Trail(samples=samples, places=places)))
    assert [(step.phase, step.program, step.function) for step in steps] == [
        (Phase.FLASH, "flash", "?"),
        (Phase.PEI, "PeiCore", "pei"),
        (Phase.DXE, "DxeCore", "dxe"),
        (Phase.DXE, "PeiCore", "pei"),
        (Phase.STUB, "unpacker", "unpack"),
        (Phase.STUB, "DxeCore", "dxe"),
        (Phase.KERNEL, "kernel", "start_kernel"),
        (Phase.AGENT, "agent", "?"),
    ]
    found = profile.summary(steps, runs=2)
    assert found["cpu_seconds"] == 2.0
    assert [phase["cpu_seconds"] for phase in found["phases"]] == [0.25, 0.25, 0.5, 0.5, 0.25, 0.25]
    lines = profile.table(found)
    assert "0.250   12.5%      PeiCore: pei" in "\n".join(lines)
    assert lines[-1].split() == ["2.000", "100.0%", "power-on", "to", "HELLO"]


LOG = """7@100.000001:memory_region_ops_write cpu -1 mr 0x1 addr 0xfee00000 value 0x0 size 4 name 'apic-msi'
7@100.5:memory_region_ops_read cpu 0 mr 0x1 addr 0xcf8 value 0x0 size 4 name 'pci-conf-idx'
7@100.6:memory_region_tb_read cpu 0 addr 0x1 value 0x0 size 4
7@100.7:memory_region_ops_read cpu 0 mr 0x1 addr 0x608 value 0x0 size 4 name 'acpi-tmr'
7@101.5:memory_region_ops_read cpu 0 mr 0x1 addr 0x40 value 0x0 size 1 name 'pit'
7@101.6:memory_region_ops_read cpu 0 mr 0x1 addr 0x608 value 0x0 size 4 name 'acpi-tmr'
"""


def test_accesses_are_counted_by_phase_and_region() -> None:
    found = accesses.parse(LOG.splitlines())
    assert found[1] == Access(at=100.5, region="pci-conf-idx")
    counts = accesses.by_phase(found, {Phase.FLASH: 100.1, Phase.KERNEL: 101.0})
    assert counts[Phase.FLASH] == {"apic-msi": 1, "pci-conf-idx": 1, "acpi-tmr": 1}
    assert counts[Phase.KERNEL] == {"pit": 1, "acpi-tmr": 1}
    rows = accesses.rows(counts)
    assert (rows[0].measured, rows[0].beside.split()[0], rows[0].met) == ("2", "2", True)
    assert rows[-1].measured == "1"
    many = accesses.rows({**counts, Phase.DXE: Counter({"pci-conf-idx": 5000})})
    assert (many[0].measured, many[0].met) == ("5,002", False)


def test_the_plugins_counts_are_read() -> None:
    assert intercepted.parse(["wrmsr 0xffffffff81000010 3", "block 0x10 12"]) == [
        ("wrmsr", 0xFFFFFFFF81000010, 3),
        ("block", 0x10, 12),
    ]
    with pytest.raises(BuildError, match="plugin: says 'cpuid 0x10'"):
        intercepted.parse(["cpuid 0x10"])


def test_a_size_that_is_never_ready_misses_the_goal() -> None:
    found = {(1, 512): 2.0, (8, 512): 2.05, (64, 512): 2.5, (1, 8192): 2.05, (1, 65536): 2.0}
    rows = (scale.by_processors(found, 2.0), scale.by_memory(found, 2.0))
    assert [row.met for row in rows] == [True, True]
    assert rows[0].beside == "7.1 ms for each more, up to 8, 7.9 ms for each more, up to 64"
    slow = scale.by_processors({**found, (64, 512): 2.7}, 2.0), scale.by_memory({**found, (1, 65536): 2.2}, 2.0)
    assert [row.met for row in slow] == [False, False]
    del found[(64, 512)], found[(1, 65536)]
    rows = (scale.by_processors(found, 2.0), scale.by_memory(found, 2.0))
    assert [row.met for row in rows] == [False, False]
    assert rows[0].measured.endswith(", not ready")
