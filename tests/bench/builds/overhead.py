# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the pipeline costs on top of `make` and of edk2's `build`: whole doit processes beside bare sandboxes.

a copy of the checkout, all before the step made ── doit kernel-K ── unpack, make, pack objects, hash, keep ─┐ same
sources unpacked, the step's own sandbox, started by us ──────────── make bzImage ───────────────────────────┘ bytes
"""

import json
import os
import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import report
from tests.bench.builds import steps
from tests.bench.builds.steps import Bare, Times
from tests.bench.report import Part, Row, say, seconds, spread
from tests.checkout import copy_all
from tools.pipeline.base import files
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.step import Step
from tools.pipeline.front.reporter import started
from tools.pipeline.tasks.project import Project

_LIMIT = 0.05  # of the bare time; the goal


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """The checkout, its copy, and a cache of the copy's own: nothing is taken from the caller's."""

    project: Project
    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "checkout"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def doit(self, title: str, *tasks: str) -> tuple[Times, list[str]]:
        """Run doit in the copy: times of the whole process, and the tasks that it executed."""
        log = self.folder / "log" / "overhead-doit.log"
        environment = {
            **os.environ,
            "SEV_ARTIFACTS_CACHE": str(self.cache),
            "SEV_ARTIFACTS_MIRROR": f"bundle={self.project.cas.root.as_uri()}",
        }
        argv = [sys.executable, "-m", "tools.pipeline.front", *tasks]
        took = steps.run_timed(argv, cwd=self.root, log=log, title=title, environment=environment)
        return took, started(log.read_text(errors="replace"))

    def pipeline(self, bare: Bare) -> Times:
        """Times of a doit process that has this one step to run."""
        name = bare.step.name
        self._forget(name)
        took, executed = self.doit(f"doit {name}", name)
        if executed != [name]:
            raise BuildError(f"doit ran {', '.join(executed) or 'nothing'}", where=name)
        return took

    def _forget(self, name: str) -> None:
        """Take the step's result and its outputs out of the copy's cache."""
        try:
            taken = json.loads((self.root / f"build/results/{name}.json").read_bytes())
        except FileNotFoundError:
            return
        (self.cache / f"results/{taken['key'][:2]}/{taken['key']}.json").unlink(missing_ok=True)
        for sha256 in taken["outputs"].values():
            (self.cache / f"sha256/{sha256[:2]}/{sha256}").unlink(missing_ok=True)

    def bare(self, bare: Bare) -> Times:
        """Times of the bare program; its folders stay for the no-op benchmark."""
        return steps.run_bare(self.project, bare, bare_folder(self.project, bare.step))

    def check_same(self, bare: Bare) -> None:
        """Both must have built the same, or they did not do the same work."""
        other = bare_folder(self.project, bare.step) / "out" / bare.output
        if files.of_file(other) != files.of_file(self.root / f"build/results/{bare.step.name}/{bare.output}"):
            raise BuildError("both ways made different bytes", where=bare.step.title, hint=str(other))


def bare_folder(project: Project, step: Step) -> Path:
    """Where a step's bare program works."""
    return report.folder(project) / "bare" / step.name


def measure(project: Project, *, pairs: int) -> Part:
    """Build kernel and firmware both ways, `pairs` times; every other pair begins with the bare one."""
    subjects = {
        "kernel beside bare `make`": steps.bare_kernel(project),
        "firmware beside bare `build`": steps.bare_firmware(project),
    }
    bench = _prepare(project, tuple(subjects.values()))
    rows: list[Row] = []
    data: dict[str, object] = {}
    for what, bare in subjects.items():
        ours: list[Times] = []
        bares: list[Times] = []
        for number in range(pairs):
            turns: list[tuple[list[Times], Callable[[Bare], Times]]]
            turns = [(ours, bench.pipeline), (bares, bench.bare)]
            for times, run in turns if number % 2 == 0 else reversed(turns):
                times.append(run(bare))
            bench.check_same(bare)
            say(f"pair {number + 1}/{pairs}: doit {seconds(ours[-1].wall)}, bare {seconds(bares[-1].wall)}")
        idle, executed = bench.doit(f"doit {bare.step.name}, nothing to do", bare.step.name)
        if executed:
            raise BuildError(f"doit ran {', '.join(executed)} again", where=bare.step.name)
        rows.append(_row(what, ours, bares, idle))
        data[bare.step.name] = {
            "pipeline": spread([times.wall for times in ours]),
            "pipeline_cpu": spread([times.cpu for times in ours]),
            "bare": spread([times.wall for times in bares]),
            "bare_cpu": spread([times.cpu for times in bares]),
            "overhead": round(statistics.median(_shares(ours, bares)), 5),
            "doit_noop": round(idle.wall, 4),
        }
    shutil.rmtree(bench.cache)
    return Part(rows=tuple(rows), data=data)


def _row(what: str, ours: list[Times], bares: list[Times], idle: Times) -> Row:
    shares = _shares(ours, bares)
    share = statistics.median(shares)
    pairs = f", of {len(shares)} pairs {min(shares):+.1%} to {max(shares):+.1%}" if len(shares) > 1 else ""
    bare = seconds(statistics.median(times.wall for times in bares))
    return Row(
        what=f"pipeline, {what} (doit process; {seconds(idle.wall)} of it doit and the graph)",
        measured=seconds(statistics.median(times.wall for times in ours)),
        beside=f"{bare} (overhead {share:+.1%}{pairs})",
        goal="overhead ≤ 5 %",
        met=share <= _LIMIT,
    )


def _shares(ours: list[Times], bares: list[Times]) -> list[float]:
    """Overheads of the pairs: what slows the machine down for a while slows down both of a pair."""
    return [mine.wall / other.wall - 1 for mine, other in zip(ours, bares, strict=True)]


def _prepare(project: Project, subjects: tuple[Bare, ...]) -> _Bench:
    """A copy of the checkout in which everything before the steps is made, from nothing."""
    bench = _Bench(project=project, folder=report.folder(project) / "overhead")
    if bench.folder.exists():
        shutil.rmtree(bench.folder)
    copy_all(project.root, bench.root)
    needed = [f"toolchain:{bare.step.tools}" for bare in subjects]
    needed += [step.name for bare in subjects for step in bare.step.needs]
    bench.doit("making what the steps need, in a copy of the checkout", *needed)
    return bench
