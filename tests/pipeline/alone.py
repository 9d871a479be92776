# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""One step of the real graph, run by itself in the real sandbox: what it needs is taken from the build's cache."""

from dataclasses import replace
from pathlib import Path

from tools.pipeline.engine.executor import Engine
from tools.pipeline.engine.jobs import Jobs
from tools.pipeline.engine.step import Blob, Output, Reference, Step
from tools.pipeline.engine.store.results import Results
from tools.pipeline.tasks.project import Project


def engine(project: Project, folder: Path, *, root: Path | None = None) -> Engine:
    """An engine that knows no results: whatever it is asked for it runs, on the cache and the tool trees of a build.

    `root` is the checkout, where it is another than the project's.
    """
    return Engine(
        root=root or project.root,
        build=folder / "build",
        cas=project.cas,
        results=Results(root=folder / "results", seal=project.seal),
        jobs=Jobs(2),
        find_tools=project.trees.find,
        # Not hashed again for each test.
        check_tools=project.trees.ensure,
    )


def alone(project: Project, step: Step) -> Step:
    """The step on what the build has made, as pins: none of what it needs runs again."""

    def pinned(reference: Reference) -> Reference:
        if not isinstance(reference, Output):
            return reference
        made = project.engine.find(reference.step)
        assert made is not None, f"{reference.step.name} is not built; run ./doit {reference.step.name}"
        digest = made.outputs[reference.name].digest
        return Blob(sha256=digest.sha256, size=digest.size, where=reference.step.name)

    return replace(step, inputs={path: pinned(reference) for path, reference in step.inputs.items()})


def output(engine: Engine, step: Step, name: str) -> bytes:
    """The bytes of an output; makes the step."""
    engine.ensure(step)
    target = engine.build / "copy"
    target.unlink(missing_ok=True)
    engine.copy(step, name, target)
    return target.read_bytes()
