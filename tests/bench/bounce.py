# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What bouncing costs: a guest's disk and network with pools of three sizes, beside the same without bouncing."""

import shutil
from dataclasses import asdict
from pathlib import Path

from tests.bench import report
from tests.bench.report import Part, Row, say
from tests.bounce import machine
from tests.bounce.machine import FORCED, Machine, Result
from tools.attack.base.host_tools import HostTools
from tools.pipeline.base.errors import BuildError
from tools.pipeline.tasks.project import Project

_POOLS = (64, 4, 1)  # MiB
_LOADS = {"disk": {"disk": 1024}, "network": {"net": 128, "mtu": 1500}}
"""MiB, by what is loaded: one at a time, unchecked, so that the guest makes and compares nothing."""


def measure(project: Project) -> Part:
    """Each load once without bouncing, then with each pool, in the debug kernel: the only one with its counters."""
    folder = report.folder(project) / "bounce"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "tools").mkdir(parents=True)
    tools = HostTools(folder=folder / "tools")
    guest = Machine(
        qemu=tools.wrapper("qemu-system-x86_64", project.trees.ensure("boot")),
        kernel=project.out(project.recipes.profile("debug")) / "vmlinuz",
        initramfs=machine.program(project.trees.ensure("build").path, folder / "program"),
    )
    found: dict[str, dict[str, Result]] = {}
    for load, wishes in _LOADS.items():
        plain = _run(guest, folder / f"{load}-plain", pool=0, wishes=wishes)
        found[load] = {"plain": plain}
        for pool in _POOLS:
            found[load][str(pool)] = _run(guest, folder / f"{load}-{pool}", pool=pool, wishes=wishes)
            say(f"{load}, {pool} MiB")
    rows = tuple(
        Row(
            what=f"{load} under TCG, all bounced, pool of {pool} MiB, beside the same without bouncing",
            measured=f"{_rate(result, load):.1f} MB/s, {_cost(result, load):.2f} s of processors a GiB",
            beside=f"{_rate(results['plain'], load):.1f} MB/s, {_cost(results['plain'], load):.2f} s",
        )
        for load, results in found.items()
        for pool, result in results.items()
        if pool != "plain"
    )
    data = {
        load: {
            pool: {key: value for key, value in asdict(result).items() if key != "log"}
            for pool, result in results.items()
        }
        for load, results in found.items()
    }
    return Part(rows=rows, data=data)


def _run(guest: Machine, folder: Path, *, pool: int, wishes: dict[str, int]) -> Result:
    result = guest.run(
        folder, {"disk": 0, "check": 0, **wishes}, pool=pool, append=FORCED if pool else "", platform=bool(pool)
    )
    if result.troubles or (result.most > 0) != bool(pool):
        raise BuildError(f"the load had trouble: {', '.join(result.troubles) or 'the wrong way'}", where=str(folder))
    return result


def _bytes(result: Result, load: str) -> int:
    return result.disk if load == "disk" else result.network


def _rate(result: Result, load: str) -> float:
    return _bytes(result, load) / result.seconds / 1e6


def _cost(result: Result, load: str) -> float:
    return result.processor / (_bytes(result, load) / 2**30)
