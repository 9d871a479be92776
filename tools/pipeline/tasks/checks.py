# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""test, bench and lock: what is run for its verdict or its numbers, not for an artifact."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from tools.pipeline.base import ambient, children, ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.sources import mirrors
from tools.pipeline.tasks.doit_glue import Task, action
from tools.pipeline.tasks.project import Project


def test(project: Project) -> Task:
    """Everything that must hold, linters included."""
    return {
        "doc": "linters, unit, fetch, graph, agent, launcher, reproducibility and boot tests",
        "actions": [action(partial(_pytest, project, "tests"))],
        "task_dep": [
            "build",
            *[f"artifacts:{p.name}" for p in project.recipes.profiles],
            "toolchain:boot",
            "toolchain:lint",
            "toolchain:repro",
        ],
        "io": {"capture": False},
    }


def test_fast(project: Project) -> Task:
    """What a developer runs all the time."""
    return {
        "doc": "linters and unit tests only",
        "actions": [action(partial(_pytest, project, "tests/house", "tests/pipeline"))],
        "task_dep": ["toolchain:build", "toolchain:lint"],
        "io": {"capture": False},
    }


def development_requirements(project: Project) -> None:
    """Add what tests need to .venv; whoever runs another Python has seen to it himself."""
    if Path(sys.prefix) != project.root / ".venv":
        return
    argv = ["sh", str(project.root / "tools/setup.sh"), str(project.root), "dev"]
    if children.run(argv, grace=5.0, stdin=subprocess.DEVNULL) != 0:
        raise BuildError("the packages that tests need are not there", where="requirements-dev.lock")


def _pytest(project: Project, *folders: str) -> None:
    development_requirements(project)
    # pytest hears the terminal's Ctrl-C itself, and ends with its summary.
    argv = [sys.executable, "-m", "pytest", *folders]
    status = children.run(argv, grace=5.0, cwd=project.root, stdin=subprocess.DEVNULL)
    if status != 0:
        raise BuildError(f"pytest ended with status {status}", where=" ".join(folders))


def relock(project: Project) -> Task:
    """Re-resolve all pins."""
    return {
        "doc": "resolve the pins anew with apt, rewrite the locks, print what changed",
        "actions": [action(partial(_lock, project))],
        "io": {"capture": False},
    }


def _lock(project: Project) -> None:
    # It imports requests, which takes longer than a build with nothing to do.
    from tools.pipeline.sources import resolve as lock  # noqa: PLC0415

    known = mirrors.discover(ambient.mirror_override())
    changes = [
        *lock.lock(root=project.root, folder=project.build / "apt", mirrors=known),
        *lock.lock_python(root=project.root),
    ]
    for change in changes or ["nothing changed"]:
        ui.line(f"   {change}")
