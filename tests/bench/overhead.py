# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""What the pipeline costs on top of `make` and of edk2's `build`: whole doit processes beside bare sandboxes.

a copy of the checkout, its sources unpacked and configured ── doit kernel:production ──┐ same inputs,
the step's own bwrap command, started by us ────────────────── sh -c make … bzImage ────┘ same output
"""

import shutil
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.bench import report, steps
from tests.bench.report import Part, Row, say, seconds, spread
from tests.checkout import copy_all
from tools.pipeline.base import files, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine.store import Step
from tools.pipeline.front.reporter import started
from tools.pipeline.tasks import guest
from tools.pipeline.tasks.project import Project

_LIMIT = 0.05  # of the bare time; the goal


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A build step: the doit task that runs it, the file that the task makes, and the step's output."""

    what: str
    task: str
    target: Path
    output: str
    step: Step


@dataclass(frozen=True, kw_only=True)
class _Bench:
    """The copy of the checkout, and a folder for what runs without the pipeline."""

    project: Project
    folder: Path

    def doit(self, title: str, *tasks: str) -> tuple[float, list[str]]:
        """Run doit in the copy: seconds of the whole process, and the tasks that it executed."""
        log = self.folder / "log" / "overhead-doit.log"
        argv = [sys.executable, "-m", "tools.pipeline.front", *tasks]
        took = steps.run_timed(argv, cwd=self.project.root, log=log, title=title, bare=False)
        return took, started(log.read_text(errors="replace"))

    def pipeline(self, subject: _Subject) -> float:
        """Seconds of a doit process that has this one step to run."""
        # Only this result: whoever shares the cache has it again at the end of the run.
        result = self.project.store.shelves / subject.step.name / subject.step.key()
        if result.exists():
            shutil.rmtree(result)
        subject.target.unlink(missing_ok=True)
        took, executed = self.doit(f"doit {subject.task}", subject.task)
        if executed != [subject.task]:
            raise BuildError(f"doit ran {', '.join(executed) or 'nothing'}", where=subject.task)
        return took

    def bare(self, subject: _Subject) -> float:
        """Seconds of the same command without the pipeline; its folders stay for the no-op benchmark."""
        return steps.run_direct(steps.bare(subject.step), self.folder / "direct" / subject.step.name)

    def check_same(self, subject: _Subject) -> None:
        """Both must have built the same, or they did not do the same work."""
        bare = self.folder / "direct" / subject.step.name / "out" / subject.output
        if files.of_file(bare) != files.of_file(subject.target):
            raise BuildError("both ways made different bytes", where=subject.what, hint=str(bare))


def measure(project: Project, *, pairs: int) -> Part:
    """Build kernel and firmware both ways, `pairs` times; every other pair begins with the bare one."""
    bench = _prepare(project)
    rows: list[Row] = []
    data: dict[str, object] = {}
    for subject in _subjects(bench.project):
        _warm(subject.step)
        ours: list[float] = []
        bares: list[float] = []
        for number in range(pairs):
            turns: list[tuple[list[float], Callable[[_Subject], float]]]
            turns = [(ours, bench.pipeline), (bares, bench.bare)]
            for times, run in turns if number % 2 == 0 else reversed(turns):
                times.append(run(subject))
            bench.check_same(subject)
            say(f"pair {number + 1}/{pairs}: doit {seconds(ours[-1])}, bare {seconds(bares[-1])}")
        idle, executed = bench.doit(f"doit {subject.task}, nothing to do", subject.task)
        if executed:
            raise BuildError(f"doit ran {', '.join(executed)} again", where=subject.task)
        share = statistics.median(ours) / statistics.median(bares) - 1
        rows.append(
            Row(
                what=f"pipeline, {subject.what} (doit process; {seconds(idle)} of it doit and the graph)",
                measured=seconds(statistics.median(ours)),
                beside=f"{seconds(statistics.median(bares))} (overhead {share:+.1%})",
                goal="overhead < 5 %",
                met=share < _LIMIT,
            )
        )
        data[subject.step.name] = {
            "pipeline": spread(ours),
            "bare": spread(bares),
            "overhead": round(share, 5),
            "doit_noop": round(idle, 4),
        }
    return Part(rows=tuple(rows), data=data)


def _prepare(project: Project) -> _Bench:
    """A copy of the checkout in which everything before the two steps is done."""
    folder = report.folder(project)
    root = folder / "checkout"
    if root.exists():
        shutil.rmtree(root)
    copy_all(project.root, root)
    profile = steps.production(project)
    bench = _Bench(project=Project.load(root), folder=folder)
    names = (f"source:{profile.kernel.source}", f"source:{profile.firmware.source}")
    bench.doit("preparing a copy of the checkout", *names, f"kernel_config:{profile.name}")
    return bench


def _subjects(project: Project) -> tuple[_Subject, ...]:
    profile = steps.production(project)
    return (
        _Subject(
            what="kernel beside bare `make`",
            task=f"kernel:{profile.name}",
            target=guest.bzimage(project, profile),
            output="bzImage",
            step=steps.kernel_step(project),
        ),
        _Subject(
            what="firmware beside bare `build`",
            task=f"firmware:{profile.firmware.name}",
            target=guest.firmware_image(project, profile.firmware),
            output="OVMF.fd",
            step=steps.firmware_step(project),
        ),
    )


def _warm(step: Step) -> None:
    """Read what the step reads, so that the first of a pair does not pay for the page cache."""
    with ui.working(f"reading sources and tools of {step.title}"):
        files.of_folder(step.tool.path)
        for given in step.inputs:
            if given.host.is_dir():
                files.of_folder(given.host)
