# SPDX-FileCopyrightText: The sev-artifacts authors
# SPDX-License-Identifier: Apache-2.0
"""All profiles from nothing: their steps one after the other, beside steps that run side by side."""

import shutil

from tests.bench import report
from tests.bench.report import Part, Row
from tools.pipeline.base import ui
from tools.pipeline.base.errors import BuildError
from tools.pipeline.repro import check, environments
from tools.pipeline.repro.check import Built
from tools.pipeline.repro.target import Place, Target
from tools.pipeline.tasks.project import Project

# What doit is told.
_WAYS = {"one after the other": ("-n", "1"), "side by side": ()}


def measure(project: Project) -> Part:
    """Build them both ways, with downloads at hand, but no tool tree and no result."""
    built = {way: _build(project, options) for way, options in _WAYS.items()}
    one, other = built.values()
    if one.digests != other.digests:
        raise BuildError("both ways made different bytes", where="profiles")
    rows = []
    for kind, what in (("wall", "time"), ("cpu", "CPU time")):
        alone, together = one.times[kind], other.times[kind]
        rows.append(
            Row(
                what=f"build of all profiles from nothing, side by side, {what}; beside it one step after the other",
                measured=ui.duration(together),
                beside=f"{ui.duration(alone)} (factor {together / alone:.2f})",
            )
        )
    return Part(rows=tuple(rows), data={way: found.times for way, found in built.items()})


def _build(project: Project, options: tuple[str, ...]) -> Built:
    profiles = project.recipes.profiles
    target = Target(
        name="profiles",
        tasks=(*options, *(f"artifacts:{profile.name}" for profile in profiles)),
        files=tuple(project.out(profile).name for profile in profiles),
        trees=tuple(sorted({step.tools for step in project.plan.steps})),
    )
    place = Place(root=project.root, cache=project.cas.root, folder=report.folder(project) / "profiles")
    built = check.build(environments.plain(check.prepare(target, place), memory=True))
    # Two caches with tool trees would be 8 GB.
    shutil.rmtree(place.folder)
    return built
