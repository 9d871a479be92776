# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""A build with nothing to do: ours, and make's in the kernel tree."""

import statistics
from pathlib import Path

from tests.bench import report
from tests.bench.builds import overhead, steps
from tests.bench.report import Part, Row, seconds, spread
from tools.pipeline.base.errors import BuildError
from tools.pipeline.front.reporter import started
from tools.pipeline.tasks.project import Project

_LIMIT = 0.35  # seconds; the goal


def measure(project: Project, *, runs: int) -> Part:
    """Alternate `./doit build` and `make bzImage`, both with everything built."""
    folder = report.folder(project)
    bare = steps.bare_kernel(project)
    tree = overhead.bare_folder(project, bare.step)
    steps.ensure_bare(project, bare, tree)
    # Same sandbox, same mounts, same variables; only the program is make's last call alone.
    make_argv = steps.make_argv(project, bare, tree, "bzImage")
    doit_argv = [str(project.root / "doit"), "build"]
    ours: list[float] = []
    makes: list[float] = []
    # Run 0 brings both into the state that is measured: state saved, page cache warm.
    for number in range(runs + 1):
        log = folder / "log" / "noop-doit.log"
        took = steps.run_timed(doit_argv, cwd=project.root, log=log, title=f"./doit build {number}/{runs}")
        if number:
            _check_doit(log)
            ours.append(took.wall)
        log = folder / "log" / "noop-make.log"
        took = steps.run_timed(make_argv, log=log, title=f"make bzImage {number}/{runs}", environment={})
        if number:
            _check_make(log)
            makes.append(took.wall)
    mine, other = statistics.median(ours), statistics.median(makes)
    rows = (
        Row(
            what="no-op `./doit build`, whole process",
            measured=seconds(mine),
            goal="≤ 0.35 s",
            met=mine <= _LIMIT,
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
