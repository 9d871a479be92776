# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a start takes with more processors and with more memory."""

import dataclasses
import shutil
import statistics
from collections.abc import Iterable

from tests.bench import report
from tests.bench.power_on.guest import Guest, boot_qemu, own_config, stage
from tests.bench.report import Part, Row, say, seconds, spread
from tools.pipeline.base.errors import BuildError
from tools.pipeline.tasks.project import Project

_VCPUS = (1, 8, 64)
_MEMORY = (512, 8 << 10, 64 << 10)  # MiB
_EACH = 0.010  # seconds for each further processor
_NOISE = 0.05  # of a start: what more memory may take before it counts as something


def measure(project: Project, *, runs: int) -> Part:
    """Start a guest of each size in turn, `runs` times."""
    folder = report.folder(project) / "scale"
    shutil.rmtree(folder, ignore_errors=True)
    qemu = boot_qemu(project, folder)
    config = own_config(project)
    first = (_VCPUS[0], _MEMORY[0])
    sizes = dict.fromkeys([first, *((count, first[1]) for count in _VCPUS), *((first[0], size) for size in _MEMORY)])
    guests: dict[tuple[int, int], Guest] = {}
    for vcpus, memory in sizes:
        machine = dataclasses.replace(config.machine, vcpus=vcpus, memory_mib=memory)
        guests[(vcpus, memory)] = stage(f"{vcpus}-{memory}", dataclasses.replace(config, machine=machine), qemu, folder)
    times: dict[tuple[int, int], list[float]] = {size: [] for size in sizes}
    costs: dict[tuple[int, int], list[float]] = {size: [] for size in sizes}
    for number in range(1, runs + 1):
        for (vcpus, memory), guest in list(guests.items()):
            # A guest may be larger than this machine: what it does not touch is not there.
            backend = f"memory-backend-ram,id=large,size={memory}M,reserve=off"
            try:
                took, spent = guest.cost("-object", backend, "-machine", "memory-backend=large")
            except BuildError as error:
                say(f"scale: {vcpus} vCPUs, {memory} MiB: {error}")
                del guests[(vcpus, memory)]
                continue
            times[(vcpus, memory)].append(took)
            costs[(vcpus, memory)].append(spent)
            say(f"scale {number}/{runs}: {vcpus} vCPUs, {memory} MiB: {seconds(took)}, processors {seconds(spent)}")
    middle = {size: statistics.median(times[size]) for size in guests}
    if first not in middle:
        raise BuildError("the smallest guest is not ready", where="scale")
    base = middle[first]
    data = {
        f"{vcpus} vCPUs, {memory} MiB": {"time": spread(times[(vcpus, memory)]), "cpu": spread(costs[(vcpus, memory)])}
        for vcpus, memory in guests
    }
    return Part(rows=(by_processors(middle, base), by_memory(middle, base)), data=data)


def by_processors(middle: dict[tuple[int, int], float], base: float) -> Row:
    """What more processors take; `middle` lacks sizes that were never ready."""
    found = {n: middle.get((n, _MEMORY[0])) for n in _VCPUS}
    each = {n: (time - base) / (n - _VCPUS[0]) for n, time in found.items() if time is not None and n > _VCPUS[0]}
    return Row(
        what=f"power-on to agent ready under TCG with {_list(_VCPUS)} vCPUs",
        measured=_times(found.values()),
        beside=", ".join(f"{value * 1000:.1f} ms for each more, up to {n}" for n, value in each.items()),
        goal=f"< {_EACH * 1000:.0f} ms a vCPU",
        met=None not in found.values() and all(value < _EACH for value in each.values()),
    )


def by_memory(middle: dict[tuple[int, int], float], base: float) -> Row:
    """What more memory takes, likewise."""
    found = [middle.get((_VCPUS[0], size)) for size in _MEMORY]
    return Row(
        what=f"the same with {_list(size / 1024 for size in _MEMORY)} GiB of memory",
        measured=_times(found),
        beside=f"one vCPU; a run varies by {_NOISE:.0%}",
        goal="nothing for memory",
        met=all(time is not None and time <= base * (1 + _NOISE) for time in found),
    )


def _times(found: Iterable[float | None]) -> str:
    return ", ".join("not ready" if time is None else seconds(time) for time in found)


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
