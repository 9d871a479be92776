# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A build with nothing to do: ours, and make's in the kernel tree."""

import dataclasses
import statistics
from pathlib import Path

from tests.bench import report, steps
from tests.bench.report import Part, Row, seconds, spread
from tools.pipeline.base.errors import BuildError
from tools.pipeline.engine import sandbox
from tools.pipeline.front.reporter import started
from tools.pipeline.guest import kernel
from tools.pipeline.tasks.project import Project

_LIMIT = 1.0  # seconds; the goal


def measure(project: Project, *, runs: int) -> Part:
    """Alternate `./doit build` and `make bzImage`, both with everything built."""
    folder = report.folder(project)
    step = steps.bare(steps.kernel_step(project))
    tree = folder / "direct" / step.name
    steps.ensure_direct(step, tree)
    # Same sandbox, same mounts, same variables; only the program is make's last call alone.
    command = dataclasses.replace(steps.command_in(step, tree), argv=("/bin/sh", "-euc", kernel._make("bzImage")))
    make_argv = sandbox.bwrap_argv(command)
    doit_argv = [str(project.root / "doit"), "build"]
    ours: list[float] = []
    makes: list[float] = []
    # Run 0 brings both into the state that is measured: state saved, page cache warm.
    for number in range(runs + 1):
        log = folder / "log" / "noop-doit.log"
        took = steps.run_timed(doit_argv, cwd=project.root, log=log, title=f"./doit build {number}/{runs}", bare=False)
        if number:
            _check_doit(log)
            ours.append(took)
        log = folder / "log" / "noop-make.log"
        took = steps.run_timed(make_argv, cwd=None, log=log, title=f"make bzImage {number}/{runs}")
        if number:
            _check_make(log)
            makes.append(took)
    mine, other = statistics.median(ours), statistics.median(makes)
    rows = (
        Row(
            what="no-op `./doit build`, whole process",
            measured=seconds(mine),
            goal="< 1 s",
            met=mine < _LIMIT,
        ),
        Row(
            what="the same, beside a no-op `make bzImage`",
            measured=seconds(mine),
            beside=seconds(other),
            goal="less",
            met=mine < other,
        ),
    )
    return Part(rows=rows, data={"doit": spread(ours), "make": spread(makes)})


def _check_doit(log: Path) -> None:
    text = log.read_text(errors="replace")
    if started(text) or "nothing to do" not in text:
        raise BuildError(
            "./doit build had something to do while a no-op was measured",
            where="noop",
            hint=f"does somebody edit this checkout? its output: {log}",
        )


def _check_make(log: Path) -> None:
    lines = log.read_text(errors="replace").splitlines()
    # What kbuild does every time (CALL, DESCEND objtool …) compiles nothing.
    built = [line for line in lines if line.lstrip().startswith(("CC ", "AS ", "LD ", "AR "))]
    if built or not any("bzImage is ready" in line for line in lines):
        raise BuildError("make had something to do while a no-op was measured", where="noop", hint=str(log))
