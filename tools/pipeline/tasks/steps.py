# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""The one place where steps become doit tasks. A task has its step's name.

What is up to date is the engine's word, by the step's key; doit orders the tasks and lets those run side by side
that do not need each other.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Blob, Step
from tools.pipeline.tasks.doit_glue import Task, action, remove


def tasks(engine: Engine, steps: Iterable[Step], *, first: str) -> Iterator[Task]:
    """A task for each step; `first` is the task that comes before any of them."""
    for step in steps:
        yield task(engine, step, first=first)


def task(engine: Engine, step: Step, *, first: str, work: Callable[[], object] | None = None) -> Task:
    """The step's task; `work` in place of making the step, where something is to be done with it besides."""
    fetched = any(isinstance(reference, Blob) for reference in step.inputs.values())
    return {
        "basename": step.name,
        "doc": step.title,
        "actions": [action(work or partial(engine.ensure, step))],
        "task_dep": [
            first,
            *(["fetch:sources"] if fetched else []),
            f"toolchain:{step.tools}",
            *(needed.name for needed in step.needs),
        ],
        "uptodate": [partial(engine.is_current, step)],
        "clean": remove(engine.build / "results" / step.name, engine.build / "results" / f"{step.name}.json"),
    }
