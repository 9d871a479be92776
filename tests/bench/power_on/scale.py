# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What a start takes with more processors and with more memory."""

import dataclasses
import shutil
import statistics
from collections.abc import Iterable

from tests.bench import report
from tests.bench.power_on.guest import Guest, own_config, qemu_wrapper, stage
from tests.bench.report import Part, Row, say, seconds, spread
from tools.launcher.host import qemu_program
from tools.pipeline.tasks.project import Project

_VCPUS = (1, 8, 64)
_MEMORY = (512, 8 << 10, 64 << 10)  # MiB
_EACH = 0.010  # seconds for each further processor
_NOISE = 0.05  # of a start: what more memory may take before it counts as something


def measure(project: Project, *, runs: int) -> Part:
    """Start a guest of each size in turn, `runs` times."""
    folder = report.folder(project) / "scale"
    shutil.rmtree(folder, ignore_errors=True)
    qemu = qemu_program.find_qemu(str(qemu_wrapper(project, folder)))
    config = own_config(project)
    first = (_VCPUS[0], _MEMORY[0])
    sizes = dict.fromkeys([first, *((count, first[1]) for count in _VCPUS), *((first[0], size) for size in _MEMORY)])
    guests: dict[tuple[int, int], Guest] = {}
    for vcpus, memory in sizes:
        machine = dataclasses.replace(config.machine, vcpus=vcpus, memory_mib=memory)
        guests[(vcpus, memory)] = stage(f"{vcpus}-{memory}", dataclasses.replace(config, machine=machine), qemu, folder)
    times: dict[tuple[int, int], list[float]] = {size: [] for size in sizes}
    for number in range(1, runs + 1):
        for (vcpus, memory), guest in guests.items():
            # A guest may be larger than this machine: what it does not touch is not there.
            backend = f"memory-backend-ram,id=large,size={memory}M,reserve=off"
            took = guest.time("-object", backend, "-machine", "memory-backend=large")
            times[(vcpus, memory)].append(took)
            say(f"scale {number}/{runs}: {vcpus} vCPUs, {memory} MiB: {seconds(took)}")
    middle = {size: statistics.median(values) for size, values in times.items()}
    base = middle[first]
    data = {f"{vcpus} vCPUs, {memory} MiB": spread(values) for (vcpus, memory), values in times.items()}
    return Part(rows=(_processors(middle, base), _memory(middle, base)), data=data)


def _processors(middle: dict[tuple[int, int], float], base: float) -> Row:
    each = {n: (middle[(n, _MEMORY[0])] - base) / (n - _VCPUS[0]) for n in _VCPUS[1:]}
    return Row(
        what=f"power-on to agent ready under TCG with {_list(_VCPUS)} vCPUs",
        measured=", ".join(seconds(middle[(n, _MEMORY[0])]) for n in _VCPUS),
        beside=", ".join(f"{value * 1000:.1f} ms for each more, up to {n}" for n, value in each.items()),
        goal=f"< {_EACH * 1000:.0f} ms a vCPU",
        met=all(value < _EACH for value in each.values()),
    )


def _memory(middle: dict[tuple[int, int], float], base: float) -> Row:
    found = [middle[(_VCPUS[0], size)] for size in _MEMORY]
    return Row(
        what=f"the same with {_list(size / 1024 for size in _MEMORY)} GiB of memory",
        measured=", ".join(map(seconds, found)),
        beside=f"one vCPU; a run varies by {_NOISE:.0%}",
        goal="nothing for memory",
        met=max(found) <= base * (1 + _NOISE),
    )


def _list(values: Iterable[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)
