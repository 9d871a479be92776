# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: tests/bench/ in a process of its own, which runs doit again.

build ─┬─ bench:sizes ─ bench:noop ─ bench:digests ─ bench:boot ─ bench:overhead ── build/bench/results.json
       └─ (bench_docs: the last results into docs/benchmarks.md)
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

from doit.exceptions import BaseFail

from tools.pipeline.base.errors import BuildError
from tools.pipeline.tasks.doit_glue import Task, action, remove
from tools.pipeline.tasks.project import Project

_RUNS = {"name": "runs", "long": "runs", "type": int, "default": 5, "help": "measurements of each side"}
_PAIRS = {"name": "pairs", "long": "pairs", "type": int, "default": 1, "help": "pairs of whole builds"}


def bench(project: Project) -> Iterator[Task]:
    """bench:NAME in the order in which they run; the long one is the last."""
    yield {
        "name": "sizes",
        "doc": "sizes of the artifacts beside their budgets",
        "actions": [action(partial(_bench, project, "sizes"))],
        "task_dep": ["build"],
        "clean": remove(project.build / "bench"),
        "io": {"capture": False},
    }
    yield {
        "name": "noop",
        "doc": "a build with nothing to do, beside make's (compiles a kernel for it first)",
        "actions": [_with_runs(project, "noop")],
        "params": [_RUNS],
        "task_dep": ["build"],
        "io": {"capture": False},
    }
    yield {
        "name": "digests",
        "doc": "the whole table of launch digests, beside as many calls of sev-snp-measure",
        "actions": [_with_runs(project, "digests")],
        "params": [_RUNS],
        "task_dep": ["build"],
        "io": {"capture": False},
    }
    yield {
        "name": "boot",
        "doc": "power-on to agent ready under emulation, beside Debian's cloud kernel",
        "actions": [_with_runs(project, "boot")],
        "params": [_RUNS],
        "task_dep": ["build", "toolchain:boot", "toolchain:bench"],
        "io": {"capture": False},
    }
    yield {
        "name": "overhead",
        "doc": "whole builds of kernel and firmware, beside bare make and build (a quarter of an hour)",
        "actions": [_with_pairs(project)],
        "params": [_PAIRS],
        "task_dep": ["build"],
        "io": {"capture": False},
    }
    yield {
        "name": "repro",
        "doc": "what the last ./doit repro took, beside one plain build (runs it if there was none)",
        "actions": [action(partial(_bench, project, "repro"))],
        "io": {"capture": False},
    }


def bench_docs(project: Project) -> Task:
    """The committed table."""
    return {
        "doc": "put the results of the last ./doit bench into docs/benchmarks.md",
        "actions": [action(partial(_bench, project, "docs"))],
        "io": {"capture": False},
    }


# doit hands a task's parameters to arguments of the same name.
def _with_runs(project: Project, name: str) -> Callable[[int], bool | BaseFail]:
    def run(runs: int) -> bool | BaseFail:
        return action(partial(_bench, project, name, "--runs", str(runs)))()

    return run


def _with_pairs(project: Project) -> Callable[[int], bool | BaseFail]:
    def run(pairs: int) -> bool | BaseFail:
        return action(partial(_bench, project, "overhead", "--pairs", str(pairs)))()

    return run


def _bench(project: Project, name: str, *options: str) -> None:
    """Run one benchmark; it prints its own error line, and a goal that is missed is no error."""
    argv = [sys.executable, "-m", "tests.bench", name, *options]
    done = subprocess.run(argv, cwd=project.root, stdin=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise BuildError(f"ended with status {done.returncode}", where=f"tests.bench {name}")
