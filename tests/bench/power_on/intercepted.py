# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Instructions that an encrypted guest's hardware intercepts, from power-on to HELLO, by program and function.

A plugin of QEMU's emulator (counter.c) counts them exactly, and every instruction that runs besides. RDTSC is not
among them: KVM does not intercept it.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.power_on import phases, sampler
from tests.bench.power_on.guest import Guest
from tests.bench.power_on.programs import Programs
from tests.bench.report import Row
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import CheckoutFile, Step
from tools.pipeline.tasks.project import Project

KINDS = ("wrmsr", "rdmsr", "cpuid", "in", "out", "hlt", "wbinvd")
"""What is intercepted. Reading and writing of ports is an access, too, so accesses.py has it as well."""
_COUNTED = ("wrmsr", "rdmsr", "cpuid")
_BLOCK = "block"
_SHOWN = 3  # functions of a row
_SOURCE = "tests/bench/power_on/counter.c"
_LIBRARY, _COUNTS = "counter.so", "counts.txt"


@dataclass(frozen=True, kw_only=True)
class Counts:
    """`kinds`: intercepted instructions, kind → (part, function) → count; `executed`: all instructions, likewise."""

    kinds: dict[str, Counter[tuple[str, str]]]
    executed: Counter[tuple[str, str]]


def parse(lines: Iterable[str]) -> list[tuple[str, int, int]]:
    """Kind, address and count of each line that the plugin writes. BuildError for another line."""
    found = []
    for line in lines:
        words = line.split()
        if len(words) != 3 or words[0] not in {*KINDS, _BLOCK}:
            raise BuildError(f"says {line.strip()!r}", where="the emulator's plugin")
        found.append((words[0], int(words[1], 16), int(words[2])))
    return found


def count(project: Project, guest: Guest, programs: Programs) -> Counts:
    """Start the guest once and count."""
    step = Step(
        name="emulator-counter",
        title="a plugin of the emulator",
        argv=("/usr/bin/gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden",
              "-o", f"/out/{_LIBRARY}", "/inputs/counter.c"),
        tools="build",
        inputs={"/inputs/counter.c": CheckoutFile(path=_SOURCE)},
        outputs=(_LIBRARY,),
    )  # fmt: skip
    project.engine.ensure(step)
    project.engine.copy(step, _LIBRARY, guest.folder / _LIBRARY)
    trail = sampler.follow(guest, programs, "-plugin", f"./{_LIBRARY},out={_COUNTS}")
    find = phases.finder(trail)
    kinds: dict[str, Counter[tuple[str, str]]] = {kind: Counter() for kind in KINDS}
    executed: Counter[tuple[str, str]] = Counter()
    for kind, address, number in parse(Path(guest.folder / _COUNTS).read_text().splitlines()):
        program, function = find(address)
        (executed if kind == _BLOCK else kinds[kind])[(program, function)] += number
    return Counts(kinds=kinds, executed=executed)


def rows(counts: Counts) -> tuple[Row, ...]:
    """One for each kind that is no access to a port."""
    return tuple(_row(kind, counts.kinds[kind]) for kind in _COUNTED)


def _row(kind: str, found: Counter[tuple[str, str]]) -> Row:
    top = ", ".join(f"{program}: {function} {number:,}" for (program, function), number in found.most_common(_SHOWN))
    kernel = sum(number for (program, _), number in found.items() if program == "kernel")
    return Row(
        what=f"{kind} instructions, power-on to HELLO",
        measured=f"{found.total():,} ({kernel:,} of them the kernel's)",
        beside=top,
    )


def data(counts: Counts) -> dict[str, Any]:
    """Every count for programs, the largest first."""
    return {
        kind: [[program, function, number] for (program, function), number in found.most_common()]
        for kind, found in counts.kinds.items()
    }
