# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""All steps as tasks, and the comparison of kernels that were linked with ones that were compiled whole.

This is the one place where steps become doit tasks. A task has its step's name. What is up to date is the engine's
word, by the step's key; doit orders the tasks and lets those run side by side that do not need each other.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError, UserError
from tools.pipeline.engine import graph
from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.step import Blob, Step
from tools.pipeline.tasks.doit_glue import Task, action, remove, switch
from tools.pipeline.tasks.inputs import LOCKS
from tools.pipeline.tasks.project import Project

_JSON = switch("as_json", "as one JSON document", long="json")
_DOT = switch("dot", "as Graphviz text: | dot -Tsvg")


def all_steps(project: Project) -> Iterator[Task]:
    """A task for each step of each profile."""
    for step in project.plan.steps:
        yield task(project.engine, step, first=LOCKS, beside=_beside(project))


def _beside(project: Project) -> dict[str, str]:
    """SHA-256 → task that fetches it, of sources that fetch:sources leaves out."""
    names = {one.source for one in project.recipes.series}
    return {source.pin.sha256: f"fetch:{source.pin.name}" for source in project.sources if source.pin.name in names}


def task(
    engine: Engine,
    step: Step,
    *,
    first: str,
    work: Callable[[], object] | None = None,
    beside: Mapping[str, str] | None = None,
) -> Task:
    """The step's task; `work` in place of making the step, where something is to be done with it besides.

    `beside` has the tasks that fetch what fetch:sources does not, by SHA-256.
    """
    # With a remote nothing is fetched and set up before it has been asked: it may have all that is wanted.
    alone = engine.others.remote is None
    blobs = [reference.sha256 for reference in step.inputs.values() if alone and isinstance(reference, Blob)]
    fetched = sorted({(beside or {}).get(digest, "fetch:sources") for digest in blobs})
    return {
        "basename": step.name,
        "doc": step.title,
        "actions": [action(work or partial(engine.ensure, step))],
        "task_dep": [
            first,
            *fetched,
            *([f"toolchain:{step.tools}"] if alone else []),
            *(needed.name for needed in step.needs),
        ],
        "uptodate": [partial(engine.is_current, step)],
        "clean": remove(engine.build / "results" / step.name, engine.build / "results" / f"{step.name}.json"),
    }


def whole_kernels(project: Project) -> Iterator[Task]:
    """kernel_whole:PROFILE for each profile whose kernel is linked from another's objects."""
    for profile, (linked, whole) in project.plan.whole_kernels.items():
        made = task(project.engine, whole, first=LOCKS, work=partial(_compare, project, linked, whole))
        # A comparison is made whenever it is asked for.
        del made["basename"], made["uptodate"]
        made["task_dep"].append(linked.name)
        yield {**made, "name": profile, "doc": f"compile the {profile} kernel whole and compare it with the linked one"}


def _compare(project: Project, linked: Step, whole: Step) -> None:
    """Compile a kernel with its initramfs whole; BuildError unless it equals the one that was linked."""
    made = project.engine.ensure(whole).outputs
    known = project.engine.ensure(linked).outputs
    for name, node in made.items():
        if known[name] != node:
            raise BuildError(
                f"{name} differs from the kernel that was compiled whole",
                where=linked.title,
                hint=f"compare the files in build/results/{linked.name}/ and build/results/{whole.name}/",
            )
        ui.line(f"   {linked.name}: linked and compiled whole are the same bytes, {node.digest.sha256}")


def show_graph(project: Project) -> Task:
    """The graph of steps."""
    return {
        "doc": "print every step: its key, whether its result is there, how long it took (--json, --dot, --all)",
        "actions": [action(partial(_show, project))],
        "params": [
            _JSON,
            _DOT,
            switch("every", "the steps of every kernel series, not of the default one", long="all"),
        ],
        "meta": {"answers": True},
        "verbosity": 2,
        "io": {"capture": False},
    }


def _show(project: Project, *, as_json: bool, dot: bool, every: bool) -> None:
    if as_json and dot:
        raise UserError("one of --json and --dot, not both", where="./doit graph")
    found = graph.rows(project.engine, project.plan.steps if every else project.plan.default_steps)
    if as_json:
        text = graph.as_json(found)
    elif dot:
        folders = {
            project.out(made.profile).name: sorted({output.step.name for output in made.outputs.values()})
            for made in project.plan.deliverables(every=every)
        }
        text = graph.as_dot(found, outputs=folders)
    else:
        text = graph.as_text(found)
    ui.result(text, sys.stdout)
