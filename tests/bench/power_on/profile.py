# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""`./doit bench:boot --profile`: where the processor time goes, by phase and function."""

import json
import shutil
import statistics
import sys
from collections import Counter, defaultdict
from typing import Any

from tests.bench import report
from tests.bench.power_on import phases, programs, sampler
from tests.bench.power_on.guest import boot_qemu, own_config, stage
from tests.bench.power_on.phases import Phase, Step
from tests.bench.report import say
from tools.pipeline.base import files, ui
from tools.pipeline.tasks.project import Project

_SHOWN = 12  # functions of a phase
_LEAST = 0.002  # of all, below which a function is not shown


def show(project: Project, *, runs: int, as_json: bool) -> None:
    """Start the default profile's guest `runs` times, print the table, and write build/bench/profile.json."""
    folder = report.folder(project) / "profile"
    shutil.rmtree(folder, ignore_errors=True)
    qemu = boot_qemu(project, folder)
    known = programs.load(project, folder / "programs")
    guest = stage("guest", own_config(project), qemu, folder)
    steps: list[Step] = []
    seconds = []
    for number in range(1, runs + 1):
        trail = sampler.follow(guest, known)
        steps += phases.label(trail)
        seconds.append(trail.seconds)
        say(f"profile {number}/{runs}: {len(trail.samples)} samples in {report.seconds(trail.seconds)}")
    found = summary(steps, runs=runs)
    found["seconds"] = report.spread(seconds)
    found["commit"] = report.commit(project)
    text = json.dumps(found, indent=1) + "\n"
    files.write_atomically(report.folder(project) / "profile.json", text.encode())
    if as_json:
        sys.stdout.write(text)
        return
    for line in table(found):
        ui.line(f"   {line}")
    say(f"by the clock {report.seconds(statistics.median(seconds))}; all functions: build/bench/profile.json")


def summary(steps: list[Step], *, runs: int) -> dict[str, Any]:
    """Seconds of processor time in one start, the mean of `runs`: by phase, then by program and function.

    `halted`: of the samples, the part in which the processor waits for an interrupt.
    """
    spent: dict[Phase, Counter[tuple[str, str]]] = defaultdict(Counter)
    samples: Counter[tuple[Phase, str, str]] = Counter()
    halted: Counter[Phase] = Counter()
    for step in steps:
        spent[step.phase][(step.program, step.function)] += step.sample.cpu  # type: ignore[assignment]  # seconds
        samples[(step.phase, step.program, step.function)] += 1
        halted[step.phase] += step.sample.halted
    whole = sum(sum(functions.values()) for functions in spent.values())
    return {
        "schema": 1,
        "runs": runs,
        "cpu_seconds": round(whole / runs, 4),
        "phases": [
            {
                "phase": str(phase),
                "cpu_seconds": round(sum(spent[phase].values()) / runs, 4),
                "share": round(sum(spent[phase].values()) / whole, 4),
                "halted_samples": halted[phase],
                "functions": [
                    {
                        "program": program,
                        "function": function,
                        "cpu_seconds": round(cpu / runs, 5),
                        "share": round(cpu / whole, 5),
                        "samples": samples[(phase, program, function)],
                    }
                    for (program, function), cpu in spent[phase].most_common()
                ],
            }
            for phase in Phase
        ],
    }


def table(found: dict[str, Any]) -> list[str]:
    """A summary for people: a line for each phase, and one for each function that counts."""
    lines = [f"{'CPU s':>8}  {'share':>6}  phase, function (one start of {found['runs']})"]
    for phase in found["phases"]:
        lines.append(f"{phase['cpu_seconds']:8.3f}  {phase['share']:6.1%}  {phase['phase']}")
        counted = [f for f in phase["functions"] if f["share"] >= _LEAST]
        lines += [
            f"{f['cpu_seconds']:8.3f}  {f['share']:6.1%}      {f['program']}: {f['function']}" for f in counted[:_SHOWN]
        ]
    lines.append(f"{found['cpu_seconds']:8.3f}  {1:6.1%}  power-on to HELLO")
    return lines
