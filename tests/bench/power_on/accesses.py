# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Accesses to ports and device memory from power-on to HELLO, by phase and region.

In a SEV-ES or SNP guest each is an exception, a call of the host and a way back, which is microseconds; emulation hides
that. QEMU's log names each access (trace events memory_region_ops_read and _write, QEMU's system/trace-events).
"""

import bisect
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.power_on import phases, sampler
from tests.bench.power_on.guest import Guest
from tests.bench.power_on.phases import Phase
from tests.bench.power_on.programs import Programs
from tests.bench.report import Row

_CLOCKS = frozenset({"pit", "pcspk"})
_TIMER = "acpi-tmr"
_GOAL = 5000
_SHOWN = 4  # regions of a phase
_LOG = "accesses.log"
_LINE = re.compile(r"^\d+@(\d+\.\d+):memory_region_ops_(?:read|write) .* name '([^']*)'$")


@dataclass(frozen=True, kw_only=True)
class Access:
    """`at`: seconds of the clock; `region`: the name that QEMU gives to what was read or written."""

    at: float
    region: str


def parse(lines: Iterable[str]) -> list[Access]:
    """Of QEMU's log with times (-msg timestamp=on); lines of other events are passed over."""
    found = (_LINE.match(line.rstrip("\n")) for line in lines)
    return [Access(at=float(match[1]), region=match[2]) for match in found if match]


def by_phase(accesses: Iterable[Access], begins: dict[Phase, float]) -> dict[Phase, Counter[str]]:
    """Counts by region; `begins` says when each phase begins, and lacks those that did not come."""
    known = [phase for phase in Phase if phase in begins]
    times = [begins[phase] for phase in known]
    counts: dict[Phase, Counter[str]] = {phase: Counter() for phase in Phase}
    for access in accesses:
        counts[known[max(0, bisect.bisect_right(times, access.at) - 1)]][access.region] += 1
    return counts


def count(guest: Guest, programs: Programs) -> dict[Phase, Counter[str]]:
    """Start the guest once and count."""
    log = guest.folder / _LOG
    log.unlink(missing_ok=True)
    traced = ("-trace", "memory_region_ops_*", "-D", _LOG, "-msg", "timestamp=on")
    trail = sampler.follow(guest, programs, *traced, *sampler.STEADY)
    begins: dict[Phase, float] = {}
    for step in phases.label(trail):
        begins.setdefault(step.phase, step.sample.at)
    with Path(log).open("r", errors="replace") as stream:
        return by_phase(parse(stream), begins)


def emulated(phase: Phase, region: str) -> bool:
    """Whether emulation alone makes the guest read it: to find out how fast clocks run, and what time it is.

    Under KVM a guest is told both (kvm-clock).
    """
    return region in _CLOCKS or (region == _TIMER and phase in (Phase.KERNEL, Phase.AGENT))


def waited(phase: Phase, region: str) -> bool:
    """Whether it is a look at the ACPI timer while the firmware waits: as many as the time takes, whoever counts."""
    return region == _TIMER and not emulated(phase, region)


def rows(counts: dict[Phase, Counter[str]]) -> tuple[Row, ...]:
    """One for all that hardware pays for, one for each phase, one for waiting."""
    paid: dict[Phase, Counter[str]] = {phase: Counter() for phase in counts}
    clocks = waits = 0
    for phase, found in counts.items():
        for region, number in found.items():
            if emulated(phase, region):
                clocks += number
            elif waited(phase, region):
                waits += number
            else:
                paid[phase][region] = number
    total = sum(found.total() for found in paid.values())
    return (
        Row(
            what="accesses to ports and device memory, power-on to HELLO",
            measured=f"{total:,}",
            beside=f"{clocks:,} more for clocks, in emulation only",
            goal=f"≤ {_GOAL:,}",
            met=total <= _GOAL,
        ),
        *(_row(f"of them in phase {phase}", found) for phase, found in paid.items()),
        Row(
            what="looks at the ACPI timer while the firmware waits",
            measured=f"{waits:,}",
            beside="2 ns an instruction; the slower a look, the fewer",
        ),
    )


def _row(what: str, found: Counter[str]) -> Row:
    top = ", ".join(f"{region} {number:,}" for region, number in found.most_common(_SHOWN))
    return Row(what=what, measured=f"{found.total():,}", beside=top)


def data(counts: dict[Phase, Counter[str]]) -> dict[str, Any]:
    """The same for programs."""
    return {str(phase): dict(found.most_common()) for phase, found in counts.items()}
