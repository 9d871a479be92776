# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""test, bench and lock: what is run for its verdict or its numbers, not for an artifact."""

import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from tools.pipeline.base import ambient, children, ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.sources import mirrors, requirements
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


def _pytest(project: Project, *folders: str) -> None:
    # pytest hears the terminal's Ctrl-C itself, and ends with its summary.
    argv = [sys.executable, "-m", "pytest", *folders]
    status = children.run(argv, grace=5.0, cwd=project.root, stdin=subprocess.DEVNULL)
    if status != 0:
        raise BuildError(f"pytest ended with status {status}", where=" ".join(folders))


def relock(project: Project) -> Task:
    """Re-resolve pins."""
    return {
        "doc": "resolve the pins anew with apt and pip, rewrite the locks, print what changed",
        "actions": [action(partial(_lock, project))],
        "params": [
            {
                "name": "only",
                "long": "only",
                "default": "",
                "help": "names of sources and tool trees, separated by commas; everything else keeps its pins",
            },
            {
                "name": "yes",
                "long": "yes",
                "type": bool,
                "default": False,
                "help": "pin bytes that nothing vouches for without asking",
            },
        ],
        "io": {"capture": False},
    }


def _lock(project: Project, only: str, *, yes: bool) -> None:
    # It imports requests, which takes longer than a build with nothing to do.
    from tools.pipeline.sources import resolve  # noqa: PLC0415

    names = tuple(name for name in only.split(",") if name)
    changes = resolve.lock(
        root=project.root,
        folder=project.build / "apt",
        mirrors=mirrors.discover(ambient.mirror_override()),
        only=names,
        confirm=partial(_confirm, yes=yes),
    )
    if not names:
        changes += requirements.lock(root=project.root)
    for change in changes or ["nothing changed"]:
        ui.line(f"   {change}")


def _confirm(lines: Sequence[str], *, yes: bool) -> None:
    ui.line("   nothing vouches for these bytes but the places that they came from:")
    for line in lines:
        ui.line(f"   {line}")
    if yes:
        return
    hint = "compare the digests with what the author published, then add --yes"
    if not ambient.is_terminal(sys.stdin):
        raise UserError("new bytes need a person's consent", where="./doit lock", hint=hint)
    if input("   pin them? [y/N] ").strip().lower() not in {"y", "yes"}:
        raise UserError("not pinned", where="./doit lock", hint=hint)
